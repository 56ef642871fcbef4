"""What a test does with the real server, the official client and the real editor."""

import base64
import json
import subprocess
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import ConsoleMessage, Page
from stepwise.tools.environment.client import official_client
from stepwise.tools.environment.server import PACK, Server

# The page without tours, animations, dialogs and panels that would lie over what a test clicks on.
QUIET_SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.Persist": False,
    "Comfy.Workflow.AutoSave": "off",
    "Comfy.Window.UnloadConfirmation": False,
    "Comfy.RightSidePanel.IsOpen": False,
    "Comfy.NodeSearchBoxImpl.FollowCursor": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Appearance.DisableAnimations": True,
}

READY = "window.app?.vueAppReady && !app.extensionManager.spinner && app.canvas?.graph"
THREE_FRAMES = "async () => { for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame) }"
DROP = """([name, type, content]) => {
    const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0))
    const dataTransfer = new DataTransfer()
    dataTransfer.items.add(new File([bytes], name, { type }))
    const canvas = document.getElementById('graph-canvas')
    const box = canvas.getBoundingClientRect()
    const corner = { clientX: box.left + 0.9 * box.width, clientY: box.top + 0.9 * box.height }
    for (const kind of ['dragenter', 'dragover', 'drop'])
        canvas.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true, ...corner }))
}"""
FRAMES = """{
    const next = window.requestAnimationFrame.bind(window)
    let held = null
    window.requestAnimationFrame = (draw) => (held ? -held.push(draw) : next(draw))
    window.stepwise_rest = (resting) => {
        const waiting = held ?? []
        held = resting ? waiting : null
        if (!resting) waiting.forEach(next)
    }
}"""
CLEAR = """async settings => {
    for (const [name, value] of Object.entries(settings)) await app.extensionManager.setting.set(name, value)
    document.activeElement?.blur()
    app.extensionManager.sidebarTab.activeSidebarTabId = null
}"""
CLOSE_OTHERS = """async ([offset, scale]) => {
    const { workflow } = app.extensionManager
    for (const each of [...workflow.openWorkflows])
        if (each !== workflow.activeWorkflow) await workflow.closeWorkflow(each)
    Object.assign(app.canvas.ds, { offset, scale })
}"""
VIEW = "[[...app.canvas.ds.offset], app.canvas.ds.scale]"
DIALOG = ".p-dialog-mask, [role=dialog]"
NODE_TYPES = """() => {
    const types = graph => graph.nodes.flatMap(node => [node.type, ...(node.subgraph ? types(node.subgraph) : [])])
    return types(app.rootGraph).map(type => [type, type in LiteGraph.registered_node_types])
}"""


@dataclass(frozen=True)
class Result:
    """What came of a prompt. `node_errors` can name nodes though the rest of the prompt ran well."""

    outputs: dict[str, dict[str, Any]]
    node_errors: dict[str, Any]
    error: dict[str, Any] | None

    def check(self) -> "Result":
        """Fail with the server's own words unless every node was accepted and ran."""
        if self.node_errors or self.error:
            words = json.dumps({"error": self.error, "node_errors": self.node_errors}, indent=2)
            raise AssertionError(f"the prompt did not run well:\n{words}")
        return self

    def files(self, kind: str = "images") -> list[dict[str, str]]:
        """The files that the nodes show or saved, in the form that `fetch` and `picture` take."""
        return [file for output in self.outputs.values() for file in output.get(kind, [])]


def run_prompt(server: Server, prompt: dict[str, Any], patience: float = 120.0) -> Result:
    """Queue a prompt (API format) and wait for its end, good or bad."""
    status, answer = server.post("/prompt", {"prompt": prompt})
    return result_of(server, status, answer, patience)


def result_of(server: Server, status: int, answer: dict[str, Any], patience: float) -> Result:
    """The end of a prompt, from the server's answer to its beginning."""
    if status != 200:
        return Result({}, answer["node_errors"], answer["error"])
    prompt_id = answer["prompt_id"]
    deadline = time.monotonic() + patience
    while prompt_id not in (history := server.get(f"/history/{prompt_id}")):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the prompt has not ended after {patience} s\n{server.log_tail()}")
        time.sleep(0.05)
    entry = history[prompt_id]
    bad = ("execution_error", "execution_interrupted")
    failures = [content for kind, content in entry["status"]["messages"] if kind in bad]
    return Result(entry["outputs"], answer["node_errors"], failures[0] if failures else None)


def fetch(server: Server, file: dict[str, str]) -> bytes:
    """The content of a file that a node shows or saved."""
    return server.read("/view", filename=file["filename"], subfolder=file["subfolder"], type=file["type"])


def picture(server: Server, file: dict[str, str]) -> Image.Image:
    return Image.open(BytesIO(fetch(server, file)))


def is_drawn(pixels: np.ndarray) -> bool:
    """Whether something is in a picture `[height, width, 3]` of 8 bits besides grounds and frames.

    Along a shape or a slanted line, many squares of two times two pixels have levels that differ both across and down.
    Along what stands upright, as the empty places of a grid do, the corners alone do so: one in 65 where the places are
    64 pixels wide.
    """
    across, down = (np.abs(np.diff(pixels.astype(int), axis=axis)).max(axis=-1) > 32 for axis in (1, 0))
    across, down = across[:-1] | across[1:], down[:, :-1] | down[:, 1:]
    corners, edges = np.count_nonzero(across & down), np.count_nonzero(across | down)
    return bool(corners > 50 and corners > 0.04 * edges)


def run_with_client(server: Server, workflow: Path, patience: float = 120.0) -> "subprocess.CompletedProcess[str]":
    """Run a workflow file, of either format, with the official client."""
    command = official_client(server, workflow)
    return subprocess.run(**command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience)


class Editor:
    """The editor in a browser, worked with as a person does."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page, self.server = page, server
        self.errors: list[str] = []
        self.frames: list[dict[str, Any]] = []
        self.previews = 0
        self.view: list[Any] = []
        self.dropped: set[str] = set()
        page.add_init_script(FRAMES)
        page.on("console", self.note_console)
        page.on("pageerror", lambda error: self.errors.append(f"{error.message}\n{error.stack}"))
        page.on("websocket", lambda socket: socket.on("framereceived", self.note_frame))

    def note_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def note_frame(self, frame: str | bytes) -> None:
        if isinstance(frame, str):
            self.frames.append(json.loads(frame))
        else:
            self.previews += 1

    def errors_of_pack(self) -> list[str]:
        """The console's errors that name this pack; the page has a number of its own even when all is well."""
        return [error for error in self.errors if PACK in error.lower()]

    def open(self, path: str = "/") -> None:
        """Load the page and wait until it can be worked with."""
        self.page.goto(self.server.url + path)
        self.page.wait_for_function(READY, timeout=120_000)
        self.settle()
        self.view = self.page.evaluate(VIEW)

    def settle(self) -> None:
        """Wait until three frames are drawn."""
        self.page.evaluate(THREE_FRAMES)

    def command(self, name: str) -> None:
        """Run one of the page's own commands."""
        self.page.evaluate("name => app.extensionManager.command.execute(name)", name)
        self.settle()

    def rest(self, resting: bool = True) -> None:
        """Hold what the page does at every frame, or let it go on: also where nobody looks, it takes a tenth of a
        processor."""
        self.page.evaluate("resting => window.stepwise_rest(resting)", resting)

    def begin_anew(self, settings: dict[str, Any]) -> None:
        """Bring a page that has been worked with to one blank workflow, and `settings`, as a fresh one has them."""
        self.rest(False)
        # A page behind another one draws no frames.
        self.page.bring_to_front()
        self.page.evaluate(CLEAR, settings)
        self.new_workflow()
        self.page.evaluate(CLOSE_OTHERS, self.view)
        self.settle()
        self.errors.clear()
        self.frames.clear()
        self.previews = 0

    def has_dialog(self) -> bool:
        return self.page.locator(DIALOG).count() > 0

    def new_workflow(self) -> None:
        self.command("Comfy.NewBlankWorkflow")
        self.dropped = set()

    def drop(self, file: Path) -> None:
        """Drop a workflow (either JSON format, or a picture that carries one) on the empty canvas."""
        content = file.read_bytes()
        is_json = file.suffix == ".json"
        kind = "application/json" if is_json else f"image/{file.suffix[1:]}"
        self.page.evaluate(DROP, [file.name, kind, base64.b64encode(content).decode()])
        self.page.wait_for_function("app.rootGraph.nodes.length > 0")
        self.settle()
        workflow = json.loads(content) if is_json else {"nodes": []}
        if "nodes" not in workflow:
            self.dropped = {node["class_type"] for node in workflow.values()}

    def missing_nodes(self) -> set[str]:
        """The node types of the workflow that the server does not have.

        The page marks them red after a drop in editor format, and leaves them out without a word in API format.
        """
        types = dict(self.page.evaluate(NODE_TYPES))
        return {name for name, known in types.items() if not known} | (self.dropped - types.keys())

    def queue(self, patience: float = 120.0) -> Result:
        """Press Run and wait for the end on the page's own websocket."""
        with self.page.expect_response(lambda response: response.url.endswith("/api/prompt")) as promised:
            self.page.get_by_test_id("queue-button").click()
        status, answer = promised.value.status, promised.value.json()
        if status == 200:
            self.wait_for_end(answer["prompt_id"], patience)
        return result_of(self.server, status, answer, patience)

    def wait_for_end(self, prompt_id: str, patience: float) -> None:
        ends = ("execution_success", "execution_error", "execution_interrupted")
        deadline = time.monotonic() + patience
        while not any(frame["type"] in ends and frame["data"]["prompt_id"] == prompt_id for frame in self.frames):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the page saw no end of the prompt in {patience} s")
            # The frames arrive only while Playwright waits, not while Python sleeps.
            self.page.wait_for_timeout(50)
        self.settle()

    def screenshot(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=file)
