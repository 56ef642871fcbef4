"""Subgraph blueprints of the pack: found by the page's search, with the widgets that people set, and they run."""

import json
from pathlib import Path

import numpy as np
from stepwise.tests.e2e.drawn import drawn
from stepwise.tests.e2e.harness import picture
from stepwise.tests.e2e.test_curve import CANVASES, SCREENSHOTS

FOLDER = Path(__file__).resolve().parents[2] / "subgraphs"
# Of each blueprint, the widgets that are seen on its node.
WIDGETS = {
    "Text to Image (Stepwise)": ["width", "height", "batch_size", "seed", "steps", "cfg"],
    "Image to Image (Stepwise)": ["seed", "steps", "cfg", "denoise"],
    "Inpaint (Stepwise)": ["seed", "steps", "cfg", "denoise"],
    "Two Experts with a Hand-over (Stepwise)": ["seed", "steps", "cfg_high", "cfg_low", "hand_over_step"],
    "Two-stage Upscale (Stepwise)": ["width", "height", "seed", "steps", "cfg", "scale_by", "denoise"],
    "Pause and Resume (Stepwise)": ["seed", "steps", "cfg", "pause_step"],
}
# Gives the blueprint's node what its sockets ask for, small and short, and shows every picture that it makes.
WIRE = """() => {
    const graph = app.graph
    const host = graph.nodes.find(node => node.subgraph)
    host.pos = [360, 60]
    const add = (type, x, y, values = {}) => {
        const node = LiteGraph.createNode(type)
        node.pos = [x, y]
        graph.add(node)
        for (const [name, value] of Object.entries(values)) node.widgets.find(each => each.name === name).value = value
        return node
    }
    const size = { width: 64, height: 64 }
    const model = add("StepwiseDigitsModel", 20, 60)
    const digit = add("StepwiseDigit", 20, 220, { labels: "3" })
    const latent = add("EmptyLatentImage", 20, 360, size)
    const image = add("EmptyImage", 20, 540, { ...size, color: 8421504 })
    const mask = add("SolidMask", 20, 760, size)
    const from = { model: [model, 0], model_high: [model, 0], model_low: [model, 0], vae: [model, 1],
        positive: [digit, 0], negative: [digit, 0], latent_image: [latent, 0], image: [image, 0], mask: [mask, 0] }
    for (const [i, input] of host.inputs.entries())
        if (from[input.name]) from[input.name][0].connect(from[input.name][1], host, i)
        else if (!input.widget) throw new Error(`nothing for ${input.name}`)
    for (const widget of host.widgets) {
        const small = { width: 64, height: 64, steps: 6, hand_over_step: 3, pause_step: 3 }[widget.name]
        if (small) widget.value = small
    }
    for (const [i, output] of host.outputs.entries())
        if (output.type === "IMAGE") host.connect(i, add("PreviewImage", 760, 60 + 320 * i), 0)
    return [host.id, host.widgets.map(each => each.name)]
}"""


def test_each_is_one_subgraph_of_its_name():
    assert {file.stem for file in FOLDER.glob("*.json")} == set(WIDGETS)
    for file in FOLDER.glob("*.json"):
        saved = json.loads(file.read_text(encoding="utf-8"))
        (node,), (subgraph,) = saved["nodes"], saved["definitions"]["subgraphs"]
        assert node["type"] == subgraph["id"]
        assert subgraph["name"] == node["title"] == file.stem


@CANVASES
def test_each_is_found_and_runs(open_editor, server, nodes2):
    editor = open_editor(nodes2=nodes2)
    for name, widgets in WIDGETS.items():
        editor.new_workflow()
        editor.page.mouse.dblclick(1300, 700)
        editor.page.locator("input:focus").fill(name)
        editor.page.locator("[data-testid=result-item]").filter(has_text=name).first.click()
        editor.page.wait_for_function("app.graph.nodes.some(node => node.subgraph)")
        host, promoted = editor.page.evaluate(WIRE)
        assert promoted == widgets, name
        assert set(widgets) <= set(drawn(editor, host, nodes2)), name
        assert editor.missing_nodes() == set(), name
        files = editor.queue().check().files()
        pictures = [np.asarray(picture(server, file).convert("L"), dtype=float) for file in files]
        assert len(pictures) == 1 + name.startswith("Pause"), name
        assert all(each.std() > 20 for each in pictures), name
        assert pictures[0].shape == ((128, 128) if "Upscale" in name else (64, 64)), name
        stem = name.split(" (")[0].lower().replace(" ", "-")
        editor.screenshot(SCREENSHOTS / f"blueprint-{stem}-{'nodes2' if nodes2 else 'classic'}.png")
    assert editor.errors_of_pack() == []
