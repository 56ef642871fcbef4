"""STEPWISE_STATE as a file: whole or not at all, and checked before it is believed."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.cli_args
from comfy.nested_tensor import NestedTensor

from ...samplers import checkpoint
from ...samplers.checkpoint import DAMAGED, Kind, kind_of
from ...samplers.parameters import InputError, quoted
from ...samplers.registry import FITTED
from .checks import check_run
from .held import HeldRun

KINDS: Mapping[str, Kind] = {
    **checkpoint.KINDS,
    "HeldRun": kind_of(HeldRun),
    "nested": Kind(NestedTensor, lambda nested: list(nested.unbind()), NestedTensor),
}
# What a run reads of its LATENT.
READ = ("samples", "noise_mask", "batch_index")
# What other nodes put beside it stays with the run where it is numbers and text of no more than this, as JSON.
BESIDE = 64 * 2**10


def kept(latent: Mapping[str, Any]) -> dict[str, Any]:
    """What a state holds of a LATENT: what the rest of the run reads, and small notes of other nodes in numbers and
    text. The rest, such as a MODEL, is named and goes its way beside the state: a held state keeps nothing alive."""
    return {name: value for name, value in latent.items() if name in READ or noted(name, value)}


def noted(name: str, value: Any) -> bool:
    try:
        marks = checkpoint.marks_of(checkpoint.dumps(value, KINDS))
        problem = "it holds tensors" if '"tensor":' in marks["state"] else ""
        problem = "it is large" if len(marks["state"]) > BESIDE else problem
    except (TypeError, ValueError, RecursionError, InputError) as error:
        problem = str(error)
    if problem:
        logging.warning("Stepwise: the latent's %s is not saved with the state: %s.", name, problem)
    return not problem


def to_bytes(held: HeldRun, about: Mapping[str, str]) -> bytes:
    """The file of a state. Raises InputError where there is nothing to go on from."""
    if held.state is None:
        cure = "use a Stepwise sampler in the node that made it"
        raise InputError("state", f"comes from a sampler that keeps nothing to resume ({held.solver})", cure)
    form = checkpoint.STATE_WITH_PLAN if held.solver == FITTED.name else checkpoint.STATE
    return checkpoint.dumps(replace(held, latent=kept(held.latent), warm_up=False), KINDS, about, form)


def from_bytes(data: bytes, name: str = "file") -> HeldRun:
    """The state in a file. Raises InputError for anything that is no state, or not a whole and consistent one."""
    held = checkpoint.loads(data, KINDS, name)
    if not isinstance(held, HeldRun):
        raise InputError(name, "was saved by the library, not by a node", "load it with stepwise.samplers.checkpoint")
    try:
        check_run(held)
    except InputError as error:
        raise InputError(name, f"is inconsistent: {error.name} {error.problem}", DAMAGED) from None
    return held


def read(file: Path, name: str) -> HeldRun:
    """The state in a file that was chosen by this name, which messages repeat: it may come over a link."""
    try:
        return from_bytes(checkpoint.read(file))
    except OSError as error:
        problem = f"{quoted(name)} cannot be read ({error.strerror})"
        raise InputError("file", problem, "choose another file") from None
    except InputError as error:
        raise InputError(error.name, f"{quoted(name)} {error.problem}", error.cure) from None


def about(hidden: Any) -> dict[str, str]:
    """The graph, as the host saves it with pictures: dropped on the editor, a state brings its workflow back."""
    if comfy.cli_args.args.disable_metadata or hidden is None:
        return {}
    found = {} if hidden.prompt is None else {"prompt": hidden.prompt}
    return {name: json.dumps(value) for name, value in {**found, **(hidden.extra_pnginfo or {})}.items()}
