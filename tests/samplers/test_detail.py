"""What a model is told instead of the noise level, and what that makes of the result."""

import pytest
import torch
from exact import gaussian, mixture, relative_rms
from stepwise.samplers import FLOW, VE, run, start
from stepwise.samplers.detail import told_level
from stepwise.samplers.parameters import InputError
from stepwise.samplers.registry import SOLVERS
from stepwise.samplers.schedules import karras

SIGMAS = karras(12, sigma_max=8.0, sigma_min=0.05)
ALL = {"shape": "constant", "sigma_start": 100.0, "sigma_end": 0.001}


def levels(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("path", [VE, FLOW])
def test_a_hump_is_nothing_at_its_ends_and_beyond_and_whole_in_the_middle(path):
    """In log-SNR, and the same at its both sides."""
    ends = {"amount": 0.2, "sigma_start": 4.0, "sigma_end": 0.25}
    levels_of = (100.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.01)
    sigma = levels(*(path.sigma(-torch.tensor(s).log().item()) for s in levels_of))
    shares = (1.0 - told_level(sigma, path, **ends) / sigma).tolist()
    assert shares == pytest.approx([0.0, 0.0, 0.1, 0.2, 0.1, 0.0, 0.0], abs=1e-7)
    constant = (1.0 - told_level(sigma, path, shape="constant", **ends) / sigma).tolist()
    assert constant == pytest.approx([0.0, *[0.2] * 5, 0.0])
    assert torch.equal(told_level(sigma, path, amount=0.0), sigma)


def test_pure_noise_and_none_are_told_as_they_are():
    assert told_level(levels(1.0, 0.0), FLOW, amount=0.5).tolist() == [1.0, 0.0]
    assert told_level(levels(0.0), VE, amount=0.5).tolist() == [0.0]


def test_each_image_is_told_its_own_level():
    sigma = torch.rand(7, generator=torch.Generator().manual_seed(0)) * 3.0
    whole = told_level(sigma, VE, amount=0.1)
    assert all(torch.equal(told_level(sigma[i : i + 1], VE, amount=0.1), whole[i : i + 1]) for i in range(7))


def test_a_curve_upside_down_is_refused():
    with pytest.raises(InputError, match="sigma_end is 5, not below sigma_start"):
        told_level(levels(1.0), VE, sigma_start=1.0, sigma_end=5.0)


DETERMINISTIC = {
    solver.id: dict(setting.params)
    for solver in SOLVERS
    for setting in solver.settings[:1]
    if not setting.noise and solver.id != "DEIS"
}


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("amount", [0.2, -0.1])
def test_a_constant_share_is_the_plain_run_on_lower_levels_from_the_same_x(name, amount):
    """Whatever the data. DEIS is left out: it weighs its steps by the time of a schedule of its own, not by ratios of
    noise levels."""
    solver = next(solver for solver in SOLVERS if solver.id == name)
    data, k = mixture(4, 6), 1.0 - amount
    x = data.sample(VE, SIGMAS[0], 5)

    def told(x, sigma):
        return data.denoised(VE, x, told_level(levels(sigma), VE, amount=amount, **ALL).item())

    lied = run(solver.plan(VE, SIGMAS, **DETERMINISTIC[name]), told, start(x)).x
    plain = run(solver.plan(VE, [k * sigma for sigma in SIGMAS], **DETERMINISTIC[name]), data.denoiser(VE), start(x)).x
    assert relative_rms(lied, plain) < 1e-9


@pytest.mark.parametrize("amount", [0.2, 0.1, -0.1])
def test_of_gaussian_values_the_deviation_is_divided_by_one_less_the_share(amount):
    """Exactly times sqrt((s^2 + S^2) / (s^2 + k^2 S^2)), from S down: near 1 / k where S is large."""
    s, top, k = 0.7, 20.0, 1.0 - amount
    data = gaussian(0.0, s * s)
    plan = next(solver for solver in SOLVERS if solver.id == "Heun").plan(
        VE, karras(400, sigma_max=top, sigma_min=0.002)
    )

    def told(x, sigma):
        return data.denoised(VE, x, told_level(levels(sigma), VE, amount=amount, **ALL).item())

    x = torch.full((1, 1), (s * s + top * top) ** 0.5, dtype=torch.float64)
    found = run(plan, told, start(x)).x.item()
    assert found == pytest.approx(s * ((s * s + top * top) / (s * s + k * k * top * top)) ** 0.5, rel=2e-3)
    assert found == pytest.approx(s / k, rel=3e-3)
