"""Malformed prompts against a real server: what it says to each, and whether it lives on.

    python benchmarks/fuzz_prompts.py            500 prompts, some minutes
    python benchmarks/fuzz_prompts.py 50 3       50 of them, from seed 3

Each is an example workflow in which one input of one of our nodes is spoilt. It should come back with an error that
names node and input, or, where the fault is harmless, run; in the end the good workflow has to run too, and outside
the server's own folder nothing may have been written.
"""

import copy
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwise.tools.environment.comfyui import find_comfyui
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.environment.server import Server

API = ROOT / "example_workflows" / "api"
GOOD = "dpmpp_2m_karras_cfg.json"
LITERALS = ("14.6, 0", "", 3, -1, 2.5, True, None, [], [1, 2, 3], ["8"], {"samples": 5}, {}, "\ud800")
HUGE = (1e300, -1e300, 1e-320, float("nan"), float("inf"), 2**64, 2**70, -(2**70), 10**30)
WRONG_TYPES = (
    "many",
    "",
    [],
    [1, 2, 3],
    {},
    {"points": "flat"},
    {"points": []},
    {"points": [[0, "a"]]},
    None,
    "\ud800",
)
Prompt = dict[str, Any]


@dataclass(frozen=True)
class Spoilt:
    """A prompt whose input `name` of `node` is not what belongs there."""

    kind: str
    node: str
    name: str
    prompt: Prompt

    @property
    def about(self) -> str:
        return f"{self.kind}: {self.prompt[self.node]['class_type']}.{self.name}"


@dataclass(frozen=True)
class Answer:
    """What came of it: refused, failed or ran; `clear` if node and input are named."""

    outcome: str
    clear: bool
    text: str


def light(prompt: Prompt) -> Prompt:
    """The same wiring with as little work as it allows."""
    smaller = {"batch_size": 1, "steps": 3}
    for node in prompt.values():
        node["inputs"].update({name: value for name, value in smaller.items() if name in node["inputs"]})
        for name in ("end_step", "start_step", "step"):
            if isinstance(node["inputs"].get(name), int):
                node["inputs"][name] = min(node["inputs"][name], 2 if name != "start_step" else 1)
    return prompt


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def spoilt(count: int, seed: int) -> Iterator[Spoilt]:
    """`count` malformed prompts, every kind as often as the others, always the same for a seed."""
    chance = random.Random(seed)
    # A checkpoint that is not there is what the host would speak of.
    files = sorted(file for file in API.glob("*.json") if "CheckpointLoader" not in file.read_text(encoding="utf-8"))
    while count:
        for kind, spoil in KINDS.items():
            prompt = light(json.loads(chance.choice(files).read_text(encoding="utf-8")))
            places = [
                (number, name)
                for number, node in prompt.items()
                if node["class_type"].startswith("Stepwise")
                for name, value in node["inputs"].items()
                if is_link(value) == (kind in ON_LINKS) or kind == "missing"
            ]
            number, name = chance.choice(places)
            made = copy.deepcopy(prompt)
            spoil(chance, made, number, name)
            yield Spoilt(kind, number, name, made)
            count -= 1
            if not count:
                return


def literal(chance: random.Random, prompt: Prompt, number: str, name: str) -> None:
    prompt[number]["inputs"][name] = chance.choice(LITERALS)


def wrong_link(chance: random.Random, prompt: Prompt, number: str, name: str) -> None:
    other = chance.choice(sorted(prompt))
    links = (["999", 0], [other, 99], [other, -1], [other, 0], [number, 0], ["", 0])
    prompt[number]["inputs"][name] = chance.choice(links)


def wrong_type(chance: random.Random, prompt: Prompt, number: str, name: str) -> None:
    prompt[number]["inputs"][name] = chance.choice(WRONG_TYPES)


def huge(chance: random.Random, prompt: Prompt, number: str, name: str) -> None:
    prompt[number]["inputs"][name] = chance.choice(HUGE)


def unknown_word(chance: random.Random, prompt: Prompt, number: str, name: str) -> None:
    prompt[number]["inputs"][name] = chance.choice(("no such thing", "../../etc", "karras", "\ud800", "x" * 5000))


def missing(chance: random.Random, prompt: Prompt, number: str, name: str) -> None:
    del prompt[number]["inputs"][name]


KINDS = {
    "literal on a socket": literal,
    "wrong link": wrong_link,
    "wrong type": wrong_type,
    "huge or NaN": huge,
    "unknown word": unknown_word,
    "missing": missing,
}
OF_THE_HOST = ("exception_during", "dependency_cycle")
ON_LINKS = ("literal on a socket", "wrong link")


def judged(server: Server, case: Spoilt, names: dict[str, str], patience: float = 60.0) -> Answer:
    """The server's answer to a prompt. Raises TimeoutError where none comes: its worker is dead."""
    status, said = server.post("/prompt", {"prompt": case.prompt})
    if status != 200:
        return Answer("refused", named_by_host(said, case), json.dumps(said)[:300])
    entry = ended(server, said["prompt_id"], patience)
    failures = [content for kind, content in entry["status"]["messages"] if kind == "execution_error"]
    if failures:
        text = failures[0]["exception_message"].strip()
        ours = failures[0]["node_type"].startswith("Stepwise")
        node = names.get(failures[0]["node_type"], "")
        clear = text.startswith((f"{node}: ", f"{failures[0]['node_type']}, ", node.removesuffix(" Sampler")))
        return Answer(
            "failed", (clear and case.name in text) or (not ours and bool(text)), f"{failures[0]['node_type']}: {text}"
        )
    if said["node_errors"]:
        return Answer("refused in part", named_by_host(said, case), json.dumps(said["node_errors"])[:300])
    return Answer("ran", True, "")


def named_by_host(said: Any, case: Spoilt) -> bool:
    """Whether the host's refusal has the input. A link to nowhere, or in a circle, breaks its validation before our
    node is asked, and the node that the link leads into is all that it then knows."""
    text = json.dumps(said)
    return case.name in text or (case.kind == "wrong link" and any(word in text for word in OF_THE_HOST))


def ended(server: Server, prompt_id: str, patience: float) -> dict[str, Any]:
    deadline = time.monotonic() + patience
    while prompt_id not in (history := server.get(f"/history/{prompt_id}")):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no end of a prompt after {patience:g} s\n{server.log_tail()}")
        time.sleep(0.02)
    return history[prompt_id]


def names_of(server: Server) -> dict[str, str]:
    return {node: said["display_name"] for node, said in server.get("/object_info").items() if "Stepwise" in node}


def fuzz(server: Server, count: int, seed: int) -> list[tuple[Spoilt, Answer]]:
    """Every prompt with its answer; afterwards a good one has to run. Raises AssertionError if that does not."""
    names = names_of(server)
    found = [(case, judged(server, case, names)) for case in spoilt(count, seed)]
    good = Spoilt("good", "", "", light(json.loads((API / GOOD).read_text(encoding="utf-8"))))
    assert judged(server, good, names).outcome == "ran", "a good prompt does not run any more"
    return found


def files_under(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def main() -> int:
    given = [int(word) for word in sys.argv[1:]]
    count, seed = (*given, *(500, 0)[len(given) :])
    comfyui = find_comfyui()
    watched = (comfyui, ROOT / "nodes", ROOT / "samplers", ROOT / "demo", ROOT / "example_workflows")
    before = [files_under(folder) for folder in watched]
    with tempfile.TemporaryDirectory() as base, Server(comfyui, Path(sys.executable), Path(base)) as server:
        began = time.monotonic()
        found = fuzz(server, count, seed)
        took = time.monotonic() - began
    written = [path for folder, old in zip(watched, before, strict=True) for path in files_under(folder) - old]
    table = Counter((case.kind, answer.outcome, answer.clear) for case, answer in found)
    print(f"{len(found)} malformed prompts from seed {seed} in {took:.0f} s; the server lives, a good prompt runs\n")
    print(f"{'kind':22} {'outcome':16} {'clear':>6} {'not':>5}")
    for kind, outcome in sorted({(kind, outcome) for kind, outcome, _ in table}):
        print(f"{kind:22} {outcome:16} {table[kind, outcome, True]:>6} {table[kind, outcome, False]:>5}")
    for case, answer in found:
        if not answer.clear:
            print(f"\n{case.about} = {case.prompt[case.node]['inputs'].get(case.name)!r}\n    {answer.text}")
    for path in written:
        print(f"written outside its folder: {path}")
    return int(bool(written) or not all(answer.clear for _, answer in found))


if __name__ == "__main__":
    sys.exit(main())
