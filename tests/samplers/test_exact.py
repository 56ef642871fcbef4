"""The exact problems themselves: if these were wrong, so would be every order that is measured on them."""

import pytest
import torch
from cases import FLOW, VE
from exact import gaussian, mixture, relative_rms


@pytest.mark.parametrize("path", [VE, FLOW])
@pytest.mark.parametrize("sigma", [0.03, 0.3, 0.95])
def test_the_denoiser_obeys_tweedie(path, sigma):
    """alpha E[x0 | x] = x + sigma^2 grad log p(x) (Efron 2011), the gradient taken by autograd."""
    data = mixture()
    x = data.sample(path, sigma, 16).requires_grad_()
    (score,) = torch.autograd.grad(data.log_density(path, x, sigma).sum(), x)
    expected = (x + sigma**2 * score).detach()
    assert relative_rms(path.alpha(sigma) * data.denoised(path, x.detach(), sigma), expected) < 1e-12


@pytest.mark.parametrize("path", [VE, FLOW])
def test_the_density_is_that_of_the_samples(path):
    """Its score has mean 0 and covariance equal to minus the mean Hessian; the first is checked, at 5 deviations."""
    data, count = mixture(), 20000
    x = data.sample(path, 0.5, count, seed=3).requires_grad_()
    (score,) = torch.autograd.grad(data.log_density(path, x, 0.5).sum(), x)
    assert (score.mean(0).abs() < 5.0 * score.std(0) / count**0.5).all()


@pytest.mark.parametrize(("path", "top"), [(VE, 14.6), (FLOW, 0.999), (FLOW, 1.0)])
def test_the_ode_keeps_the_quantiles_of_a_gaussian(path, top):
    """On N(m, v) the probability-flow ODE moves every x with the quantile it starts at."""
    data = gaussian(0.7, 0.4, dimensions=3)
    x = data.sample(path, top, 8)
    moved = data.solution(path, x, top, 0.03)(0.03)

    def quantile(values, sigma):
        alpha = path.alpha(sigma)
        return (values - alpha * 0.7) / (alpha**2 * 0.4 + sigma**2) ** 0.5

    assert relative_rms(quantile(moved, 0.03), quantile(x, top)) < 1e-9
