"""However dev.py ends, the server that it started ends with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from stepwise.tools.environment.process import Failure
from stepwise.tools.environment.server import Server, free_port

DEV_PY = Path(__file__).resolve().parents[2] / "dev.py"
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
if sys.platform == "linux":  # elsewhere nothing ends a child whose parent is killed without notice
    STATUS[signal.SIGKILL] = -9


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
def test_no_process_is_left(number):
    command = [sys.executable, DEV_PY, "serve", "--cpu", "--port", str(free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as dev:
        children = server_processes(dev.pid)
        assert children, dev.communicate(timeout=1)[0]
        dev.send_signal(number)
        _, alive = psutil.wait_procs(children, timeout=30)
        text, _ = dev.communicate(timeout=30)
    assert not alive
    assert dev.returncode == STATUS[number]
    assert "Traceback (most recent call last)" not in text.partition("dev.py: stopped")[2]


@pytest.mark.skipif(sys.platform == "win32", reason="there the browser is not chosen by BROWSER")
def test_serve_prints_an_address_to_click_and_opens_it(tmp_path):
    browser, opened, port = tmp_path / "browser", tmp_path / "opened", free_port()
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}\n')
    browser.chmod(0o755)
    command = [sys.executable, DEV_PY, "serve", "--open", "--cpu", "--port", str(port)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env={**os.environ, "BROWSER": f"{browser} %s"}, **streams) as dev:
        deadline = time.monotonic() + 240
        while not opened.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        dev.send_signal(signal.SIGINT)
        text, _ = dev.communicate(timeout=30)
    address = f"http://127.0.0.1:{port}"
    assert opened.read_text() == address
    assert address in [line.strip() for line in text.splitlines()]


def server_processes(parent: int) -> list[psutil.Process]:
    """The processes under `parent`, as soon as the server is one of them."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        children = psutil.Process(parent).children(recursive=True)
        if any("main.py" in child.cmdline() for child in children):
            return children
        time.sleep(0.05)
    return []


def test_a_port_in_use_is_said(server, tmp_path):
    with pytest.raises(Failure, match=f"Port {server.port} is in use"):
        Server(server.comfyui, server.python, tmp_path, port=server.port).start()


def test_a_failed_start_shows_the_log(server, tmp_path):
    with pytest.raises(Failure, match="no-such-option"):
        Server(server.comfyui, server.python, tmp_path, arguments=["--no-such-option"]).start()
