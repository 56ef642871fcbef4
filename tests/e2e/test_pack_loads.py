"""The pack in the real server and the real editor."""

import json

import pytest
from stepwise.tests.e2e.harness import picture, run_prompt, run_with_client

GREY = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 48, "height": 32, "batch_size": 1, "color": 0x808080}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "grey"}},
}


def test_server_imports_the_pack(server):
    assert server.complaints() == ""
    assert "stepwise" in server.log().lower()


def test_server_offers_the_nodes(server):
    nodes = {name: node for name, node in server.get("/object_info").items() if name.startswith("Stepwise")}
    assert nodes
    outside = {name: node["category"] for name, node in nodes.items() if not node["category"].startswith("stepwise")}
    assert not outside


def test_prompt_runs_to_a_picture(server):
    (file,) = run_prompt(server, GREY).check().files()
    assert picture(server, file).size == (48, 32)


def test_refused_prompt_says_which_node(server):
    wrong = {**GREY, "1": {**GREY["1"], "inputs": {**GREY["1"]["inputs"], "width": -1}}}
    result = run_prompt(server, wrong)
    assert list(result.node_errors) == ["1"]
    with pytest.raises(AssertionError, match="value_smaller_than_min"):
        result.check()


def test_official_client_runs_a_workflow(server, tmp_path):
    workflow = tmp_path / "grey.json"
    workflow.write_text(json.dumps(GREY), encoding="utf-8")
    done = run_with_client(server, workflow)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "/view?filename=grey_" in done.stdout


@pytest.mark.parametrize("nodes2", [False, True], ids=["classic", "nodes2"])
def test_editor_opens_without_an_error_of_ours(open_editor, nodes2):
    editor = open_editor(nodes2=nodes2)
    known = editor.page.evaluate("Object.keys(LiteGraph.registered_node_types)")
    assert any(name.startswith("Stepwise") for name in known)
    assert editor.errors_of_pack() == []


def test_editor_runs_a_dropped_workflow(editor, tmp_path):
    workflow = tmp_path / "grey.json"
    workflow.write_text(json.dumps(GREY), encoding="utf-8")
    editor.drop(workflow)
    assert editor.missing_nodes() == set()
    (file,) = editor.queue().check().files()
    assert picture(editor.server, file).size == (48, 32)


def test_editor_tells_a_missing_node(editor, tmp_path):
    workflow = tmp_path / "missing.json"
    workflow.write_text(json.dumps({**GREY, "3": {"class_type": "NoSuchNode", "inputs": {}}}), encoding="utf-8")
    editor.drop(workflow)
    assert editor.missing_nodes() == {"NoSuchNode"}

    node = {"id": 1, "type": "NoSuchNode", "pos": [0, 0], "size": [200, 100], "order": 0, "mode": 0, "flags": {}}
    saved = {**editor.page.evaluate("app.rootGraph.serialize()"), "nodes": [node], "links": [], "last_node_id": 1}
    workflow.write_text(json.dumps(saved), encoding="utf-8")
    editor.new_workflow()
    editor.drop(workflow)
    assert editor.missing_nodes() == {"NoSuchNode"}
