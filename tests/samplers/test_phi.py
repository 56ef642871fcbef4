"""phi against mpmath at 60 digits, from the integral that defines it; and the time of DEIS likewise."""

import math
import random

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad
from stepwise.samplers.phi import exponential_weights, phi
from stepwise.samplers.solvers.linear_multistep import NOISE_RATES

TINY = [sign * 10.0**-e for e in (300, 100, 20, 16, 12, 9, 8, 6, 5, 4, 3, 2, 1) for sign in (1.0, -1.0)]
EDGES = [0.0, -0.0, 0.999999, 1.0, 1.000001, -0.999999, -1.0, -1.000001, 1.1, -1.1, 2.0, -2.0, 10.0, -60.0]
SPREAD = [random.Random(0).uniform(-60.0, 10.0) for _ in range(40)] + [i / 8.0 for i in range(-24, 25)]


def exact(k: int, h: float) -> float:
    """The integral of exp((1 - u) h) u^(k-1) / (k-1)! over [0, 1], as the confluent hypergeometric 1F1(1; k+1; h) / k!
    (NIST DLMF 13.4.1)."""
    with mpmath.workdps(60):
        value = mpmath.mpf(h)
        return float(mpmath.exp(value) if k == 0 else mpmath.hyp1f1(1, k + 1, value) / mpmath.factorial(k))


@pytest.mark.parametrize("k", range(5))
def test_phi(k):
    """To 1e-13 relative, for every step that a schedule can make and both signs of tiny ones."""
    for h in (*TINY, *EDGES, *SPREAD):
        assert phi(k, h) == pytest.approx(exact(k, h), rel=1e-13, abs=0.0), f"phi_{k}({h})"


def test_the_reference_is_the_integral():
    """So that the identity with 1F1 is not taken on trust."""
    for k in range(1, 5):
        for h in (-3.0, -0.1, 2.0):
            with mpmath.workdps(30):
                value = mpmath.quad(
                    lambda u, k=k, h=h: mpmath.exp((1 - u) * h) * u ** (k - 1) / mpmath.factorial(k - 1), [0, 1]
                )
            assert exact(k, h) == pytest.approx(float(value), rel=1e-15)


def test_the_limits():
    """phi_k(0) = 1/k!; over an infinite step down nothing is left."""
    for k in range(5):
        assert phi(k, 0.0) == pytest.approx(1.0 / math.factorial(k), rel=1e-15)
        assert phi(k, -math.inf) == 0.0


def test_the_time_of_deis_is_that_of_a_noise_rate_from_0_1_to_20():
    """log(1 + sigma^2) is the integral of the rate from 0 to t (Song et al. 2021, eq. 32)."""
    for t in (1e-3, 0.1, 0.5, 1.0):
        integral, _ = quad(lambda u: 0.1 + (20.0 - 0.1) * u, 0.0, t)
        sigma = np.array([math.sqrt(math.expm1(integral))])
        assert NOISE_RATES["published"].time(sigma)[0] == pytest.approx(t, rel=1e-12)


def test_the_time_of_deis_in_comfyui_is_that_of_a_process_through_two_noise_levels():
    """0.002 at time 0.001 and 80 at time 1; in between log(1 + sigma^2) is the integral of a rate that rises evenly."""
    rate = NOISE_RATES["core"]
    assert rate.time(np.array([0.002, 80.0])) == pytest.approx([0.001, 1.0], rel=1e-9)
    for t in (0.01, 0.3, 0.8):
        integral, _ = quad(lambda u: rate.least + rate.slope * u, 0.0, t)
        assert rate.time(np.array([math.sqrt(math.expm1(integral))]))[0] == pytest.approx(t, rel=1e-9)


def test_a_prediction_at_infinite_log_snr_counts_0():
    """As the polynomial through nodes that go to infinity does; the others weigh as without it, to the last bit."""
    rng = random.Random(1)
    for _ in range(300):
        nodes = [rng.uniform(-5.0, 5.0)]
        while len(nodes) < rng.randint(1, 6):
            nodes.append(nodes[-1] - rng.uniform(0.01, 2.0))
        step = nodes[0], nodes[0] + rng.uniform(0.01, 3.0), rng.choice([1.0, 1.5, 2.0])
        assert exponential_weights([*nodes, -math.inf], *step) == [*exponential_weights(nodes, *step), 0.0]
        far = exponential_weights([*nodes, -1e7], *step)
        assert far == pytest.approx([*exponential_weights(nodes, *step), 0.0], rel=1e-4, abs=1e-4)
