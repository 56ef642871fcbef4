"""A run on disk while it is going on."""

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import folder_paths
import torch

from ...samplers import State, checkpoint
from ...samplers.parameters import InputError
from .files import about, to_bytes
from .folders import NO_ROOM, SUFFIX
from .held import HeldRun
from .identity import guidance_of, run_of

FOLDER = "stepwise"
# What a killed run was writing when it ended; a file that is being written is younger.
UNFINISHED, ABANDONED_AFTER = ".autosave_*.tmp", 60.0
GOES_ON = "Stepwise: the state at step %d could not be saved in %s (%s). The run goes on without it."


@dataclass
class Autosave:
    """Writes the state every `every` steps to one file for each node.

    A run never fails for it: what cannot be written is said, and tried again at the next turn. The file keeps its last
    good content until a new one is complete, and the file of another run is never replaced: it is moved aside once, and
    where that cannot be done, this run has a file of its own.
    """

    every: int
    node: str
    about: Mapping[str, str]
    guidance: Callable[[], str] = str
    run: str = ""
    own: bool = False
    moved: str = ""
    said: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, every: int, hidden: Any, guider: Any) -> "Autosave | None":
        """The autosave of a node whose hidden inputs are `hidden`, for runs under `guider`."""
        if not every:
            return None
        node = str(getattr(hidden, "unique_id", None) or "node")
        return cls(every, node, about(hidden), lambda: guidance_of(guider, hidden))

    @property
    def folder(self) -> Path:
        return Path(folder_paths.get_output_directory()) / FOLDER

    @property
    def file(self) -> Path:
        mark = f"_{self.run[:8]}" if self.own else ""
        return self.folder / f"autosave_{name_of(self.node)}{mark}{SUFFIX}"

    def turn(self, step: int, held: Callable[[], HeldRun]) -> None:
        if step % self.every == 0:
            self.save(step, held)

    def last(self, held: Callable[[], HeldRun]) -> None:
        """On the way out of an error, which nothing that happens here may take the place of."""
        try:
            self.save(None, held)
        except BaseException as error:
            logging.warning("Stepwise: the state could not be saved (%s).", described(error))

    def save(self, step: int | None, held: Callable[[], HeldRun]) -> None:
        try:
            state = held()
            step = state.step
            if finite(state.state):
                self.write(state)
        except Exception as error:
            reason = described(error)
            # A full disk may have room again: it is told at each turn that is lost.
            if getattr(error, "errno", None) in NO_ROOM or reason not in self.said:
                logging.warning(GOES_ON, step or 0, self.file, reason)
            self.said.add(reason)

    def write(self, held: HeldRun) -> None:
        if not folder_paths.is_within_directory(str(self.folder.parent), str(self.folder)):
            raise OSError(0, "the folder is a link that leads out of ComfyUI's output folder; link that folder itself")
        if not self.run:
            self.run = run_of(held, self.guidance())
            sweep(self.folder)
            self.keep_other_run()
        elif not self.own and self.other_there():
            self.stand_beside("another run has taken it")
        checkpoint.write(self.file, to_bytes(held, {**self.about, "run": self.run}))
        if self.moved:
            logging.warning("Stepwise: the run is saved in %s, %s.", self.file.name, self.moved)
            self.moved = ""

    def other_there(self) -> bool:
        try:
            return checkpoint.peek(self.file).get("run") != self.run
        except FileNotFoundError:
            return False
        except (InputError, OSError):
            return True

    def keep_other_run(self) -> None:
        """Before its first save a run moves aside what another one has left there."""
        if self.other_there():
            try:
                os.replace(self.file, self.file.with_name(f"{self.file.stem}_previous{SUFFIX}"))
            except OSError as error:
                self.stand_beside(f"that of another run cannot be moved aside: {described(error)}")

    def stand_beside(self, reason: str) -> None:
        """Said once there is a file to speak of."""
        self.moved = f"not in {self.file.name} ({reason})"
        self.own = True


def name_of(node: str) -> str:
    """A node's id as a part of a file's name. An id may be any text, and no two share a name: what is not as the editor
    makes them has a digest of it."""
    plain = re.sub(r"[^\w.-]+", "-", node, flags=re.ASCII)[:80]
    if re.fullmatch(r"[a-z0-9.:]{1,80}", node):
        return plain
    return f"{plain}_{hashlib.blake2b(node.encode(errors='backslashreplace'), digest_size=4).hexdigest()}"


def sweep(folder: Path) -> None:
    """Removes what killed runs left unfinished."""
    for file in folder.glob(UNFINISHED):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > ABANDONED_AFTER:
                file.unlink()


def described(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def finite(state: State) -> bool:
    """A state with NaN or infinity in it would only lead to more: the last good one is worth more."""
    return all(bool(torch.isfinite(register).all()) for register in state.registers.values())
