"""How fast solvers converge, measured on data whose exact answer is known, against what the registry claims."""

from functools import cache

import numpy as np
import pytest
import torch
from cases import CASES, FLOW, TABLE, VE, solver
from exact import mixture, slope
from follow import CONSTANT, follow_gaussian, law, noise_variance
from stepwise.samplers import Path, State, advance, run, start
from stepwise.samplers.schedules import karras, timestep

DATA = mixture()
STARTS = 32
COUNTS = (40, 160)
HIGH_COUNTS = (320, 640)
WARM_STEPS = 4
SIGMA_MIN = 0.03


def grid(path: Path, top: float, steps: int) -> tuple[float, ...]:
    """From `top` to SIGMA_MIN: Karras' on VE; on FLOW a line in half log-SNR, and from 0.999 and from 1 one in sigma.

    No jump to 0, whose error does not fall with steps.
    """
    if path is VE:
        return karras(steps + 1, sigma_min=SIGMA_MIN, sigma_max=top)[:-1]
    if top >= 0.999:
        return tuple(np.linspace(top, SIGMA_MIN, steps + 1).tolist())
    lams = np.linspace(path.lam(top), path.lam(SIGMA_MIN), steps + 1).tolist()
    return (top, *(path.sigma(lam) for lam in lams[1:-1]), SIGMA_MIN)


@cache
def problem(path: Path, top: float):
    """The starting values, and the exact solution through them as a function of sigma."""
    x = DATA.sample(path, top, STARTS)
    return x, DATA.solution(path, x, top, SIGMA_MIN)


def errors(case, top: float, steps: int) -> tuple[float, float]:
    """The median over the starts of the root mean square error at SIGMA_MIN, from a cold start and a warm one.

    Warm: x is set to the exact solution after each of the first steps, so that what later steps remember was predicted
    from exact values. Both are halves of one batch.
    """
    x, exact = problem(case.path, top)
    plan, denoiser, state = case.plan(grid(case.path, top, steps)), DATA.denoiser(case.path), start(torch.cat([x, x]))
    while state.index < len(plan.stages):
        step = plan.stages[state.index].step
        state = advance(plan, denoiser, state)
        if step < WARM_STEPS and state.index == plan.first_stage(step + 1):
            put_right = torch.cat([state.x[:STARTS], exact(plan.sigmas[step + 1])])
            state = State({**state.registers, "x": put_right}, state.index, state.denoised)
    apart = (state.x - exact(SIGMA_MIN).repeat(2, 1)).square().mean(1).sqrt()
    return apart[:STARTS].median().item(), apart[STARTS:].median().item()


DETERMINISTIC = [case for case in CASES if case.setting.order is not None]
STOCHASTIC = [case for case in CASES if case.setting.noise]


def with_beginnings(cases, flow=(0.999, 1.0)):
    """Parametrises by case and highest noise level; on FLOW both from close to 1 and from exactly 1."""
    tops = {VE: (14.6,), FLOW: flow}
    pairs = [pytest.param(case, top, id=f"{case}-from-{top:g}") for case in cases for top in tops[case.path]]
    return pytest.mark.parametrize(("case", "top"), pairs)


def measured(case, top, orders):
    """The order from a cold start and from exact values.

    High orders need small steps to show, and so does an order below what the memory would allow on even steps.
    """
    memory = max(len(stage.keeps) for stage in case.plan(grid(case.path, top, 10)).stages)
    counts = COUNTS if max(case.setting.order, memory) < 3 else HIGH_COUNTS
    cold, warm = (slope(found, counts) for found in zip(*(errors(case, top, n) for n in counts), strict=True))
    orders(str(case.setting.order), case, f"from {top:g}", cold=cold, warm=warm)
    return cold, warm


@with_beginnings(DETERMINISTIC, flow=(0.99,))
def test_order_of_convergence(case, top, orders):
    """The global order on the probability-flow ODE is the claimed one, from a cold start and from exact values."""
    assert measured(case, top, orders) == pytest.approx((case.setting.order,) * 2, abs=0.15)


@with_beginnings([case for case in DETERMINISTIC if case.path is FLOW], flow=(0.999, 1.0))
def test_order_on_equal_steps_of_sigma_from_pure_noise(case, top, orders):
    """So flow models are mostly run. The first steps are then long in half log-SNR at any number of steps: orders up
    to 2 stay whole, higher ones lose a part, at most 0.4, where a setting does not say that it loses more."""
    least = case.setting.from_noise or case.setting.order - (0.15 if case.setting.order < 3 else 0.4)
    assert min(measured(case, top, orders)) > least


@with_beginnings((case for case in DETERMINISTIC if case.setting.calls == case.setting.order), flow=(0.9, 1.0))
def test_the_local_order_of_a_single_step(case, top):
    """A method that makes its order from one step's own calls has it in the first step too, from alpha = 0 as well: the
    error of one step falls as its length to the power order + 1. A global order would hide one worse step.

    Not from 0.999: an inner point in log-SNR is the middle only of steps that are short against alpha.
    """
    x, exact = problem(case.path, top)
    denoiser, errors = DATA.denoiser(case.path), []
    for length in (0.01, 0.005, 0.0025):
        t = top * (1.0 - length)
        end = run(case.plan((top, t)), denoiser, start(x)).x
        errors.append((end - exact(t)).square().mean(1).sqrt().median().item())
    assert slope(errors) == pytest.approx(case.setting.order + 1, abs=0.15)


@pytest.mark.parametrize("variance", [0.05, 0.4, 1.0])
def test_dpmpp_2m_sde_is_stable_with_few_steps(variance):
    """At its defaults the end game does not blow up: on Gaussian data and Karras' schedule to 0 the variance of the
    result is within a quarter of the data's from 10 steps on, and within a tenth from 20 on."""
    for steps in range(10, 51):
        end = follow_gaussian(solver("DPMpp2MSDE")(VE, karras(steps)), 0.0, variance).end
        assert noise_variance(end) / variance == pytest.approx(1.0, abs=0.25 if steps < 20 else 0.1), steps


def consistent(case) -> bool:
    """Whether x is never carried on, only predictions: a sampler for models that jump to the end of the ODE."""
    return all("x" not in r.reads for stage in case.plan(grid(case.path, 0.9, 4)).stages for r in stage.rows)


@with_beginnings(
    case for case in STOCHASTIC if case.setting.keeps_marginals and case.setting.converges and not consistent(case)
)
def test_the_law_of_a_stochastic_solver_converges(case, top, orders):
    """On Gaussian data with its exact denoiser the result is Gaussian. Its mean is right at any number of steps, since
    the marginals are; its variance, computed from the plan without sampling, tends to the data's with order 1, the weak
    order of Euler-Maruyama (Kloeden and Platen 1992, section 14.1)."""
    mean, variance, errors = 0.7, 0.4, []
    for steps in (160, 320, 640):
        end = follow_gaussian(case.plan(grid(case.path, top, steps)), mean, variance).end
        assert end[CONSTANT] == pytest.approx(case.path.alpha(SIGMA_MIN) * mean, rel=1e-10)
        errors.append(abs(noise_variance(end) / law(case.path, SIGMA_MIN, variance) - 1.0))
    orders("1", case, f"from {top:g}", weak=slope(errors))
    assert errors[-1] < 0.03
    assert slope(errors) > 0.85


@with_beginnings(case for case in STOCHASTIC if case.setting.keeps_marginals and consistent(case))
def test_the_law_of_a_consistency_sampler_is_exact(case, top):
    """With the exact consistency function of Gaussian data, every step draws from the right law, at any number of
    steps (Song et al. 2023, section 3)."""
    for steps in (1, 2, 5):
        plan = case.plan(grid(case.path, top, steps))
        followed = follow_gaussian(plan, 0.7, 0.4, consistent=True)
        for x, sigma in zip([*followed.calls, followed.end], plan.sigmas, strict=True):
            assert x[CONSTANT] == pytest.approx(case.path.alpha(sigma) * 0.7, rel=1e-10, abs=1e-10)
            assert noise_variance(x) == pytest.approx(law(case.path, sigma, 0.4), rel=1e-10)


def followed_variances(variance_choice: str, variance: float):
    """What DDPM's thousand steps make of N(0, variance), and the exact values, at every call."""
    plan = solver("DDPM")(VE, timestep(TABLE, 1000), variance=variance_choice)
    calls = follow_gaussian(plan, 0.0, variance).calls
    return np.array([noise_variance(x) for x in calls]), np.array([law(VE, s, variance) for s in plan.sigmas[:-1]])


def test_large_variance_is_right_for_data_of_unit_variance():
    """Ho et al. 2020, section 3.2: beta is the optimal variance for x0 ~ N(0, I)."""
    made, exact = followed_variances("large", 1.0)
    np.testing.assert_allclose(made, exact, rtol=1e-10)


@pytest.mark.parametrize("variance", [0.05, 0.4, 0.9])
def test_small_and_large_variance_enclose_the_truth(variance):
    """Ho et al. 2020, section 3.2: the two are the lower and upper bounds for data of at most unit variance."""
    small, exact = followed_variances("small", variance)
    large, _ = followed_variances("large", variance)
    assert (small[1:] < exact[1:]).all()
    assert (exact[1:] < large[1:]).all()
