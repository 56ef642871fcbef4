"""Integral weights of exponential and linear multistep methods, in float64."""

import math
from collections.abc import Callable, Sequence

from numpy.polynomial.legendre import leggauss

SERIES_BELOW = 1.0
SERIES_TERMS = 20
QUADRATURE_NODES = 32


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
        return math.fsum(h**j / math.factorial(j + k) for j in range(SERIES_TERMS))
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
            shifted, lowered = [0.0, *poly], [*poly, 0.0]
            poly = [(a - node * b) * scale for a, b in zip(shifted, lowered, strict=True)]
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


def adams_weights(nodes: Sequence[float], s: float, t: float, time: Callable[[float], float]) -> list[float]:
    """The integral over sigma in [s, t] of L_j(time(sigma)), for each of `nodes`, by Gauss-Legendre quadrature.

    With time(sigma) = sigma these are the weights of the Adams-Bashforth method on an uneven grid, exactly. The rule is
    applied in log sigma, in which the polynomials of every time in use are smooth.
    """
    times = [time(node) for node in nodes]
    polys = [lagrange([(value - times[0]) for value in times], j) for j in range(len(nodes))]
    low, high = math.log(s), math.log(t)
    points, weights = leggauss(QUADRATURE_NODES)
    totals = [0.0] * len(nodes)
    for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
        sigma = math.exp(0.5 * (low + high) + 0.5 * (high - low) * point)
        u = time(sigma) - times[0]
        for j, poly in enumerate(polys):
            value = math.fsum(c * u**k for k, c in enumerate(poly))
            totals[j] += 0.5 * (high - low) * weight * sigma * value
    return totals
