"""One real server and one real browser for the whole session, and pages that stay open from test to test."""

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
# What a page keeps of the workflows that were in it is let go with it.
ENOUGH = 12
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
    forget what the others kept."""
    context = browser.new_context(viewport=SCREEN)
    context.new_page().goto(server.url + NOWHERE)
    yield context
    context.close()


@pytest.fixture(scope="session")
def kept(context):
    """The pages that stay open from test to test, one for each canvas, with the tests that each has seen: to load one
    takes seconds, and people do not load it anew for each workflow either."""
    return dict[tuple[bool, str], tuple[Editor, int]]()


@pytest.fixture
def open_editor(server, context, kept, request):
    """`open_editor(nodes2=False, locale="en", fresh=False)`: a page with one blank workflow, in either canvas; a
    `fresh` one, for this test alone, where what a page finds when it is loaded matters.

    When the test fails, a screenshot of each page is left in .dev/failures.
    """
    used = list[Editor]()

    def open_editor(*, nodes2=False, locale="en", fresh=False):
        # What a test has set stays so for the next page.
        usual = {"Comfy.RightSidePanel.IsOpen": False, "Comfy.Execution.PreviewMethod": "default"}
        settings = {"Comfy.VueNodes.Enabled": nodes2, "Comfy.Locale": locale, **usual}
        server.post("/settings", settings)
        if not used:
            context.pages[0].evaluate(FORGET)
        editor, tests = (None, 0) if fresh else kept.get((nodes2, locale), (None, 0))
        if editor and tests < ENOUGH and not editor.has_dialog():
            editor.begin_anew(settings)
        else:
            editor, tests = Editor(context.new_page(), server), 0
            editor.open()
            editor.new_workflow()
        used.append(editor)
        if not fresh:
            kept[nodes2, locale] = editor, tests + 1
        return editor

    yield open_editor
    if request.node.stash.get(FAILED, False):
        for number, editor in enumerate(used):
            name = re.sub(r"\W+", "-", request.node.nodeid).strip("-")
            editor.screenshot(DEV / "failures" / f"{name}-{number}.png")
        kept.clear()
    stay = [context.pages[0], *(editor.page for editor, _ in kept.values())]
    for page in context.pages:
        if page not in stay:
            page.close()
    for editor in used:
        if editor.page in stay:
            editor.rest()


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
