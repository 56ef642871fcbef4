"""A sweep that runs on servers which compute nothing: the engine, and what it does with servers that fail."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import yaml
from stepwise.sweep.store import Store
from stub_comfyui import FAILS, HANGS, PROMPT, REFUSED, Stub
from sweep_runs import Run

STUB = Path(__file__).resolve().parents[1] / "support" / "stub_comfyui.py"


class Process:
    """A stub as a process of its own, which can be stopped and killed; it says its address."""

    def __init__(self, seconds=0.0):
        self.process = subprocess.Popen([sys.executable, STUB, "0", str(seconds)], stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()

    def end(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def stubs():
    made = [Process(), Process()]
    yield made
    for each in made:
        each.end()


@pytest.fixture
def pair():
    """Two in this process, each of which is done with no cell before the other has one."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(Stub()) for _ in range(2)]
        for each, other in zip(made, reversed(made), strict=True):
            each.others = [other]
            threading.Thread(target=each.serve_forever, daemon=True).start()
            stack.callback(each.shutdown)
        yield made


@pytest.fixture
def sweep(tmp_path):
    """`sweep(axes)`: a sweep file over the stub's node."""

    def made(axes):
        (tmp_path / "workflow.json").write_text(json.dumps(PROMPT))
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"workflow": "workflow.json", "axes": axes}))
        return tmp_path / "sweep.yaml"

    return made


def command(file, *stubs, options=()):
    hosts = [part for stub in stubs for part in ("--host", stub.url)]
    return [sys.executable, "-m", "stepwise.sweep", "run", file, *hosts, *options]


def ran(*arguments, **options):
    return subprocess.run(command(*arguments, **options), capture_output=True, text=True, timeout=300)


def seeds(number):
    return {"seed": {"input": "Stub.seed", "seeds": f"0..{number - 1}"}}


def check(folder, number):
    """Every cell is there once, with the picture of its own prompt."""
    with Store(folder) as store:
        rows = list(store.rows())
        assert [row["point"]["seed"] for row in rows] == list(range(number))
        for row in rows:
            (file,) = row["outputs"]
            assert json.loads(store.read(file["file"])) == json.loads(row["prompt"])
        return rows


def test_every_cell_comes_back_as_it_went_and_a_second_run_has_nothing_to_do(pair, sweep):
    file = sweep(seeds(60))
    done = ran(file, *pair)
    assert done.returncode == 0, done.stderr
    rows = check(file.with_suffix(".results"), 60)
    assert {row["host"] for row in rows} == {stub.url for stub in pair}
    again = ran(file, *pair)
    assert again.returncode == 0
    assert check(file.with_suffix(".results"), 60) == rows


def test_a_cell_that_fails_is_named_and_the_others_are_finished(stubs, sweep):
    """A refusal and an error are two things: the second is tried once more."""
    file = sweep({"cfg": {"input": "1.cfg", "values": [1, REFUSED, FAILS]}})
    done = ran(file, stubs[0])
    assert done.returncode == 1
    assert "2 cells have failed" in done.stderr
    with Store(file.with_suffix(".results")) as store:
        errors = [row["error"] for row in store.rows()]
    assert errors[0] is None
    assert errors[1] == "refused: node 1 (Stub): Value not in list: cfg: 66"
    assert errors[2] == f"{stubs[0].url}: node 1 (Stub): no memory"


def test_a_server_that_hangs_loses_its_cells_to_another(stubs, sweep):
    """It is stopped, not killed: its port takes connections and never answers."""
    file = sweep(seeds(40))
    stubs[0].process.send_signal(signal.SIGSTOP)
    done = ran(file, *stubs, options=["--patience", "1"])
    assert done.returncode == 0, done.stderr
    assert {row["host"] for row in check(file.with_suffix(".results"), 40)} == {stubs[1].url}


def test_a_server_that_leaves_in_the_middle_and_comes_back_doubles_nothing(stubs, sweep):
    """Its cells are elsewhere when it goes on with them; and it is given new ones."""
    file = sweep(seeds(4000))
    with Run(file, [stub.url for stub in stubs], "--patience", "1") as run:

        def made():
            question = "SELECT count(*) FROM cells WHERE finished IS NOT NULL AND host = ?"
            found = run.asked(question, stubs[0].url)
            return found[0][0] if found else 0

        run.until(lambda: made() > 5)
        stubs[0].process.send_signal(signal.SIGSTOP)
        run.until(lambda: run.asked("SELECT what FROM faults WHERE host = ?", stubs[0].url))
        before, elsewhere = made(), len(run.finished())
        run.until(lambda: len(run.finished()) > elsewhere)
        assert made() == before
        stubs[0].process.send_signal(signal.SIGCONT)
        run.until(lambda: made() > before + 5)
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(60) == 130
    with Store(run.folder) as store:
        for row in store.rows():
            if row["finished"]:
                (kept,) = row["outputs"]
                assert json.loads(store.read(kept["file"])) == json.loads(row["prompt"])
        assert store.base.execute("SELECT count(*) FROM outputs").fetchone()[0] == store.counts()["finished"]


SMALL = 400_000


def test_a_disk_without_room_ends_the_run_with_what_is_finished_and_room_lets_it_go_on(stubs, sweep):
    """The system's own limit on the size of files stands for the full disk."""
    import resource

    file = sweep(seeds(200))
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (SMALL, SMALL))
    done = subprocess.run(command(file, stubs[0]), capture_output=True, text=True, timeout=300, preexec_fn=limit)
    assert done.returncode == 1
    assert f"{file.with_suffix('.results')} cannot be written to: " in done.stderr
    assert "Make room, and run again. What is finished is kept." in done.stderr
    assert "Traceback" not in done.stderr
    with Store(file.with_suffix(".results")) as store:
        before = {row["key"]: row["finished"] for row in store.rows() if row["finished"]}
    assert 0 < len(before) < 200
    again = ran(file, stubs[0])
    assert again.returncode == 0, again.stderr
    rows = check(file.with_suffix(".results"), 200)
    assert before == {row["key"]: row["finished"] for row in rows if row["key"] in before}


def test_a_cell_that_takes_longer_than_it_may_is_given_up_in_the_end(stubs, sweep):
    file = sweep({"cfg": {"input": "1.cfg", "values": [1, HANGS]}})
    done = ran(file, stubs[0], options=["--limit", "0.5", "--patience", "2"])
    assert done.returncode == 1
    with Store(file.with_suffix(".results")) as store:
        assert [row["error"] for row in store.rows()] == [None, f"{stubs[0].url}: not finished in 0.5 s"]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=lambda end: end.name)
def test_ctrl_c_keeps_what_is_done_and_leaves_no_process(stubs, sweep, end):
    """A terminal sends it to all processes; what ends a service, to the one, which a shell may have started to ignore
    Ctrl-C."""
    file, streams = sweep(seeds(2000)), {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ignored = signal.SIG_IGN if end is signal.SIGTERM else signal.default_int_handler
    start = partial(signal.signal, signal.SIGINT, ignored)
    with subprocess.Popen(command(file, *stubs), start_new_session=True, preexec_fn=start, **streams) as run:
        done = 0
        while done < 20:
            with open_or_none(file.with_suffix(".results")) as store:
                done = store.counts()["finished"] if store else 0
        children = psutil.Process(run.pid).children(recursive=True)
        (os.killpg if end is signal.SIGINT else os.kill)(run.pid, end)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "what is finished is kept" in said
    assert "Traceback" not in said
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert gone
    assert not alive
    with Store(file.with_suffix(".results")) as store:
        assert 20 <= store.counts()["finished"] < 2000


class open_or_none:
    """A result folder to read, or None where there is none yet."""

    def __init__(self, folder):
        self.folder, self.store = folder, None

    def __enter__(self):
        try:
            self.store = Store(self.folder)
            self.store.counts()
        except Exception:
            return None
        return self.store

    def __exit__(self, *_):
        if self.store is not None:
            self.store.close()


def test_a_second_driver_is_refused_while_the_first_works(stubs, sweep):
    file = sweep(seeds(3))
    with Store(file.with_suffix(".results"), write=True):
        done = ran(file, *stubs)
    assert done.returncode == 2
    assert "Another stepwise-sweep is at work" in done.stderr


def test_a_sweep_that_is_wrong_runs_nothing(stubs, sweep):
    file = sweep({"seed": {"input": "1.sed", "values": [1]}, "cfg": {"input": "1.cfg", "values": [1000]}})
    done = ran(file, *stubs)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert not os.path.exists(file.with_suffix(".results"))


def test_no_server_at_all_is_said(sweep):
    with Stub() as stub:
        url = stub.url
    file = sweep(seeds(2))
    done = subprocess.run(
        [sys.executable, "-m", "stepwise.sweep", "plan", file, "--host", url], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "none of the servers answers" in done.stderr


@contextlib.contextmanager
def a_cluster(folder, *stubs, options=(), protocol="tcp"):
    """Dask's own commands, as docs/many_machines.md has them; the address of the scheduler."""
    dask = [sys.executable, "-m", "dask"]
    told = folder / "scheduler.json"
    listening = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", told]
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            process = subprocess.Popen([*dask, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)

        start("scheduler", "--protocol", protocol, *listening, *options)
        while not (told.exists() and told.read_text().strip()):
            time.sleep(0.05)
        address = json.loads(told.read_text())["address"]
        for stub in stubs:
            named = ["--name", stub.url, "--nthreads", "1", "--resources", "GPU=1", "--no-dashboard"]
            start("worker", address, *named, "--preload", "stepwise.sweep.worker", *options)
        yield address


def test_a_cluster_that_people_have_runs_the_cells(pair, sweep, tmp_path):
    file = sweep(seeds(30))
    with a_cluster(tmp_path, *pair) as address:
        done = ran(file, pair[0], options=["--scheduler", address])
    assert done.returncode == 0, done.stderr
    assert {row["host"] for row in check(file.with_suffix(".results"), 30)} == {stub.url for stub in pair}
