"""What tells one run from another: all that it began with, and what guides it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor

from ...samplers import State, checkpoint
from .files import KINDS
from .held import HeldRun


def run_of(held: HeldRun, guidance: str) -> str:
    """A digest of what the run began with. It is the same in every part of it."""
    began = replace(
        held, state=State({}), memory={}, solver_step=0, step=0, denoised=None, batching=(), patches={}, forgotten=()
    )
    text = checkpoint.marks_of(checkpoint.dumps(began, KINDS))["digest"]
    return hashlib.blake2b(f"{text} {guidance}".encode(), digest_size=16).hexdigest()


# The inputs that guide a run: of a node that is given a guider, and of one that makes its own.
GUIDING = ("guider", "model", "positive", "negative", "cfg")


def guidance_of(guider: Any, hidden: Any) -> str:
    """What guides a run: the nodes that lead to these inputs of the node with these hidden inputs, whatever their ids,
    or, outside of a graph, the values that the guider holds."""
    prompt, node = (getattr(hidden, name, None) for name in ("prompt", "unique_id"))
    inputs = prompt[node].get("inputs", {}) if isinstance(prompt, Mapping) and node in prompt else {}
    if not any(is_link(inputs.get(name)) for name in GUIDING):
        return digest(described(guider))
    graph = Graph(prompt)
    return digest([graph.digest(inputs.get(name)) for name in GUIDING])


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


class Graph:
    """The nodes of a prompt, each with a digest of itself and of all that is wired into it."""

    def __init__(self, prompt: Mapping[str, Any]):
        self.prompt = prompt
        self.known: dict[str, str] = {}

    def digest(self, value: Any) -> str:
        if not is_link(value) or value[0] not in self.prompt:
            return json.dumps(value, sort_keys=True, default=str)
        if value[0] not in self.known:
            # A loop is no graph that runs; it ends here.
            self.known[value[0]] = ""
            node = self.prompt[value[0]]
            inputs = {name: self.digest(each) for name, each in sorted(node.get("inputs", {}).items())}
            self.known[value[0]] = digest([node.get("class_type"), inputs])
        return f"{self.known[value[0]]} {value[1]}"


def digest(plain: Any) -> str:
    return hashlib.blake2b(json.dumps(plain, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


# What a guider holds that is of the host or of one run.
PASSING = ("model_patcher", "model_options", "inner_model", "loaded_models", "conds", "run", "uuid")


def described(value: Any, depth: int = 0) -> Any:
    """A value as JSON by what it holds, as far as that says something: numbers, text, tensors by their content, and
    the kinds of all else."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return checkpoint.digest("", {"": value.detach().cpu().contiguous()})
    if depth < 12:
        if isinstance(value, Mapping):
            return [[str(k), described(each, depth + 1)] for k, each in value.items() if k not in PASSING]
        if isinstance(value, list | tuple):
            return [described(each, depth + 1) for each in value]
        if is_dataclass(value) and not isinstance(value, type):
            return [type(value).__name__, [described(getattr(value, each.name), depth + 1) for each in fields(value)]]
        if depth == 0:
            return [type(value).__qualname__, described(vars(value), 1)]
    return getattr(value, "__qualname__", type(value).__qualname__)
