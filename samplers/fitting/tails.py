"""Runs of a plan that begin where a change in it begins to count; of many changes, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
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

    def step(self, n: int) -> None:
        """Goes on by row n, whose call is done."""
        self.x.append(stepped(self.form, n, self.x[n], self.denoised))


def opened(form: LinearForm, x: Tensor) -> Tensor:
    """x at the first call of `form`, from what the run starts with."""
    return x if form.opening == 1.0 else x * form.opening


def stepped(form: LinearForm, n: int, x: Tensor, denoised: Sequence[Tensor]) -> Tensor:
    """x after row n of `form`."""
    terms = [(denoised[n - back], value) for back, value in enumerate(form.taken[n])]
    return combine([*terms, (x, form.carry[n])])


def predictions(
    subject: Subject, form: LinearForm, n: int, x: Sequence[Tensor], images: slice, meter: Meter
) -> list[Tensor]:
    """What the model predicts at call n of `form` where x is each of these, in one run of that call.

    Every one of `x` is of the same images; the subject has them as one state of so many copies.
    """
    meter.spend(len(x), images)
    state = State({"x": torch.cat(list(x)) if len(x) > 1 else x[0]}, n)
    denoised = subject.run(form.asking, state, images, stop=n + 1).denoised
    assert denoised is not None
    return list(denoised.chunk(len(x)))


def tracked(subject: Subject, form: LinearForm, images: slice, meter: Meter) -> Track:
    """A run from the starts on, with all that it saw."""
    track = Track(form, images, [opened(form, subject.starts[images])])

    def note(state: State) -> None:
        track.x.append(state.x)
        if state.denoised is not None:
            track.denoised.append(state.denoised)

    meter.spend(form.calls, images)
    subject.run(form.plan(), start(subject.starts[images]), images, watch=note)
    return track


def ends_of(subject: Subject, track: Track, changed: Sequence[tuple[LinearForm, int]], meter: Meter) -> list[Tensor]:
    """Where runs of other forms end, each of which agrees with the track before its call `restart`, but for the row
    that leads there.

    They go on side by side: what is asked of the model at one call and one noise level is asked at once.
    """
    starts = subject.starts[track.images]
    x = [opened(form, starts) if restart == 0 else track.x[0] for form, restart in changed]
    seen = [track.denoised[:restart] for _, restart in changed]
    for n in range(track.form.calls + 1):
        for i, (form, restart) in enumerate(changed):
            if n > 0 and restart <= n:
                x[i] = stepped(form, n - 1, x[i] if restart < n else track.x[n - 1], seen[i])
        if n == track.form.calls:
            break
        for group in groups([(i, form.called[n]) for i, (form, restart) in enumerate(changed) if restart <= n]):
            found = predictions(subject, changed[group[0]][0], n, [x[i] for i in group], track.images, meter)
            for i, denoised in zip(group, found, strict=True):
                seen[i].append(denoised)
    return x


def groups(told: Sequence[tuple[int, float]]) -> list[list[int]]:
    """Those that are told the same, together."""
    found = dict[float, list[int]]()
    for i, sigma in told:
        found.setdefault(sigma, []).append(i)
    return list(found.values())
