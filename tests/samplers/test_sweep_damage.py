"""What is damaged or odd: it is answered with what is wrong, where and what to do, and never with a traceback."""

import json
import threading

import pytest
import yaml
from stepwise.sweep import export
from stepwise.sweep.calls import calls_of
from stepwise.sweep.cells import Cell
from stepwise.sweep.command import BAD_INPUT, main
from stepwise.sweep.editor import prompt_of
from stepwise.sweep.store import DATABASE, Store
from stepwise.sweep.values import BadSweep
from stub_comfyui import PROMPT, Stub

HOST = "http://127.0.0.1:8188"
PNG = b"\x89PNG\r\n\x1a\n"
NODE = {"class_type": "A", "inputs": {"n": 0}}


@pytest.fixture
def results(tmp_path):
    """A result folder with four finished cells, which have different pictures."""
    with Store(tmp_path / "results", write=True) as store:
        cells = [Cell(n, {"a": n // 2, "b": n % 2}, {"1": {**NODE, "inputs": {"n": n}}}) for n in range(4)]
        store.take(((cell, 10) for cell in cells), {"sweep": "text"})
        for cell in cells:
            told = {"node": "1", "kind": "images", "name": "a.png"}
            store.finish(cell.key, HOST, 1.0, [(told, PNG + bytes([cell.number]))], 0)
    return tmp_path / "results"


def files(folder):
    with Store(folder) as store:
        return [store.path(row["outputs"][0]["file"]) for row in store.rows()]


def test_a_page_names_pictures_that_are_damaged_gone_or_none_and_shows_the_others(results):
    cut, gone, *_ = files(results)
    cut.write_bytes(b"")
    gone.unlink()
    with Store(results, write=True) as store:
        row = list(store.rows())[2]
        store.base.execute("UPDATE outputs SET file = ? WHERE key = ?", (store.keep(b"text", ".png"), row["key"]))
        store.base.commit()
        text = export.html(store, "a", "b", {}, "title")
    assert text.count("data:image/png;base64,") == 1
    assert f"{cut.name} is damaged; delete it and run the sweep again" in text
    assert f"{gone.name} is gone; run the sweep again" in text
    assert "is no PNG, JPEG, WebP or GIF" in text


def test_a_cell_whose_file_is_gone_is_missing_again(results):
    files(results)[1].unlink()
    with Store(results, write=True) as store:
        assert store.look_for_lost() == 1
        assert store.look_for_lost() == 0
        (missing,) = store.missing()
        assert missing["number"] == 1
        told = {"node": "1", "kind": "images", "name": "a.png"}
        assert store.finish(missing["key"], HOST, 1.0, [(told, PNG)], 0)
        assert store.counts()["finished"] == 4
        assert [len(row["outputs"]) for row in store.rows()] == [1, 1, 1, 1]


def test_a_database_that_is_cut_is_named(results, capsys):
    file = results / DATABASE
    with Store(results, write=True) as store:
        store.base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file.write_bytes(file.read_bytes()[:5000])
    for command in (["status"], ["prompt", "1"], ["page", "--down", "a", "--across", "b", "-o", str(results / "page")]):
        assert main([command[0], str(results), *command[1:]]) == BAD_INPUT
        assert str(file) in capsys.readouterr().err


@pytest.mark.parametrize("inputs", [[], "", 5, None])
def test_inputs_that_are_none_are_named_with_their_node(inputs):
    with pytest.raises(BadSweep, match="the inputs of node 7 are no names with values"):
        prompt_of({"1": NODE, "7": {"class_type": "A", "inputs": inputs}}, {})


def test_a_node_without_inputs_or_with_an_odd_title_is_a_node():
    made = prompt_of(
        {"1": {"class_type": "A"}, "2": {**NODE, "_meta": "x"}, "3": {**NODE, "_meta": {"title": "T"}}}, {}
    )
    assert made == {"1": {"class_type": "A", "inputs": {}}, "2": NODE, "3": {**NODE, "_meta": {"title": "T"}}}


@pytest.mark.parametrize("eta", [["3", 0], "much", None])
def test_calls_are_counted_where_a_parameter_comes_by_a_wire_or_is_none(eta):
    inputs = {"steps": 20, "solver": "DPM++ 2M SDE", "solver.eta": eta}
    assert calls_of({"1": {"class_type": "StepwiseKSampler", "inputs": inputs}}) == 20


@pytest.mark.parametrize(
    "options",
    [["--patience", "nan"], ["--patience", "-1"], ["--retries", "-1"], ["--limit", "inf"], ["--look-every", "x"]],
)
def test_numbers_that_are_none_are_refused_by_their_option(capsys, options):
    with pytest.raises(SystemExit, match="2"):
        main(["run", "none.yaml", *options])
    assert f"argument {options[0]}: {options[1]!r} is no number of " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--patience", "0"], "--patience is 0"),
        (["--start", "0, 1"], "--comfyui: there is no ComfyUI"),
        (["--start", "cpu", "--with-options", '"'], "no closing quotation"),
    ],
)
def test_options_that_cannot_be_are_said(tmp_path, capsys, options, told):
    (tmp_path / "workflow.json").write_text(json.dumps({"1": NODE}))
    (tmp_path / "none.yaml").write_text("workflow: workflow.json\naxes: {cfg: {input: 1.cfg, values: [1]}}\n")
    assert main(["run", str(tmp_path / "none.yaml"), "--comfyui", str(tmp_path), *options]) == BAD_INPUT
    assert told in capsys.readouterr().err


def test_a_page_over_axes_that_go_together_shows_each_of_their_cells(tmp_path):
    """`steps` and `denoise` are zipped: no cell of theirs is "not run" because the other is held where it begins."""
    points = [{"steps": s, "denoise": d, "c": c} for s, d in ((4, 0.5), (6, 1.0)) for c in range(3)]
    with Store(tmp_path / "results", write=True) as store:
        cells = [Cell(n, point, {"1": {**NODE, "inputs": {"n": n}}}) for n, point in enumerate(points)]
        store.take(((cell, 1) for cell in cells), {})
        for cell in cells:
            store.finish(cell.key, HOST, 1.0, [({"node": "1", "kind": "images", "name": "a.png"}, PNG)], 0)
        both = export.html(store, "steps", "c", {}, "title")
        assert both.count("<figure") == 6
        assert "denoise goes with steps" in both
        assert export.html(store, "steps", "c", {"denoise": "0.5"}, "title").count("<figure") == 3
        assert export.html(store, "c", None, {"steps": "4"}, "title").count("<figure") == 3


def test_what_is_wrong_with_the_file_and_what_with_its_workflow_is_said_at_once(tmp_path, capsys):
    (tmp_path / "workflow.json").write_text(json.dumps(PROMPT))
    axes = {
        "a": {"input": "1.seed", "range": [1, 2]},
        "b": {"input": "1.sed", "values": [1]},
        "c": {"input": "Stub.cfg", "values": [1, 1000]},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"workflow": "workflow.json", "axes": axes, "axis": {}}))
    with Stub() as stub:
        threading.Thread(target=stub.serve_forever, daemon=True).start()
        assert main(["plan", str(tmp_path / "sweep.yaml"), "--host", stub.url]) == BAD_INPUT
        stub.shutdown()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4
    for each, known in zip(
        said, ("'axis' is none of", "axes.a: range", "axes.b: 1 has no input", "axes.c: 1000"), strict=True
    ):
        assert known in each
