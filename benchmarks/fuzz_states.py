"""Damaged states, fed to a real server: each must end in an error that names node and input, and nothing else happen.

    python benchmarks/fuzz_states.py [count] [seed]        300 states, seed 0

A state is saved by a run on the server itself and then cut short, changed in single bits, given huge or deep headers,
other types, missing keys or swapped tensors; half of them carry the digest that fits what they hold. Each is wired by
an API prompt from Load State into a step node.
"""

import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from stepwise.samplers import checkpoint
from stepwise.tests.e2e.harness import Result, run_prompt
from stepwise.tools.environment.folders import DEV, ROOT
from stepwise.tools.environment.server import Server
from torch import Tensor

EXAMPLE = ROOT / "example_workflows" / "api" / "dpmpp_2m_karras_cfg.json"
CLEAR = re.compile(r"(Load State|DPM\+\+ 2M): (file|state|sigmas|sampler|noise)\b.* [A-Z].*\.", re.DOTALL)
# Fields that a file need not have.
OPTIONAL = {"memory", "patches", "batching", "variation_seeds", "variation_strength", "forgotten", "denoised"}
WRONG: dict[type, tuple[Any, ...]] = {
    bool: (None, 0, "yes", []),
    int: (None, "7", 1.5, -1, 2**70, [], True),
    float: (None, "x", [], True, {"float": "nan"}, {"float": "x"}),
    str: (None, 3, [], {"map": {}}),
    list: (None, 3, "x", {"tensor": "nowhere"}, {"strange": []}),
    dict: (None, 3, "x", [], {"tensor": "nowhere"}, {"tuple": 3}, {"map": []}, {"map": {}, "tuple": []}),
}


@dataclass(frozen=True)
class Parts:
    """A state's file taken apart."""

    marks: dict[str, str]
    tensors: dict[str, Tensor]

    @staticmethod
    def of(data: bytes) -> "Parts":
        """Without the graph, which the digest does not cover: to change that is no damage."""
        marks = {name: checkpoint.marks_of(data)[name] for name in ("format", "version", "state", "digest")}
        return Parts(marks, safetensors.torch.load(data))

    @property
    def tree(self) -> Any:
        return json.loads(self.marks["state"])

    def file(self, tree: Any = None, tensors: dict[str, Tensor] | None = None) -> bytes:
        """The file again; with other content it has the digest that fits."""
        tensors = self.tensors if tensors is None else tensors
        text = self.marks["state"] if tree is None else json.dumps(tree)
        return safetensors.torch.save(
            {name: each.clone() for name, each in tensors.items()},
            {**self.marks, "state": text, "digest": checkpoint.digest(text, tensors)},
        )


def places(tree: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all values in a tree of JSON."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, each in items:
        yield (*way, key)
        yield from places(each, (*way, key))


def at(tree: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        tree = tree[key]
    return tree


def cut_short(parts: Parts, chance: random.Random) -> bytes:
    data = parts.file()
    return data[: chance.randrange(len(data))]


def flipped_bits(parts: Parts, chance: random.Random) -> bytes:
    data = bytearray(parts.file())
    # Blanks that fill the header up mean nothing.
    place = chance.choice([i for i, byte in enumerate(data) if byte != ord(" ")])
    data[place] ^= 1 << chance.randrange(8)
    return bytes(data)


def huge_header(parts: Parts, chance: random.Random) -> bytes:
    data = parts.file()
    length = chance.choice([2**64 - 1, 2**63, 99_000_000, len(data), len(data) - 9, 0, 1])
    return length.to_bytes(8, "little") + data[8:]


def other_file(parts: Parts, chance: random.Random) -> bytes:
    deep = b"[" * chance.choice([1000, 100_000])
    model = safetensors.torch.save({"x": torch.ones(2)}, {"format": "pt"})
    header = json.dumps({"__metadata__": {"format": "stepwise state", "version": "1"}}).encode()
    bare = len(header).to_bytes(8, "little") + header
    return chance.choice(
        [b"", b"\x80\x04\x95pickle.", b"PK\3\4" + bytes(99), len(deep).to_bytes(8, "little") + deep, model, bare]
    )


def other_type(parts: Parts, chance: random.Random) -> bytes:
    tree = parts.tree
    ways = [way for way in places(tree) if not (len(way) > 2 and way[-2:] == ("map", "denoised") and "state" in way)]
    way = chance.choice(ways)
    old = at(tree, way)
    wrong = [each for each in WRONG[type(old)] if type(each) is not type(old) or each != old]
    at(tree, way[:-1])[way[-1]] = chance.choice(wrong)
    return parts.file(tree)


def missing_key(parts: Parts, chance: random.Random) -> bytes:
    tree = parts.tree
    ways = [way for way in places(tree) if way[-2:-1] == ("map",) and way[-1] not in OPTIONAL and "params" not in way]
    way = chance.choice([way for way in ways if "model" not in way and not {"start_step", "solver_step"} & set(way)])
    del at(tree, way[:-1])[way[-1]]
    return parts.file(tree)


def swapped_tensors(parts: Parts, chance: random.Random) -> bytes:
    """One tensor in the place of another of another form, or in another form itself."""
    name = chance.choice(sorted(parts.tensors))
    old = parts.tensors[name]
    forms = (old[..., :-1], old[:0], old.double().long(), old.reshape(-1), old.unsqueeze(0), torch.zeros(3))
    return parts.file(tensors={**parts.tensors, name: chance.choice(forms)})


def long_schedule(parts: Parts, chance: random.Random) -> bytes:
    tree = parts.tree
    count = chance.choice([10_002, 100_000])
    tree["HeldRun"]["map"]["sigmas"] = {"tuple": [14.0 * (count - i) / count for i in range(count)]}
    return parts.file(tree)


KINDS: dict[Callable[[Parts, random.Random], bytes], int] = {
    cut_short: 4,
    flipped_bits: 6,
    huge_header: 3,
    other_file: 3,
    other_type: 10,
    missing_key: 3,
    swapped_tensors: 3,
    long_schedule: 1,
}


def damaged(data: bytes, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """So many damaged states, with what was done to each; the kinds in turn."""
    chance, parts = random.Random(seed), Parts.of(data)
    turns = [kind for kind, weight in KINDS.items() for _ in range(weight)]
    chance.shuffle(turns)
    for number in range(count):
        kind = turns[number % len(turns)]
        yield kind.__name__, kind(parts, chance)


def saving() -> dict[str, Any]:
    """A prompt that runs six steps of the example and saves the state."""
    prompt = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    prompt = {name: node for name, node in prompt.items() if node["class_type"] not in ("VAEDecode", "SaveImage")}
    prompt = {name: node for name, node in prompt.items() if name <= "8" and len(name) == 1}
    prompt["8"]["inputs"]["end_step"] = 6
    inputs = {"state": ["8", 2], "filename_prefix": "fuzz/state"}
    return {**prompt, "30": {"class_type": "StepwiseSaveState", "inputs": inputs}}


def going_on(file: str) -> dict[str, Any]:
    """A prompt that goes on from a file."""
    prompt = saving()
    for name in ("noise", "latent_image", "sigmas", "end_step"):
        del prompt["8"]["inputs"][name]
    prompt["8"]["inputs"] |= {"state": ["31", 0], "end_step": 10_000}
    prompt["31"] = {"class_type": "StepwiseLoadState", "inputs": {"file": file}}
    prompt["30"] = {"class_type": "StepwiseInspectState", "inputs": {"state": ["8", 2]}}
    return {name: node for name, node in prompt.items() if name not in ("4", "6", "7")}


def told(result: Result) -> list[str]:
    """Every error of a prompt, in the words that its person sees."""
    texts = [each["details"] for node in result.node_errors.values() for each in node["errors"]]
    return texts + ([result.error["exception_message"].strip()] if result.error else [])


def files_below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and "log" not in path.name
    }


def fuzz(server: Server, count: int, seed: int = 0) -> Counter[str]:
    """How many of each kind were refused. Raises AssertionError if one was not, or not in a clear way."""
    (shown,) = run_prompt(server, saving()).check().outputs["30"]["text"]
    good = (server.output / shown.removesuffix(" [output]")).read_bytes()
    refused, wrong = Counter[str](), list[str]()
    run_prompt(server, going_on(shown)).check()
    before = files_below(server.base) | files_below(server.output)
    for number, (kind, data) in enumerate(damaged(good, count, seed)):
        # Each under a name of its own: a file whose digest is the last one's is not loaded anew.
        file = server.base / "input" / f"damaged_{number}.safetensors"
        file.write_bytes(data)
        errors = told(run_prompt(server, going_on(f"{file.name} [input]")))
        file.unlink()
        if len(errors) != 1 or not CLEAR.fullmatch(errors[0]):
            (DEV / "failures").mkdir(parents=True, exist_ok=True)
            (DEV / "failures" / f"fuzz-{number}.safetensors").write_bytes(data)
            wrong.append(f"state {number} ({kind}): {errors or 'it ran'}")
        refused[kind] += 1
    run_prompt(server, going_on(shown)).check()
    assert not wrong, "\n".join(wrong)
    assert files_below(server.base) | files_below(server.output) == before, "something was written"
    return refused


def main(count: int = 300, seed: int = 0) -> None:
    with tempfile.TemporaryDirectory() as base, Server(DEV / "ComfyUI", Path(sys.executable), Path(base)) as server:
        began = time.monotonic()
        refused = fuzz(server, count, seed)
        print(f"{count} damaged states refused in {time.monotonic() - began:.0f} s: {dict(refused)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
