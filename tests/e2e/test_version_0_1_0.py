"""The workflows that the editor saved with version 0.1.0, opened in it today."""

import json
import shutil
from pathlib import Path

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


def test_a_workflow_of_0_1_0_runs_from_its_state(editor, server):
    shutil.copy(FIXTURES / "digits.safetensors", server.output)
    editor.drop(FIXTURES / "workflows" / "states.json")
    result = editor.queue().check()
    assert len(result.files()) == 2
    assert any("stands at: step 3 of 6" in line for shown in result.outputs.values() for line in shown.get("text", ()))
