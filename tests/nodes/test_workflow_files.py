"""The committed example workflows: as generated, with every node of the pack, and with the ids that they always had."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = "stepwise.tools.generate.workflows"
ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
FIRST = json.loads((ROOT / "tests" / "fixtures" / "v0_1_0" / "examples.json").read_text(encoding="utf-8"))


def test_example_workflows_are_as_generated():
    done = subprocess.run([sys.executable, "-m", TOOL, "--check"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


def workflow(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_node_occurs_in_an_example():
    from stepwise.nodes import all_nodes

    used = {node["type"] for path in EXAMPLES for node in workflow(path)["nodes"]}
    assert {node.GET_SCHEMA().node_id for node in all_nodes()} - used == set()


# Version 0.1.0 had one small model; where another draws now, its nodes stand in the same places.
DRAWN_NOW = {"StepwiseEmojiModel": "StepwiseDigitsModel", "StepwiseEmojiPrompt": "StepwiseDigit"}


@pytest.mark.parametrize("name", FIRST)
def test_nodes_keep_the_ids_that_they_had_in_0_1_0(name):
    now = {str(node["id"]): node["type"] for node in workflow(ROOT / "example_workflows" / f"{name}.json")["nodes"]}
    found = {number: now.get(number) for number in FIRST[name]}
    assert {number: DRAWN_NOW.get(kind, kind) for number, kind in found.items()} == FIRST[name]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_wires_run_to_the_right_or_down(path):
    """Columns follow the flow of the data: no wire leads back to a column further left, or up in its own."""
    nodes = {node["id"]: node for node in workflow(path)["nodes"]}
    back = [
        (nodes[source]["title"], nodes[target]["title"])
        for _, source, _, target, *_ in workflow(path)["links"]
        if (nodes[source]["pos"][0], nodes[source]["pos"][1]) >= (nodes[target]["pos"][0], nodes[target]["pos"][1])
    ]
    assert back == []
