"""Runs of a plan that begin where a change in it begins to count."""

from dataclasses import dataclass, field

from torch import Tensor

from ..linear_combination import combine
from ..plan import State, start
from .linear_form import LinearForm
from .meter import Meter
from .subject import Subject


@dataclass
class Track:
    """A run of a linear form on some images: x before each call and at the end, and the prediction of each call."""

    form: LinearForm
    images: slice
    x: list[Tensor] = field(default_factory=list[Tensor])
    denoised: list[Tensor] = field(default_factory=list[Tensor])

    @property
    def end(self) -> Tensor:
        return self.x[-1]

    def row(self, form: LinearForm, n: int) -> Tensor:
        """x after row n of `form`, from what this track saw before it."""
        terms = [(self.denoised[n - back], value) for back, value in enumerate(form.taken[n])]
        return combine([*terms, (self.x[n], form.carry[n])])

    def before(self, form: LinearForm, n: int) -> State:
        """The state of a run of `form` before call n, if row n - 1 is the first to differ from this track's."""
        if n == 0:
            return start(self.x[0])
        known = {f"previous{back}": self.denoised[n - back] for back in range(1, min(n, max(form.depth, 1)) + 1)}
        plan = form.plan()
        keeps = plan.stages[n - 1].keeps
        registers = {name: self.row(form, n - 1) if name == "x" else known[name] for name in keeps}
        return State(registers, n, self.denoised[n - 1])


def tracked(subject: Subject, form: LinearForm, images: slice, meter: Meter) -> Track:
    """A run from the starts on, with all that it saw."""
    track = Track(form, images, [subject.starts[images]])

    def note(state: State) -> None:
        track.x.append(state.x)
        if state.denoised is not None:
            track.denoised.append(state.denoised)

    meter.spend(form.calls, images)
    subject.run(form.plan(), start(subject.starts[images]), images, watch=note)
    return track


def end_of(subject: Subject, track: Track, form: LinearForm, restart: int, meter: Meter) -> Tensor:
    """Where a run of `form` ends that agrees with the track before call `restart`, but for the row that leads there."""
    state = track.before(form, restart)
    if restart == form.calls:
        return state.x
    meter.spend(form.calls - restart, track.images)
    return subject.run(form.plan(), state, track.images).x
