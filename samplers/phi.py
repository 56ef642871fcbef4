"""Integral weights of exponential and linear multistep methods, in float64."""

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray

SERIES_BELOW = 1.0
SERIES_TERMS = 20
QUADRATURE_NODES = 32


@cache
def _series(k: int) -> tuple[float, ...]:
    """The coefficients of phi_k's Taylor series, the highest power first."""
    return tuple(1.0 / math.factorial(j + k) for j in reversed(range(SERIES_TERMS)))


@cache
def legendre() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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


def lagrange(nodes: Sequence[float], j: int) -> list[float]:
    """Coefficients, constant first, of the polynomial that is 1 at nodes[j] and 0 at the others."""
    poly = [1.0]
    for k, node in enumerate(nodes):
        if k != j:
            scale = 1.0 / (nodes[j] - node)
            poly.append(0.0)
            for i in range(len(poly) - 1, 0, -1):
                poly[i] = (poly[i - 1] - node * poly[i]) * scale
            poly[0] *= -node * scale
    return poly


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
    return [
        math.fsum(c * moment for c, moment in zip(lagrange(scaled, j), moments, strict=True)) for j in range(len(nodes))
    ]


def adams_weights(
    nodes: Sequence[float], s: float, t: float, time: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None
) -> list[float]:
    """The integral over sigma in [s, t] of L_j(time(sigma)), for each of `nodes`.

    Without a `time` it is sigma itself: these are the weights of the Adams-Bashforth method on an uneven grid, exactly.
    Another is integrated by Gauss and Legendre's rule in log sigma, in which polynomials of those in use are smooth.
    """
    count, moments = len(nodes), list[float]()
    if time is None:
        scaled = [(node - nodes[0]) / (t - s) for node in nodes]
        low, high = (s - nodes[0]) / (t - s), (t - nodes[0]) / (t - s)
        moments = [(t - s) * (high**k - low**k) / k for k in range(1, count + 1)]
    else:
        points, weights = legendre()
        half = 0.5 * math.log(t / s)
        sigma = s * np.exp(half * (1.0 + points))
        places = time(np.array([*nodes, *sigma]))
        places = (places - places[0]) / (places[-1] - places[0])
        scaled, u, powers = places[:count].tolist(), places[count:], half * weights * sigma
        for _ in range(count):
            moments.append(float(powers.sum()))
            powers = powers * u
    polys = [lagrange(scaled, j) for j in range(count)]
    return [math.fsum(c * moment for c, moment in zip(poly, moments, strict=True)) for poly in polys]
