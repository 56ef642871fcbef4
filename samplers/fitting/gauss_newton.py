"""All numbers together: Gauss-Newton on the final picture, its Jacobian by finite differences of whole runs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..linear_combination import combine
from .errors import distances, importance, lengths, score
from .freedom import Number, Values, made
from .least_squares import TINY, normal, solved
from .linear_form import LinearForm
from .meter import Meter
from .subject import Subject
from .tails import Track, ends_of, tracked

# No level moves further in one round, in half log-SNR, and no share, in parts of the step.
FARTHEST = {"level": 0.4, "told": 0.4, "opening": 0.4, "carry": 0.3, "sum": 1.0, "taken": 3.0}
# Steps that a round tries at most; what one that fails makes of the damping, and one that does not.
STEPS, RISE, FALL = 5, 10.0, 0.3
# Of a picture with more numbers than this, sums with random signs stand for it: they keep lengths on the average.
SKETCH = 4096
# Bytes of memory, on the CPU, for runs that go side by side.
ROOM = 2**30


class Sketch:
    """Count sketch: every number of a picture in one of SKETCH sums, with a sign."""

    def __init__(self, size: int, seed: int = 0):
        self.size = size
        generator = torch.Generator().manual_seed(seed)
        self.place = torch.randint(SKETCH, (size,), generator=generator)
        self.sign = torch.randint(2, (size,), generator=generator) * 2.0 - 1.0

    def __call__(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        if self.size <= SKETCH:
            return flat
        return flat.new_zeros(len(flat), SKETCH).index_add_(1, self.place, flat * self.sign)


def cost_of(numbers: Sequence[Number], calls: int) -> int:
    """Model calls of a Jacobian."""
    return sum((calls - each.restart) * (1 + each.central) for each in numbers)


class GaussNewton:
    """Rounds of it. `values` are the best on the images that are fitted on."""

    def __init__(
        self,
        subject: Subject,
        begin: LinearForm,
        numbers: Sequence[Number],
        values: Values,
        target: Tensor,
        images: slice,
        meter: Meter,
    ):
        self.subject, self.begin, self.numbers, self.images, self.meter = subject, begin, numbers, images, meter
        self.values = dict.fromkeys(numbers, 0.0) | values
        self.target, self.damping = target, 0.03
        form = made(begin, self.values)
        assert form is not None
        self.track: Track = tracked(subject, form, images, meter)
        self.score = score(self.errors(self.track.end))
        self.sketch = Sketch(target[0].numel())

    def errors(self, x: Tensor) -> Tensor:
        return distances(x, self.target)

    @property
    def cost(self) -> int:
        """Model calls of a Jacobian and one step."""
        return cost_of(self.numbers, self.begin.calls) + self.begin.calls

    def columns(self) -> list[Tensor]:
        """The derivative of the final picture by each number, sketched."""
        tried = [
            (number, step, form)
            for number in self.numbers
            for step in ((number.step, -number.step) if number.central else (number.step,))
            if (form := made(self.begin, self.values | {number: self.values[number] + step})) is not None
        ]
        found = dict[Number, list[tuple[float, Tensor]]]()
        for first in range(0, len(tried), self.at_once):
            some = tried[first : first + self.at_once]
            changed = [(form, number.restart) for number, _, form in some]
            ends = ends_of(self.subject, self.track, changed, self.meter)
            for (number, step, _), end in zip(some, ends, strict=True):
                found.setdefault(number, []).append((step, self.sketch(end)))
        return [self.derivative(found.get(number, [])) for number in self.numbers]

    @property
    def at_once(self) -> int:
        """How many runs go side by side: as many as ROOM has place for what they see."""
        run = self.begin.calls * self.track.end.nbytes
        return max(1, ROOM // run)

    def derivative(self, ends: Sequence[tuple[float, Tensor]]) -> Tensor:
        """The quotient of one number's changes; 0 where none of them made a plan."""
        if not ends:
            return torch.zeros_like(self.sketch(self.track.end))
        step, end = ends[0]
        other, far = ends[1] if len(ends) == 2 else (0.0, self.sketch(self.track.end))
        return (end - far) / (step - other)

    def round(self) -> bool:
        """One Jacobian and damped steps along it, until two fail after one that did not; whether the score fell.

        A step costs one run, a Jacobian some fifteen: so what a step has seen of the model, good or not, is put into
        the Jacobian (`broyden`), which leads the next one.
        """
        columns, before, failures = self.columns(), self.score, 0
        for _ in range(STEPS):
            if (failures == 2 and self.score < before) or not self.meter.allows(self.begin.calls):
                break
            matrix, right = normal(columns, self.sketch(self.target - self.track.end), self.weights())
            scales = matrix.diagonal() + 1e-4 * matrix.diagonal().mean() + TINY
            tried = self.step(matrix, right, scales)
            track = self.tracked(tried)
            found = float("inf") if track is None else score(self.errors(track.end))
            if track is not None and found < float("inf"):
                change = [tried[each] - self.values[each] for each in self.numbers]
                columns = broyden(columns, change, scales, self.sketch(track.end - self.track.end))
            if track is not None and found < self.score:
                self.values, self.track, self.score = tried, track, found
                failures, self.damping = 0, max(FALL * self.damping, 1e-7)
            else:
                failures, self.damping = failures + 1, RISE * self.damping
        return self.score < before

    def weights(self) -> Tensor:
        """How much each image counts, for differences of x."""
        return importance(self.errors(self.track.end)) / lengths(self.target).clamp_min(1e-12).square()

    def tracked(self, values: Values) -> Track | None:
        """A run with these values; None where they make no plan."""
        form = made(self.begin, values)
        return None if form is None else tracked(self.subject, form, self.images, self.meter)

    def step(self, matrix: Tensor, right: Tensor, scales: Tensor) -> Values:
        """The values after a step of least squares, damped in the scale of each number (Levenberg, Marquardt)."""
        change = solved(matrix + self.damping * torch.diag(scales), right)
        changes = dict(zip(self.numbers, change, strict=True))
        shorter = min([1.0, *(FARTHEST[each.kind] / max(abs(by), 1e-12) for each, by in changes.items())])
        reached = {each: self.values[each] + shorter * by for each, by in changes.items()}
        # A run does not begin above its first level.
        return {each: min(value, 0.0) if each.kind == "opening" else value for each, value in reached.items()}


def broyden(columns: Sequence[Tensor], change: Sequence[float], scales: Tensor, moved: Tensor) -> list[Tensor]:
    """The columns J that are nearest to the given ones and tell what has been seen, J change = moved:

        J + (moved - J change) (S change)^T / (change^T S change),  S = diag(scales)

    Source: Broyden, Math. Comp. 19 (1965), in the scale of each number.
    """
    scaled = [float(scale) * by for scale, by in zip(scales, change, strict=True)]
    size = sum(one * by for one, by in zip(scaled, change, strict=True))
    if size == 0.0:
        return list(columns)
    missed = combine([(moved, 1.0), *((column, -by) for column, by in zip(columns, change, strict=True))])
    return [combine([(column, 1.0), (missed, one / size)]) for column, one in zip(columns, scaled, strict=True)]
