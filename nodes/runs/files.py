"""STEPWISE_STATE on disk: in the host's folders, whole or not at all, and checked before it is believed."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.cli_args
import comfy.utils
import folder_paths
from comfy.nested_tensor import NestedTensor

from ...samplers import checkpoint
from ...samplers.checkpoint import DAMAGED, Kind, kind_of
from ...samplers.parameters import InputError
from ...samplers.registry import SOLVERS
from ...samplers.schedules.checks import check_sigmas
from ..host.sampler import make_plan
from .held import HeldRun

KINDS: Mapping[str, Kind] = {
    **checkpoint.KINDS,
    "HeldRun": kind_of(HeldRun),
    "nested": Kind(NestedTensor, lambda nested: list(nested.unbind()), NestedTensor),
}
SUFFIX = ".safetensors"
FOLDERS = ("output", "input")


def to_bytes(held: HeldRun, about: Mapping[str, str]) -> bytes:
    """The file of a state. Raises InputError where there is nothing to go on from.

    What other nodes put beside the latent and cannot be written (no number, text or tensor) is left out and named.
    """
    if held.state is None:
        cure = "use a Stepwise sampler in the node that made it"
        raise InputError("state", f"comes from a sampler that keeps nothing to resume ({held.solver})", cure)
    latent = {name: value for name, value in held.latent.items() if name == "samples" or writable(name, value)}
    return checkpoint.dumps(replace(held, latent=latent), KINDS, about)


def writable(name: str, value: Any) -> bool:
    try:
        checkpoint.dumps(value, KINDS)
    except TypeError as error:
        logging.warning("Stepwise: the latent's %s is not saved with the state: %s.", name, error)
        return False
    return True


def from_bytes(data: bytes, name: str = "file") -> HeldRun:
    """The state in a file. Raises InputError for anything that is no state, or not a whole and consistent one."""
    held = checkpoint.loads(data, KINDS, name)
    if not isinstance(held, HeldRun):
        raise InputError(name, "was saved by the library, not by a node", "load it with stepwise.samplers.checkpoint")
    try:
        check_run(held, name)
    except InputError as error:
        raise InputError(name, f"is inconsistent: {error.name} {error.problem}", DAMAGED) from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(name, f"is inconsistent ({error})", DAMAGED) from None
    return held


def check_run(held: HeldRun, name: str) -> None:
    """Raises unless all parts of the state agree: schedule, place, registers, shapes."""
    check_sigmas(held.path, held.sigmas)
    solver = next((solver for solver in SOLVERS if solver.name == held.solver), None)
    if solver is None:
        raise InputError("solver", f"is {held.solver}, which this Stepwise does not have", DAMAGED)
    if not 0 <= held.start_step <= held.solver_step <= held.step <= held.steps:
        problem = f"is {held.step}, of a run from {held.start_step} to {held.steps}"
        raise InputError("step", problem, DAMAGED)
    shape = tuple(packed_shape(held.latent["samples"]))
    for what, tensor in (("noise", held.noise), ("denoised", held.denoised)):
        if tuple(packed_shape(tensor)) != shape:
            raise InputError(what, f"has another shape than the latent, {packed_shape(tensor)}", DAMAGED)
    if tuple(held.state.x.shape) != shape:
        raise InputError("x", f"has the shape {tuple(held.state.x.shape)}, and the latent {shape}", DAMAGED)
    for what, seeds in (("seeds", held.seeds), ("variation_seeds", held.variation_seeds)):
        if len(seeds) != shape[0] and (what == "seeds" or held.variation_strength):
            raise InputError(what, f"has {len(seeds)} numbers for {shape[0]} images", DAMAGED)
    params = {key: value for key, value in held.params.items() if key in solver.parameters}
    plan = make_plan(solver, params, held.path, held.sigmas[held.solver_step :], open_end=True)
    # A state of another version has a plan of its own; it is told when the run goes on.
    if checkpoint.fingerprint(plan) == held.plan:
        checkpoint.check_state(plan, held.state, "state")
        if plan.first_stage(held.step - held.solver_step) != held.state.index:
            raise InputError("step", f"is {held.step}, and {held.state.index} model calls are done", DAMAGED)


def packed_shape(samples: Any) -> tuple[int, ...]:
    """The shape in which the host samples a latent: a nested one in a row."""
    if not samples.is_nested:
        return tuple(samples.shape)
    return tuple(comfy.utils.pack_latents(samples.unbind())[0].shape)


def read(file: Path) -> HeldRun:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError("file", f"cannot be read ({error.strerror})", "choose another file") from None
    return from_bytes(data)


def listed() -> list[str]:
    """The states in the host's output and input folders, newest first, as the host names files in a folder."""
    return [name for _, name in sorted(states(), reverse=True)]


def states() -> Iterator[tuple[float, str]]:
    """When each was written, and its name. A file may go while this looks: a run moves and replaces its autosave."""
    for kind in FOLDERS:
        root = folder_paths.get_directory_by_type(kind)
        for folder, _, names in os.walk(root):
            for name in names:
                file = Path(folder, name)
                if name.endswith(SUFFIX) and not name.startswith("."):
                    with suppress(OSError, InputError):
                        checkpoint.peek(file)
                        yield file.stat().st_mtime, f"{file.relative_to(root).as_posix()} [{kind}]"


def found(name: str) -> Path:
    """The file behind a name of `listed`. Raises InputError for a name that leads out of the host's folders."""
    try:
        path = folder_paths.get_annotated_filepath(name, folder_paths.get_output_directory())
    except ValueError:
        path = None
    if path is None or not name.endswith(tuple(f" [{kind}]" for kind in FOLDERS)):
        problem = f"is {name!r}, which is not in ComfyUI's output or input folder"
        raise InputError("file", problem, "put the file there, and choose it from the list")
    if not Path(path).is_file():
        raise InputError("file", f"is {name!r}, and there is no such file", "choose one from the list")
    return Path(path)


def about(hidden: Any) -> dict[str, str]:
    """The graph, as the host saves it with pictures: dropped on the editor, a state brings its workflow back."""
    if comfy.cli_args.args.disable_metadata or hidden is None:
        return {}
    found = {} if hidden.prompt is None else {"prompt": hidden.prompt}
    return {name: json.dumps(value) for name, value in {**found, **(hidden.extra_pnginfo or {})}.items()}
