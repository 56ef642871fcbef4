"""KSampler (Stepwise) in the page: another solver by one click, values found by name, rare inputs folded."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from stepwise.tests.e2e.drawn import choose, drawn, unfold
from stepwise.tests.e2e.harness import picture
from stepwise.tests.e2e.test_curve import CANVASES, RELOAD, SCREENSHOTS

# Saved by the page, as it was when the node came out: keep it.
SAVED = Path(__file__).resolve().parents[1] / "fixtures" / "ksampler.json"
VALUES = {"seed": 7, "steps": 6, "cfg": 3.5, "denoise": 0.9, "start_step": 0, "end_step": 5, "add_noise": "enable"}
VALUES |= {"return_with_leftover_noise": "disable", "autosave_every": 0, "on_mismatch": "fork"}
VALUES |= {"solver": "DPM++ 2M SDE", "solver.solver_type": "heun", "solver.eta": ["4", 0], "solver.s_noise": 1.01}
VALUES |= {"solver.final_order": "first", "solver.noise_kind": "brownian", "solver.noise_device": "cpu"}
VALUES |= {"solver.cfg_pp": False, "schedule": "Beta", "schedule.alpha": 0.7, "schedule.beta": 0.8}
VALUES |= {"schedule.over": "sigmas", "schedule.last_sigma": "sigma_min"}
VALUES |= {"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0]}
PROMPT = "async () => (await app.graphToPrompt()).output"
NODE = "type => app.graph.nodes.find(node => node.type === type).id"


def node_of(editor, kind="StepwiseKSampler"):
    return editor.page.evaluate(NODE, kind)


def inputs(editor):
    return editor.page.evaluate(PROMPT)[str(node_of(editor))]["inputs"]


@CANVASES
def test_another_solver_is_one_click_and_runs(open_editor, server, nodes2):
    editor = open_editor(nodes2=nodes2)
    editor.drop(SAVED)
    node = node_of(editor)
    first = editor.queue().check()
    assert "solver_type" in drawn(editor, node, nodes2)
    choose(editor, node, "solver", "UniPC", nodes2)
    seen = drawn(editor, node, nodes2)
    assert {"UniPC", "order", "variant", "corrector"} <= set(seen)
    assert not {"solver_type", "s_noise", "noise_kind"} & set(seen)
    now = inputs(editor)
    assert now["solver"] == "UniPC"
    assert {name for name in now if name.startswith("solver.")} >= {"solver.order", "solver.variant"}
    assert now["schedule.alpha"] == 0.7, "the other choice keeps its values"
    second = editor.queue().check()
    pictures = [np.asarray(picture(server, result.files()[0]), dtype=float) for result in (first, second)]
    assert all(each.std() > 20 for each in pictures)
    assert np.abs(pictures[0] - pictures[1]).mean() > 1, "the other solver made the same picture"
    assert editor.errors_of_pack() == []
    editor.screenshot(SCREENSHOTS / f"ksampler-{'nodes2' if nodes2 else 'classic'}.png")


# What the choices have got since that workflow was saved, as it comes.
LATER = {"solver.time": "half_log_snr", "solver.first_level": "as_given", "schedule.denoise_mode": "tail"}


@CANVASES
def test_a_saved_workflow_opens_with_every_value(open_editor, nodes2):
    editor = open_editor(nodes2=nodes2)
    editor.drop(SAVED)
    assert inputs(editor) == VALUES | LATER
    editor.page.evaluate(RELOAD)
    assert inputs(editor) == VALUES | LATER
    assert editor.errors_of_pack() == []


def with_more(definitions):
    """The same nodes, each kind of input of this one with a new one in front."""
    new = {"new": ["FLOAT", {"default": 0.125, "min": 0.0, "max": 1.0}]}
    node = definitions["StepwiseKSampler"]
    node["input"]["required"] = {**new, **node["input"]["required"]}
    node["input_order"]["required"].insert(0, "new")
    for choice in ("solver", "schedule"):
        for option in node["input"]["required"][choice][1]["options"]:
            option["inputs"]["required"] = {**copy.deepcopy(new), **option["inputs"].get("required", {})}
    return definitions


@CANVASES
def test_it_opens_so_where_the_node_has_got_more_inputs_since(open_editor, nodes2):
    editor = open_editor(nodes2=nodes2, fresh=True)

    def answer(route):
        route.fulfill(json=with_more(route.fetch().json()))

    editor.page.route("**/api/object_info", answer)
    editor.open()
    editor.new_workflow()
    editor.drop(SAVED)
    assert inputs(editor) == VALUES | LATER | {"new": 0.125, "solver.new": 0.125, "schedule.new": 0.125}


@CANVASES
def test_rare_inputs_fold_and_stay_as_they_are_saved(open_editor, nodes2):
    editor = open_editor(nodes2=nodes2)
    node = editor.page.evaluate("""() => {
        const node = LiteGraph.createNode("StepwiseKSampler")
        node.pos = [60, 60]
        app.graph.add(node)
        return node.id
    }""")
    often = {"seed", "steps", "cfg", "denoise", "end_step", "solver", "schedule", "rho"}
    rare = {"start_step", "add_noise", "return_with_leftover_noise", "autosave_every", "on_mismatch"}
    rare |= {"time", "final_order", "cfg_pp", "last_sigma"}
    height = "id => app.graph.getNodeById(id).size[1]"
    folded = drawn(editor, node, nodes2)
    assert often <= set(folded)
    assert not rare & set(folded)
    low = editor.page.evaluate(height, node)
    unfold(editor, node, nodes2)
    assert often | rare <= set(drawn(editor, node, nodes2))
    assert editor.page.evaluate(height, node) > low + 100
    editor.page.evaluate(RELOAD)
    assert often | rare <= set(drawn(editor, node, nodes2))
    unfold(editor, node, nodes2)
    assert not rare & set(drawn(editor, node, nodes2))
    editor.page.evaluate(RELOAD)
    assert not rare & set(drawn(editor, node, nodes2))
    if not nodes2:
        assert editor.page.evaluate(height, node) == pytest.approx(low, abs=2)
    assert editor.errors_of_pack() == []


def test_the_saved_workflow_has_the_names_of_its_values():
    (node,) = [each for each in json.loads(SAVED.read_text())["nodes"] if each["type"] == "StepwiseKSampler"]
    assert len(node["properties"]["stepwise_widgets"]) == len(node["widgets_values"])
