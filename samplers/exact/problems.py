"""What a sampler is measured on, and what is called a sampler here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..path import FLOW, VE, Path
from ..schedules import flow, karras
from .mixture import Denoiser, Mixture, gaussian, mixture

DIMENSIONS, STARTS = 16, 32
MIXTURE = mixture(6, DIMENSIONS)
# A Gaussian on which the law of a result is known, and a point on which x says what noise level it has.
GAUSSIAN, POINT = gaussian(0.7, 0.4, DIMENSIONS), gaussian(0.7, 0.0, DIMENSIONS)
# Below the highest level of Stable Diffusion and of a flow model, so that no sampler has a special case for the first
# step; and above 0, since the error of the step to 0 does not fall with more steps.
TOP = {VE: 14.0, FLOW: 0.99}
BOTTOM = 0.03
TOLERANCE = 1e-9


class Sampler(Protocol):
    """A sampler as a function, of whatever program.

    It begins at x = alpha latent + sigma noise, alpha and sigma those of the first of `sigmas`, goes down to the last,
    calling `denoiser(x, sigma)` on the way, and returns x / alpha there; `seed` decides the noise that it adds. noise
    and latent: `[B, D, H, W]`, one image a row, with a value of the data at each of the H * W positions.
    """

    def __call__(
        self, path: Path, denoiser: Denoiser, noise: Tensor, latent: Tensor, sigmas: Tensor, seed: int
    ) -> Tensor: ...


def checked(sampler: Sampler) -> Sampler:
    """The same sampler; raises ValueError where what it returns is NaN or infinite."""

    def run(path: Path, denoiser: Denoiser, noise: Tensor, latent: Tensor, sigmas: Tensor, seed: int) -> Tensor:
        end = sampler(path, denoiser, noise, latent, sigmas, seed)
        if not bool(torch.isfinite(end).all()):
            raise ValueError(f"its result is NaN or infinite, in {len(sigmas) - 1} steps from {float(sigmas[0]):g}")
        return end

    return run


def positions(data: Mixture, path: Path) -> Denoiser:
    """The denoiser of a latent that has one value of the data at each position."""

    def denoised(x: Tensor, sigma: float) -> Tensor:
        rows = x.movedim(1, -1)
        return data.denoised(path, rows.reshape(-1, rows.shape[-1]), sigma).reshape(rows.shape).movedim(-1, 1)

    return denoised


@dataclass
class Calls:
    """A denoiser that keeps what it was asked: the calls as pairs of x and sigma; without `keep` only their number."""

    denoiser: Denoiser
    keep: bool = False
    count: int = 0
    asked: list[tuple[Tensor, float]] = field(default_factory=list[tuple[Tensor, float]])

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.count += 1
        if self.keep:
            self.asked.append((x.clone(), sigma))
        return self.denoiser(x, sigma)


def grid(path: Path, steps: int) -> tuple[float, ...]:
    """From TOP to BOTTOM: Karras' levels on VE, equal steps of half log-SNR on FLOW."""
    if path is VE:
        return karras(steps + 1, sigma_min=BOTTOM, sigma_max=TOP[VE])[:-1]
    lams = np.linspace(path.lam(TOP[FLOW]), path.lam(BOTTOM), steps + 1).tolist()
    return (TOP[FLOW], *(path.sigma(lam) for lam in lams[1:-1]), BOTTOM)


def whole(path: Path, steps: int) -> tuple[float, ...]:
    """A schedule as people use it, to 0: Karras' on VE, and on FLOW that of shift 3, from noise alone."""
    return karras(steps, sigma_min=BOTTOM, sigma_max=TOP[VE]) if path is VE else flow(steps, shift=3.0)


def row(sigmas: Sequence[float]) -> Tensor:
    return torch.tensor(sigmas, dtype=torch.float32)


@cache
def started(path: Path) -> tuple[Tensor, Tensor]:
    """Starting values at TOP, `[STARTS, D, 1, 1]`, and the exact solutions through them at BOTTOM."""
    x = MIXTURE.sample(path, TOP[path], STARTS)
    end = MIXTURE.solution(path, x, TOP[path], BOTTOM, TOLERANCE)(BOTTOM)
    return x[..., None, None], end[..., None, None]


def drawn(data: Mixture, path: Path, sigma: float, seed: int, images: int = 2, side: int = 16) -> Tensor:
    """x of the data at noise level sigma, a value of its own at each position: `[images, D, side, side]`."""
    x = data.sample(path, sigma, images * side * side, seed)
    return x.reshape(images, side, side, -1).movedim(-1, 1)
