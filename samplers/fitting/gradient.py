"""Plans fitted by the gradient of the model, where it has one: to see what forward only leaves.

The nodes do not use it: ComfyUI runs them without gradients, and rounds what many models are told.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import POWER, lengths
from .freedom import Freedom, Number, Values, made
from .linear_form import LinearForm

Denoiser = Callable[[Tensor, Tensor], Tensor]
# Of the derivative of coefficients by numbers, by central differences: smooth, with levels rounded to float32.
STEP = 1e-3
# Adam (Kingma and Ba 2015, algorithm 1), without its epsilon at a scale that counts.
BETAS, EPSILON = (0.9, 0.99), 1e-12


@dataclass(frozen=True)
class Descent:
    """`denoiser` is that of the subject, with the noise level as a tensor; it can be differentiated by it and by x.

    steps: of Adam; rate: of the first, falling to 0 as a cosine.
    """

    denoiser: Denoiser
    steps: int = 200
    rate: float = 0.02


def descend(
    descent: Descent, begin: LinearForm, freedom: Freedom, values: Values, starts: Tensor, target: Tensor
) -> Iterator[LinearForm]:
    """The forms on the way to a smaller score of the ends, from `values` on; each costs a run and its derivative."""
    numbers = freedom.numbers(begin)
    reached = torch.tensor([values.get(each, 0.0) for each in numbers], dtype=torch.float64)
    first, second = torch.zeros_like(reached), torch.zeros_like(reached)
    for step in range(descent.steps):
        form = made(begin, valued(numbers, reached))
        if form is None:
            return
        by_number = derivatives(begin, numbers, reached) @ gradient(descent.denoiser, form, starts, target)
        first.lerp_(by_number, 1.0 - BETAS[0])
        second.lerp_(by_number.square(), 1.0 - BETAS[1])
        unbiased = [each / (1.0 - beta ** (step + 1)) for each, beta in zip((first, second), BETAS, strict=True)]
        rate = descent.rate * 0.5 * (1.0 + torch.cos(torch.tensor(torch.pi * step / descent.steps)).item())
        reached = reached - rate * unbiased[0] / (unbiased[1].sqrt() + EPSILON)
        if (moved := made(begin, valued(numbers, reached))) is not None:
            yield moved


def valued(numbers: Sequence[Number], reached: Tensor) -> Values:
    return dict(zip(numbers, [float(value) for value in reached], strict=True))


def flat(form: LinearForm) -> list[float]:
    """All that a run of a form reads: what is told, carries, shares, the opening."""
    return [*form.called, *form.carry, *(share for row in form.taken for share in row), form.opening]


def derivatives(begin: LinearForm, numbers: Sequence[Number], reached: Tensor) -> Tensor:
    """The derivative of each coefficient by each number, `[numbers, coefficients]`."""
    rows = list[list[float]]()
    for i, each in enumerate(numbers):
        aside = torch.zeros_like(reached)
        aside[i] = STEP
        # A run does not begin above its first level: there is one side of it.
        above = 0.0 if each.kind == "opening" else 1.0
        there, back = (made(begin, valued(numbers, reached + sign * aside)) for sign in (above, -1.0))
        assert there is not None
        assert back is not None
        rows.append([(a - b) / ((1.0 + above) * STEP) for a, b in zip(flat(there), flat(back), strict=True)])
    return torch.tensor(rows, dtype=torch.float64)


def gradient(denoiser: Denoiser, form: LinearForm, starts: Tensor, target: Tensor) -> Tensor:
    """Of the logarithm of the score, by each coefficient of the form."""
    with torch.enable_grad():
        coefficients = torch.tensor(flat(form), dtype=torch.float64, requires_grad=True)
        end = run_of(denoiser, form, coefficients, starts)
        errors = lengths(end - target) / lengths(target).clamp_min(1e-12)
        loss = errors.clamp_min(1e-12).pow(POWER).mean().log() / POWER
        (found,) = torch.autograd.grad(loss, coefficients)
    return found


def run_of(denoiser: Denoiser, form: LinearForm, coefficients: Tensor, x: Tensor) -> Tensor:
    """A run of the form whose coefficients stand in a tensor, in the order of `flat`."""
    calls, place = form.calls, 2 * form.calls
    x = x * coefficients[-1].to(x.dtype)
    seen = list[Tensor]()
    for n, taken in enumerate(form.taken):
        seen.insert(0, denoiser(x, coefficients[n].to(x.dtype)))
        shares = coefficients[place : place + len(taken)].to(x.dtype)
        place += len(taken)
        moved = coefficients[calls + n].to(x.dtype) * x
        for share, denoised in zip(shares, seen, strict=False):
            moved = moved + share * denoised
        x = moved
    return x
