"""A server that answers as ComfyUI does and computes nothing: what a sweep costs beside the computing.

    python stub_comfyui.py PORT

It has one node, Stub; the picture of a prompt is its text. A prompt with cfg 66 is refused, one with 67 ends with an
error, and one with 68 never ends.
"""

import json
import sys
import threading
import uuid
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
                "model": ["MODEL", {}],
            },
        },
    }
}
PROMPT = {"1": {"class_type": "Stub", "inputs": {"seed": 0, "cfg": 1.0, "kind": "plain", "solver": "Euler"}}}
KEPT = 64
REFUSED, FAILS, HANGS = 66, 67, 68
FAILURE = ["execution_error", {"node_id": "1", "node_type": "Stub", "exception_message": "no memory\n"}]


class Stub(ThreadingHTTPServer):
    """`done` has the newest prompts that were asked for; `count` counts all."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Answers)
        self.done, self.count, self.mutex = OrderedDict(), 0, threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def take(self, prompt):
        number = str(uuid.uuid4())
        with self.mutex:
            self.count += 1
            self.done[number] = prompt
            while len(self.done) > KEPT:
                self.done.popitem(last=False)
        return number


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
            hanging = [number for number, prompt in self.server.done.items() if cfg_of(prompt) == HANGS]
            running = [[0, number, {}, {"client_id": ""}, []] for number in hanging]
            self.say({"queue_running": running, "queue_pending": []})
        elif first == "history":
            cfg = cfg_of(self.server.done.get(rest[0]))
            file = {"filename": f"{rest[0]}.png", "subfolder": "", "type": "output"}
            done = {"status": {"messages": [FAILURE] if cfg == FAILS else []}, "outputs": {"1": {"images": [file]}}}
            self.say({rest[0]: done} if cfg not in (None, HANGS) else {})
        elif first == "view":
            number = parse_qs(parts.query)["filename"][0].removesuffix(".png")
            self.say(json.dumps(self.server.done[number]).encode())
        else:
            self.say({"system": {}})

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        if self.path == "/prompt" and cfg_of(sent["prompt"]) == REFUSED:
            error = {"message": "Value not in list", "details": "cfg: 66"}
            self.say({"error": {}, "node_errors": {"1": {"class_type": "Stub", "errors": [error]}}}, 400)
        elif self.path == "/prompt":
            self.say({"prompt_id": self.server.take(sent["prompt"]), "number": 1, "node_errors": {}})
        else:
            if self.path == "/interrupt":
                self.server.done.pop(sent["prompt_id"], None)
            self.say({})


def cfg_of(prompt):
    return prompt["1"]["inputs"]["cfg"] if prompt else None


if __name__ == "__main__":
    stub = Stub(int(sys.argv[1]))
    print(stub.url, flush=True)
    stub.serve_forever()
