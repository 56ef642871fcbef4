"""A run on disk while it is going on."""

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import folder_paths
import torch

from ...samplers import State, checkpoint
from ...samplers.parameters import InputError
from .files import KINDS, about, to_bytes
from .held import HeldRun

FOLDER = "stepwise"


@dataclass
class Autosave:
    """Writes the state every `every` steps to one file for each node.

    A run never fails for want of room: what cannot be written is said, and tried again at the next turn. The file keeps
    its last good content until a new one is complete.
    """

    every: int
    node: str
    about: Mapping[str, str]
    run: str = ""

    @classmethod
    def of(cls, every: int, hidden: Any) -> "Autosave | None":
        """The autosave of a node whose hidden inputs are `hidden`."""
        return cls(every, str(getattr(hidden, "unique_id", None) or "node"), about(hidden)) if every else None

    @property
    def file(self) -> Path:
        name = re.sub(r"[^\w.-]+", "-", self.node)
        return Path(folder_paths.get_output_directory()) / FOLDER / f"autosave_{name}.safetensors"

    def turn(self, step: int, held: Callable[[], HeldRun]) -> None:
        if step % self.every == 0:
            self.save(held())

    def save(self, held: HeldRun) -> None:
        if not finite(held.state):
            return
        try:
            self.keep_other_run(held)
            checkpoint.write(self.file, to_bytes(held, {**self.about, "run": self.run}))
        except OSError as error:
            problem = "Stepwise: the state at step %d could not be saved in %s (%s). The run goes on without it."
            logging.warning(problem, held.step, self.file, error.strerror)

    def keep_other_run(self, held: HeldRun) -> None:
        """Before its first save a run moves aside what another one has left there."""
        if self.run:
            return
        self.run = run_of(held)
        try:
            other = checkpoint.peek(self.file).get("run") != self.run
        except FileNotFoundError:
            return
        except InputError:
            other = True
        if other:
            os.replace(self.file, self.file.with_name(f"{self.file.stem}_previous{self.file.suffix}"))


def run_of(held: HeldRun) -> str:
    """What tells one run from another: all that it began with."""
    began = replace(held, state=State({}), memory={}, solver_step=0, step=0, denoised=None, batching=(), patches={})
    return checkpoint.marks_of(checkpoint.dumps(began, KINDS))["digest"]


def finite(state: State) -> bool:
    """A state with NaN or infinity in it would only lead to more: the last good one is worth more."""
    return all(bool(torch.isfinite(register).all()) for register in state.registers.values())
