"""The committed example workflows: as generated, with every node of the pack, and with the ids that they always had."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from stepwise.tools.generate.examples import WORKFLOWS
from stepwise.tools.generate.layout import SHOWN, TITLE, WINDOW, measured

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


# What the page leaves free around a workflow that it fits into its window, and the heights of letters on the canvas: of
# a node's text, and of a note's in Nodes 2.0. Smaller ones than 8 pixels the classic canvas leaves out.
MARGIN, LETTERS, SMALLEST = 10, (14.0, 12.857), 8.0


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_letters_are_legible_as_an_example_opens(path):
    """The page shows a template whole, in three quarters of the window."""
    rectangles = [group["bounding"] for group in workflow(path)["groups"]]
    (note,) = (node for node in workflow(path)["nodes"] if node["type"] == "MarkdownNote")
    (x, y), (width, height) = note["pos"], note["size"]
    rectangles.append([x, y - TITLE, width, height + TITLE])
    sides = [
        max(each[i] + each[i + 2] for each in rectangles) - min(each[i] for each in rectangles) + 2 * MARGIN
        for i in (0, 1)
    ]
    zoom = SHOWN * min(window / side for window, side in zip(WINDOW, sides, strict=True))
    assert zoom * min(LETTERS) >= SMALLEST


def test_every_node_of_an_example_has_been_measured():
    """As often as an example gains or loses a node; its numbers are others' then."""
    nodes = {workflow.api: len(workflow.nodes) for workflow in (describe() for describe in WORKFLOWS)}
    assert {name: len(sizes) for name, sizes in measured().items()} == nodes
