"""Integral weights of exponential and linear multistep methods, in float64."""

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray

Values = NDArray[np.float64]

SERIES_BELOW = 1.0
SERIES_TERMS = 20
QUADRATURE_NODES = 32


@cache
def _series(k: int) -> tuple[float, ...]:
    """The coefficients of phi_k's Taylor series, the highest power first."""
    return tuple(1.0 / math.factorial(j + k) for j in reversed(range(SERIES_TERMS)))


@cache
def legendre() -> tuple[Values, Values]:
    """The points and weights of Gauss and Legendre's rule on [-1, 1]."""
    return leggauss(QUADRATURE_NODES)


def phi(k: int, h: float) -> float:
    """phi_0 = exp(h), phi_k(h) = (phi_{k-1}(h) - 1/(k-1)!) / h, and phi_k(0) = 1/k!.

    These are the integrals of exp((1 - u) h) u^(k-1) / (k-1)! over u in [0, 1] (Hochbruck and Ostermann 2010,
    eq. 2.10). The recursion loses k digits per power of ten below |h| = 1, so there the Taylor series
    sum_j h^j / (j + k)! is summed instead; both are good to 1e-14 relative. h = -inf gives 0 for k > 0.
    """
    if h == -math.inf:
        return 0.0
    if k == 0:
        return math.exp(h)
    if abs(h) < SERIES_BELOW:
        total = 0.0
        for coefficient in _series(k):
            total = total * h + coefficient
        return total
    value = math.expm1(h) / h
    for j in range(2, k + 1):
        value = (value - 1.0 / math.factorial(j - 1)) / h
    return value


def polynomial_weights(places: Sequence[float], moments: Sequence[float]) -> list[float]:
    """The integrals of the Lagrange polynomials of `places`, from those of 1, u, u^2 and so on.

    They solve sum_i w_i places_i^k = moments_k, the system of Vandermonde, by divided differences (Bjorck and Pereyra
    1970; Golub and Van Loan 2013, algorithm 4.6.2).
    """
    found, n = list(moments), len(places)
    for k in range(n - 1):
        for i in range(n - 1, k, -1):
            found[i] -= places[k] * found[i - 1]
    for k in range(n - 2, -1, -1):
        for i in range(k + 1, n):
            found[i] /= places[i] - places[i - k - 1]
        for i in range(k, n - 1):
            found[i] -= found[i + 1]
    return found


def exponential_weights(
    nodes: Sequence[float], lam_s: float, lam_t: float, rate: float = 1.0, curvature: float = 1.0
) -> list[float]:
    """The integral over lam in [lam_s, lam_t] of rate exp(-rate (lam_t - lam)) L_j(lam), for each node j.

    L_j is the Lagrange polynomial of `nodes`, the half log-SNRs at which predictions are known, lam_s the first of
    them. The weights sum to 1 - exp(-rate h); they make the exponential Adams method of order len(nodes)
    (Lu et al. 2022b, eq. 9, with the Taylor expansion replaced by the interpolation itself). `curvature` other than 1
    multiplies the integral of the squared term, for published methods that have it otherwise.
    """
    h = lam_t - lam_s
    scaled = [(node - lam_s) / h for node in nodes]
    moments = [rate * h * math.factorial(k) * phi(k + 1, -rate * h) for k in range(len(nodes))]
    moments[2:3] = [curvature * moment for moment in moments[2:3]]
    return polynomial_weights(scaled, moments)


def adams_weights(nodes: Sequence[float], t: float) -> list[float]:
    """The integral over sigma from nodes[0] to t of L_j(sigma), for each of `nodes`: the weights of the Adams-Bashforth
    method on an uneven grid, exactly."""
    s = nodes[0]
    return polynomial_weights([(node - s) / (t - s) for node in nodes], [(t - s) / k for k in range(1, len(nodes) + 1)])


def timed_weights(
    sigmas: Sequence[float], time: Callable[[Values], Values], order: int
) -> Callable[[int, int], list[float]]:
    """(step, used) -> the integrals over the step of L_j(time(sigma)), for each of the `used` levels up to its own.

    They are integrated by Gauss and Legendre's rule in log sigma, in which polynomials of the times in use are smooth;
    of all steps at once. The step to or from 0 has none.
    """
    levels = np.array(sigmas)
    points, weights = legendre()
    with np.errstate(divide="ignore", invalid="ignore"):
        half = 0.5 * np.log(levels[1:] / levels[:-1])[:, None]
        at = levels[:-1, None] * np.exp(half * (1.0 + points))
        times, inner = time(levels), time(at)
        span = times[1:] - times[:-1]
        u = (inner - times[:-1, None]) / span[:, None]
        measure = half * weights * at
        moments = np.array([(measure * u**k).sum(axis=1) for k in range(order)]).T.tolist()
    times, span = times.tolist(), span.tolist()

    def weights_at(step: int, used: int) -> list[float]:
        places = [(times[step - i] - times[step]) / span[step] for i in range(used)]
        return polynomial_weights(places, moments[step][:used])

    return weights_at
