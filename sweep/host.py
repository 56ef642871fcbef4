"""One ComfyUI server over HTTP: comfy-cli's client, and what that has no call for."""

import json
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import Any, TypeVar

from comfy_cli.comfy_client import Client, HTTPError
from comfy_cli.target import Target

T = TypeVar("T")

SOURCE = "stepwise-sweep"
# Between two looks at a prompt that runs: a part of the time that it has taken, so that looking costs little of it.
SHORTEST, LONGEST, PART = 0.002, 0.5, 0.05
REFUSALS = ("execution_error", "execution_interrupted")


class HostLost(Exception):
    """The server does not answer, or has forgotten what it was asked."""


class CellFailed(Exception):
    """The prompt ended with an error."""


class Refused(CellFailed):
    """The server will not run this prompt, now or later."""


class Host:
    """A ComfyUI server. `patience` is how long it may take to answer anything, in seconds."""

    def __init__(self, url: str, patience: float = 60.0) -> None:
        self.url, self.patience = url.rstrip("/"), patience
        self.client = Client(Target(kind="local", base_url=self.url), timeout=patience)

    def answers(self) -> bool:
        try:
            return self.client.get_system_stats(timeout=min(self.patience, 5.0)) is not None
        except (OSError, HTTPError, HTTPException, ValueError):
            return False

    def nodes(self) -> dict[str, Any]:
        told = self.asked(lambda: self.get("/object_info"))
        try:
            nodes = json.loads(told)
        except ValueError:
            nodes = None
        if not isinstance(nodes, dict) or not all(isinstance(node, dict) for node in nodes.values()):
            raise HostLost(f"{self.url}: what answers there is no ComfyUI")
        return nodes

    # A prompt.

    def submit(self, prompt: dict[str, Any], client: str, key: str) -> str:
        """Queues a prompt; its id. Raises Refused with the server's words for any part of it."""
        marks = {"comfy_usage_source": SOURCE, "stepwise_cell": key}
        try:
            made = self.client.submit_prompt(prompt, client, extra_data=marks)
        except HTTPError as error:
            if error.status == 400:
                raise Refused(f"refused: {words(error.body)}") from None
            raise HostLost(f"{self.url}: {error}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise HostLost(f"{self.url}: {error}") from None
        if made.node_errors:
            self.cancel(made.prompt_id)
            raise Refused(f"refused: {words(json.dumps({'node_errors': made.node_errors}))}")
        return made.prompt_id

    def wait(self, prompt_id: str, limit: float, meanwhile: Callable[[], None]) -> dict[str, Any]:
        """The outputs of a prompt at its end. Raises HostLost where the server forgets it, and CellFailed where it ends
        badly or takes longer than `limit` seconds (0: any time)."""
        began = time.monotonic()
        while True:
            entry = self.asked(lambda: self.client.get_history(prompt_id))
            if entry and entry.get("status"):
                for kind, told in entry["status"].get("messages", []):
                    if kind in REFUSALS:
                        raise CellFailed(failure(kind, told))
                return entry.get("outputs", {})
            took = time.monotonic() - began
            if not entry and took > 1.0 and prompt_id not in self.queued():
                # It may have ended between the two questions.
                if not self.asked(lambda: self.client.get_history(prompt_id)):
                    raise HostLost(f"{self.url} has forgotten a prompt: it was restarted, or its queue was cleared")
                continue
            if limit and took > limit:
                self.end([prompt_id])
                raise CellFailed(f"not finished in {limit:g} s")
            meanwhile()
            time.sleep(min(LONGEST, max(SHORTEST, PART * took)))

    def queued(self) -> dict[str, dict[str, Any]]:
        """The prompts that run or wait, with what was sent along."""
        told = self.asked(lambda: json.loads(self.get("/queue")))
        return {item[1]: item[3] for name in ("queue_running", "queue_pending") for item in told.get(name, [])}

    def cancel(self, prompt_id: str) -> None:
        self.asked(lambda: self.post("/queue", {"delete": [prompt_id]}))
        self.asked(lambda: self.post("/interrupt", {"prompt_id": prompt_id}))

    def cancel_all(self, client: str) -> int:
        """Ends the prompts of a client, which an earlier worker left behind; how many."""
        left = [number for number, sent in self.queued().items() if sent.get("client_id") == client]
        self.end(left)
        return len(left)

    def end(self, prompts: Sequence[str]) -> None:
        """Cancels prompts, and waits until they are out of the queue."""
        for number in prompts:
            self.cancel(number)
        deadline = time.monotonic() + self.patience
        while any(number in self.queued() for number in prompts):
            if time.monotonic() > deadline:
                raise HostLost(f"{self.url} does not end a prompt that was cancelled")
            time.sleep(SHORTEST)

    # Files.

    def file(self, name: str, subfolder: str, folder: str) -> bytes:
        """The content of a file. Raises CellFailed where it is not there any more."""
        query = urllib.parse.urlencode({"filename": name, "subfolder": subfolder, "type": folder})

        def content() -> bytes | None:
            try:
                return self.get(f"/view?{query}")
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
                return None

        if (found := self.asked(content)) is None:
            raise CellFailed(f"the {folder} {name} is not there any more")
        return found

    def put(self, content: bytes, name: str, subfolder: str) -> str:
        """Puts a file into the input folder, in the place of one of that name; its name there."""
        border = uuid.uuid4().hex
        fields = {"type": "input", "subfolder": subfolder, "overwrite": "true"}
        head = "".join(
            f'--{border}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
            for field, value in fields.items()
        )
        head += f'--{border}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        head += "Content-Type: application/octet-stream\r\n\r\n"
        body = head.encode() + content + f"\r\n--{border}--\r\n".encode()
        request = urllib.request.Request(
            f"{self.url}/upload/image", body, {"Content-Type": f"multipart/form-data; boundary={border}"}
        )
        answer = self.asked(lambda: json.loads(self.open(request)))
        return f"{answer['subfolder']}/{answer['name']} [input]" if answer["subfolder"] else f"{answer['name']} [input]"

    # HTTP.

    def asked(self, question: Callable[[], T]) -> T:
        """What the server answers. Raises HostLost where it does not."""
        try:
            return question()
        except (HTTPError, HTTPException, ValueError) as error:
            raise HostLost(f"{self.url}: {error}") from None
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            told = f"no answer in {self.patience:g} s" if isinstance(reason, TimeoutError | socket.timeout) else reason
            raise HostLost(f"{self.url}: {told}") from None

    def get(self, path: str, timeout: float | None = None) -> bytes:
        return self.open(urllib.request.Request(self.url + path), timeout)

    def post(self, path: str, content: Any) -> bytes:
        body = json.dumps(content).encode()
        return self.open(urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"}))

    def open(self, request: urllib.request.Request, timeout: float | None = None) -> bytes:
        with urllib.request.urlopen(request, timeout=timeout or self.patience) as answer:
            return answer.read()


def words(body: str) -> str:
    """A refusal in the server's own words, a part for each node and input."""
    try:
        told = json.loads(body)
    except ValueError:
        return body
    said = []
    for number, node in (told.get("node_errors") or {}).items():
        for error in node.get("errors", []):
            said.append(f"node {number} ({node.get('class_type')}): {error.get('message')}: {error.get('details')}")
    return "; ".join(said) or str((told.get("error") or {}).get("message") or body)


def failure(kind: str, told: dict[str, Any]) -> str:
    if kind == "execution_interrupted":
        return f"interrupted in node {told.get('node_id')} ({told.get('node_type')})"
    return f"node {told.get('node_id')} ({told.get('node_type')}): {str(told.get('exception_message')).strip()}"
