"""What is measured of a sampler: each finding by itself, so that one that fails leaves the others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..path import Path
from .mixture import Denoiser, relative_rms
from .problems import BOTTOM, GAUSSIAN, MIXTURE, POINT, TOP, Calls, Sampler, drawn, grid, positions, row, started, whole

COUNTS = (10, 20, 40, 60, 80, 120, 160)
# An order is read off errors between these alone: above, steps are too long for it to show, and below float32 ends.
# Of those, off the last, where it shows best.
LARGEST, SMALLEST, POINTS = 1e-1, 1e-5, 3
AT_CALLS = (12, 24, 48)
STEPS = 12
LAW_STEPS = (20, 160)
NOT_MEASURED = "not measured"
# What counts as equal but for rounding in float32, and by how much a drawn deviation may be off by chance.
ROUNDING, BY_CHANCE = 1e-5, 0.05
SEED = 7


@dataclass(frozen=True)
class Point:
    """A run of so many steps: its model calls, and the error of its result, relative to the exact solution."""

    steps: int
    calls: int
    error: float


def start_of(x: Tensor, path: Path, sigma: float) -> tuple[Tensor, Tensor]:
    """Noise and latent that begin at x."""
    noise = (x / sigma).float()
    return noise, torch.zeros_like(noise)


def error_of(sampler: Sampler, path: Path, steps: int) -> Point:
    """The median over the starts of the root mean square error at BOTTOM, over that of the exact solutions."""
    x, exact = started(path)
    calls = Calls(positions(MIXTURE, path))
    end = sampler(path, calls, *start_of(x, path, TOP[path]), row(grid(path, steps)), SEED) * path.alpha(BOTTOM)
    apart = (end.double() - exact).flatten(1).square().mean(1).sqrt().median()
    return Point(steps, calls.count, (apart / exact.square().mean().sqrt()).item())


def batch_of_four(path: Path) -> tuple[Tensor, Tensor]:
    """Noise and latent of four images at TOP, `[4, D, 4, 4]`: some samplers scale their noise by its deviation over
    an image, which one position does not have."""
    return start_of(drawn(MIXTURE, path, TOP[path], SEED, images=4, side=4), path, TOP[path])


def adds_noise(sampler: Sampler, path: Path) -> bool:
    """Whether the seed changes the result."""
    one, other = (
        sampler(path, positions(MIXTURE, path), *batch_of_four(path), row(grid(path, STEPS)), seed)
        for seed in (SEED, SEED + 100)
    )
    return not torch.equal(one, other)


def order_of(points: Sequence[Point]) -> float | None:
    """Minus the slope of log error over log steps, by least squares through the last POINTS between LARGEST and
    SMALLEST; None where there are fewer, or the error does not fall from each to the next."""
    inside = [point for point in points if SMALLEST <= point.error <= LARGEST][-POINTS:]
    if len(inside) < POINTS or any(after.error >= before.error for before, after in pairwise(inside)):
        return None
    steps, errors = np.log([each.steps for each in inside]), np.log([each.error for each in inside])
    return -float(np.polyfit(steps, errors, 1)[0])


def calls_a_step(points: Sequence[Point]) -> float | None:
    """By how much a step more lengthens the run, in model calls; None where that is not one number, or
    none at all."""
    found = {round((b.calls - a.calls) / (b.steps - a.steps), 2) for a, b in pairwise(points)}
    return (found.pop() or None) if len(found) == 1 else None


def at_calls(sampler: Sampler, path: Path, each_step: float) -> list[Point]:
    """Runs of about AT_CALLS model calls each."""
    return [error_of(sampler, path, max(round(calls / each_step), 1)) for calls in AT_CALLS]


def split_apart(sampler: Sampler, path: Path) -> float:
    """How far a run in two pieces ends from the run in one: relative, the largest of three cuts. The second piece
    begins at what the first returned, with no noise, as after Split Sigmas."""
    denoiser, sigmas = positions(MIXTURE, path), grid(path, STEPS)
    noise, latent = batch_of_four(path)
    uncut = sampler(path, denoiser, noise, latent, row(sigmas), SEED)
    apart: list[float] = []
    for cut in (1, STEPS // 2, STEPS - 1):
        half = sampler(path, denoiser, noise, latent, row(sigmas[: cut + 1]), SEED)
        gone_on = sampler(path, denoiser, torch.zeros_like(noise), half, row(sigmas[cut:]), SEED)
        apart.append(relative_rms(gone_on, uncut))
    return max(apart)


def alone_apart(sampler: Sampler, path: Path) -> float:
    """How far the first image of a batch of four ends from the same image alone; 0 is bit for bit."""
    denoiser, sigmas = positions(MIXTURE, path), row(whole(path, STEPS))
    noise, latent = batch_of_four(path)
    batch = sampler(path, denoiser, noise, latent, sigmas, SEED)
    alone = sampler(path, denoiser, noise[:1], latent[:1], sigmas, SEED)
    return relative_rms(batch[:1], alone)


def again_apart(sampler: Sampler, path: Path) -> float:
    """How far two runs from the same seed end from each other; 0 is bit for bit."""
    denoiser, sigmas = positions(MIXTURE, path), row(whole(path, STEPS))
    noise, latent = batch_of_four(path)
    one, other = (sampler(path, denoiser, noise, latent, sigmas, SEED) for _ in range(2))
    return relative_rms(one, other)


def level_off(sampler: Sampler, path: Path) -> float | None:
    """By how much x has another noise level than the model is told, at the worst call, relative; None without a call.

    The data are one point c, so that x - alpha c is noise and nothing else, whatever the solver: its root mean square
    over sigma is 1 at every call. Over 8192 values chance alone makes about 0.02 of it.
    """
    calls = run_on_point(sampler, path)
    offs = [rms((x.double() - path.alpha(sigma) * 0.7) / sigma) - 1.0 for x, sigma in calls.asked if sigma > 0.0]
    return max(offs, key=abs, default=None)


def run_on_point(sampler: Sampler, path: Path) -> Calls:
    calls, sigmas = Calls(positions(POINT, path), keep=True), whole(path, STEPS)
    sampler(path, calls, *start_of(drawn(POINT, path, sigmas[0], 1), path, sigmas[0]), row(sigmas), SEED)
    return calls


def rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


@dataclass(frozen=True)
class Law:
    """Of results for Gaussian data: how far the mean is off, in their deviations, and the variance over theirs."""

    steps: int
    mean_off: float
    variance: float


def law_of(sampler: Sampler, path: Path, steps: int) -> Law:
    """The law of 8192 values after a run to 0 on N(0.7, 0.4), from values that have the right law at its beginning."""
    sigmas = whole(path, steps)
    denoiser: Denoiser = positions(GAUSSIAN, path)
    end = sampler(
        path, denoiser, *start_of(drawn(GAUSSIAN, path, sigmas[0], 2), path, sigmas[0]), row(sigmas), SEED
    ).double()
    variance = end.var().item() / 0.4
    return Law(steps, (end.mean().item() - 0.7) / math.sqrt(0.4), variance)


def writes(sampler: Sampler, path: Path) -> list[int]:
    """The places of the caller's SIGMAS that hold another number after a run to 0."""
    x, _ = started(path)
    sigmas = row(whole(path, STEPS))
    before = sigmas.clone()
    sampler(path, positions(MIXTURE, path), *start_of(x[:2], path, TOP[path]), sigmas, SEED)
    changed = sigmas != before
    return [place for place in range(len(changed)) if bool(changed[place])]
