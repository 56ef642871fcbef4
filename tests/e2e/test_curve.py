"""The curve in a schedule node, in the real editor: Python's own numbers, before anything is queued."""

import json
from pathlib import Path

import numpy as np
import pytest
from stepwise.samplers.registry import SCHEDULES
from stepwise.tests.e2e.drawn import drawn
from stepwise.tests.e2e.harness import picture

SCREENSHOTS = Path(__file__).resolve().parents[2] / ".dev" / "screenshots"
CANVASES = pytest.mark.parametrize("nodes2", [False, True], ids=["classic", "nodes2"])
KARRAS = "StepwiseKarrasSchedule"

ADD = """(types) => types.map((type, i) => {
    const node = LiteGraph.createNode(type)
    node.pos = [60 + 330 * (i % 4), 60 + 620 * Math.floor(i / 4)]
    app.graph.add(node)
    return node.id
})"""
# What each schedule node shows, and the values of its widgets as the prompt has them.
SHOWN = """async () => {
    const { output } = await app.graphToPrompt()
    return app.graph.nodes.flatMap(node => {
        const widget = node.widgets?.find(widget => widget.name === 'stepwise_curve')
        if (!widget) return []
        const { sigmas, error, note } = widget.element.curve
        const { inputs } = output[node.id]
        const text = widget.element.textContent
        const seen = widget.element.querySelector('path') !== null && widget.element.getBoundingClientRect().height > 40
        return [{ id: node.id, type: node.type, sigmas, error, note, text, inputs, seen }]
    })
}"""
# Sets a widget as a person's edit does on each canvas: through the widget, with its callback.
SET = """([id, name, value]) => {
    const node = app.graph.getNodeById(id)
    const widget = node.widgets.find(widget => widget.name === name)
    if (widget.setValue) widget.setValue(value, { e: {}, node, canvas: app.canvas })
    else { widget.value = value; widget.callback?.(value) }
}"""
WIRE = """([from, output, to, input]) => {
    const [source, target] = [from, to].map(id => app.graph.getNodeById(id))
    source.connect(output, target, target.inputs.findIndex(each => each.name === input))
}"""
RELOAD = """async () => {
    const saved = JSON.parse(JSON.stringify(app.graph.serialize()))
    await app.loadGraphData(saved)
    return saved
}"""
SOCKETS = "id => app.graph.getNodeById(id).inputs.map(input => input.name).filter(name => name.startsWith('sigmas.'))"
SIZES = "() => Object.fromEntries(app.graph.nodes.map(node => [node.id, [...node.size]]))"


def python_sigmas(server, node, inputs, trained=None):
    """What the pack computes, by the route that test_preview.py proves equal to the node."""
    values = {name: value for name, value in inputs.items() if name != "model"}
    status, told = server.post("/stepwise/schedule", {"node": node, "values": values, "trained": trained})
    assert status == 200
    return told


def shown(editor, condition=lambda one: one["sigmas"] or one["error"], patience=10.0):
    """What the schedule nodes show, once every one of them meets `condition`."""
    for _ in range(int(patience / 0.05)):
        found = editor.page.evaluate(SHOWN)
        if found and all(condition(one) for one in found):
            return found
        editor.page.wait_for_timeout(50)
    raise AssertionError(f"no such curve: {json.dumps(found)[:2000]}")


def made_for(kind):
    """What a schedule says of itself where no model is wired that it could be held against."""
    (schedule,) = [each for each in SCHEDULES if f"Stepwise{each.id}Schedule" == kind]
    family = {("FLOW",): "for flow models: SD3, Flux, Wan", ("VE",): "not for flow models"}
    return family.get(schedule.paths, "")


def add(editor, *types):
    ids = editor.page.evaluate(ADD, list(types))
    editor.settle()
    return ids


@CANVASES
def test_every_schedule_shows_pythons_numbers_and_a_reload_keeps_the_values(open_editor, server, nodes2):
    editor = open_editor(nodes2=nodes2)
    nodes = server.get("/object_info")
    types = sorted(name for name in nodes if name.startswith("Stepwise") and name.endswith("Schedule"))
    types.remove("StepwiseNamedSchedule")  # whose levels only a run knows
    assert len(types) == len(SCHEDULES)
    add(editor, *types)
    found = shown(editor)
    assert [one["type"] for one in found] == types
    for one in found:
        declared = {**nodes[one["type"]]["input"]["required"], **nodes[one["type"]]["input"].get("optional", {})}
        assert set(one["inputs"]) == set(declared) - {"model", "latent"}, "the curve must not be an input"
        expected = python_sigmas(server, one["type"], one["inputs"])["sigmas"]
        np.testing.assert_allclose(one["sigmas"], expected, rtol=1e-6, atol=0)
        assert one["text"].startswith(f"{len(expected) - 1} steps, ")
        assert one["note"] == made_for(one["type"])
    assert sum(one["seen"] for one in found) >= 4  # the others lie outside the window

    sizes = editor.page.evaluate(SIZES)
    first = editor.page.evaluate(RELOAD)
    assert [one["sigmas"] for one in shown(editor)] == [one["sigmas"] for one in found]
    second = editor.page.evaluate(RELOAD)
    for before, after in zip(first["nodes"], second["nodes"], strict=True):
        assert before["widgets_values"] == after["widgets_values"]
    inputs = {str(one["id"]): one["inputs"] for one in found}
    for node in second["nodes"]:
        assert node["widgets_values"] == list(inputs[str(node["id"])].values())
    editor.settle()
    now = editor.page.evaluate(SIZES)
    assert {i: (now[i], size) for i, size in sizes.items() if now[i] != size} == {}, "nodes grow with each reload"
    assert editor.errors_of_pack() == []
    editor.screenshot(SCREENSHOTS / f"curves-{'nodes2' if nodes2 else 'classic'}.png")


@CANVASES
def test_a_widget_changes_the_curve_before_anything_is_queued(open_editor, server, nodes2):
    editor = open_editor(nodes2=nodes2)
    (karras,) = add(editor, KARRAS)
    shown(editor, lambda one: len(one["sigmas"]) == 21)
    editor.page.evaluate(SET, [karras, "steps", 7])
    (one,) = shown(editor, lambda one: len(one["sigmas"]) == 8)
    np.testing.assert_allclose(one["sigmas"], python_sigmas(server, KARRAS, one["inputs"])["sigmas"], rtol=1e-6)

    # Many changes at once: the last one is what is shown.
    for steps in (9, 30, 12, 3):
        editor.page.evaluate(SET, [karras, "steps", steps])
    shown(editor, lambda one: len(one["sigmas"]) == 4)
    editor.page.wait_for_timeout(300)
    shown(editor, lambda one: len(one["sigmas"]) == 4)

    editor.page.evaluate(SET, [karras, "sigma_min", 20.0])
    (one,) = shown(editor, lambda one: one["error"])
    assert one["error"] == python_sigmas(server, KARRAS, one["inputs"])["error"] == one["text"]
    assert one["error"].startswith("sigma_min is 20, not between 0 and sigma_max")
    editor.page.evaluate(SET, [karras, "sigma_min", 0.03])
    shown(editor, lambda one: one["sigmas"] and not one["error"])
    assert editor.frames == [] or not any(frame["type"] == "execution_start" for frame in editor.frames)
    assert editor.errors_of_pack() == []


def test_typing_into_a_node_changes_its_curve(open_editor):
    """On Nodes 2.0 the widgets are fields of the page, so that a person's own way can be gone."""
    editor = open_editor(nodes2=True)
    add(editor, KARRAS)
    shown(editor)
    field = editor.page.locator("[data-node-id] input").first
    field.focus()
    field.fill("11")
    field.press("Enter")
    shown(editor, lambda one: len(one["sigmas"]) == 12)


def test_the_drawn_curve_changes_its_schedule(open_editor, server):
    """The curve editor of Nodes 2.0 reports each new set of points through the widget's callback."""
    editor = open_editor(nodes2=True)
    (curve,) = add(editor, "StepwiseCurveSchedule")
    (before,) = shown(editor)
    points = {"points": [[0, 1], [0.5, 0.2], [1, 0]], "interpolation": "linear"}
    editor.page.evaluate(SET, [curve, "curve", points])
    (after,) = shown(editor, lambda one: one["sigmas"] != before["sigmas"])
    assert after["inputs"]["curve"] == points
    expected = python_sigmas(server, "StepwiseCurveSchedule", after["inputs"])["sigmas"]
    np.testing.assert_allclose(after["sigmas"], expected, rtol=1e-6)
    editor.page.evaluate(SET, [curve, "curve", {**points, "points": [[0, 0], [1, 1]]}])
    shown(editor, lambda one: one["error"])


@CANVASES
def test_a_wired_model_gives_the_range_once_it_has_run(open_editor, server, nodes2):
    editor = open_editor(nodes2=nodes2, fresh=True)
    digits, karras, plot = add(editor, "StepwiseDigitsModel", KARRAS, "StepwisePlotSigmas")
    editor.page.evaluate(SET, [karras, "sigma_max", 50.0])
    shown(editor, lambda one: one["sigmas"][:1] == [50.0] and not one["note"])
    editor.page.evaluate(WIRE, [digits, 0, karras, "model"])
    shown(editor, lambda one: 14 < one["sigmas"][0] < 15 and one["note"].startswith("model not run yet"))
    for number in (1, 2):
        editor.page.evaluate(WIRE, [karras, 0, plot, f"sigmas.sigmas_{number}"])
        editor.settle()
        grown = editor.page.evaluate(SOCKETS, plot)
        assert grown == [f"sigmas.sigmas_{i}" for i in range(1, number + 2)], "each wire brings up a free socket"
    (file,) = editor.queue().check().files()
    assert picture(server, file).size == (768, 576)
    (one,) = shown(editor, lambda one: one["sigmas"] and not one["note"])
    top = one["sigmas"][0]
    assert 14.0 < top < 15.0
    ran = one["sigmas"]

    editor.page.evaluate(SET, [karras, "steps", 9])
    (one,) = shown(editor, lambda one: len(one["sigmas"]) == 10)
    assert one["sigmas"][0] == top
    assert one["note"] == ""
    editor.page.evaluate(SET, [karras, "steps", 20])
    (one,) = shown(editor, lambda one: len(one["sigmas"]) == 21)
    np.testing.assert_allclose(one["sigmas"], ran, rtol=1e-6, atol=0)

    # What the model comes from changes: its range is not known any more.
    editor.page.evaluate(SET, [digits, "variant", "lcm"])
    editor.page.evaluate(SET, [karras, "steps", 8])
    shown(editor, lambda one: len(one["sigmas"]) == 9 and one["note"].startswith("model not run yet"))
    assert editor.errors_of_pack() == []
    editor.screenshot(SCREENSHOTS / f"plot-{'nodes2' if nodes2 else 'classic'}.png")


# How far a text goes beyond the box that cuts it.
BEYOND = """label => {
    let box = label
    while (getComputedStyle(box).overflowX === "visible") box = box.parentElement
    const text = document.createRange()
    text.selectNodeContents(label)
    return text.getBoundingClientRect().right - box.getBoundingClientRect().right
}"""


@CANVASES
def test_what_the_wired_model_answers_is_no_error_and_marked(open_editor, nodes2):
    """The run does not look at sigma_min and sigma_max, so neither does the curve, and the node says why."""
    editor = open_editor(nodes2=nodes2, fresh=True)
    digits, karras, plot = add(editor, "StepwiseDigitsModel", KARRAS, "StepwisePlotSigmas")
    assert {"sigma_min", "sigma_max"} <= set(drawn(editor, karras, nodes2))
    editor.page.evaluate(SET, [karras, "sigma_min", 20.0])
    shown(editor, lambda one: one["error"].startswith("sigma_min is 20, not between"))
    editor.page.evaluate(WIRE, [digits, 0, karras, "model"])
    (one,) = shown(editor, lambda one: one["sigmas"] and not one["error"])
    assert one["note"].startswith("model not run yet")
    marked = {"sigma_min (model)", "sigma_max (model)"}
    assert marked <= set(drawn(editor, karras, nodes2))
    for label in marked if nodes2 else ():
        (words,) = editor.page.locator(f"[data-node-id='{karras}']").get_by_text(label, exact=True).all()
        assert words.evaluate(BEYOND) <= 1, f"{label} is cut short"
    editor.page.evaluate(WIRE, [karras, 0, plot, "sigmas.sigmas_1"])
    editor.queue().check()
    (one,) = shown(editor, lambda one: one["sigmas"] and not one["note"])
    assert one["error"] == ""
    assert one["sigmas"][0] < 15
    editor.page.evaluate(SET, [karras, "steps", 1])
    (one,) = shown(editor, lambda one: len(one["sigmas"]) == 2)
    assert one["text"].startswith("1 step, ")
    editor.screenshot(SCREENSHOTS / f"answered-{'nodes2' if nodes2 else 'classic'}.png")
    unwire = "id => { const node = app.graph.getNodeById(id); node.disconnectInput(node.findInputSlot('model')) }"
    editor.page.evaluate(unwire, karras)
    shown(editor, lambda one: one["error"].startswith("sigma_min is 20, not between"))
    assert {"sigma_min", "sigma_max"} <= set(drawn(editor, karras, nodes2))
    assert editor.errors_of_pack() == []


LAST_POINTS = """() => {
    const text = [...document.querySelectorAll(".stepwise-points textarea")].at(-1)
    return [text.value, text.scrollHeight - text.clientHeight]
}"""


def test_a_curve_is_text_on_the_classic_canvas(open_editor, server):
    """Its editor is in Nodes 2.0 alone: the node says so, and the points can be written."""
    editor = open_editor()
    (curve,) = add(editor, "StepwiseCurveSchedule")
    (before,) = shown(editor)
    box = editor.page.locator(".stepwise-points")
    assert "Nodes 2.0" in box.inner_text()
    assert not any("2.0" in line for line in drawn(editor, curve, False)), "the host's own widget is drawn too"
    text = box.locator("textarea")
    assert text.input_value() == "0 1\n1 0"
    text.fill("0 1\n0.5 0.2\n1 0\nlinear")
    (after,) = shown(editor, lambda one: one["sigmas"] != before["sigmas"])
    points = {"points": [[0, 1], [0.5, 0.2], [1, 0]], "interpolation": "linear"}
    assert after["inputs"]["curve"] == points
    expected = python_sigmas(server, "StepwiseCurveSchedule", after["inputs"])["sigmas"]
    np.testing.assert_allclose(after["sigmas"], expected, rtol=1e-6)
    editor.screenshot(SCREENSHOTS / "points-classic.png")
    text.fill("0 1\n0.5 2\n1 0")
    assert "Line 2 is not two numbers from 0 to 1" in box.inner_text()
    assert shown(editor)[0]["inputs"]["curve"] == points, "what cannot be read changes nothing"
    editor.page.evaluate(RELOAD)
    assert editor.page.locator(".stepwise-points textarea").input_value() == "linear\n0 1\n0.5 0.2\n1 0"
    assert shown(editor)[0]["inputs"]["curve"] == points
    add(editor, "StepwiseDrawnCurveGuidance")
    editor.settle()
    written, hidden = editor.page.evaluate(LAST_POINTS)
    assert len(written.splitlines()) == 4
    assert hidden <= 0, "not every point is in sight as the node comes"
    assert editor.errors_of_pack() == []


def test_a_curve_is_drawn_in_nodes_2_alone(open_editor):
    editor = open_editor(nodes2=True)
    (curve,) = add(editor, "StepwiseCurveSchedule")
    shown(editor)
    assert editor.page.locator(".stepwise-points").count() == 0
    assert not any("2.0" in line for line in drawn(editor, curve, True))
