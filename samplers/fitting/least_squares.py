"""Row by row: each takes x as near to the reference's next level as its predictions allow."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..plan import start
from .errors import distances, importance
from .freedom import Freedom, Number, Values, made
from .linear_form import LinearForm
from .meter import Meter
from .subject import Subject
from .tails import Track

RIDGE, REPEATS = 1e-3, 4


def change_of(number: Number, track: Track) -> Tensor:
    """What one unit of a number of row n adds to x after it."""
    form, n = track.form, number.n
    s, t = form.sigmas[n], form.sigmas[n + 1]
    gain, newest = form.path.gain(s, t), track.denoised[n]
    if number.kind == "taken":
        return gain * (track.denoised[n - number.back] - newest)
    return gain * newest if number.kind == "sum" else form.carry[n] * track.x[n]


def normal(columns: Sequence[Tensor], off: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix and right side of the least squares of columns v ~ off, each image weighted; in float64."""
    matrix = torch.empty(len(columns), len(columns), dtype=torch.float64)
    right = torch.empty(len(columns), dtype=torch.float64)
    flat = [column.flatten(1) for column in columns]
    for i, one in enumerate(flat):
        weighted = one.double() * weights[:, None]
        right[i] = (weighted * off.flatten(1)).sum()
        for j in range(i + 1):
            matrix[i, j] = matrix[j, i] = (weighted * flat[j]).sum()
    return matrix, right


def fit_row(numbers: Sequence[Number], track: Track, target: Tensor) -> list[float]:
    """The values by which row n of the track's form comes nearest to `target`, close to 0 where it matters little."""
    off = target - track.row(track.form, numbers[0].n)
    columns = [change_of(number, track) for number in numbers]
    size = target.flatten(1).double().norm(dim=1).clamp_min(1e-12)
    values, rest = torch.zeros(len(numbers), dtype=torch.float64), off
    for _ in range(REPEATS):
        weights = importance(distances(target - rest, target)) / size.square()
        matrix, right = normal(columns, off, weights)
        ridge = RIDGE * matrix.diagonal().mean() * torch.eye(len(numbers), dtype=torch.float64)
        values = torch.linalg.solve(matrix + ridge, right)
        rest = off - sum(float(v) * column for v, column in zip(values, columns, strict=True))
    return values.tolist()


def row_by_row(
    subject: Subject, begin: LinearForm, freedom: Freedom, targets: Sequence[Tensor], images: slice, meter: Meter
) -> Values:
    """The rows on the levels of `begin`, each over the student's own x and predictions; one model call a row."""
    values: Values = {}
    track = Track(begin, images, [subject.starts[images]])
    state = start(track.x[0])
    for n in range(begin.calls):
        meter.spend(1, images)
        plan = track.form.plan()
        seen = subject.run(plan, state, images, stop=n + 1)
        assert seen.denoised is not None
        track.denoised.append(seen.denoised)
        if numbers := freedom.of_row(begin, n):
            values |= zip(numbers, fit_row(numbers, track, targets[n + 1]), strict=True)
            form = made(begin, values)
            assert form is not None
            track.form = form
        track.x.append(track.row(track.form, n))
        if n + 1 < begin.calls:
            state = track.before(track.form, n + 1)
    return values
