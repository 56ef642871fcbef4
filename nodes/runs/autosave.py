"""A run on disk while it is going on."""

import hashlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import folder_paths
import torch

from ...samplers import checkpoint
from ...samplers.parameters import InputError
from ..shared.messages import tell_page
from .files import KINDS, about, to_bytes
from .folders import NO_ROOM, SUFFIX
from .held import HeldRun
from .identity import guidance_of, run_of

FOLDER = "stepwise"
# The newest runs of a node that keep their files.
KEPT = 3
# Of a name in a file's name, in bytes of UTF-8.
LONGEST = 60
DIGEST = 12
# Ends the name of the file of a run that is begun anew, while what it reached before is further.
AGAIN = "_again"
# What a killed run was writing when it ended; a file that is being written is younger.
UNFINISHED, ABANDONED_AFTER = ".autosave_*.tmp", 60.0
GOES_ON = "Stepwise: the state at step %d could not be saved in %s (%s). The run goes on without it."
SAVED = "stepwise.saved"


@dataclass
class Autosave:
    """Writes the state every `every` steps to one file for each run of a node, named by workflow, node and run.

    A run never fails for it: what cannot be written is said, and tried again at the next turn. The file keeps its last
    good content until a new one is complete, and the file of another run is never replaced. Neither is one of the same
    run that is further: begun anew, it has a second file until it is as far. Of the files of a node the newest `KEPT`
    stay.
    """

    every: int
    node: str
    about: Mapping[str, str] = field(default_factory=dict)
    guidance: Callable[[], str] = str
    stem: str = ""
    loaded: frozenset[str] = frozenset()
    run: str = ""
    said: set[str] = field(default_factory=set)
    further: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        self.stem = self.stem or stem_of("", "", self.node)

    @classmethod
    def of(cls, every: int, hidden: Any, guider: Any) -> "Autosave | None":
        """The autosave of a node whose hidden inputs are `hidden`, for runs under `guider`."""
        if not every:
            return None
        node = str(getattr(hidden, "unique_id", None) or "node")
        stem = stem_of(workflow_name(hidden), title_of(hidden, node), node)
        return cls(every, node, about(hidden), lambda: guidance_of(guider, hidden), stem, loaded_in(hidden))

    @property
    def file(self) -> Path:
        return self.file_of(AGAIN if self.step < self.further else "")

    def file_of(self, mark: str) -> Path:
        return folder() / f"{self.stem}_{self.run[:DIGEST]}{mark}{SUFFIX}"

    @property
    def name(self) -> str:
        return listed_name(self.file)

    def turn(self, step: int, held: Callable[[], HeldRun]) -> None:
        if step % self.every == 0:
            self.save(step, held)

    def last(self, held: Callable[[], HeldRun]) -> None:
        """On the way out of an error, which nothing that happens here may take the place of."""
        try:
            saved = self.save(None, held)
            if saved is not None:
                logging.warning("Stepwise: saved at step %d of %d: %s", saved.step, saved.steps, self.name)
                told = {"node": self.node, "step": saved.step, "steps": saved.steps, "file": self.name}
                tell_page(SAVED, told)
        except BaseException as error:
            logging.warning("Stepwise: the state could not be saved (%s).", described(error))

    def save(self, step: int | None, held: Callable[[], HeldRun]) -> HeldRun | None:
        """Writes the state; what was written, or None."""
        try:
            state = held()
            step = state.step
            if finite(state):
                self.write(state)
                return state
        except Exception as error:
            reason = described(error)
            # A full disk may have room again: it is told at each turn that is lost.
            if getattr(error, "errno", None) in NO_ROOM or reason not in self.said:
                logging.warning(GOES_ON, step or 0, self.file, reason)
            self.said.add(reason)
        return None

    def write(self, held: HeldRun) -> None:
        if not folder_paths.is_within_directory(str(folder().parent), str(folder())):
            raise OSError(0, "the folder is a link that leads out of ComfyUI's output folder; link that folder itself")
        first = not self.run
        if first:
            self.run = run_of(held, self.guidance())
            sweep(folder())
            self.further = step_in(self.file_of(""))
        self.step = held.step
        checkpoint.write(self.file, to_bytes(held, {**self.about, "run": self.run}))
        if self.step >= self.further:
            self.drop(self.file_of(AGAIN))
        if first:
            self.drop_oldest()

    def drop_oldest(self) -> None:
        """Removes the files of this node's runs but the newest, and those that the graph goes on from."""
        others = [file for file in autosaves(folder(), self.stem) if file != self.file]
        for file in others[KEPT - 1 :]:
            self.drop(file)

    def drop(self, file: Path) -> None:
        if file.name not in self.loaded:
            with suppress(OSError):
                file.unlink()


def folder() -> Path:
    return Path(folder_paths.get_output_directory()) / FOLDER


def listed_name(file: Path) -> str:
    """The name of an autosave as Load State has it."""
    return f"{FOLDER}/{file.name} [output]"


def autosaves(place: Path, stem: str) -> list[Path]:
    """The files of the runs of one node, newest first."""
    form = re.compile(rf"{re.escape(stem)}_[0-9a-f]{{{DIGEST}}}({AGAIN})?{re.escape(SUFFIX)}")
    found = [
        (written, file) for file in place.glob("autosave_*") if form.fullmatch(file.name) and (written := age(file))
    ]
    return [file for _, file in sorted(found, reverse=True)]


def age(file: Path) -> float:
    """When a file was written; 0 if it is none, or has gone."""
    with suppress(OSError):
        if file.is_file() and not file.is_symlink():
            return file.stat().st_mtime
    return 0.0


def step_in(file: Path) -> int:
    """The step at which the state in a file stands; 0 where there is none that can be read."""
    with suppress(OSError, InputError):
        held = checkpoint.outline(file, KINDS)
        return held.step if isinstance(held, HeldRun) and isinstance(held.step, int) else 0
    return 0


def stem_of(workflow: str, title: str, node: str) -> str:
    """How the files of a node's runs begin: workflow, title and id of the node, as far as they are known."""
    parts = [part for part in (readable(workflow), readable(title)) if part]
    return "_".join(["autosave", *parts, name_of(node)])


def readable(name: str) -> str:
    """A name as a person gave it, without what means something to a file system."""
    plain = re.sub(r"[^\w.+-]+", "-", name).strip("-._")
    return plain.encode(errors="ignore")[:LONGEST].decode(errors="ignore")


def title_of(hidden: Any, node: str) -> str:
    """The title of the node in the editor, which the page sends along."""
    prompt = getattr(hidden, "prompt", None)
    entry = prompt.get(node) if isinstance(prompt, Mapping) else None
    meta = entry.get("_meta") if isinstance(entry, Mapping) else None
    title = meta.get("title") if isinstance(meta, Mapping) else None
    return title if isinstance(title, str) else ""


def workflow_name(hidden: Any) -> str:
    """The name of the workflow's file, which the page sends along (web/workflow_name.js)."""
    found: Any = getattr(hidden, "extra_pnginfo", None)
    for name in ("workflow", "extra", "stepwise", "workflow"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else ""


def loaded_in(hidden: Any) -> frozenset[str]:
    """The names of the files that the graph loads states from."""
    prompt = getattr(hidden, "prompt", None)
    nodes = prompt.values() if isinstance(prompt, Mapping) else ()
    values = [node.get("inputs", {}).get("file") for node in nodes if node.get("class_type") == "StepwiseLoadState"]
    return frozenset(Path(value.removesuffix(" [output]")).name for value in values if isinstance(value, str))


def name_of(node: str) -> str:
    """A node's id as a part of a file's name. An id may be any text, and no two share a name: what is not as the editor
    makes them has a digest of it."""
    plain = re.sub(r"[^\w.-]+", "-", node, flags=re.ASCII)[:80]
    if re.fullmatch(r"[a-z0-9.:]{1,80}", node):
        return plain
    return f"{plain}_{hashlib.blake2b(node.encode(errors='backslashreplace'), digest_size=4).hexdigest()}"


def sweep(place: Path) -> None:
    """Removes what killed runs left unfinished."""
    for file in place.glob(UNFINISHED):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > ABANDONED_AFTER:
                file.unlink()


def described(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def finite(held: HeldRun) -> bool:
    """A state with NaN or infinity in it would only lead to more: the last good one is worth more."""
    state = held.state
    tensors = (*state.registers.values(), *held.memory.values(), *([] if state.denoised is None else [state.denoised]))
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
