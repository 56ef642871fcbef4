"""Pause and go on in the real editor, with ComfyUI's defaults: what the nodes say on their faces."""

import re

import pytest
from stepwise.tests.e2e.test_curve import CANVASES, SCREENSHOTS, SET

# Two step nodes, the first of which stops at step 10 of 20; RandomNoise as the editor makes it.
GRAPH = """([first, second, end]) => {
    const add = (type, x, y) => {
        const node = LiteGraph.createNode(type)
        node.pos = [x, y]
        app.graph.add(node)
        return node
    }
    const wire = (from, output, to, input) =>
        from.connect(output, to, to.inputs.findIndex(each => each.name === input))
    const set = (node, name, value) => { node.widgets.find(each => each.name === name).value = value }
    const [model, digit, karras, latent] = [["StepwiseDigitsModel", 20, 60], ["StepwiseDigit", 20, 220],
        ["StepwiseKarrasSchedule", 20, 420], ["EmptyLatentImage", 20, 720]].map(place => add(...place))
    const [guider, noise] = [["StepwiseCFGGuider", 320, 60], ["RandomNoise", 320, 300]].map(place => add(...place))
    const one = add(first, 640, 60)
    set(one, "end_step", end)
    set(noise, "noise_seed", 7)
    set(latent, "width", 64); set(latent, "height", 64)
    wire(model, 0, guider, "model"); wire(digit, 0, guider, "positive"); wire(digit, 0, guider, "negative")
    wire(model, 0, karras, "model")
    wire(guider, 0, one, "guider"); wire(noise, 0, one, "noise"); wire(latent, 0, one, "latent_image")
    wire(karras, 0, one, "sigmas")
    const decode = add("VAEDecode", 1280, 60)
    const image = add("PreviewImage", 1280, 160)
    wire(decode, 0, image, "images"); wire(model, 1, decode, "vae")
    const made = { one, noise, decode, karras }
    if (second) {
        const two = add(second, 960, 60)
        two.title = "second half"
        wire(guider, 0, two, "guider")
        wire(one, 2, two, "state")
        made.two = two
    }
    wire(made.two ?? one, 0, decode, "samples")
    return Object.fromEntries(Object.entries(made).map(([name, node]) => [name, String(node.id)]))
}"""
# What is drawn on the face of each node, its box on the screen, and whether the box is what a click there meets.
FACES = """() => Object.fromEntries(app.graph.nodes.flatMap(node => {
    const element = node.widgets?.find(widget => widget.name === "stepwise_face")?.element
    if (!element) return []
    const box = element.getBoundingClientRect()
    const top = document.elementFromPoint(box.x + 3, box.y + 12)
    const lines = [...element.children].map(line => [line.className || line.tagName, line.textContent])
    const last = element.lastElementChild.getBoundingClientRect()
    return [[String(node.id), { lines, width: box.width, height: box.height, onTop: element.contains(top),
        whole: last.bottom <= box.bottom + 1 && box.bottom <= bottom(node) + 1 }]]
    function bottom(node) {
        const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0], node.pos[1] + node.size[1]])
        return y + document.getElementById("graph-canvas").getBoundingClientRect().top
    }
}))"""
VALUE = """([id, name]) => app.graph.getNodeById(id).widgets.find(each => each.name === name).value"""
CLICK_ON_FACE = """([id, text]) => [...app.graph.getNodeById(id).widgets.find(each => each.name === "stepwise_face")
    .element.querySelectorAll("button")].find(each => each.textContent === text).click()"""


def faces(editor, condition=lambda found: True, patience=10.0):
    """What is drawn on the faces, once it meets `condition`."""
    for _ in range(int(patience / 0.05)):
        found = editor.page.evaluate(FACES)
        if condition(found):
            return found
        editor.page.wait_for_timeout(50)
    raise AssertionError(f"no such faces: {found}")


def lines(face, kind):
    return [text for found, text in face["lines"] if found == kind]


def drawn_well(face):
    return face["onTop"] and face["whole"] and face["width"] > 150 and face["height"] > 20


def screenshot(editor, name, nodes2):
    editor.page.wait_for_timeout(200)
    editor.screenshot(SCREENSHOTS / f"{name}-{'nodes2' if nodes2 else 'classic'}.png")


@CANVASES
def test_pause_and_go_on_with_the_defaults_says_what_happens(open_editor, nodes2):
    """Run, pause, go on: RandomNoise has moved its seed, and nothing of that is silent."""
    editor = open_editor(nodes2=nodes2)
    ids = editor.page.evaluate(GRAPH, ["StepwiseDPMpp2M", "StepwiseDPMpp2M", 10])
    editor.settle()
    assert faces(editor) == {}, "a node that has nothing to say has no face"
    editor.queue().check()
    found = faces(editor, lambda all: ids["one"] in all and lines(all[ids["one"]], "stale"))
    one, two = found[ids["one"]], found[ids["two"]]
    assert lines(one, "did") == ["stopped at step 10 of 20, seed 7"]
    assert lines(two, "did") == ["went on from step 10 to 20, seed 7"]
    moved = editor.page.evaluate(VALUE, [ids["noise"], "noise_seed"])
    assert moved != 7, "RandomNoise moves its seed after a run"
    (stale,) = lines(one, "stale")
    assert stale == (
        f"The next run begins anew: noise: noise_seed of RandomNoise was 7, is {moved}. "
        'It changes after every run: set "control after generate" to fixed.'
    )
    assert lines(two, "stale") == []
    assert drawn_well(one)
    assert drawn_well(two)
    screenshot(editor, "pause", nodes2)

    editor.queue().check()
    found = faces(editor, lambda all: lines(all[ids["two"]], "anew"))
    one, two = found[ids["one"]], found[ids["two"]]
    assert lines(one, "did") == [f"stopped at step 10 of 20, seed {moved}"]
    because = f"Began anew: noise: noise_seed of RandomNoise was 7, is {moved}."
    assert lines(one, "anew") == [because]
    assert lines(two, "anew") == [f"Its state is new. DPM++ 2M: {because}"]
    assert drawn_well(one)
    assert drawn_well(two)
    screenshot(editor, "pause-anew", nodes2)
    assert editor.errors_of_pack() == []


@CANVASES
def test_what_moved_can_be_put_back_and_the_pause_is_kept(open_editor, nodes2):
    editor = open_editor(nodes2=nodes2)
    ids = editor.page.evaluate(GRAPH, ["StepwiseDPMpp2M", "StepwiseDPMpp2M", 10])
    editor.queue().check()
    faces(editor, lambda all: ids["one"] in all and lines(all[ids["one"]], "stale"))
    editor.page.evaluate(CLICK_ON_FACE, [ids["one"], "Put back and keep"])
    found = faces(editor, lambda all: not lines(all[ids["one"]], "stale"))
    assert editor.page.evaluate(VALUE, [ids["noise"], "noise_seed"]) == 7
    assert lines(found[ids["one"]], "did") == ["stopped at step 10 of 20, seed 7"]
    screenshot(editor, "put-back", nodes2)
    if nodes2:
        (mode,) = editor.page.get_by_test_id("value-control").all()
        assert "fixed" in mode.get_attribute("aria-label").lower(), "the page shows that the seed moves no more"
    ran = len(editor.frames)
    editor.queue().check()
    executing = {frame["data"]["node"] for frame in editor.frames[ran:] if frame["type"] == "executing"}
    assert ids["one"] not in executing, "the paused part ran again"
    assert editor.page.evaluate(VALUE, [ids["noise"], "noise_seed"]) == 7
    found = faces(editor)
    assert lines(found[ids["one"]], "anew") == lines(found[ids["one"]], "stale") == []
    assert drawn_well(found[ids["one"]])


@CANVASES
def test_an_input_that_changes_after_a_pause_is_named(open_editor, nodes2):
    """A widget of the node itself, one far up, and a wire; undone by hand, the warning goes."""
    editor = open_editor(nodes2=nodes2)
    ids = editor.page.evaluate(GRAPH, ["StepwiseDPMpp2M", "StepwiseDPMpp2M", 10])
    editor.page.evaluate(FIXED, ids["noise"])
    editor.queue().check()
    assert lines(faces(editor)[ids["one"]], "stale") == []
    changed = "() => app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()"
    for node, name, value, back, said in (
        ("one", "end_step", 12, 10, "The next run begins anew: end_step was 10, is 12."),
        ("karras", "rho", 5, 7, "The next run begins anew: sigmas: rho of Karras Schedule was 7, is 5."),
    ):
        for step, expected in ((value, [said]), (back, [])):
            editor.page.evaluate(SET, [ids[node], name, step])
            editor.page.evaluate(changed)
            faces(editor, lambda all, expected=expected: lines(all[ids["one"]], "stale") == expected)
    editor.page.evaluate("id => app.graph.getNodeById(id).disconnectInput(1)", ids["one"])
    editor.page.evaluate(changed)
    said = ["The next run begins anew: noise is wired otherwise."]
    faces(editor, lambda all: lines(all[ids["one"]], "stale") == said)
    assert editor.errors_of_pack() == []


@CANVASES
def test_a_part_that_goes_on_does_not_begin_anew_with_its_own_inputs(open_editor, nodes2):
    """It goes on from its state again; only what leads to the state lets the run begin anew."""
    editor = open_editor(nodes2=nodes2)
    ids = editor.page.evaluate(GRAPH, ["StepwiseDPMpp2M", "StepwiseDPMpp2M", 10])
    editor.page.evaluate(FIXED, ids["noise"])
    editor.page.evaluate(SET, [ids["two"], "end_step", 15])
    editor.queue().check()
    changed = "() => app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()"
    for node, name, value, said in (
        ("two", "end_step", 20, "The next run goes on from its state again: end_step was 15, is 20."),
        (
            "one",
            "end_step",
            12,
            "The next run begins anew: state: end_step of DPM++ 2M was 10, is 12.",
        ),
        ("one", "end_step", 10, "The next run goes on from its state again: end_step was 15, is 20."),
    ):
        editor.page.evaluate(SET, [ids[node], name, value])
        editor.page.evaluate(changed)
        faces(editor, lambda all, said=said: ids["two"] in all and lines(all[ids["two"]], "stale") == [said])
    editor.queue().check()
    went = ["went on from step 10 to 20, seed 7"]
    found = faces(editor, lambda all: lines(all[ids["two"]], "did") == went)
    assert lines(found[ids["two"]], "anew") == lines(found[ids["two"]], "stale") == []
    assert editor.errors_of_pack() == []


@CANVASES
def test_a_noise_of_another_seed_beside_a_state_is_said_once(open_editor, nodes2):
    """As after an autosave: the state has one seed, RandomNoise shows another, and the run goes on."""
    editor = open_editor(nodes2=nodes2)
    ids = editor.page.evaluate(GRAPH, ["StepwiseDPMpp2M", "StepwiseDPMpp2M", 10])
    editor.page.evaluate(
        """ids => {
            const other = LiteGraph.createNode("RandomNoise")
            app.graph.add(other)
            other.pos = [320, 500]
            other.widgets[0].value = 8
            const two = app.graph.getNodeById(ids.two)
            other.connect(0, two, two.inputs.findIndex(each => each.name === "noise"))
        }""",
        ids,
    )
    editor.queue().check()
    found = faces(editor, lambda all: ids["two"] in all)
    said = ["noise has the seed 8, and the state was made with 7, which counts."]
    assert lines(found[ids["two"]], "remark") == said
    assert lines(found[ids["two"]], "did") == ["went on from step 10 to 20, seed 7"]
    assert f"Stepwise: {said[0]}" in editor.server.log()
    screenshot(editor, "pause-seed", nodes2)


UNFINISHED = """ids => {
    const [one, two] = [ids.one, ids.two].map(id => app.graph.getNodeById(id))
    two.disconnectInput(two.inputs.findIndex(each => each.name === "state"))
    const into = (from, output, input) => from.connect(output, two, two.inputs.findIndex(each => each.name === input))
    into(one, 0, "latent_image")
    for (const [name, id] of [["noise", ids.noise], ["sigmas", ids.karras]]) into(app.graph.getNodeById(id), 0, name)
}"""
KSAMPLER = """ids => {
    const two = LiteGraph.createNode("StepwiseKSampler")
    two.pos = [960, 60]
    app.graph.add(two)
    const [one, old, decode] = [ids.one, ids.two, ids.decode].map(id => app.graph.getNodeById(id))
    const [model, digit] = ["StepwiseDigitsModel", "StepwiseDigit"].map(type => app.graph.findNodesByType(type)[0])
    const into = (from, output, input) => from.connect(output, two, two.inputs.findIndex(each => each.name === input))
    into(model, 0, "model"); into(digit, 0, "positive"); into(digit, 0, "negative"); into(one, 0, "latent_image")
    app.graph.remove(old)
    two.connect(0, decode, 0)
    return String(two.id)
}"""
FIXED = "id => { app.graph.getNodeById(id).widgets[1].value = 'fixed' }"
VALUES = """id => app.graph.getNodeById(id).widgets
    .filter(each => each.name !== "stepwise_face" && each.serialize !== false).map(each => each.value)"""


@CANVASES
@pytest.mark.parametrize("kind", ["StepwiseDPMpp2M", "StepwiseKSampler"])
def test_a_latent_that_is_not_finished_is_told_in_the_next_node(open_editor, nodes2, kind):
    editor = open_editor(nodes2=nodes2)
    ids = editor.page.evaluate(GRAPH, ["StepwiseDPMpp2M", "StepwiseDPMpp2M", 10])
    editor.page.evaluate(UNFINISHED, ids)
    if kind == "StepwiseKSampler":
        ids["two"] = editor.page.evaluate(KSAMPLER, ids)
    editor.settle()
    editor.queue().check()
    found = faces(editor, lambda all: ids["two"] in all)
    (said,) = lines(found[ids["two"]], "remark")
    assert re.match(
        r"latent_image: this picture is not finished \(step 10 of 20\) and is given noise again: wire its", said
    )
    assert drawn_well(found[ids["two"]])
    screenshot(editor, f"unfinished-{kind}", nodes2)
    assert editor.errors_of_pack() == []


@CANVASES
def test_a_face_is_nothing_that_a_workflow_keeps(open_editor, nodes2):
    """Saved and loaded, a node has its values and its size; run again, it does not grow."""
    editor = open_editor(nodes2=nodes2)
    ids = editor.page.evaluate(GRAPH, ["StepwiseDPMpp2M", None, 10])
    editor.queue().check()
    faces(editor, lambda all: ids["one"] in all and lines(all[ids["one"]], "stale"))
    sizes = []
    for _ in range(2):
        workflow = editor.page.evaluate("() => app.graph.serialize()")
        (node,) = [each for each in workflow["nodes"] if str(each["id"]) == ids["one"]]
        assert node["widgets_values"] == editor.page.evaluate(VALUES, ids["one"])
        assert "stepwise" not in workflow.get("extra", {})
        editor.page.evaluate("saved => app.loadGraphData(saved)", workflow)
        editor.settle()
        assert faces(editor) == {}
        editor.queue().check()
        faces(editor, lambda all: ids["one"] in all and lines(all[ids["one"]], "stale"))
        sizes.append(editor.page.evaluate("id => [...app.graph.getNodeById(id).size]", ids["one"]))
    assert sizes[0] == sizes[1], "a node grows with each reload"
