"""Row by row: each takes x as near to the reference's next level as its predictions allow."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from ..linear_combination import combine
from .errors import distances, importance, lengths
from .freedom import Freedom, Number, Values, made
from .linear_form import LinearForm
from .meter import Meter
from .subject import Subject
from .tails import Track, predictions, stepped

RIDGE, REPEATS = 1e-3, 4
# Where nothing at all depends on a number, it stays 0.
TINY = 1e-30


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


def solved(matrix: Tensor, right: Tensor) -> list[float]:
    """The solution of matrix v = right, for a positive definite matrix."""
    lower = cast(Tensor, torch.linalg.cholesky(matrix))  # pyright: ignore[reportUnknownMemberType]
    found = torch.cholesky_solve(right[:, None], lower)[:, 0]
    return [float(value) for value in found]


def fit_row(numbers: Sequence[Number], track: Track, target: Tensor) -> list[float]:
    """The values by which row n of the track's form comes nearest to `target`, close to 0 where it matters little."""
    off = target - stepped(track.form, n := numbers[0].n, track.x[n], track.denoised)
    columns = [change_of(number, track) for number in numbers]
    size = lengths(target).clamp_min(1e-12)
    values, rest = [0.0] * len(numbers), off
    for _ in range(REPEATS):
        weights = importance(distances(target - rest, target)) / size.square()
        matrix, right = normal(columns, off, weights)
        ridge = (RIDGE * matrix.diagonal().mean() + TINY) * torch.eye(len(numbers), dtype=torch.float64)
        values = solved(matrix + ridge, right)
        rest = combine([(off, 1.0), *((column, -value) for value, column in zip(values, columns, strict=True))])
    return values


def row_by_row(
    subject: Subject, begin: LinearForm, freedom: Freedom, targets: Sequence[Tensor], images: slice, meter: Meter
) -> Values:
    """The rows on the levels of `begin`, each over the student's own x and predictions; one model call a row."""
    values: Values = {}
    track = Track(begin, images, [subject.starts[images]])
    for n in range(begin.calls):
        track.denoised += predictions(subject, track.form, n, [track.x[n]], images, meter)
        if numbers := freedom.of_row(begin, n):
            values |= zip(numbers, fit_row(numbers, track, targets[n + 1]), strict=True)
            form = made(begin, values)
            assert form is not None
            track.form = form
        track.step(n)
    return values
