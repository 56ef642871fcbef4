"""Every example, as a person finds it: opened, legible, nothing over anything else, and run, in both canvases.

    python3 dev.py test -s tests/e2e/examples_on_page.py

prints how large the letters of each are.

It takes too long to be run every time: run it after `python -m tools.generate.workflows --measure`.
"""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from stepwise.tests.e2e.harness import Editor, is_drawn, picture, run_prompt
from stepwise.tools.generate.on_page import ROOMS, SEEN, SHORTER, WATCH

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "example_workflows"
SCREENSHOTS = ROOT / ".dev" / "screenshots" / "examples"
CHECKPOINT = "DPM++ 2M Karras on a Stable Diffusion checkpoint"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.json"))
# Below 8 pixels the classic canvas leaves text out; a group's title is to be read at a glance.
TITLE, SMALLEST, GROUP_TITLE = 14, 8, 12
SENT = "async () => JSON.stringify((await app.graphToPrompt()).output)"
GROUPS = "() => app.graph.groups.map(group => [group.title, group.font_size, ...group.boundingRect])"
ZOOM = "() => app.canvas.ds.scale"
# The page moves to its new place over many frames.
STILL = """async () => {
    for (let [before, frames] = ['', 0]; frames < 20; ) {
        await new Promise(requestAnimationFrame)
        const now = JSON.stringify([app.canvas.ds.scale, ...app.canvas.ds.offset])
        frames = now === before ? frames + 1 : 0
        before = now
    }
}"""
PREVIEWS = "method => app.extensionManager.setting.set('Comfy.Execution.PreviewMethod', method)"
# The note as it is drawn: what does not fit, and the height of its letters on the screen.
NOTE = """() => [...document.querySelectorAll('.comfy-markdown .tiptap, .comfy-markdown-content')].map(box => {
    const zoom = box.getBoundingClientRect().width / box.offsetWidth
    const letters = [...box.children].map(text => zoom * parseFloat(getComputedStyle(text).fontSize))
    return [box.scrollHeight - box.clientHeight, Math.min(...letters)]
})"""


def api_of(name):
    """The prompt that the example is for headless runs: the one with the same nodes."""
    nodes = {str(node["id"]): node["type"] for node in example(name)["nodes"] if node["mode"] == 0}
    for path in (EXAMPLES / "api").glob("*.json"):
        prompt = json.loads(path.read_text(encoding="utf-8"))
        kinds = {number: node["class_type"] for number, node in prompt.items()}
        if kinds == {number: kind for number, kind in nodes.items() if kind != "MarkdownNote"}:
            return prompt
    raise AssertionError(f"{name} has no twin for headless runs")


def example(name):
    return json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))


def overlap(a, b):
    """How far two rectangles lie over each other, in both directions."""
    return min(min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]) for i in (0, 1))


@pytest.fixture(scope="module", params=[False, True], ids=["classic", "nodes2"])
def page(request, server, browser):
    """One page for all examples, with a preview at every step."""
    server.post("/settings", {"Comfy.VueNodes.Enabled": request.param, "Comfy.Locale": "en"})
    editor = Editor(browser.new_context(viewport={"width": 1600, "height": 900}).new_page(), server)
    editor.open()
    editor.page.evaluate(PREVIEWS, "latent2rgb")
    yield editor, "nodes2" if request.param else "classic"
    editor.page.evaluate(PREVIEWS, "default")
    editor.page.context.close()


def rooms_of(editor):
    return {each["id"]: each for each in editor.page.evaluate(ROOMS)}


def faults_of_layout(editor, name, rooms):
    """What lies over what, and what stands outside of its group."""
    titles = {number: f"{each['title']} ({number})" for number, each in rooms.items()}
    found = [
        f"{titles[a]} lies over {titles[b]}"
        for a, b in combinations(rooms, 2)
        if overlap(rooms[a]["room"], rooms[b]["room"]) > 1
    ]
    groups = editor.page.evaluate(GROUPS)
    notes = {str(node["id"]) for node in example(name)["nodes"] if node["type"] == "MarkdownNote"}
    for number in (number for number in rooms if str(number) not in notes):
        x, y, width, height = rooms[number]["room"]
        inside = [
            title
            for title, _, left, top, wide, high in groups
            if left <= x + 1 and top <= y + 1 and x + width <= left + wide + 1 and y + height <= top + high + 1
        ]
        if len(inside) != 1:
            found.append(f"{titles[number]} stands in {inside or 'no group'}")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_example_as_it_opens_and_runs(page, server, name):
    editor, canvas = page
    editor.drop(EXAMPLES / f"{name}.json")
    assert editor.missing_nodes() == set()
    sent = json.loads(editor.page.evaluate(SENT))
    prompt = api_of(name)
    assert {number: node["inputs"] for number, node in sent.items()} == {
        number: node["inputs"] for number, node in prompt.items()
    }
    dropped = editor.page.evaluate(ZOOM)
    editor.command("Comfy.Canvas.FitView")
    editor.page.evaluate(STILL)
    fitted = editor.page.evaluate(ZOOM)
    notes = editor.page.evaluate(NOTE)
    assert notes
    smallest = min(min(dropped, fitted) * TITLE, *(letters for _, letters in notes))
    print(f"{name}, {canvas}: zoom {dropped:.2f} dropped, {fitted:.2f} fitted, letters {smallest:.1f} pixels")
    for zoom in (dropped, fitted):
        assert zoom * TITLE >= SMALLEST
        assert min(size * zoom for _, size, *_ in editor.page.evaluate(GROUPS)) >= GROUP_TITLE
    assert all(hidden <= 2 and letters >= SMALLEST for hidden, letters in notes), notes

    before = rooms_of(editor)
    assert faults_of_layout(editor, name, before) == []
    if name == CHECKPOINT:
        result = editor.queue()
        faults = [error["type"] for node in result.node_errors.values() for error in node["errors"]]
        assert faults == ["value_not_in_list"]
        return
    editor.page.evaluate(WATCH, ROOMS)
    if canvas == "nodes2":
        editor.page.evaluate(SHORTER)
    result = editor.queue(patience=600).check()
    largest = editor.page.evaluate(SEEN)
    editor.screenshot(SCREENSHOTS / f"{name}-{canvas}.png")
    after = rooms_of(editor)
    for number, each in after.items():
        each["room"][2:] = (max(two) for two in zip(each["room"][2:], largest[str(number)], strict=True))
    assert faults_of_layout(editor, name, after) == []
    assert editor.errors_of_pack() == []
    made = pictures(server, result)
    assert made
    assert all(is_drawn(pixels) for pixels in made)
    if canvas == "classic":
        # Nothing from the cache.
        server.post("/free", {"unload_models": False, "free_memory": True})
        headless = pictures(server, run_prompt(server, prompt, patience=600).check())
        assert len(headless) == len(made)
        assert all(np.array_equal(here, there) for here, there in zip(made, headless, strict=True))


def pictures(server, result):
    """By node: which of two that wait for nothing runs first is left to the host."""
    files = [file for _, output in sorted(result.outputs.items()) for file in output.get("images", [])]
    return [np.asarray(picture(server, file).convert("RGB")) for file in files]


def test_a_template_opens_at_the_zoom_that_is_checked(open_editor):
    """The template browser fits a workflow as the command Fit View does."""
    editor = open_editor()
    name = "Fork one run into four guidances"
    editor.drop(EXAMPLES / f"{name}.json")
    editor.command("Comfy.Canvas.FitView")
    editor.page.evaluate(STILL)
    fitted = editor.page.evaluate(ZOOM)
    editor.new_workflow()
    editor.command("Comfy.BrowseTemplates")
    editor.page.get_by_text("stepwise", exact=True).first.click()
    editor.page.get_by_test_id(f"template-workflow-{name}").click()
    editor.page.wait_for_function("app.rootGraph.nodes.length > 20")
    editor.page.evaluate(STILL)
    assert editor.page.evaluate(ZOOM) == pytest.approx(fitted, rel=0.1)
