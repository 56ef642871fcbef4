"""One real server and one real browser for the whole session; a fresh page for each test."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright
from stepwise.tests.e2e.harness import QUIET_SETTINGS, Editor
from stepwise.tools.environment.browser import CURE, find_browser
from stepwise.tools.environment.folders import DEV
from stepwise.tools.environment.server import Server

COMFYUI = Path(os.environ.get("COMFYUI_PATH") or DEV / "ComfyUI")
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
SCREEN = {"width": 1600, "height": 900}
# What the editor keeps in the browser: drafts, the clipboard, the width of panels.
FORGET = """async () => {
    localStorage.clear()
    for (const { name } of await indexedDB.databases()) indexedDB.deleteDatabase(name)
}"""
# Of the same origin, and nothing runs there.
NOWHERE = "/system_stats"
FAILED = pytest.StashKey[bool]()
# Of every server that is started here. The processes of the tests have one core each: with more threads than cores, a
# run waits at every sum for the thread that has none, and takes three times as long.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The real server with this pack and no other, in a folder of its own."""
    if not (COMFYUI / "main.py").is_file():
        pytest.fail(f"There is no ComfyUI in {COMFYUI}. Run: python3 dev.py test", pytrace=False)
    base = tmp_path_factory.mktemp("server")
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(QUIET_SETTINGS), encoding="utf-8")
    with Server(COMFYUI, Path(sys.executable), base) as server:
        yield server


@pytest.fixture(scope="session")
def browser():
    found = find_browser()
    if found is None:
        pytest.fail(f"There is no browser. {CURE}", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def context(server, browser):
    """One for all pages: from the second on they find the editor's scripts in its cache. Its first page stays open, to
    forget what the others kept. None is loaded twice: what it held would stay in memory."""
    context = browser.new_context(viewport=SCREEN)
    context.new_page().goto(server.url + NOWHERE)
    yield context
    context.close()


@pytest.fixture
def open_editor(server, context, request):
    """`open_editor(nodes2=False, locale="en")`: a fresh page with a blank workflow, in either canvas.

    When the test fails, a screenshot of each page is left in .dev/failures.
    """
    editors = []

    def open_editor(*, nodes2=False, locale="en"):
        # What a test has set stays so for the next page.
        usual = {"Comfy.RightSidePanel.IsOpen": False, "Comfy.Execution.PreviewMethod": "default"}
        server.post("/settings", {"Comfy.VueNodes.Enabled": nodes2, "Comfy.Locale": locale, **usual})
        if not editors:
            context.pages[0].evaluate(FORGET)
        editor = Editor(context.new_page(), server)
        editors.append(editor)
        editor.open()
        editor.new_workflow()
        return editor

    yield open_editor
    for number, editor in enumerate(editors):
        if request.node.stash.get(FAILED, False):
            name = re.sub(r"\W+", "-", request.node.nodeid).strip("-")
            editor.screenshot(DEV / "failures" / f"{name}-{number}.png")
    for page in context.pages[1:]:
        page.close()


@pytest.fixture
def editor(open_editor):
    """The editor on the classic canvas, in English, with a blank workflow."""
    return open_editor()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report
