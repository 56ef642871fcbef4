"""Unsampling: every setting that adds no noise takes a picture up to its noise, at the order that it has downwards."""

import math

import numpy as np
import pytest
import torch
from cases import CASES, FLOW, VE, each_case, solver
from exact import gaussian, mixture, slope
from stepwise.samplers import Predicted, run, start
from stepwise.samplers.parameters import InputError
from stepwise.samplers.registry import SOLVERS
from stepwise.samplers.schedules import karras
from stepwise.samplers.schedules.checks import check_sigmas
from stepwise.samplers.solvers.open_end import carried_over, open_ended

DATA = mixture()
STARTS = 32
LOW = 0.03
TOPS = {VE: (14.6,), FLOW: (0.98, 1.0)}
# What order 4 has left at 160 steps is not yet its asymptote on equal steps to 1.
COUNTS = {1: (40, 160), 2: (40, 160), 3: (160, 320), 4: (320, 640)}

UPWARDS = [case for case in CASES if case.setting.upwards]
ORDERED = [case for case in UPWARDS if case.setting.order is not None]


def grid(path, top, steps, low=LOW):
    """From `low` to `top`, in the steps in which models are mostly run downwards."""
    if path is VE:
        return tuple(reversed(karras(steps + 1, sigma_min=low, sigma_max=top)[:-1]))
    if top == 1.0:
        return tuple(np.linspace(low, top, steps + 1).tolist())
    lams = np.linspace(path.lam(low), path.lam(top), steps + 1).tolist()
    return (low, *(path.sigma(lam) for lam in lams[1:-1]), top)


def reached(case, sigmas, x):
    return run(case.plan(sigmas), DATA.denoiser(case.path), start(x)).x


def distance(one, other):
    """The median over the starts of the root mean square difference."""
    return (one - other).square().mean(1).sqrt().median().item()


EXACT = {}


def problem(path, top, low=LOW):
    """Pictures at `low`, and the exact solution through them."""
    if (path, top) not in EXACT:
        x = DATA.sample(path, low, STARTS)
        EXACT[path, top] = x, DATA.solution(path, x, low, top)
    return EXACT[path, top]


def with_tops(cases):
    pairs = [pytest.param(case, top, id=f"{case}-to-{top:g}") for case in cases for top in TOPS[case.path]]
    return pytest.mark.parametrize(("case", "top"), pairs)


@with_tops(ORDERED)
def test_order_of_convergence_upwards(case, top, orders):
    """The claimed one, also to exactly 1, where the last step cannot be taken in half log-SNR. On equal steps of sigma
    to 1, which are long in log-SNR at both ends, orders above 2 lose a part, as downwards."""
    x, exact = problem(case.path, top)
    counts = (160, 320) if top == 1.0 and case.setting.order < 3 else COUNTS[case.setting.order]
    measured = slope([distance(reached(case, grid(case.path, top, n), x), exact(top)) for n in counts], counts)
    orders(str(case.setting.order), case, f"up to {top:g}", cold=measured)
    least = 0.4 if top == 1.0 and case.setting.order > 2 else 0.15
    assert measured > case.setting.order - least
    if top != 1.0:
        assert measured == pytest.approx(case.setting.order, abs=0.35)


@with_tops(ORDERED)
def test_up_and_down_again_is_the_picture(case, top, orders):
    """80 steps each way, from level .03 on: to 1e-4 from order 2 on. The polynomials in sigma and in the VP time have
    more left at order 3 on VE, that in log sigma on FLOW, and equal steps of sigma, whose first is nearly half of .03,
    with every memory."""
    x, _ = problem(case.path, top)
    up = grid(case.path, top, 80)
    off = distance(reached(case, tuple(reversed(up)), reached(case, up, x)), x)
    orders(str(case.setting.order), case, f"up to {top:g} and down", digits=-math.log10(off))
    of_sigma = case.solver.id in ("LMS", "DEIS") if case.path is VE else case.setting.params.get("time") == "log_sigma"
    more = case.setting.order == 3 and of_sigma
    assert off < (0.02 if case.setting.order == 1 else 6e-4 if top == 1.0 else 2.5e-4 if more else 1e-4)


@each_case(lambda case: case.setting.upwards)
def test_the_noise_of_gaussian_data_is_standard_at_level_1(case):
    """On FLOW nothing of the picture is left there: pictures of N(m, v) end at N(0, 1), each at its own quantile."""
    data = gaussian(0.7, 0.4, dimensions=4)
    path, top = case.path, 1.0 if case.path is FLOW else 80.0
    x = data.sample(path, LOW, 64)
    end = run(case.plan(grid(path, top, 200)), data.denoiser(path), start(x)).x
    centred = (x - path.alpha(LOW) * 0.7) / (path.alpha(LOW) ** 2 * 0.4 + LOW**2) ** 0.5
    scale = 1.0 if path is FLOW else (0.4 + top**2) ** 0.5
    expected = scale * centred + (0.0 if path is FLOW else 0.7)
    assert (end - expected).abs().max() < 0.05 * scale


@each_case(lambda case: case.setting.upwards)
def test_every_row_keeps_a_constant_prediction(case):
    """Where denoised is always c, alpha c + sigma e goes up to alpha c + sigma e, at any steps and at every call."""
    c, e = torch.randn(2, 1, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for sigmas in (grid(case.path, TOPS[case.path][-1], n, low) for n in (1, 2, 3, 7) for low in (1e-4, 0.03, 0.5)):
        seen = []

        def denoiser(x, sigma, seen=seen):
            seen.append((x, sigma))
            return c.clone()

        plan = case.plan(sigmas)
        end = run(plan, denoiser, start(case.path.alpha(sigmas[0]) * c + sigmas[0] * e)).x
        for x, sigma in [*seen, (end, sigmas[-1])]:
            torch.testing.assert_close(x, case.path.alpha(sigma) * c + sigma * e, rtol=1e-7, atol=1e-7)


@each_case(lambda case: case.setting.upwards)
def test_a_call_upwards_is_in_its_step(case):
    for sigmas in (grid(case.path, TOPS[case.path][-1], n) for n in (1, 2, 3, 7)):
        plan = case.plan(sigmas)
        assert [stage.step for stage in plan.stages] == sorted(stage.step for stage in plan.stages)
        for step in range(plan.steps):
            first, *others = [stage for stage in plan.stages if stage.step == step]
            assert first.sigma == sigmas[step]
            assert all(sigmas[step] <= stage.sigma <= sigmas[step + 1] for stage in others)
        assert sum(case.calls(sigmas)) == len(plan.stages)


# From level 0


@each_case(lambda case: case.setting.upwards)
def test_from_0_the_first_call_is_at_the_level_above(case):
    """And the rest is the run from there, which remembers nothing of it: one call a step more."""
    sigmas = grid(case.path, TOPS[case.path][0], 6)
    plan, later = case.plan((0.0, *sigmas)), case.plan(sigmas)
    first, *others = plan.stages
    assert (first.sigma, first.step, first.opening) == (sigmas[0], 0, ())
    assert [dict(r.terms) for r in first.rows] == [{"x": 2.0, "denoised": -1.0}]
    assert [(stage.sigma, stage.step - 1, stage.rows) for stage in others] == [
        (stage.sigma, stage.step, stage.rows) for stage in later.stages
    ]
    (only,) = case.plan((0.0, 0.3)).stages
    assert only.sigma == 0.3


@pytest.mark.parametrize("path", [VE, FLOW])
def test_the_step_from_0_is_of_order_1(path, orders):
    """Its error, the only one that a method of higher order does not make smaller, falls as the level to the power 2.

    The exact solution begins at 1e-6, where the picture differs from that at 0 by less than rounding."""
    x, errors = DATA.sample(path, 0.0, STARTS), []
    for level in (0.02, 0.01, 0.005):
        exact = DATA.solution(path, x, 1e-6, level)(level)
        end = run(solver("Heun")(path, (0.0, level)), DATA.denoiser(path), start(x)).x
        errors.append(distance(end, exact))
    orders("1", "from_zero", repr(path), cold=slope(errors) - 1.0)
    assert slope(errors) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("path", [VE, FLOW])
def test_up_from_0_and_down_to_0_is_the_picture_but_for_the_first_level(path, orders):
    """What the jumps between 0 and the level above cost: no more than the square of that level. On VE the two cancel to
    below what Heun leaves in 80 steps."""
    x, found = DATA.sample(path, 0.0, STARTS), []
    for low in (0.02, 0.01, 0.005):
        up = (0.0, *grid(path, TOPS[path][0], 80, low))
        case = next(each for each in ORDERED if each.solver.id == "Heun" and each.path is path)
        found.append(distance(reached(case, tuple(reversed(up)), reached(case, up, x)), x))
    orders("2", "Heun", f"{path!r} up from 0 and down, by the first level", cold=slope(found))
    orders("", "Heun", f"{path!r} up from 0 and down, first level .01", digits=-math.log10(found[1]))
    assert all(off < low**2 + 2e-5 for off, low in zip(found, (0.02, 0.01, 0.005), strict=True))
    assert path is VE or slope(found) > 1.5


# In parts, and with CFG++


def smooth(x, sigma):
    return x / (x * x + (1.0 + sigma * sigma))


@each_case(lambda case: case.setting.upwards)
def test_a_split_run_upwards_is_the_whole_one_bit_for_bit(case, proved):
    """Where a first part can be gone on from; and in memory from between any two calls."""
    x = torch.randn(2, 4, 5, 7, generator=torch.Generator().manual_seed(1))
    for sigmas in ((0.0, *grid(case.path, TOPS[case.path][-1], 7)), grid(case.path, TOPS[case.path][0], 8)):
        whole = case.plan(sigmas)
        states = []
        end = run(whole, smooth, start(x), watch=states.append).x
        for state in states:
            assert torch.equal(run(whole, smooth, state).x, end)
            proved(1)
        for cut in range(1, len(sigmas) - 1):
            half = open_ended(case.solver.plan, case.path, sigmas[: cut + 1], case.setting.params)
            state = carried_over(run(half, smooth, start(x)), half, whole)
            # Upwards no schedule ends at 0, which is what solvers look ahead for; only to exactly 1 there is a last
            # step of another kind, and it is not before the cut. The step from 0 is one of its own.
            if state is None:
                assert (cut - (sigmas[0] == 0.0)) % case.setting.together, cut
                continue
            assert torch.equal(run(whole, smooth, state).x, end)
            proved(1)


@each_case(lambda case: case.setting.upwards and "cfg_pp" in case.solver.parameters)
def test_cfg_pp_upwards_with_one_prediction_twice_is_the_solver_itself(case):
    x = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sigmas = (0.0, *grid(case.path, TOPS[case.path][-1], 7))
    plan = case.solver.plan(case.path, sigmas, **case.setting.params, cfg_pp=True)
    made = run(plan, lambda x, sigma: Predicted(*[smooth(x, sigma)] * 2), start(x)).x
    torch.testing.assert_close(made, run(case.plan(sigmas), smooth, start(x)).x, rtol=1e-9, atol=1e-9)


# What does not go up


@each_case(lambda case: not case.setting.upwards)
def test_a_setting_that_adds_noise_says_why_not_and_what_can(case):
    sigmas = grid(case.path, 0.9, 20) if case.path is FLOW else grid(case.path, 14.6, 20)
    with pytest.raises(InputError, match=r"^sigmas go up, .* these settings add noise on the way\. Choose"):
        case.plan(sigmas)
    changed = case.solver.for_going_up(case.path, sigmas, case.setting.params)
    if changed is None:
        assert case.solver.id in ("DDPM", "LCM", "DPMpp3MSDE")
    else:
        case.solver.plan(case.path, sigmas, **{**case.setting.params, **changed})


def test_most_solvers_go_up():
    able = {entry.id for entry in SOLVERS if any(setting.upwards for setting in entry.settings)}
    assert {entry.id for entry in SOLVERS} - able == {"DDPM", "LCM", "DPMpp3MSDE"}


@pytest.mark.parametrize(
    ("sigmas", "index"),
    [((0.1, 0.5, 0.3), 2), ((0.9, 0.5, 0.6, 0.0), 2), ((0.0, 0.5, 1.0, 0.9), 3), ((0.3, 0.2, 0.8), 1)],
)
def test_a_schedule_that_goes_up_and_down_names_restart(sigmas, index):
    with pytest.raises(InputError, match=rf"^sigmas\[{index}\] is .*the value before it.*Restart\.$"):
        check_sigmas(FLOW, sigmas, upwards=True)


def test_levels_upwards_are_checked_as_downwards():
    check_sigmas(FLOW, (0.0, 0.5, 1.0), upwards=True)
    for wrong in ((0.0, 0.5, 1.5), (-0.1, 0.5), (0.0, math.nan), (0.1, 0.5, 0.5)):
        with pytest.raises(InputError, match=r"^sigmas\["):
            check_sigmas(FLOW, wrong, upwards=True)
    with pytest.raises(InputError, match=r"^sigmas go up, from 0 to 0\.5\. .* Reverse Sigmas\.$"):
        check_sigmas(FLOW, (0.0, 0.5), upwards=False)
