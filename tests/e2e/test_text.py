"""Nodes whose job is text show it in the page: whole, selectable, from the cache too."""

import json

import pytest
from stepwise.tests.e2e.test_curve import CANVASES, SCREENSHOTS, SET

GRAPH = """() => {
    const add = (type, x, y) => {
        const node = LiteGraph.createNode(type)
        node.pos = [x, y]
        app.graph.add(node)
        return node
    }
    const wire = (from, output, to, input) =>
        from.connect(output, to, to.inputs.findIndex(each => each.name === input))
    const [model, sampler, karras] = [["StepwiseDigitsModel", 20, 20], ["StepwiseDPMpp2MSampler", 20, 180],
        ["StepwiseKarrasSchedule", 20, 380]].map(place => add(...place))
    const [digit, guider, noise, latent, steps] = [["StepwiseDigit", 20, 660], ["StepwiseCFGGuider", 340, 20],
        ["RandomNoise", 340, 220], ["EmptyLatentImage", 340, 380], ["StepwiseDPMpp2M", 340, 560]]
        .map(place => add(...place))
    const plan = add("StepwisePlanTable", 680, 20)
    const check = add("StepwiseCheckSigmas", 680, 300)
    const inspect = add("StepwiseInspectState", 1080, 20)
    const save = add("StepwiseSaveState", 1080, 300)
    latent.widgets[0].value = latent.widgets[1].value = 64
    noise.widgets[1].value = "fixed"
    steps.widgets.find(each => each.name === "end_step").value = 3
    wire(sampler, 0, plan, "sampler"); wire(karras, 0, plan, "sigmas"); wire(model, 0, plan, "model")
    wire(karras, 0, check, "sigmas"); wire(model, 0, check, "model")
    wire(model, 0, guider, "model"); wire(digit, 0, guider, "positive"); wire(digit, 0, guider, "negative")
    wire(guider, 0, steps, "guider"); wire(noise, 0, steps, "noise"); wire(latent, 0, steps, "latent_image")
    wire(karras, 0, steps, "sigmas"); wire(steps, 2, inspect, "state"); wire(steps, 2, save, "state")
    return Object.fromEntries([["plan", plan], ["check", check], ["inspect", inspect], ["save", save],
        ["karras", karras]].map(([name, node]) => [name, node.id]))
}"""
# The text that is drawn in each node, its box on the screen, and whether the box is what a click there meets.
DRAWN = """() => Object.fromEntries(app.graph.nodes.flatMap(node => {
    const element = node.widgets?.find(widget => widget.name === "stepwise_text")?.element
    if (!element) return []
    const box = element.getBoundingClientRect()
    const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2)
    const lines = element.value ? element.value.split("\\n").length : 0
    return [[node.id, { text: element.value, width: box.width, height: box.height, onTop: top === element,
        lines, scrolls: element.scrollHeight > element.clientHeight + 2, clipped: element.scrollWidth >
        element.clientWidth + 2 && getComputedStyle(element).overflowX === "hidden" }]]
}))"""
SELECT = """id => {
    const { element } = app.graph.getNodeById(id).widgets.find(widget => widget.name === "stepwise_text")
    element.focus()
    element.setSelectionRange(0, 12)
    return element.value.slice(element.selectionStart, element.selectionEnd)
}"""


@pytest.fixture
def drawn():
    def of(editor, ids):
        found = editor.page.evaluate(DRAWN)
        return {name: found[str(number)] for name, number in ids.items() if str(number) in found}

    return of


@CANVASES
def test_text_is_drawn_whole_and_from_the_cache_too(open_editor, nodes2, drawn):
    editor = open_editor(nodes2=nodes2)
    ids = editor.page.evaluate(GRAPH)
    editor.settle()
    assert all(one["text"] == "" and one["height"] > 60 for one in drawn(editor, ids).values())
    outputs = editor.queue().check().outputs
    first = drawn(editor, ids)
    assert set(first) == {"plan", "check", "inspect", "save"}
    for name, one in first.items():
        assert one["text"] == "\n".join(outputs[str(ids[name])]["text"]), name
        assert one["onTop"], name
        assert not one["clipped"], name
        assert one["height"] > 60, name
        assert one["width"] > 200, name
    assert first["plan"]["text"].startswith("DPM++ 2M on VE, 20 steps, 20 model calls")
    assert first["plan"]["lines"] == first["plan"]["text"].count("\n") + 1 >= 40
    assert first["plan"]["scrolls"]
    assert "sound" in first["check"]["text"]
    assert "stands at: step 3 of 20" in first["inspect"]["text"]
    assert first["save"]["text"].endswith("[output]")
    assert editor.page.evaluate(SELECT, ids["inspect"]) == first["inspect"]["text"][:12]
    editor.screenshot(SCREENSHOTS / f"text-{'nodes2' if nodes2 else 'classic'}.png")

    workflow = editor.page.evaluate("() => app.graph.serialize()")
    editor.new_workflow()
    editor.page.evaluate("saved => app.loadGraphData(saved)", workflow)
    editor.settle()
    assert "stepwise_text" not in json.dumps(workflow["nodes"])
    editor.queue().check()
    assert {name: one["text"] for name, one in drawn(editor, ids).items()} == {
        name: one["text"] for name, one in first.items()
    }
    assert editor.errors_of_pack() == []


@CANVASES
def test_a_plan_of_a_thousand_steps_scrolls(open_editor, nodes2, drawn):
    editor = open_editor(nodes2=nodes2)
    ids = editor.page.evaluate(GRAPH)
    editor.settle()
    # The step node grows by its face: of those that show text none does.
    sizes = "ids => Object.values(ids).map(id => [...app.graph.getNodeById(id).size])"
    before = editor.page.evaluate(sizes, ids)
    editor.page.evaluate(SET, [ids["karras"], "steps", 1000])
    editor.queue().check()
    plan = drawn(editor, ids)["plan"]
    assert plan["text"].startswith("DPM++ 2M on VE, 1000 steps")
    assert plan["scrolls"]
    assert plan["height"] < 400
    assert editor.page.evaluate(sizes, ids) == before, "a node grew with its text"
