"""A server that answers as ComfyUI does and computes nothing: what a sweep costs beside the computing.

    python stub_comfyui.py PORT [SECONDS]

It has one node, Stub; the picture of a prompt is its text. Each takes SECONDS, one after the other. A prompt with cfg
66 is refused, one with 67 ends with an error, and one with 68 never ends.
"""

import json
import sys
import threading
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

INFO = {
    "Stub": {
        "display_name": "Stub",
        "output_node": True,
        "input": {
            "required": {
                "seed": ["INT", {"default": 0, "min": 0, "max": 2**64 - 1}],
                "cfg": ["FLOAT", {"default": 1.0, "min": 0.0, "max": 100.0}],
                "kind": [["plain", "other"], {}],
                "solver": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {
                        "options": [
                            {"key": "Euler", "inputs": {"required": {}}},
                            {"key": "Heun", "inputs": {"required": {"churn": ["FLOAT", {"default": 0.5, "max": 1.0}]}}},
                        ]
                    },
                ],
            },
            "optional": {"model": ["MODEL", {}]},
        },
    }
}
PROMPT = {"1": {"class_type": "Stub", "inputs": {"seed": 0, "cfg": 1.0, "kind": "plain", "solver": "Euler"}}}
KEPT = 64
REFUSED, FAILS, HANGS = 66, 67, 68
FAILURE = ["execution_error", {"node_id": "1", "node_type": "Stub", "exception_message": "no memory\n"}]


@dataclass
class Job:
    prompt: dict[str, Any]
    client: str
    end: float

    @property
    def cfg(self):
        return self.prompt["1"]["inputs"]["cfg"]

    def under_way(self):
        return self.cfg == HANGS or time.monotonic() < self.end


class Stub(ThreadingHTTPServer):
    """`jobs` has the newest prompts that were asked for, each over `seconds` after the one before it, and none before
    each of the `others` has had one."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port=0, seconds=0.0):
        super().__init__(("127.0.0.1", port), Answers)
        self.seconds, self.mutex = seconds, threading.Lock()
        self.others: list[Stub] = []
        self.taken = 0
        self.jobs: OrderedDict[str, Job] = OrderedDict()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def take(self, prompt, client):
        number = str(uuid.uuid4())
        with self.mutex:
            self.taken += 1
            begin = max([time.monotonic(), *(job.end for job in self.jobs.values())])
            self.jobs[number] = Job(prompt, client, begin + self.seconds)
            while len(self.jobs) > KEPT:
                self.jobs.popitem(last=False)
        return number

    def runs(self, job):
        return job.under_way() or not all(other.taken for other in self.others)

    def under_way(self):
        with self.mutex:
            return {number: job for number, job in self.jobs.items() if self.runs(job)}

    def drop(self, number):
        with self.mutex:
            self.jobs.pop(number, None)


class Answers(BaseHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing."""

    def say(self, content, status=200):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        parts = urlsplit(self.path)
        first, *rest = parts.path.strip("/").split("/")
        if first == "object_info":
            self.say(INFO)
        elif first == "queue":
            under_way = self.server.under_way().items()
            running = [[0, number, {}, {"client_id": job.client}, []] for number, job in under_way]
            self.say({"queue_running": running, "queue_pending": []})
        elif first == "history":
            job = self.server.jobs.get(rest[0])
            file = {"filename": f"{rest[0]}.png", "subfolder": "", "type": "output"}
            messages = [FAILURE] if job and job.cfg == FAILS else []
            done = {"status": {"messages": messages}, "outputs": {"1": {"images": [file]}}}
            self.say({} if job is None or self.server.runs(job) else {rest[0]: done})
        elif first == "view":
            number = parse_qs(parts.query)["filename"][0].removesuffix(".png")
            self.say(json.dumps(self.server.jobs[number].prompt).encode())
        else:
            self.say({"system": {}})

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        if self.path == "/prompt" and sent["prompt"]["1"]["inputs"]["cfg"] == REFUSED:
            error = {"message": "Value not in list", "details": "cfg: 66"}
            self.say({"error": {}, "node_errors": {"1": {"class_type": "Stub", "errors": [error]}}}, 400)
        elif self.path == "/prompt":
            number = self.server.take(sent["prompt"], sent.get("client_id", ""))
            self.say({"prompt_id": number, "number": 1, "node_errors": {}})
        else:
            if self.path == "/interrupt":
                self.server.drop(sent["prompt_id"])
            self.say({})


if __name__ == "__main__":
    stub = Stub(int(sys.argv[1]), *map(float, sys.argv[2:]))
    print(stub.url, flush=True)
    stub.serve_forever()
