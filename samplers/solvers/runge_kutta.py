"""Steps in sigma: Euler's, and the explicit Runge-Kutta steps that open a run where half log-SNR is infinite."""

from collections.abc import Sequence

from ..path import Path
from ..plan import Operand, Row, Stage, row


def euler_row(path: Path, s: float, t: float) -> Row:
    """x + (t - s) (x - denoised) / s, which is also DDIM without noise and DPM-Solver of order 1."""
    return row("x", {"denoised": path.gain(s, t), "x": t / s})


KEEP_START = row("start", {"x": 1.0})
KEEP_FIRST = row("first", {"denoised": 1.0})

Point = tuple[Operand, Operand, float]


def slope_step(s: float, t: float, weights: Sequence[tuple[Point, float]]) -> Row:
    """start + (t - s) sum w (x - denoised) / sigma, an explicit Runge-Kutta step in sigma."""
    terms: dict[Operand, float] = {"start": 1.0}
    for (x, denoised, sigma), weight in weights:
        terms[denoised] = terms.get(denoised, 0.0) + (s - t) * weight / sigma
        terms[x] = terms.get(x, 0.0) - (s - t) * weight / sigma
    return row("x", terms)


def runge_kutta_stages(order: int, path: Path, s: float, t: float, step: int) -> list[Stage]:
    """A step from s to t > 0 by an explicit Runge-Kutta method in sigma: the midpoint rule (2), Heun's method (3).

    dx/dsigma is smooth at every noise level, alpha = 0 included, so this is how a run opens where half log-SNR cannot.
    """
    first: Point = ("start", "first", s)
    inner = [s + c * (t - s) for c in ((0.5,) if order == 2 else (1.0 / 3.0, 2.0 / 3.0))]
    keep = (KEEP_START, KEEP_FIRST)
    if order == 2:
        rows = [euler_row(path, s, inner[0]), slope_step(s, t, [(("x", "denoised", inner[0]), 1.0)])]
    else:
        rows = [
            euler_row(path, s, inner[0]),
            slope_step(s, inner[1], [(("x", "denoised", inner[0]), 1.0)]),
            slope_step(s, t, [(first, 0.25), (("x", "denoised", inner[1]), 0.75)]),
        ]
    calls = zip((s, *inner), rows, strict=True)
    return [Stage(sigma, (*keep, r) if i == 0 else (r,), step) for i, (sigma, r) in enumerate(calls)]
