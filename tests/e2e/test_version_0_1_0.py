"""The workflows that the editor saved with version 0.1.0, opened in it today."""

import json
import shutil
from pathlib import Path

import pytest

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "v0_1_0"
SENT = "async () => JSON.stringify((await app.graphToPrompt()).output)"


def differing(then, now):
    """What no longer reaches the server as it did; inputs that are newer may come along."""
    missing = [number for number in then if now.get(number, {}).get("class_type") != then[number]["class_type"]]
    changed = [
        (then[number]["class_type"], name, value, now[number]["inputs"].get(name))
        for number in then.keys() - set(missing)
        for name, value in then[number]["inputs"].items()
        if now[number]["inputs"].get(name) != value
    ]
    return [(number, then[number]["class_type"]) for number in missing] + changed


def test_every_workflow_of_0_1_0_opens_with_its_values_and_wires(editor, server):
    """One after the other: no node is missing, and what would be queued is what 0.1.0 queued."""
    shutil.copy(FIXTURES / "digits.safetensors", server.output)
    files = sorted((FIXTURES / "workflows").glob("*.json"))
    assert len(files) == 23
    for file in files:
        editor.new_workflow()
        editor.drop(file)
        assert editor.missing_nodes() == set(), file.stem
        then = json.loads((FIXTURES / "api" / file.name).read_text(encoding="utf-8"))
        assert differing(then, json.loads(editor.page.evaluate(SENT))) == [], file.stem
    assert editor.errors_of_pack() == []


WIRES = """() => app.canvas.graph.nodes.flatMap(node => (node.inputs ?? []).flatMap((input, slot) => {
    const link = input.link == null ? null : app.canvas.graph.links.get(input.link);
    return link ? [[node.type, input.name, link.target_slot === slot && link.target_id === node.id]] : [];
}))"""


@pytest.mark.parametrize("nodes2", [False, True], ids=["classic", "nodes2"])
def test_wires_end_at_the_inputs_that_they_were_drawn_to(open_editor, server, nodes2):
    """Also at sockets that have another place since they may be left open, as the guider's negative has."""
    editor = open_editor(nodes2=nodes2)
    file = FIXTURES / "workflows" / "rules.json"
    editor.drop(file)
    wires = editor.page.evaluate(WIRES)
    assert ["StepwiseCFGGuider", "negative", True] in wires
    assert all(right for _, _, right in wires)
    assert (
        differing(
            json.loads((FIXTURES / "api" / file.name).read_text(encoding="utf-8")),
            json.loads(editor.page.evaluate(SENT)),
        )
        == []
    )


def test_a_workflow_of_0_1_0_runs_from_its_state(editor, server):
    shutil.copy(FIXTURES / "digits.safetensors", server.output)
    editor.drop(FIXTURES / "workflows" / "states.json")
    result = editor.queue().check()
    assert len(result.files()) == 2
    assert any("stands at: step 3 of 6" in line for shown in result.outputs.values() for line in shown.get("text", ()))
