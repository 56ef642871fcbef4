"""A workflow converted in the editor: from both menus, with a report, in one step of undo; and ComfyUI's templates."""

import json
from pathlib import Path

import numpy as np
import pytest
from stepwise.benchmarks.convert_page import LOAD, PROMPT, SAVED, chosen, differences
from stepwise.convert import converted
from stepwise.tests.e2e.harness import Editor, picture
from stepwise.tests.e2e.test_curve import CANVASES, SCREENSHOTS
from stepwise.tests.e2e.test_load_state import TITLE

EXAMPLE = Path(__file__).resolve().parents[2] / "example_workflows" / "api" / "ksampler.json"
COUNT = 20
TABS = "() => app.extensionManager.workflow.openWorkflows.length"
TYPES = "() => Object.fromEntries(app.rootGraph.nodes.map(node => [node.type, String(node.id)]))"
FIXED = """() => {
    const node = app.graph.nodes.find(node => node.type === "KSampler")
    node.widgets.find(widget => widget.name === "control_after_generate").value = "fixed"
}"""
CONVERT = "() => app.extensionManager.command.execute('Stepwise.Convert')"
PANEL = ".stepwise-report"


def core_workflow(tmp_path, **changes):
    """The example with KSampler in the place of ours, in the API's form."""
    ours = json.loads(EXAMPLE.read_text())
    (number,) = (key for key, node in ours.items() if node["class_type"] == "StepwiseKSampler")
    inputs = {name: value for name, value in ours[number]["inputs"].items() if not name.startswith("solver.")}
    ours[number]["inputs"] = {**inputs, "solver": "Euler", "steps": 6, **changes}
    made, report = converted(ours, back=True)
    assert not report.left, report.text()
    file = tmp_path / "core.json"
    file.write_text(json.dumps(made))
    return file


def shot(editor, name, nodes2):
    editor.page.wait_for_timeout(300)
    editor.screenshot(SCREENSHOTS / f"convert-{name}-{'nodes2' if nodes2 else 'classic'}.png")


def report_of(editor):
    panel = editor.page.locator(PANEL)
    panel.wait_for(state="visible", timeout=20_000)
    editor.settle()
    return panel.inner_text()


def without_place(saved):
    """A saved graph but for what the page changes by drawing it."""
    return {name: value for name, value in saved.items() if name not in ("extra", "revision", "id")}


def differing(one, other, path=""):
    """Where two values of JSON differ."""
    if type(one) is type(other) and isinstance(one, dict):
        return [each for key in {**one, **other} for each in differing(one.get(key), other.get(key), f"{path}.{key}")]
    if type(one) is type(other) and isinstance(one, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [each for i, (a, b) in pairs for each in differing(a, b, f"{path}[{i}]")]
    return [] if one == other else [f"{path}: {one!r}, {other!r}"]


@CANVASES
def test_the_menu_converts_and_undo_brings_back_exactly(open_editor, server, nodes2, tmp_path):
    editor = open_editor(nodes2=nodes2)
    editor.drop(core_workflow(tmp_path))
    editor.page.evaluate(FIXED)
    editor.page.evaluate(LOAD, editor.page.evaluate(SAVED))
    editor.settle()
    tabs = editor.page.evaluate(TABS)
    theirs = np.asarray(picture(server, editor.queue().check().files()[0]), dtype=float)
    before = editor.page.evaluate(SAVED)
    shot(editor, "before", nodes2)
    editor.page.locator(".comfy-menu-button-wrapper, .comfyui-logo").first.click()
    editor.page.get_by_text("Edit", exact=True).first.hover()
    entry = editor.page.get_by_text("Stepwise: convert this workflow", exact=True)
    entry.wait_for(state="visible", timeout=10_000)
    shot(editor, "menu", nodes2)
    entry.click()
    said = report_of(editor)
    assert "1 same picture" in said
    assert "KSampler → KSampler (Stepwise)" in said
    shot(editor, "panel", nodes2)
    types = editor.page.evaluate(TYPES)
    assert "StepwiseKSampler" in types
    assert "KSampler" not in types
    editor.page.locator(PANEL).get_by_role("button", name="Close").click()
    shot(editor, "after", nodes2)
    assert editor.page.evaluate(TABS) == tabs
    editor.command("Comfy.Undo")
    editor.settle()
    found = differing(without_place(editor.page.evaluate(SAVED)), without_place(before))
    # Nodes 2.0 measures a node that it draws anew.
    assert [each for each in found if not (nodes2 and ".size[" in each)] == []
    assert editor.page.evaluate(TABS) == tabs
    shot(editor, "undone", nodes2)
    editor.command("Comfy.Redo")
    assert "StepwiseKSampler" in editor.page.evaluate(TYPES)
    ours = np.asarray(picture(server, editor.queue().check().files()[0]), dtype=float)
    assert np.abs(ours - theirs).max() <= 1
    assert theirs.std() > 20
    assert editor.errors_of_pack() == []


@CANVASES
def test_one_node_from_its_context_menu_and_back(open_editor, nodes2, tmp_path):
    editor = open_editor(nodes2=nodes2)
    editor.drop(core_workflow(tmp_path, seed=99))
    editor.settle()
    prompt = editor.page.evaluate(PROMPT)
    for content, kind in (("Convert to Stepwise", "StepwiseKSampler"), ("Convert to ComfyUI's node", "KSampler")):
        (number,) = (each for name, each in editor.page.evaluate(TYPES).items() if "KSampler" in name)
        editor.page.evaluate("id => app.canvas.centerOnNode(app.graph.getNodeById(id))", number)
        editor.settle()
        editor.page.mouse.click(*editor.page.evaluate(TITLE, number), button="right")
        entry = editor.page.get_by_text(content, exact=True)
        entry.wait_for(state="visible", timeout=10_000)
        shot(editor, "node-menu" if kind.startswith("Stepwise") else "node-menu-back", nodes2)
        entry.click()
        report_of(editor)
        editor.page.locator(PANEL).get_by_role("button", name="Close").click()
        assert editor.page.evaluate(TYPES)[kind] == number
    now = editor.page.evaluate(PROMPT)
    assert {key: node["inputs"] for key, node in now.items()} == {key: node["inputs"] for key, node in prompt.items()}
    assert editor.errors_of_pack() == []


def with_sampler(tmp_path, kind, **inputs):
    """The example with Sampler Custom Advanced, whose SAMPLER another node has too; in the API's form."""
    graph = json.loads(core_workflow(tmp_path).read_text())
    (number,) = (key for key, node in graph.items() if node["class_type"] == "KSampler")
    had = graph[number]["inputs"]
    wires = {name: [node, 0] for name, node in (("noise", "21"), ("guider", "22"), ("sampler", "23"), ("sigmas", "24"))}
    for key, made, given in (
        ("21", "RandomNoise", {"noise_seed": 3}),
        ("22", "BasicGuider", {"model": had["model"], "conditioning": had["positive"]}),
        ("23", kind, inputs),
        ("24", "BasicScheduler", {"model": had["model"], "scheduler": "simple", "steps": 4, "denoise": 1.0}),
        (number, "SamplerCustomAdvanced", {**wires, "latent_image": had["latent_image"]}),
    ):
        graph[key] = {"class_type": made, "inputs": given}
    file = tmp_path / "sampler.json"
    file.write_text(json.dumps(graph))
    return file


@CANVASES
@pytest.mark.parametrize(
    ("kind", "given", "ours"),
    [
        ("KSamplerSelect", {"sampler_name": "heun"}, "StepwiseHeunSampler"),
        ("SamplerLMS", {"order": 3}, "StepwiseLMSSampler"),
    ],
    ids=["by name", "with settings"],
)
def test_a_node_that_makes_a_sampler_from_its_context_menu_and_back(open_editor, nodes2, kind, given, ours, tmp_path):
    editor = open_editor(nodes2=nodes2)
    editor.drop(with_sampler(tmp_path, kind, **given))
    editor.settle()
    prompt = editor.page.evaluate(PROMPT)
    for content, made in (("Convert to Stepwise", ours), ("Convert to ComfyUI's node", kind)):
        editor.page.evaluate("id => app.canvas.centerOnNode(app.graph.getNodeById(id))", "23")
        editor.settle()
        editor.page.mouse.click(*editor.page.evaluate(TITLE, "23"), button="right")
        entry = editor.page.get_by_text(content, exact=True)
        entry.wait_for(state="visible", timeout=10_000)
        shot(editor, f"{kind}-menu" if made == ours else f"{kind}-menu-back", nodes2)
        entry.click()
        assert "node 23" in report_of(editor)
        shot(editor, kind if made == ours else f"{kind}-back", nodes2)
        editor.page.locator(PANEL).get_by_role("button", name="Close").click()
        assert editor.page.evaluate(TYPES)[made] == "23"
    assert differing(editor.page.evaluate(PROMPT), prompt) == []
    assert editor.errors_of_pack() == []


def test_what_cannot_be_converted_is_told_and_nothing_changes(open_editor, tmp_path):
    editor = open_editor()
    file = core_workflow(tmp_path)
    graph = json.loads(file.read_text())
    (number,) = (key for key, node in graph.items() if node["class_type"] == "KSampler")
    graph[number]["inputs"]["sampler_name"] = "heunpp2"
    file.write_text(json.dumps(graph))
    editor.drop(file)
    before = editor.page.evaluate(SAVED)
    editor.page.evaluate(CONVERT)
    said = report_of(editor)
    assert "left: heunpp2: no solver of Stepwise takes its steps." in said
    assert "Undo" not in said
    assert differing(without_place(editor.page.evaluate(SAVED)), without_place(before)) == []


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"workflow": {"nodes": [3]}}, 400, "The workflow: nodes[0] has no type."),
        ({"workflow": []}, 400, "A question is an object with a workflow"),
        ({"workflow": {}, "file": "/etc/passwd"}, 400, "A question is an object with a workflow, and nothing but"),
        ({"workflow": {"nodes": []}, "only": ["a"]}, 400, "only is a list of pairs"),
        ({"workflow": {"nodes": []}, "back": 1}, 400, "back and join are true or false."),
    ],
)
def test_the_route_refuses_in_words(server, body, status, said):
    answered, told = server.post("/stepwise/convert", body)
    assert answered == status
    assert told["error"].startswith(said)


@pytest.fixture(scope="module")
def template_page(server, browser):
    server.post("/settings", {"Comfy.VueNodes.Enabled": False, "Comfy.Locale": "en"})
    editor = Editor(browser.new_context(viewport={"width": 1600, "height": 900}).new_page(), server)
    editor.open()
    editor.new_workflow()
    yield editor
    editor.page.context.close()


@pytest.mark.parametrize(("name", "graph"), chosen(COUNT), ids=lambda each: each if isinstance(each, str) else "")
def test_a_template_on_the_page_is_what_its_prompt_becomes(template_page, server, name, graph):
    """No node is missing that was not, every link is there, the editor's form and the API's agree, and the server finds
    no new fault."""
    assert differences(template_page.page, server.post, graph) == []
    assert template_page.errors_of_pack() == []
