"""Which inputs a node shows, and that what is saved of them stays as it was."""

import json
from pathlib import Path

from stepwise.tests.e2e.drawn import choose, drawn, unfold
from stepwise.tests.e2e.test_curve import CANVASES, SCREENSHOTS, add

ROOT = Path(__file__).resolve().parents[2]
OLD = ROOT / "tests" / "fixtures" / "v0_1_0" / "workflows"
# The values of every node, in their order, as the page would save them now; and the nodes that are unfolded. All in one
# tab: with each that is open, the page takes longer.
OPENED = """async workflow => {
    await app.loadGraphData(workflow, true, true, app.extensionManager.workflow.activeWorkflow)
    const { nodes } = app.graph.serialize()
    return nodes.map(({ id, widgets_values, showAdvanced }) => [id, widgets_values ?? [], Boolean(showAdvanced)])
}"""
INPUTS = {"step": "step", "sigma": "sigma", "percent": "percent", "hand-over": "boundary", "model calls": "calls"}


@CANVASES
def test_split_sigmas_shows_the_input_of_the_chosen_way(open_editor, nodes2):
    editor = open_editor(nodes2=nodes2)
    (split,) = add(editor, "StepwiseSplitSigmas")
    sockets = {"sigmas", "model", "sampler"}
    for at, name in INPUTS.items():
        if at != "step":
            choose(editor, split, "at", at, nodes2)
        seen = set(drawn(editor, split, nodes2))
        assert sockets <= seen
        # An output is called step too.
        assert seen & {*INPUTS.values()} == {name, "step"}, at
        assert drawn(editor, split, nodes2).count("step") == 1 + 2 * (at == "step"), "an input, its choice, an output"
    editor.screenshot(SCREENSHOTS / f"split-{'nodes2' if nodes2 else 'classic'}.png")
    assert editor.errors_of_pack() == []


@CANVASES
def test_flow_schedule_shows_what_its_shift_comes_from(open_editor, nodes2):
    editor = open_editor(nodes2=nodes2)
    (flow,) = add(editor, "StepwiseFlowSchedule")
    sizes = {"width", "height"}
    assert "shift" in drawn(editor, flow, nodes2)
    assert not sizes & set(drawn(editor, flow, nodes2))
    choose(editor, flow, "shift_from", "resolution", nodes2)
    assert "shift" not in drawn(editor, flow, nodes2)
    assert sizes <= set(drawn(editor, flow, nodes2))
    assert "base_shift" not in drawn(editor, flow, nodes2)
    unfold(editor, flow, nodes2)
    assert {"base_shift", "max_shift", "t_min"} <= set(drawn(editor, flow, nodes2))


def is_set(node, info):
    """Whether a rare input of the node is saved with another value than it has by itself."""
    rare = []
    for kind, *rest in {**info["input"]["required"], **info["input"].get("optional", {})}.values():
        options = rest[0] if rest else {}
        if kind in ("INT", "FLOAT", "BOOLEAN", "COMBO", "STRING", "CURVE"):
            usual = options.get("default", (options.get("options") or [None])[0])
            rare += [(options.get("advanced"), usual)] + [(False, None)] * bool(options.get("control_after_generate"))
    pairs = zip(rare, node.get("widgets_values") or [], strict=False)
    return any(is_rare and value != usual for (is_rare, usual), value in pairs)


@CANVASES
def test_saved_workflows_keep_their_values_in_order(open_editor, server, nodes2):
    """Every example and what 0.1.0 saved: new inputs stand behind; a rare one that is set is in sight."""
    editor = open_editor(nodes2=nodes2)
    infos = server.get("/object_info")
    files = sorted([*OLD.glob("*.json"), *(ROOT / "example_workflows").glob("*.json")])
    assert len(files) >= 32
    folded = unfolded = 0
    for file in files:
        workflow = json.loads(file.read_text(encoding="utf-8"))
        opened = {number: rest for number, *rest in editor.page.evaluate(OPENED, workflow)}
        for node in workflow["nodes"]:
            values, is_open = opened[node["id"]]
            saved = node.get("widgets_values") or []
            assert values[: len(saved)] == saved, (file.stem, node["type"])
            if file.parent == OLD and node["type"].startswith("Stepwise"):
                expected = is_set(node, infos[node["type"]])
                assert is_open == expected, (file.stem, node["type"], saved)
                unfolded, folded = unfolded + expected, folded + (not expected)
    assert unfolded >= 10
    assert folded >= 10
    assert editor.errors_of_pack() == []


# A schedule for flow models, no model wired to it, in the step node of a model that is none.
MISTAKE = """() => {
    const add = (type, x, y) => {
        const node = LiteGraph.createNode(type)
        node.pos = [x, y]
        app.graph.add(node)
        return node
    }
    const wire = (from, output, to, input) =>
        from.connect(output, to, to.inputs.findIndex(each => each.name === input))
    const [model, digit, noise] = [add("StepwiseDigitsModel", 20, 20), add("StepwiseDigit", 20, 180),
        add("RandomNoise", 20, 340)]
    const [latent, flow] = [add("EmptyLatentImage", 20, 500), add("StepwiseFlowSchedule", 340, 260)]
    const guider = add("StepwiseCFGGuider", 340, 20)
    const euler = add("StepwiseEuler", 680, 20)
    const [vae, shown] = [add("VAEDecode", 1010, 20), add("PreviewImage", 1010, 140)]
    latent.widgets[0].value = latent.widgets[1].value = 64
    wire(model, 0, guider, "model"); wire(digit, 0, guider, "positive"); wire(digit, 0, guider, "negative")
    wire(guider, 0, euler, "guider"); wire(noise, 0, euler, "noise"); wire(latent, 0, euler, "latent_image")
    wire(flow, 0, euler, "sigmas"); wire(euler, 0, vae, "samples"); wire(model, 1, vae, "vae")
    wire(vae, 0, shown, "images")
    return euler.id
}"""
FACE = """id => {
    const element = app.graph.getNodeById(id).widgets.find(each => each.name === "stepwise_face")?.element
    const box = element?.getBoundingClientRect()
    return element ? [element.textContent, box.height] : ["", 0]
}"""


@CANVASES
def test_a_flow_schedule_on_another_model_is_said_in_the_step_node(open_editor, nodes2):
    editor = open_editor(nodes2=nodes2)
    euler = editor.page.evaluate(MISTAKE)
    editor.queue().check()
    editor.page.wait_for_timeout(300)
    said, height = editor.page.evaluate(FACE, euler)
    assert "sigmas[0] is 1, far below the model's highest noise level, 14.6" in said
    assert "Take one of the schedules Karras, Exponential and Timestep instead" in said
    assert height > 20
    editor.screenshot(SCREENSHOTS / f"flow-{'nodes2' if nodes2 else 'classic'}.png")
