"""A mixture of Gaussians: its density at every noise level, its denoiser, and the solution of its ODE."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..path import Path

Denoiser = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True, eq=False)
class Mixture:
    """x_0 = means[k] + sqrt(variances[k]) z with probability weights[k], z ~ N(0, I).

    means: `[K, D]`, a row for each component. variances, weights: `[K]`, the weights with the sum 1. All float64, on
    the CPU. A single component is a Gaussian; of variance 0, a point mass.
    """

    means: Tensor
    variances: Tensor
    weights: Tensor

    @property
    def components(self) -> int:
        return len(self.means)

    @property
    def dimensions(self) -> int:
        return self.means.shape[1]

    def equals(self, other: "Mixture") -> bool:
        """Whether the data are the same."""
        pairs = (self.means, other.means), (self.variances, other.variances), (self.weights, other.weights)
        return all(torch.equal(one, another) for one, another in pairs)

    def part(self, components: Sequence[int]) -> "Mixture":
        """The data of these components alone, their weights in the same proportion."""
        chosen = list(components)
        weights = self.weights[chosen]
        return Mixture(self.means[chosen], self.variances[chosen], weights / weights.sum())

    def log_density(self, path: Path, x: Tensor, sigma: float) -> Tensor:
        """log p(x) up to a constant, of x = alpha x_0 + sigma eps: `[B, D]` -> `[B]`.

        p(x) = sum_k weights_k N(x; alpha means_k, (alpha^2 variances_k + sigma^2) I)
        """
        alpha = path.alpha(sigma)
        spread = alpha * alpha * self.variances + sigma * sigma
        squares = (x[:, None, :] - alpha * self.means).square().sum(-1)
        logits = self.weights.log() - 0.5 * (squares / spread + x.shape[-1] * spread.log())
        return torch.logsumexp(logits, dim=-1)

    @cached_property
    def _arrays(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return self.means.numpy(), self.variances.numpy(), self.weights.log().numpy()

    def denoised(self, path: Path, x: Tensor, sigma: float, log_weights: Tensor | None = None) -> Tensor:
        """E[x_0 | x], the prediction of a perfect network: `[B, ...]` with D values in each row -> the same shape.

            E[x_0 | x] = sum_k r_k (means_k + s_k (x - alpha means_k)),   s_k = alpha variances_k / v_k
            r_k = softmax_k(log weights_k - |x - alpha means_k|^2 / (2 v_k) - D / 2 log v_k)
            v_k = alpha^2 variances_k + sigma^2

        Bayes' rule for Gaussians (Bishop 2006, equations 2.113 to 2.117) in every component; with it Tweedie's formula
        holds, alpha E[x_0 | x] = x + sigma^2 grad log p(x) (Efron 2011, equation 1.4). log_weights `[B, K]` stands in
        the place of the mixture's own, for each row by itself; -inf leaves a component out.

        Computed in float64 whatever the dtype of x, on the CPU, each row by itself: a row alone and in a batch is the
        same to the bit. In numpy, which on arrays as small as these takes a third of the time.
        """
        means, variances, own = self._arrays
        flat = x.to(torch.float64).flatten(1).numpy()
        alpha = path.alpha(sigma)
        spread = alpha * alpha * variances + sigma * sigma
        shrunk = alpha * variances / spread
        centred = flat[:, None, :] - alpha * means
        squares = np.einsum("bkd,bkd->bk", centred, centred)
        logits = (own if log_weights is None else log_weights.numpy()) - 0.5 * (
            squares / spread + flat.shape[1] * np.log(spread)
        )
        parts = np.exp(logits - logits.max(axis=1, keepdims=True))
        parts /= parts.sum(axis=1, keepdims=True)
        found = np.einsum("bk,kd->bd", parts, means * (1.0 - alpha * shrunk)[:, None])
        found += np.einsum("bk,k->b", parts, shrunk)[:, None] * flat
        return torch.as_tensor(found).reshape(x.shape).to(x.dtype)

    def denoiser(self, path: Path) -> Denoiser:
        return lambda x, sigma: self.denoised(path, x, sigma)

    def sample(self, path: Path, sigma: float, count: int, seed: int = 0) -> Tensor:
        """`count` independent values of x at noise level `sigma`: `[count, D]`."""
        generator = torch.Generator().manual_seed(seed)
        component = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        z, eps = torch.randn(2, count, self.dimensions, generator=generator, dtype=torch.float64)
        x0 = self.means[component] + self.variances[component].sqrt()[:, None] * z
        return path.alpha(sigma) * x0 + sigma * eps

    def solution(
        self, path: Path, x: Tensor, sigma_from: float, sigma_to: float, tolerance: float = 1e-12
    ) -> Callable[[float], Tensor]:
        """The exact x of the probability-flow ODE as a function of sigma, by DOP853 in u = log sigma: dx/du = x - D."""
        from scipy import integrate  # pyright: ignore[reportMissingTypeStubs]

        def slope(u: float, flat: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            state = torch.as_tensor(flat).reshape(x.shape)
            return (state - self.denoised(path, state, float(np.exp(u)))).numpy().ravel()

        span = np.log(sigma_from), np.log(sigma_to)
        solved: Any = cast(Any, integrate).solve_ivp(
            slope, span, x.numpy().ravel(), "DOP853", dense_output=True, rtol=tolerance, atol=tolerance
        )
        assert solved.success, solved.message
        return lambda sigma: torch.as_tensor(solved.sol(np.log(sigma))).reshape(x.shape)


def gaussian(mean: float, variance: float, dimensions: int = 1) -> Mixture:
    one = torch.ones(1, dtype=torch.float64)
    return Mixture(torch.full((1, dimensions), mean, dtype=torch.float64), variance * one, one)


def mixture(components: int = 6, dimensions: int = 16, seed: int = 0) -> Mixture:
    """A mixture that the seed decides: means of deviation 0.8, variances between 0.02 and 0.12, unequal weights. Its
    data have about the variance 0.7 in every dimension."""
    generator = torch.Generator().manual_seed(seed)
    means = 0.8 * torch.randn(components, dimensions, generator=generator, dtype=torch.float64)
    variances = 0.02 + 0.1 * torch.rand(components, generator=generator, dtype=torch.float64)
    weights = torch.rand(components, generator=generator, dtype=torch.float64) + 0.5
    return Mixture(means, variances, weights / weights.sum())


def relative_rms(a: Tensor, b: Tensor) -> float:
    """Root mean square of a - b over that of b."""
    return ((a.double() - b.double()).square().mean().sqrt() / b.double().square().mean().sqrt()).item()
