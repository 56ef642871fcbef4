"""The result folder: what is finished is whole, is there once, and stays."""

import csv
import hashlib
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from stepwise.sweep import export
from stepwise.sweep.cells import Cell
from stepwise.sweep.lock import Busy
from stepwise.sweep.store import OUTPUTS, STATES, Store
from stepwise.sweep.values import BadSweep

HOST = "http://127.0.0.1:8188"
PNG = b"\x89PNG\r\n\x1a\n"


def cells(count=6):
    return [
        Cell(n, {"a": n // 2, "b": f"x{n % 2}"}, {"1": {"class_type": "A", "inputs": {"n": n}}}) for n in range(count)
    ]


def output(content, name="a.png"):
    return [({"node": "1", "kind": "images", "name": name}, content)]


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "results", write=True) as store:
        store.take(((cell, 10) for cell in cells()), {"sweep": "text"})
        yield store


def test_a_finished_cell_has_its_outputs_by_content_and_is_not_missing(store):
    first = cells()[0]
    assert store.finish(first.key, HOST, 1.5, output(PNG), 0)
    (row, *others) = store.rows()
    (kept,) = row["outputs"]
    assert kept["file"] == f"{OUTPUTS}/{hashlib.sha256(PNG).hexdigest()[:2]}/{hashlib.sha256(PNG).hexdigest()}.png"
    assert store.read(kept["file"]) == PNG
    assert [row["number"] for row in store.missing()] == [1, 2, 3, 4, 5]
    assert json.loads(row["prompt"]) == first.prompt
    assert not [other for other in others if other["outputs"]]
    assert store.counts() == {"cells": 6, "finished": 1, "failed": 0, "calls": 60, "calls_done": 10}


def test_a_cell_that_comes_twice_is_kept_once_as_it_came_first(store):
    key = cells()[0].key
    assert store.finish(key, HOST, 1.0, output(PNG), 0)
    assert not store.finish(key, "http://other", 2.0, output(PNG + b"other"), 7)
    row = next(store.rows())
    assert (row["host"], row["seconds"], row["went_on_from"], len(row["outputs"])) == (HOST, 1.0, None, 1)


def test_a_sweep_that_grows_keeps_what_is_finished(store):
    store.finish(cells()[1].key, HOST, 1.0, output(PNG), 0)
    store.take(((cell, 10) for cell in cells(8)[1:]), {})
    assert store.counts()["cells"] == 7
    assert [row["number"] for row in store.missing()] == [2, 3, 4, 5, 6, 7]
    assert len(list(store.rows(wanted=False))) == 8


def test_an_error_is_kept_until_the_cell_is_finished(store):
    key = cells()[0].key
    store.fail(key, HOST, "no memory")
    assert (store.counts()["failed"], next(store.rows())["error"]) == (1, "no memory")
    store.finish(key, HOST, 1.0, output(PNG), 0)
    assert (store.counts()["failed"], next(store.rows())["error"]) == (0, None)


def test_an_autosave_takes_the_place_of_the_last_one_and_goes_when_the_cell_is_finished(store):
    key = cells()[0].key
    for step in (5, 10):
        store.carry(key, "8", step, HOST, f"state {step}".encode())
    (state,) = store.states(key)
    assert (state["step"], store.read(state["file"])) == (10, b"state 10")
    files = [path for path in (store.folder / STATES).rglob("*") if path.is_file()]
    assert len(files) == 1
    store.finish(key, HOST, 1.0, output(PNG), 10)
    assert store.states(key) == []
    assert not files[0].exists()
    assert next(store.rows())["went_on_from"] == 10


def test_a_damaged_file_is_not_believed(store):
    store.finish(cells()[0].key, HOST, 1.0, output(PNG), 0)
    (file,) = next(store.rows())["outputs"]
    store.path(file["file"]).write_bytes(b"other")
    with pytest.raises(ValueError, match="damaged"):
        store.read(file["file"])


def test_two_drivers_never_share_a_folder_and_readers_do(store):
    with pytest.raises(Busy, match="at work"):
        Store(store.folder, write=True)
    with Store(store.folder) as reader:
        assert reader.counts()["cells"] == 6
        with pytest.raises(sqlite3.OperationalError):
            reader.note(HOST, "", "x")


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_sweep_store import HOST, Store, cells, output
with Store(Path(sys.argv[1]), write=True) as store:
    store.take(((cell, 1) for cell in cells(500)), {})
    for cell in cells(500):
        print(store.finish(cell.key, HOST, 1.0, output(b"x" * 5000 + str(cell.number).encode()), 0), flush=True)
"""


@pytest.mark.parametrize("after", [1, 37, 120])
def test_what_is_said_to_be_finished_outlives_kill_9(tmp_path, after):
    """A driver that is killed while it writes: every cell of which it said so is there, whole, and the lock is free."""
    command = [sys.executable, "-c", WRITER, tmp_path / "results", os.path.dirname(__file__)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        for _ in range(after):
            assert writer.stdout.readline() == "True\n"
        writer.send_signal(signal.SIGKILL)
    with Store(tmp_path / "results", write=True) as store:
        finished = [row for row in store.rows() if row["finished"]]
        assert len(finished) >= after
        for row in finished:
            (file,) = row["outputs"]
            assert store.read(file["file"]) == b"x" * 5000 + str(row["number"]).encode()
        assert store.counts()["cells"] == 500


FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_sweep_store import HOST, Store, cells, output
store = Store(Path(sys.argv[1]), write=True)
store.take(((cell, 1) for cell in cells(4)), {})
store.finish(cells(4)[0].key, HOST, 1.0, output(b"small"), 0)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    store.finish(cells(4)[1].key, HOST, 1.0, output(b"x" * 5000), 0)
except OSError as error:
    print(type(error).__name__, error.errno)
"""


def test_a_disk_without_room_costs_no_finished_cell(tmp_path):
    """The system's own limit on the size of files stands for the full disk."""
    command = [sys.executable, "-c", FULL, tmp_path / "results", os.path.dirname(__file__)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "OSError 27\n", done.stderr
    with Store(tmp_path / "results", write=True) as store:
        assert [row["finished"] is not None for row in store.rows()] == [True, False, False, False]
        assert not list(store.folder.rglob("*.tmp"))


def test_the_table_has_a_line_for_each_cell(store):
    store.finish(cells()[2].key, HOST, 1.25, output(PNG), 3)
    out = io.StringIO()
    assert export.table(store, out) == 6
    lines = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert [(line["a"], line["b"]) for line in lines] == [(str(n // 2), f"x{n % 2}") for n in range(6)]
    assert (lines[2]["host"], lines[2]["seconds"], lines[2]["went_on_from"], lines[2]["calls"]) == (
        HOST,
        "1.25",
        "3",
        "10",
    )
    assert (lines[0]["host"], lines[0]["outputs"]) == ("", "")


class Figures(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.places = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "figure":
            told = dict(attributes)
            self.places.append((int(told["data-row"]), int(told["data-column"])))


def test_the_page_shows_finished_cells_over_two_axes(store):
    for cell in cells()[:3]:
        store.finish(cell.key, HOST, 1.0, output(PNG), 0)
    text = export.html(store, "a", "b", {}, "title")
    assert Figures(text).places == [(0, 0), (0, 1), (1, 0)]
    assert text.count("not run") == 3
    for down, across, fixed, told in (
        ("a", "a", {}, "both are the same"),
        ("a", "c", {}, "there is no axis 'c'; there are a, b"),
        ("a", "b", {"c": "1"}, "there is no axis 'c'"),
        ("a", "b", {"b": "x1"}, "b has a place on the page, and --at says one value of it"),
        ("a", None, {"b": "x9"}, "b is 'x9' at no cell; it is x0, x1"),
    ):
        with pytest.raises(BadSweep, match=re.escape(told)):
            export.html(store, down, across, fixed, "title")
