"""What a plan is fitted on: a model, its starts, and the runs of plans on them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from ..parameters import InputError
from ..path import Path
from ..plan import Plan, State, run


class Stopped(Exception):
    """Raised by a subject that is to stop: the fit ends with the best that it has."""


class Subject(Protocol):
    """`starts` images `[N, ...]` at the highest level on the CPU, and how a plan goes on from a state of some of them.

    `sigma_min` is the lowest level that the model knows: below it there is one step to 0, for the reference too.
    """

    path: Path
    starts: Tensor
    sigma_min: float

    def run(
        self,
        plan: Plan,
        state: State,
        images: slice,
        stop: int | None = None,
        watch: Callable[[State], None] | None = None,
    ) -> State:
        """Runs `plan` on from `state`, that of the starts `images`, until `stop` calls are done (all by default);
        states lie on the CPU. A state may hold several copies of the images, one after another, on each of which the
        same is done. `watch` is told x and the prediction after every call. Raises Stopped to end the fit."""
        ...


@dataclass(frozen=True)
class Alone:
    """A denoiser without a host: `(x, sigma) -> denoised`, the same for all starts."""

    path: Path
    denoiser: Callable[[Tensor, float], Tensor]
    starts: Tensor
    sigma_min: float = 0.0

    def run(
        self,
        plan: Plan,
        state: State,
        images: slice,
        stop: int | None = None,
        watch: Callable[[State], None] | None = None,
    ) -> State:
        return run(plan, self.denoiser, state, stop=stop, watch=watch)


class Split(NamedTuple):
    """The first `fit` starts are fitted on, the next `select` choose among candidates; what is beyond them is seen by
    neither, and figures are reported of it."""

    fit: int
    select: int

    @property
    def fitted(self) -> slice:
        return slice(0, self.fit)

    @property
    def selected(self) -> slice:
        return slice(self.fit, self.fit + self.select)

    @property
    def seen(self) -> slice:
        return slice(0, self.fit + self.select)

    def check(self, starts: int) -> None:
        if self.fit < 2 or self.select < 1:
            raise InputError("starts", f"gives {self.fit} to fit on and {self.select} to select on", "give at least 8")
        if self.fit + self.select > starts:
            raise InputError("starts", f"are {starts}, and the split takes {self.fit + self.select}", "give more")
