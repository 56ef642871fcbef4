"""Examples on the real page: how large their nodes are there, and the pictures that they make."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from ..environment.browser import find_browser
from ..environment.folders import DEV, program
from ..environment.server import Server

# The page without tours and panels, and with a preview at every step.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.Persist": False,
    "Comfy.Workflow.AutoSave": "off",
    "Comfy.Window.UnloadConfirmation": False,
    "Comfy.RightSidePanel.IsOpen": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Appearance.DisableAnimations": True,
    "Comfy.Execution.PreviewMethod": "latent2rgb",
}
THUMBNAIL, GROUND = (640, 360), (24, 24, 27)
WINDOW = {"width": 1600, "height": 900}
READY = "window.app?.vueAppReady && !app.extensionManager.spinner && app.canvas?.graph"
# What every node takes up on the canvas, its title included: as the page has drawn it, in the canvas's own units.
ROOMS = """() => app.graph.nodes.map(node => {
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect()
    const { scale, offset } = app.canvas.ds
    const canvas = app.canvas.canvas.getBoundingClientRect()
    const [x, y, width, height] = drawn
        ? [(drawn.x - canvas.x) / scale - offset[0], (drawn.y - canvas.y) / scale - offset[1],
           drawn.width / scale, drawn.height / scale]
        : [...node.boundingRect]
    return { id: node.id, title: node.title, size: [...node.size], room: [x, y, width, height] }
})"""
# Collects the largest room of each node while a run is going on.
WATCH = """rooms => {
    window.largest = {}
    window.watching = setInterval(() => {
        for (const { id, room } of eval(rooms)()) {
            const known = window.largest[id] ?? [0, 0]
            window.largest[id] = [Math.max(known[0], room[2]), Math.max(known[1], room[3])]
        }
    }, 150)
}"""
# Previews are as large after few steps as after many.
SHORTER = """() => app.graph.nodes.flatMap(node => node.widgets ?? []).filter(widget => {
    const long = widget.name === "steps" && widget.value > 100
    if (long) widget.value = 20
    return long
}).length"""
SEEN = "() => { clearInterval(window.watching); return window.largest }"
FRAMES = "async () => { for (let i = 0; i < 5; i++) await new Promise(requestAnimationFrame) }"


@contextmanager
def served() -> Iterator[tuple[Server, Browser]]:
    """A server and a browser of their own."""
    with tempfile.TemporaryDirectory(prefix="stepwise-page-") as base:
        kept = Path(base) / "user" / "default" / "comfy.settings.json"
        kept.parent.mkdir(parents=True)
        kept.write_text(json.dumps(SETTINGS), encoding="utf-8")
        with Server(DEV / "ComfyUI", program("env", "python"), Path(base)) as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_browser())
            yield server, browser
            browser.close()


def opened(server: Server, browser: Browser, nodes2: bool) -> Page:
    server.post("/settings", {"Comfy.VueNodes.Enabled": nodes2})
    page = browser.new_context(viewport=WINDOW).new_page()
    page.goto(server.url)
    page.wait_for_function(READY, timeout=120_000)
    return page


def shown(page: Page, workflow: dict[str, Any]) -> None:
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.wait_for_timeout(300)
    page.evaluate(FRAMES)


def run(server: Server, page: Page) -> dict[str, Any]:
    """Queues what the page shows, nothing from a cache, and waits; what its nodes showed."""
    server.post("/free", {"unload_models": False, "free_memory": True})
    page.wait_for_timeout(1500)
    known = set(server.get("/history"))
    page.evaluate("() => { app.queuePrompt(0) }")
    while not (new := set(server.get("/history")) - known):
        page.wait_for_timeout(100)
    entry = server.get("/history")[new.pop()]
    if entry["status"]["status_str"] != "success":
        raise SystemExit(f"The example did not run well:\n{entry['status']['messages']}")
    page.wait_for_timeout(500)
    page.evaluate(FRAMES)
    return entry["outputs"]


def thumbnail(server: Server, outputs: dict[str, Any]) -> bytes | None:
    """The last picture that a run saved or showed, as the template browser has it."""
    images = [image for output in outputs.values() for image in output.get("images", [])]
    if not images:
        return None
    image = max(images, key=lambda each: each["type"] == "output")
    asked = {"filename": image["filename"], "subfolder": image["subfolder"], "type": image["type"]}
    picture = Image.open(BytesIO(server.read("/view", **asked))).convert("RGB")
    whole = Image.new("RGB", THUMBNAIL, GROUND)
    picture.thumbnail((THUMBNAIL[0] - 20, THUMBNAIL[1] - 20))
    whole.paste(picture, tuple((room - side) // 2 for room, side in zip(THUMBNAIL, picture.size, strict=True)))
    file = BytesIO()
    whole.save(file, "JPEG", quality=88)
    return file.getvalue()


def measured_on_page(
    server: Server, pages: Sequence[Page], workflow: dict[str, Any], runs: bool, screenshots: Path
) -> tuple[dict[str, Any], bytes | None]:
    """The size and the room of every node, and a thumbnail; an example that `runs` not or is very long has none."""
    sizes: dict[str, Any] = {}
    picture = None
    for nodes2, page in enumerate(pages):
        server.post("/settings", {"Comfy.VueNodes.Enabled": bool(nodes2)})
        page.bring_to_front()
        shown(page, workflow)
        before = page.evaluate(ROOMS)
        page.evaluate(WATCH, ROOMS)
        shortened = page.evaluate(SHORTER)
        outputs = run(server, page) if runs else {}
        picture = picture or (None if shortened else thumbnail(server, outputs))
        largest = page.evaluate(SEEN)
        page.screenshot(path=f"{screenshots}-{('classic', 'nodes2')[nodes2]}.png")
        for each in [*before, *page.evaluate(ROOMS)]:
            number = str(each["id"])
            known = sizes.setdefault(number, {"size": [round(side) for side in each["size"]], "room": [0, 0]})
            rooms = zip(known["room"], each["room"][2:], largest.get(number, [0, 0]), strict=True)
            known["room"] = [round(max(room)) for room in rooms]
    return sizes, picture


def portrait(server: Server, browser: Browser, workflow: dict[str, Any]) -> bytes:
    """The editor in Nodes 2.0 with an example that has run."""
    page = opened(server, browser, nodes2=True)
    page.set_viewport_size({"width": 1200, "height": 800})
    shown(page, workflow)
    page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    run(server, page)
    # Until the notice of the run has gone.
    page.wait_for_timeout(8000)
    file = BytesIO()
    Image.open(BytesIO(page.screenshot())).convert("RGB").save(file, "JPEG", quality=82)
    page.context.close()
    return file.getvalue()
