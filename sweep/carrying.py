"""A run that is under way, carried along: each new autosave as it appears, and going on from the last one elsewhere."""

import base64
import hashlib
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .apart import own
from .host import Host

# The title by which all cells of all sweeps save on a server, so that it keeps the newest few files and not one for
# each cell; and the mark that tells whose a file is.
TITLE, MARK = "stepwise sweep {server}", "stepwise_cell"
AUTOSAVE = "autosave_every"
LOADER, LOADER_ID = "StepwiseLoadState", "stepwise-sweep-state-{node}"
FOLDER = "stepwise"


class Carrier:
    """Looks for autosaves of a prompt's nodes, at most every `every` seconds, and gives new ones to `tell`."""

    def __init__(
        self, host: Host, prompt: Mapping[str, Any], key: str, every: float, tell: Callable[[dict[str, Any]], None]
    ) -> None:
        self.host, self.key, self.every, self.tell = host, key, every, tell
        self.title = TITLE.format(server=own(host.url))
        self.nodes = [number for number, node in prompt.items() if saves(node)]
        self.marked = {number: self.mark(node) if number in self.nodes else node for number, node in prompt.items()}
        self.tags: dict[str, str] = {}
        self.next = time.monotonic() + every

    def mark(self, node: Mapping[str, Any]) -> dict[str, Any]:
        return {**node, "_meta": {**(node.get("_meta") or {}), "title": self.title, MARK: self.key}}

    def look(self) -> None:
        if not self.nodes or time.monotonic() < self.next:
            return
        for node in self.nodes:
            query = urllib.parse.urlencode({"title": self.title, "node": node})
            name = self.host.asked(lambda query=query: json.loads(self.host.get(f"/stepwise/autosave?{query}")))["file"]
            content = self.fresh(name) if name else None
            step = step_of(content, node, self.key) if content else None
            if content and step is not None:
                state = base64.b64encode(content).decode()
                self.tell({"host": self.host.url, "key": self.key, "node": node, "step": step, "state": state})
        self.next = time.monotonic() + self.every

    def fresh(self, name: str) -> bytes | None:
        """The content of a state in the server's output folder, if it is another one than the last time."""
        subfolder, _, file = name.removesuffix(" [output]").rpartition("/")
        query = urllib.parse.urlencode({"filename": file, "subfolder": subfolder, "type": "output"})
        known = {"If-None-Match": self.tags[name]} if name in self.tags else {}
        request = urllib.request.Request(f"{self.host.url}/view?{query}", headers=known)

        def content() -> bytes | None:
            try:
                with urllib.request.urlopen(request, timeout=self.host.patience) as answer:
                    made = answer.read()
                    self.tags[name] = answer.headers.get("ETag", "")
                    return made
            except urllib.error.HTTPError as error:
                # The same as before, or gone: a newer run of the node has taken its place.
                if error.code in (304, 404):
                    return None
                raise

        return self.host.asked(content)


def saves(node: Mapping[str, Any]) -> bool:
    every = node.get("inputs", {}).get(AUTOSAVE)
    return isinstance(every, int) and every > 0


def step_of(content: bytes, node: str, key: str) -> int | None:
    """At which step a state of a node stands; None where it is not of this cell."""
    try:
        length = int.from_bytes(content[:8], "little")
        marks = json.loads(content[8 : 8 + length])["__metadata__"]
        if json.loads(marks["prompt"])[node]["_meta"][MARK] != key:
            return None
        return json.loads(marks["state"])["HeldRun"]["map"]["step"]
    except (KeyError, TypeError, ValueError):
        return None


def going_on(host: Host, prompt: Mapping[str, Any], states: Sequence[Mapping[str, Any]], client: str) -> dict[str, Any]:
    """A prompt whose nodes go on from these states, which are put on the server."""
    made = dict(prompt)
    for state in states:
        node = state["node"]
        # The number of a node may have anything in it that a workflow's author has written.
        file = f"{client}-{own(host.url)}-{hashlib.sha256(node.encode()).hexdigest()[:16]}.safetensors"
        name = host.put(base64.b64decode(state["state"]), file, FOLDER)
        loader = LOADER_ID.format(node=node)
        made[loader] = {"class_type": LOADER, "inputs": {"file": name, "warm_up": True}}
        made[node] = {**made[node], "inputs": {**made[node]["inputs"], "state": [loader, 0]}}
    return made
