"""Adaptive steps: two orders from one attempt, a controller that keeps to its tolerance, image by image."""

import math
from dataclasses import replace

import pytest
import torch
from cases import FLOW, VE, flow_line, solver
from exact import gaussian, mixture, relative_rms
from stepwise.samplers import AddressedNoise, Plan, run, start
from stepwise.samplers.adaptive import Controller, NotFinite, step_taken
from stepwise.samplers.checkpoint import dumps, loads
from stepwise.samplers.parameters import InputError, checked
from stepwise.samplers.plan import State
from stepwise.samplers.schedules import karras
from stepwise.samplers.solvers.dpm_adaptive import LOW, pair_stages

DATA = mixture()
BOTH = pytest.mark.parametrize("path", [VE, FLOW])
ORDERS = pytest.mark.parametrize("order", ["2", "3"])


def controller_of(**params):
    return Controller.of(checked(solver("DPMAdaptive"), params))


def taken(path, sigmas, denoiser, x, noise=None, **params):
    """A run of one image, its state after every step of the schedule."""
    plan, controller = solver("DPMAdaptive")(path, sigmas, **params), controller_of(**params)
    state, pace, states = start(x), controller.begin(sigmas[0]), []
    more = {} if noise is None else {"noise": noise}
    for step in range(plan.steps):
        state, pace = step_taken(controller, plan, step, denoiser, state, pace, **more)
        states.append(replace(state, paces=(pace,)))
    return states


def ends(path):
    return (8.0, 0.05) if path is VE else (0.9, 0.05)


@BOTH
@ORDERS
def test_an_attempt_has_two_orders(path, order):
    """The error of a step falls as its length to the power p + 1 in x, and to the power p in `low`."""
    s, errors = 1.0 if path is VE else 0.6, {"x": [], LOW: []}
    for length in (0.04, 0.02, 0.01):
        t = s * math.exp(-length)
        x = DATA.sample(path, s, 12)
        exact = DATA.solution(path, x, s, t)(t)
        made = run(
            Plan(path, (s, t), tuple(pair_stages(int(order), s, t, 0)), ("x", LOW)), DATA.denoiser(path), start(x)
        )
        for name, found in errors.items():
            found.append((made.registers[name] - exact).square().mean(1).sqrt().median().item())
    for name, power in (("x", int(order) + 1), (LOW, int(order))):
        assert math.log2(errors[name][0] / errors[name][-1]) / 2 == pytest.approx(power, abs=0.2), name


@BOTH
@ORDERS
def test_the_error_of_a_run_follows_the_tolerance(path, order):
    """And the number of steps the tolerance to the power -1 / p: the step is as long as it may be."""
    sigmas, errors, steps = ends(path), [], []
    x = DATA.sample(path, sigmas[0], 1, seed=3)
    exact = DATA.solution(path, x, *sigmas)(sigmas[-1])
    for tolerance in (1e-3, 1e-4, 1e-5) if order == "2" else (1e-4, 1e-5, 1e-6):
        state = taken(path, sigmas, DATA.denoiser(path), x, order=order, rtol=0.0, atol=tolerance)[-1]
        errors.append(relative_rms(state.x, exact))
        steps.append(state.paces[0].accepted)
    assert math.log10(errors[0] / errors[-1]) / 2 == pytest.approx(1.0, abs=0.25)
    assert math.log10(steps[-1] / steps[0]) / 2 == pytest.approx(1.0 / int(order), abs=0.06)


@BOTH
@ORDERS
def test_a_tolerance_that_allows_everything_takes_the_steps_of_the_plan(path, order):
    sigmas = karras(6) if path is VE else flow_line(6, 3.0)
    x, denoiser = DATA.sample(path, sigmas[0], 1), DATA.denoiser(path)
    state = taken(path, sigmas, denoiser, x, order=order, rtol=100.0, atol=100.0, h_init=100.0)[-1]
    plan = solver("DPMAdaptive")(path, sigmas, order=order)
    assert torch.equal(state.x, run(plan, denoiser, start(x)).x)
    assert (state.paces[0].accepted, state.paces[0].rejected, state.paces[0].calls) == (6, 0, len(plan.stages))


@BOTH
def test_it_comes_by_every_level_of_the_schedule(path):
    """What is asked for between two levels has no part in where they are."""
    sigmas = karras(5) if path is VE else flow_line(5, 3.0)
    states = taken(path, sigmas, DATA.denoiser(path), DATA.sample(path, sigmas[0], 1), rtol=0.01, atol=0.001)
    assert [state.paces[0].level for state in states] == list(sigmas[1:])
    assert states[-1].paces[0].accepted > 5


def test_with_core_the_levels_between_cut_no_step_short():
    sigmas = karras(5)
    x, denoiser = DATA.sample(VE, sigmas[0], 1), DATA.denoiser(VE)
    states = taken(VE, sigmas, denoiser, x, levels="core")
    alone = taken(VE, (sigmas[0], sigmas[-2]), denoiser, x, levels="core")[-1]
    assert torch.equal(states[-1].x, alone.x)
    assert states[-1].paces == states[-2].paces == alone.paces
    for state, level in zip(states[:-1], sigmas[1:-1], strict=True):
        assert sigmas[-2] <= state.paces[0].level <= level * (1.0 + 1e-4)


@BOTH
@pytest.mark.parametrize("levels", ["as_given", "core"])
def test_a_run_goes_on_from_any_step_bit_for_bit(path, levels):
    sigmas = karras(5) if path is VE else flow_line(5, 3.0)
    x, params = (
        DATA.sample(path, sigmas[0], 1),
        {"levels": levels, "eta": 0.6, "rtol": 0.02, "pcoeff": 0.2, "dcoeff": 0.1},
    )
    noise, denoiser = AddressedNoise([7]), DATA.denoiser(path)
    whole = taken(path, sigmas, denoiser, x, noise, **params)
    plan, controller = solver("DPMAdaptive")(path, sigmas, **params), controller_of(**params)
    for done, cut in enumerate(whole[:-1], 1):
        state = loads(dumps(cut))
        assert isinstance(state, State)
        for step in range(done, plan.steps):
            state, pace = step_taken(controller, plan, step, denoiser, state, state.paces[0], noise)
            state = replace(state, paces=(pace,))
        assert torch.equal(state.x, whole[-1].x)
        assert state.paces == whole[-1].paces


@BOTH
@pytest.mark.parametrize("levels", ["as_given", "core"])
def test_with_noise_a_point_has_the_noise_level_it_should(path, levels):
    """All data are one value, so that every step is accepted: mean alpha c, deviation t."""
    sigmas, c = (karras(6)[:-1] if path is VE else flow_line(6, 3.0)[:-1]), 0.7
    data, numbers = gaussian(c, 0.0, 40_000), 40_000
    state = taken(
        path, sigmas, data.denoiser(path), data.sample(path, sigmas[0], 1), AddressedNoise([3]), eta=1.0, levels=levels
    )[-1]
    t = sigmas[-1]
    assert state.x.mean().item() == pytest.approx(path.alpha(t) * c, abs=5.0 * t / math.sqrt(numbers))
    assert state.x.std().item() == pytest.approx(t, rel=5.0 / math.sqrt(2.0 * numbers))


@BOTH
def test_it_goes_up_as_it_comes_down(path):
    """To the noise of a picture and back, within what the tolerance allows."""
    low, high = 0.05, (8.0 if path is VE else 0.95)
    x, denoiser = DATA.sample(path, low, 1), DATA.denoiser(path)
    up = taken(path, (low, 0.4, high), denoiser, x, rtol=0.0, atol=1e-6)[-1]
    exact = DATA.solution(path, x, low, high)(high)
    assert relative_rms(up.x, exact) < 1e-4
    down = taken(path, (high, low), denoiser, up.x, rtol=0.0, atol=1e-6)[-1]
    assert relative_rms(down.x, x) < 1e-3


def test_a_rejected_attempt_is_undone_and_counted():
    undone = []
    params = {"rtol": 0.0, "atol": 1e-4, "h_init": 3.0}
    plan, controller = solver("DPMAdaptive")(VE, (8.0, 0.05), **params), controller_of(**params)
    tries = []

    def remember():
        tries.append(len(tries))
        return lambda number=tries[-1]: undone.append(number)

    x = DATA.sample(VE, 8.0, 1)
    _, pace = step_taken(controller, plan, 0, DATA.denoiser(VE), start(x), controller.begin(8.0), remember=remember)
    assert undone
    assert undone[0] == 0
    assert (len(tries), len(undone)) == (pace.accepted + pace.rejected, pace.rejected)
    assert pace.calls == 3 * len(tries)


@pytest.mark.parametrize("params", [{"rtol": 0.0, "atol": 0.0}, {"rtol": 1e-12, "atol": 0.0, "accept_safety": 0.0}])
def test_a_tolerance_that_no_step_keeps_to_is_told(params):
    x = DATA.sample(VE, 8.0, 1).float()
    with pytest.raises(InputError, match=r"rtol is .* no step from noise level .* Raise rtol and atol"):
        taken(VE, (8.0, 0.05), DATA.denoiser(VE), x, **params)


def test_a_prediction_that_is_not_finite_is_told():
    with pytest.raises(NotFinite, match="sigma 8"):
        taken(VE, (8.0, 0.05), lambda x, sigma: x * math.nan, DATA.sample(VE, 8.0, 1))
