"""All numbers together: Gauss-Newton on the final picture, its Jacobian by finite differences of whole runs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import distances, importance, score
from .freedom import Number, Values, made
from .least_squares import normal
from .linear_form import LinearForm
from .meter import Meter
from .subject import Subject
from .tails import Track, end_of, tracked

# No level moves further in one round, in half log-SNR, and no share, in parts of the step.
FARTHEST = {"level": 0.4, "told": 0.4, "carry": 0.3, "sum": 1.0, "taken": 3.0}
# Damped steps that a round tries at most.
TRIALS = 4
# Of a picture with more numbers than this, sums with random signs stand for it: they keep lengths on the average.
SKETCH = 4096


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
        self.track = tracked(subject, form, images, meter)
        self.score = score(self.errors(self.track.end))
        self.sketch = Sketch(target[0].numel())

    def errors(self, x: Tensor) -> Tensor:
        return distances(x, self.target)

    @property
    def cost(self) -> int:
        """Model calls of a round."""
        return cost_of(self.numbers, self.begin.calls) + TRIALS * self.begin.calls

    def column(self, number: Number) -> Tensor:
        """The derivative of the final picture by one number."""
        ends = list[tuple[float, Tensor]]()
        for step in (number.step, -number.step) if number.central else (number.step,):
            form = made(self.begin, self.values | {number: self.values[number] + step})
            if form is not None:
                ends.append((step, end_of(self.subject, self.track, form, number.restart, self.meter)))
        if not ends:
            return torch.zeros_like(self.track.end)
        far = ends[1] if len(ends) == 2 else (0.0, self.track.end)
        return (ends[0][1] - far[1]) / (ends[0][0] - far[0])

    def round(self) -> bool:
        """One Jacobian and a few damped steps along it; whether the score fell."""
        columns = [self.sketch(self.column(number)) for number in self.numbers]
        off = self.sketch(self.target - self.track.end)
        size = self.target.flatten(1).double().norm(dim=1).clamp_min(1e-12)
        weights = importance(self.errors(self.track.end)) / size.square()
        matrix, right = normal(columns, off, weights)
        best, damping, factor = None, self.damping, 0.1
        for _ in range(TRIALS):
            tried = self.step(matrix, right, damping)
            track = self.tracked(tried)
            found = score(self.errors(track.end)) if track is not None else float("inf")
            if found < self.score:
                self.score, self.damping, best = found, max(damping, 1e-7), (tried, track)
            elif best is not None:
                break
            else:
                factor = 10.0
            damping *= factor
        if best is None:
            self.damping = damping
            return False
        self.values, self.track = best
        return True

    def tracked(self, values: Values) -> Track | None:
        """A run with these values; None where they make no plan."""
        form = made(self.begin, values)
        return None if form is None else tracked(self.subject, form, self.images, self.meter)

    def step(self, matrix: Tensor, right: Tensor, damping: float) -> Values:
        """The values after a step of least squares, damped in the scale of each number (Levenberg, Marquardt)."""
        diagonal = matrix.diagonal() + 1e-4 * matrix.diagonal().mean()
        change = torch.linalg.solve(matrix + damping * torch.diag(diagonal), right)
        changes = dict(zip(self.numbers, change.tolist(), strict=True))
        shorter = min([1.0, *(FARTHEST[each.kind] / max(abs(by), 1e-12) for each, by in changes.items())])
        return {each: self.values[each] + shorter * by for each, by in changes.items()}
