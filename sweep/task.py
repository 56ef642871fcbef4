"""What a worker does: one cell on the one ComfyUI server that it drives. JSON text comes in, JSON text goes out."""

import base64
import json
import os
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from distributed import Queue, Variable, get_client, get_worker

from .apart import apart
from .carrying import Carrier, going_on
from .host import CellFailed, Host, HostLost, Refused

# The engine's resource: a worker has one, and a cell takes it.
GPU = "GPU"
# The exit status of a worker that has lost its server. Its nanny starts it anew, and the new one waits for the server.
LOST = 75
DEFAULT_HOST = "http://127.0.0.1:8188"
# What kinds of output are kept: files, and this.
TEXT = "text"


def news(sweep: str) -> str:
    """The name of the engine's queue on which workers tell of autosaves and faults."""
    return f"stepwise-news-{sweep}"


def last_state(key: str) -> str:
    """The name of the engine's variable with the last autosaves of a cell that is under way."""
    return f"stepwise-state-{key}"


def url_of(name: object) -> str:
    """The server that a worker of this name drives."""
    return name if isinstance(name, str) and name.startswith(("http://", "https://")) else DEFAULT_HOST


def run(text: str) -> str:
    """Runs the cell in `text` and returns what came of it. Raises CellFailed where the engine may try once more.

    Where the server is lost, the process ends at once: the engine gives its cells to other workers.
    """
    task = json.loads(text)
    url = url_of(get_worker().name)
    try:
        return json.dumps(made(task, server(url, task["patience"], task["client"])))
    except Refused as error:
        return json.dumps({"key": task["key"], "host": url, "error": str(error)})
    except CellFailed as error:
        raise CellFailed(f"{url}: {error}") from None
    except HostLost as error:
        try:
            told(task, {"host": url, "key": task["key"], "fault": str(error)})
        finally:
            os._exit(LOST)


@cache
def server(url: str, patience: float, client: str) -> Host:
    """The server, cleared of what an earlier worker of this sweep has left in its queue."""
    host = Host(url, patience)
    host.cancel_all(client)
    return host


def told(task: Mapping[str, Any], message: Mapping[str, Any]) -> None:
    Queue(news(task["client"]), client=get_client()).put(json.dumps(message), timeout=10)


def made(task: Mapping[str, Any], host: Host) -> dict[str, Any]:
    key, began = task["key"], time.monotonic()
    carrier = Carrier(host, json.loads(task["prompt"]), key, task["look_every"], lambda message: told(task, message))
    states = known(task) if carrier.nodes else []
    prompt = going_on(host, carrier.marked, states, task["client"])
    number = host.submit(apart(prompt, host.url), task["client"], key)
    outputs = host.wait(number, task["limit"], carrier.look)
    found = [one for node, output in outputs.items() for one in kept(host, node, output)]
    step = max((state["step"] for state in states), default=0)
    return {"key": key, "host": host.url, "seconds": time.monotonic() - began, "step": step, "outputs": found}


def known(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The last autosaves of the cell: those of its last turn with another worker, or those of the result folder."""
    last: Any = Variable(last_state(task["key"]), client=get_client())
    try:
        return json.loads(last.get(timeout=0.001))
    except TimeoutError:
        return task["states"]


def kept(host: Host, node: str, output: Mapping[str, Any]) -> list[dict[str, str]]:
    """What of a node's output is kept: files with their content, and texts."""
    found = []
    for kind, ones in output.items():
        for one in ones if isinstance(ones, list | tuple) else []:
            if isinstance(one, dict) and isinstance(one.get("filename"), str):
                name = one["filename"]
                content = host.file(name, one.get("subfolder", ""), one.get("type", "output"))
            elif kind == TEXT and isinstance(one, str):
                name, content = "text.txt", one.encode()
            else:
                continue
            found.append({"node": node, "kind": kind, "name": name, "content": base64.b64encode(content).decode()})
    return found
