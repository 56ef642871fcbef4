"""Data whose denoiser and whose probability-flow ODE are known exactly, in float64."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.integrate import solve_ivp
from stepwise.samplers import Path
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mixture:
    """x0 = means[k] + sqrt(variances[k]) z with probability weights[k]; one row of `means` per component.

    A single component is a Gaussian; of variance 0, a point mass.
    """

    means: Tensor
    variances: Tensor
    weights: Tensor

    def log_density(self, path: Path, x: Tensor, sigma: float) -> Tensor:
        """log p(x) up to a constant, of x = alpha x0 + sigma eps; x has the shape (batch, dimensions)."""
        alpha = path.alpha(sigma)
        spread = alpha * alpha * self.variances + sigma * sigma
        squares = (x[:, None, :] - alpha * self.means).square().sum(-1)
        logits = self.weights.log() - 0.5 * (squares / spread + x.shape[-1] * spread.log())
        return torch.logsumexp(logits, dim=-1)

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.means.numpy(), self.variances.numpy(), self.weights.log().numpy()

    def denoised(self, path: Path, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x], computed in float64 whatever the dtype of x, of any shape (batch, ...).

        In numpy, which on arrays as small as these takes a third of the time."""
        means, variances, log_weights = self._arrays
        flat = x.to(torch.float64).flatten(1).numpy()
        alpha = path.alpha(sigma)
        spread = alpha * alpha * variances + sigma * sigma
        shrunk = alpha * variances / spread
        centred = flat[:, None, :] - alpha * means
        squares = np.einsum("bkd,bkd->bk", centred, centred)
        logits = log_weights - 0.5 * (squares / spread + flat.shape[1] * np.log(spread))
        parts = np.exp(logits - logits.max(axis=1, keepdims=True))
        parts /= parts.sum(axis=1, keepdims=True)
        found = parts @ (means * (1.0 - alpha * shrunk)[:, None]) + (parts @ shrunk)[:, None] * flat
        return torch.from_numpy(found).reshape(x.shape).to(x.dtype)

    def denoiser(self, path: Path):
        return lambda x, sigma: self.denoised(path, x, sigma)

    def sample(self, path: Path, sigma: float, count: int, seed: int = 0) -> Tensor:
        """`count` independent values of x at noise level `sigma`."""
        generator = torch.Generator().manual_seed(seed)
        component = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        z, eps = torch.randn(2, count, self.means.shape[1], generator=generator, dtype=torch.float64)
        x0 = self.means[component] + self.variances[component].sqrt()[:, None] * z
        return path.alpha(sigma) * x0 + sigma * eps

    def solution(self, path: Path, x: Tensor, sigma_from: float, sigma_to: float):
        """The exact x of the probability-flow ODE as a function of sigma, by DOP853 in u = log sigma: dx/du = x - D."""

        def slope(u: float, flat: np.ndarray) -> np.ndarray:
            state = torch.from_numpy(flat).reshape(x.shape)
            return (state - self.denoised(path, state, float(np.exp(u)))).numpy().ravel()

        span = np.log(sigma_from), np.log(sigma_to)
        solved = solve_ivp(slope, span, x.numpy().ravel(), "DOP853", dense_output=True, rtol=1e-12, atol=1e-12)
        assert solved.success, solved.message
        return lambda sigma: torch.from_numpy(solved.sol(np.log(sigma))).reshape(x.shape)


def gaussian(mean: float, variance: float, dimensions: int = 1) -> Mixture:
    one = torch.ones(1, dtype=torch.float64)
    return Mixture(torch.full((1, dimensions), mean, dtype=torch.float64), variance * one, one)


def mixture(components: int = 6, dimensions: int = 16, seed: int = 0) -> Mixture:
    generator = torch.Generator().manual_seed(seed)
    means = 0.8 * torch.randn(components, dimensions, generator=generator, dtype=torch.float64)
    variances = 0.02 + 0.1 * torch.rand(components, generator=generator, dtype=torch.float64)
    weights = torch.rand(components, generator=generator, dtype=torch.float64) + 0.5
    return Mixture(means, variances, weights / weights.sum())


def relative_rms(a: Tensor, b: Tensor) -> float:
    """Root mean square of a - b over that of b."""
    return ((a.double() - b.double()).square().mean().sqrt() / b.double().square().mean().sqrt()).item()
