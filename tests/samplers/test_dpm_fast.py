"""DPM Fast: three steps of the schedule together are one step of order 3."""

import math

import pytest
import torch
from cases import FLOW, VE, flow_line, solver
from exact import mixture
from stepwise.samplers import run, start
from stepwise.samplers.schedules import karras

DATA = mixture()
BOTH = pytest.mark.parametrize("path", [VE, FLOW])


def even(path, steps, top=8.0, low=0.05):
    """Levels even in half log-SNR, for sigma / alpha from `top` to `low`."""
    lams = [-math.log(top) + i / steps * math.log(top / low) for i in range(steps + 1)]
    return tuple(path.sigma(lam) for lam in lams)


@BOTH
@pytest.mark.parametrize(("together", "order"), [(3, "3"), (2, "2")])
def test_even_steps_together_are_a_step_of_dpm_solver(path, together, order):
    """Of order 3 with inner points at a third and two thirds, and what is left over of order 2 at the middle."""
    groups = 4 if together == 3 else 1
    levels = even(path, together * groups)
    ours, theirs = solver("DPMFast")(path, levels), solver("DPMSolver")(path, levels[::together], order=order)
    assert [stage.step for stage in ours.stages] == list(range(len(levels) - 1))
    for stage, other in zip(ours.stages, theirs.stages, strict=True):
        assert stage.sigma == pytest.approx(other.sigma, rel=1e-12)
    x, denoiser = DATA.sample(path, levels[0], 8), DATA.denoiser(path)
    torch.testing.assert_close(
        run(ours, denoiser, start(x)).x, run(theirs, denoiser, start(x)).x, rtol=1e-11, atol=1e-11
    )


@BOTH
@pytest.mark.parametrize("places", [(0.2, 0.5), (0.5, 0.9), (0.3, 0.8), (0.4,), (0.7,)])
def test_steps_of_any_lengths_together_keep_the_order(path, places):
    """The error of one group falls as its length to the power order + 1, wherever its inner levels are."""
    top, errors = 2.0, []
    for length in (0.08, 0.04, 0.02):
        lam = -math.log(top)
        levels = tuple(path.sigma(lam + length * place) for place in (0.0, *places, 1.0))
        x = DATA.sample(path, levels[0], 32)
        exact = DATA.solution(path, x, levels[0], levels[-1])(levels[-1])
        end = run(solver("DPMFast")(path, levels), DATA.denoiser(path), start(x)).x
        errors.append((end - exact).square().mean(1).sqrt().median().item())
    assert math.log2(errors[0] / errors[-1]) / 2 == pytest.approx(len(places) + 2, abs=0.15)


@BOTH
def test_where_no_step_of_order_3_is_to_be_had_there_are_two(path):
    """Its weights have no bound as the first inner point comes to two thirds, or both together."""
    for places in ((2.0 / 3.0, 0.9), (0.6, 0.61), (0.4, 0.41), (0.01, 0.5)):
        levels = tuple(path.sigma(place) for place in (0.0, *places, 1.0))
        plan = solver("DPMFast")(path, levels)
        split = [solver("DPMFast")(path, part).stages for part in (levels[:3], levels[2:])]
        assert [stage.rows for stage in plan.stages] == [stage.rows for part in split for stage in part]
        assert all(abs(value) < 60.0 for stage in plan.stages for r in stage.rows for _, value in r.terms)


@BOTH
@pytest.mark.parametrize("steps", range(2, 13))
def test_the_levels_and_orders_of_comfyui(path, steps):
    """n calls for n steps: floor(n / 3) + 1 steps even in log sigma to the last level above 0, the last of order n mod
    3, or the last two of orders 2 and 1   (Lu et al. 2022a, section 3.4)."""
    sigmas = karras(steps) if path is VE else flow_line(steps, 3.0)
    plan = solver("DPMFast")(path, sigmas, levels="core")
    assert [stage.step for stage in plan.stages] == list(range(steps))
    intervals = steps // 3 + 1
    whole = math.log(sigmas[0] / sigmas[-2])
    places = [math.log(sigmas[0] / stage.sigma) / whole * intervals for stage in plan.stages]
    orders = [3] * (intervals - 2) + [2, 1] if steps % 3 == 0 else [3] * (intervals - 1) + [steps % 3]
    expected = [i + j / order for i, order in enumerate(orders) for j in range(order)]
    assert places == pytest.approx(expected, abs=1e-9)


def test_one_step_to_0_of_comfyui_stays_where_it_is():
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    plan = solver("DPMFast")(VE, (5.0, 0.0), levels="core")
    assert torch.equal(run(plan, lambda x, sigma: 0.5 * x, start(x)).x, x)
