"""Noise levels: how VE and FLOW measure them."""

import math

import pytest
from cases import FLOW, VE

LEVELS = (0.001, 0.03, 0.3, 0.5, 0.9, 0.999)
STEPS = [(s, t) for s in LEVELS for t in LEVELS if t < s]


@pytest.mark.parametrize("path", [VE, FLOW])
def test_half_log_snr(path):
    """alpha / sigma = exp(lam), and back."""
    for sigma in LEVELS:
        assert path.alpha(sigma) / sigma == pytest.approx(math.exp(path.lam(sigma)), rel=1e-14)
        assert path.sigma(path.lam(sigma)) == pytest.approx(sigma, rel=1e-13)
    assert path.lam(0.0) == math.inf
    assert path.alpha(0.0) == 1.0


def test_a_flow_begins_without_signal():
    assert FLOW.alpha(1.0) == 0.0
    assert FLOW.lam(1.0) == -math.inf
    assert (VE.sigma_max, FLOW.sigma_max) == (math.inf, 1.0)


@pytest.mark.parametrize("path", [VE, FLOW])
@pytest.mark.parametrize("r", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_a_level_between_divides_the_log_snr(path, r):
    for s, t in STEPS:
        whole, part = path.lam(t) - path.lam(s), path.lam(path.between(s, t, r)) - path.lam(s)
        assert part == pytest.approx(r * whole, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("r", [0.0, 0.25, 0.5, 1.0])
def test_from_no_signal_a_level_between_divides_sigma(r):
    """There the log-SNR has infinite length."""
    assert 1.0 - FLOW.between(1.0, 0.2, r) == pytest.approx(r * 0.8, rel=1e-14)


@pytest.mark.parametrize("path", [VE, FLOW])
def test_gain_and_posterior_are_one_exponential(path):
    """gain = alpha_t (1 - exp(-h)) and posterior = exp(-h), h = lam_t - lam_s; both finite where h is not."""
    for s, t in STEPS:
        kept = math.exp(path.lam(s) - path.lam(t))
        assert path.posterior(s, t) == pytest.approx(kept, rel=1e-12)
        assert path.gain(s, t) == pytest.approx(path.alpha(t) * (1.0 - kept), rel=1e-11)
    assert path.gain(0.7, 0.0) == 1.0
    assert path.posterior(0.7, 0.0) == 0.0
    assert FLOW.posterior(1.0, 0.4) == 0.0
    assert FLOW.gain(1.0, 0.4) == pytest.approx(FLOW.alpha(0.4), rel=1e-15)
