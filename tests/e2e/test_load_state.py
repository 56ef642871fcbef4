"""Load State in the real editor, and one click that goes on from an autosave."""

import base64
import json
import re

import pytest
from stepwise.tests.e2e.harness import run_prompt
from stepwise.tests.e2e.test_curve import CANVASES, SET
from stepwise.tests.e2e.test_pause import CLICK_ON_FACE, FIXED, GRAPH, drawn_well, faces, lines, screenshot
from stepwise.tests.e2e.test_version_0_1_0 import FIXTURES

ADD = """() => {
    const node = LiteGraph.createNode("StepwiseLoadState")
    node.pos = [300, 300]
    app.graph.add(node)
    return String(node.id)
}"""
# What a Load State shows, its box on the screen, and whether the box is what a click there meets.
SHOWN = """id => {
    const node = app.graph.getNodeById(id)
    const [file, summary] = ["file", "stepwise_summary"].map(name => node.widgets.find(each => each.name === name))
    const element = summary.element.querySelector(".lines")
    const box = element.getBoundingClientRect()
    const top = document.elementFromPoint(box.x + box.width / 2, box.y + 10)
    return { file: file.value, values: [...file.options.values], text: element.textContent,
        error: element.classList.contains("error"), onTop: element.contains(top), width: box.width,
        whole: element.scrollHeight <= element.clientHeight + 2 }
}"""
DROP_ON_NODE = """([id, name, content]) => {
    const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0))
    const dataTransfer = new DataTransfer()
    dataTransfer.items.add(new File([bytes], name))
    const node = app.graph.getNodeById(id)
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + 60, node.pos[1] - 12])
    const canvas = document.getElementById("graph-canvas").getBoundingClientRect()
    const place = { clientX: canvas.left + x, clientY: canvas.top + y }
    const target = document.elementFromPoint(place.clientX, place.clientY)
    for (const kind of ["dragenter", "dragover", "drop"])
        target.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true, ...place }))
}"""
MENU = "Go on from the autosave"


def shown(editor, node, condition=lambda one: True, patience=15.0):
    """What a Load State shows, once it meets `condition`."""
    for _ in range(int(patience / 0.05)):
        found = editor.page.evaluate(SHOWN, node)
        if condition(found):
            return found
        editor.page.wait_for_timeout(50)
    raise AssertionError(f"no such Load State: {found}")


@pytest.fixture
def no_states(server):
    """The server's folders without a state in them."""
    for folder in (server.output, server.output.parent / "input"):
        for file in folder.rglob("*.safetensors"):
            file.unlink()


@CANVASES
def test_load_state_from_nothing_to_a_chosen_file(open_editor, nodes2, server, no_states):
    """Empty, a state dropped on it, one that is none, a newer one, an older one chosen by hand."""
    editor = open_editor(nodes2=nodes2)
    node = editor.page.evaluate(ADD)
    found = shown(editor, node, lambda one: one["text"])
    assert found["file"] == "no state saved yet"
    assert found["text"] == "Save one with Save State or autosave_every, upload one, or drop its file here."
    assert not found["error"]
    editor.page.wait_for_timeout(300)
    assert "undefined" not in editor.page.evaluate("id => document.body.innerText", node)
    screenshot(editor, "load-state-empty", nodes2)

    data = (FIXTURES / "digits.safetensors").read_bytes()
    editor.page.evaluate(DROP_ON_NODE, [node, "mine.safetensors", base64.b64encode(data).decode()])
    found = shown(editor, node, lambda one: "step" in one["text"])
    assert found["file"] == "stepwise/mine.safetensors [input]"
    assert (server.output.parent / "input" / "stepwise" / "mine.safetensors").read_bytes() == data
    first, second, third, fourth = found["text"].splitlines()
    assert re.fullmatch(r".+, step 3 of 6", first)
    assert re.fullmatch(r"latent 2x1x8x8, seeds \d+, \d+", second)
    assert third.startswith("model ")
    assert re.fullmatch(r"saved \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, \d\.\d\d MiB", fourth)
    assert found["onTop"]
    assert found["whole"]
    assert found["width"] > 200
    screenshot(editor, "load-state", nodes2)

    editor.page.evaluate(
        DROP_ON_NODE, [node, "model.safetensors", base64.b64encode(b"\x02" + b"\0" * 7 + b"{}").decode()]
    )
    found = shown(editor, node, lambda one: one["error"])
    assert found["text"] == ("model.safetensors is not uploaded: it is a safetensors file, but no state of Stepwise.")
    assert found["file"] == "stepwise/mine.safetensors [input]"
    assert not (server.output.parent / "input" / "stepwise" / "model.safetensors").exists()

    (server.output / "newer.safetensors").write_bytes(data)
    editor.page.evaluate(
        """id => [...app.graph.getNodeById(id).widgets.find(each => each.name === "stepwise_summary").element
            .querySelectorAll("button")].find(each => each.textContent === "Refresh").click()""",
        node,
    )
    found = shown(editor, node, lambda one: len(one["values"]) == 2)
    assert found["values"] == ["newer.safetensors [output]", "stepwise/mine.safetensors [input]"]
    assert found["file"] == "stepwise/mine.safetensors [input]", "what was chosen stays"
    other = editor.page.evaluate(ADD)
    assert shown(editor, other, lambda one: "step" in one["text"])["file"] == "newer.safetensors [output]"
    editor.page.evaluate(SET, [other, "file", "stepwise/mine.safetensors [input]"])
    (server.output / "newer.safetensors").unlink()
    editor.page.evaluate(SET, [other, "file", "newer.safetensors [output]"])
    found = shown(editor, other, lambda one: one["error"])
    assert "there is no such file" in found["text"]

    workflow = editor.page.evaluate("() => app.graph.serialize()")
    assert [each["widgets_values"] for each in workflow["nodes"]] == [
        ["stepwise/mine.safetensors [input]", False],
        ["newer.safetensors [output]", False],
    ]
    for each in workflow["nodes"]:
        # As it was saved before there was a warm_up.
        del each["widgets_values"][1:]
    editor.page.evaluate("saved => app.loadGraphData(saved)", workflow)
    assert shown(editor, node, lambda one: "step" in one["text"])["file"] == "stepwise/mine.safetensors [input]"
    assert editor.errors_of_pack() == []


def test_a_file_that_is_missing_or_wrong_is_answered_in_words(server, no_states):
    """Over HTTP, where no list has been looked at."""
    prompt = {
        "1": {"class_type": "StepwiseLoadState", "inputs": {}},
        "2": {"class_type": "StepwiseInspectState", "inputs": {"state": ["1", 0]}},
    }
    for file, said in (
        (None, "Required input is missing"),
        (
            "no state saved yet",
            "Load State: file is 'no state saved yet', which names no state. Save one with Save State",
        ),
        ("gone.safetensors", "Load State: file is 'gone.safetensors', and there is no such file."),
        ("../x", "Load State: file is '../x', which is not in ComfyUI's output or input folder."),
        (7, "Load State: file is 7, which is no name."),
        ({"a": 1}, "Load State: file is "),
    ):
        prompt["1"]["inputs"] = {} if file is None else {"file": file}
        result = run_prompt(server, prompt)
        told = json.dumps([result.error, result.node_errors], ensure_ascii=False)
        assert said in told, told
        assert "Traceback" not in told
        assert "argument" not in told, told
    (server.output / "model.safetensors").write_bytes(b"\x02" + b"\0" * 7 + b"{}")
    prompt["1"]["inputs"] = {"file": "model.safetensors"}
    told = run_prompt(server, prompt).error["exception_message"]
    assert "Load State: file 'model.safetensors' is a safetensors file, but no state" in told


STEPS = 150  # enough for a person to press Cancel in the middle
LONG = """([id, karras, steps, every]) => {
    const set = (node, name, value) => { node.widgets.find(each => each.name === name).value = value }
    const one = app.graph.getNodeById(id)
    set(one, "end_step", 10000)
    set(one, "autosave_every", every)
    set(app.graph.getNodeById(karras), "steps", steps)
}"""


def cancelled(editor, ids, steps):
    """A long run that a person cancels once it has begun; what the node then says."""
    editor.page.evaluate(FIXED, ids["noise"])
    editor.page.evaluate(LONG, [ids["one"], ids["karras"], steps, 10000])
    seen = len(editor.frames)
    editor.page.get_by_test_id("queue-button").click()
    for _ in range(600):
        done = [each["data"] for each in editor.frames[seen:] if each["type"] == "progress"]
        if any(each["value"] >= 3 for each in done):
            break
        editor.page.wait_for_timeout(50)
    editor.server.post("/interrupt", {})
    found = faces(editor, lambda all: ids["one"] in all and lines(all[ids["one"]], "saved"), 30.0)
    return found[ids["one"]]


@CANVASES
def test_cancel_and_go_on_with_one_click(open_editor, nodes2, server, no_states):
    """The node says where it was saved; a click places and wires Load State; the run goes on to its end.

    Nothing is said any more of the pause that was before.
    """
    editor = open_editor(nodes2=nodes2)
    ids = editor.page.evaluate(GRAPH, ["StepwiseDPMpp2M", None, 2])
    editor.page.evaluate("id => { app.graph.getNodeById(id).title = 'portrait run' }", ids["one"])
    editor.page.evaluate(FIXED, ids["noise"])
    editor.queue().check()
    faces(editor, lambda all: ids["one"] in all)
    face = cancelled(editor, ids, STEPS)
    assert lines(face, "stale") == []
    (said,) = lines(face, "saved")
    told = re.fullmatch(
        rf"saved at step (\d+) of {STEPS}: (stepwise/autosave_(.+)_portrait-run_(.+)_\w{{12}}\.safetensors) \[output\]",
        said,
    )
    assert told, said
    step, name = int(told[1]), told[2]
    workflow = editor.page.evaluate("() => app.extensionManager.workflow.activeWorkflow.filename")
    assert told[3] == re.sub(r"[^\w.+-]+", "-", workflow).strip("-._")
    assert told[4] == ids["one"]
    assert (server.output / name).is_file()
    assert f"Stepwise: saved at step {step} of {STEPS}: {name} [output]" in server.log()
    assert drawn_well(face)
    screenshot(editor, "cancelled", nodes2)

    editor.page.evaluate(TO_THE_CORNER, ids["one"])
    editor.page.evaluate(CLICK_ON_FACE, [ids["one"], "Go on from it"])
    loader = wired_loader(editor, ids["one"])
    assert editor.page.evaluate(IN_SIGHT, loader)
    found = shown(editor, loader, lambda one: "step" in one["text"])
    assert found["file"] == f"{name} [output]"
    assert f"step {step} of {STEPS}" in found["text"]
    screenshot(editor, "go-on", nodes2)
    editor.queue().check()
    found = faces(editor, lambda all: ids["one"] in all and lines(all[ids["one"]], "did"))
    assert lines(found[ids["one"]], "did") == [f"went on from step {step} to {STEPS}, seed 7"]
    assert lines(found[ids["one"]], "anew") == []
    assert editor.errors_of_pack() == []
    # Another state in the place of the one that it names, as a run with autosaves leaves it there.
    (server.output / name).write_bytes((FIXTURES / "digits.safetensors").read_bytes())
    editor.queue()
    assert shown(editor, loader, lambda one: "step 3 of 6" in one["text"])["file"] == f"{name} [output]"


WIRED = """id => {
    const node = app.graph.getNodeById(id)
    const from = node.getInputNode(node.inputs.findIndex(each => each.name === "state"))
    return from?.type === "StepwiseLoadState" ? String(from.id) : ""
}"""
TO_THE_CORNER = """id => {
    const { ds, canvas } = app.canvas
    const { pos, size } = app.graph.getNodeById(id)
    ds.offset[0] = 80 - pos[0]
    ds.offset[1] = canvas.getBoundingClientRect().height / ds.scale - pos[1] - size[1] - 20
    app.canvas.setDirty(true, true)
}"""
IN_SIGHT = """id => {
    const node = app.graph.getNodeById(id)
    const { ds, canvas } = app.canvas
    const box = canvas.getBoundingClientRect()
    const [left, top] = ds.convertOffsetToCanvas([node.pos[0], node.pos[1] - 30])
    const [right, bottom] = ds.convertOffsetToCanvas([node.pos[0] + node.size[0], node.pos[1] + node.size[1]])
    return left > 0 && top > 0 && right < box.width && bottom < box.height
}"""
OVERLAPS = """() => app.graph.nodes.flatMap((one, i) => app.graph.nodes.slice(i + 1).filter(two =>
    one.pos[0] < two.pos[0] + two.size[0] && two.pos[0] < one.pos[0] + one.size[0] &&
    one.pos[1] - 30 < two.pos[1] + two.size[1] && two.pos[1] - 30 < one.pos[1] + one.size[1])
    .map(two => [one.type, two.type])).filter(pair => pair.includes("StepwiseLoadState"))"""
TITLE = """id => {
    const node = app.graph.getNodeById(id)
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + 70, node.pos[1] - 14])
    const box = document.getElementById("graph-canvas").getBoundingClientRect()
    return [box.left + x, box.top + y]
}"""


def wired_loader(editor, node, patience=10.0):
    for _ in range(int(patience / 0.05)):
        if found := editor.page.evaluate(WIRED, node):
            assert editor.page.evaluate(OVERLAPS) == []
            return found
        editor.page.wait_for_timeout(50)
    raise AssertionError("no Load State is wired")


@CANVASES
def test_the_context_menu_goes_on_from_the_autosave_on_disk(open_editor, nodes2, server, no_states):
    """In a page that knows nothing of the run: the newest file of this node is found by its names."""
    editor = open_editor(nodes2=nodes2)
    ids = editor.page.evaluate(GRAPH, ["StepwiseDPMpp2M", None, 10000])
    editor.page.evaluate(FIXED, ids["noise"])
    editor.page.evaluate(LONG, [ids["one"], ids["karras"], 9 if nodes2 else 8, 2])  # not from the cache
    editor.queue().check()
    (file,) = (server.output / "stepwise").glob("autosave_*.safetensors")
    editor.settle()
    editor.page.mouse.click(*editor.page.evaluate(TITLE, ids["one"]), button="right")
    entry = editor.page.get_by_text(MENU, exact=True)
    entry.wait_for(state="visible", timeout=10_000)
    screenshot(editor, "menu", nodes2)
    entry.click()
    loader = wired_loader(editor, ids["one"])
    assert shown(editor, loader, lambda one: "step" in one["text"])["file"] == f"stepwise/{file.name} [output]"
    undone = "() => app.extensionManager.command.execute('Comfy.Undo')"
    editor.page.evaluate(undone)
    editor.settle()
    assert editor.page.evaluate(WIRED, ids["one"]) == ""
    assert editor.errors_of_pack() == []
