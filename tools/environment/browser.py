"""A Chromium for the tests that drive the real editor: found, or installed; never skipped."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .process import Failure, output, say
from .system import apt_install

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "microsoft-edge-stable",
    "msedge",
)
PLACES = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)
# The second brings the Korean, Japanese and Chinese letters that the translated pages are checked with.
PACKAGES = ("chromium", "fonts-noto-cjk")
DRIVER_PACKAGE = "libatomic1"
CURE = "Install Chromium, Chrome or Edge, or name one in CHROMIUM_PATH."


def ensure_browser(python: Path) -> Path:
    """The browser to use. `python` is the interpreter that has Playwright."""
    ensure_driver(python)
    if found := find_browser():
        return found
    if apt_install(*PACKAGES) and (found := find_browser()):
        return found
    return own_browser(python)


def ensure_driver(python: Path) -> None:
    """Playwright brings a Node.js that wants one library which a bare Debian lacks."""
    question = [python, "-m", "playwright", "--version"]
    if output(question) is None and not (apt_install(DRIVER_PACKAGE) and output(question)):
        raise Failure(
            f"Playwright does not start: {python} -m playwright. On Debian and Ubuntu: apt-get install {DRIVER_PACKAGE}"
        )


def find_browser() -> Path | None:
    """The browser that CHROMIUM_PATH names, or one on PATH or in its usual place that starts."""
    if named := os.environ.get("CHROMIUM_PATH"):
        if not Path(named).is_file():
            raise Failure(f"CHROMIUM_PATH is {named}, and there is no such file.")
        return Path(named)
    candidates = [path for name in NAMES if (path := shutil.which(name))]
    candidates += [path for path in PLACES if Path(path).is_file()]
    return next((Path(path) for path in candidates if starts(path)), None)


def starts(browser: str) -> bool:
    """Some Linux systems carry a `chromium` that only says where to get the real one. Windows has no such test."""
    return sys.platform != "linux" or output([browser, "--version"], stdin=subprocess.DEVNULL) is not None


def own_browser(python: Path) -> Path:
    """Playwright's own download, for systems without a browser or a way to install one."""
    say("no browser found; installing Playwright's own Chromium")
    if output([python, "-m", "playwright", "install", "chromium"], stdin=subprocess.DEVNULL) is None:
        raise Failure(f"There is no browser for the tests of the editor, and none could be downloaded. {CURE}")
    where = "from playwright.sync_api import sync_playwright as s\nwith s() as p: print(p.chromium.executable_path)"
    path = output([python, "-c", where])
    if path is None or not Path(path).is_file():
        raise Failure(f"Playwright's Chromium is not where Playwright says it is: {path}. {CURE}")
    return Path(path)
