"""Schedules taken apart, joined, read from text, and looked over."""

import math
from itertools import pairwise

import numpy as np
import pytest
from cases import FLOW, TABLE, VE, schedules, solver
from stepwise.samplers.parameters import InputError
from stepwise.samplers.schedules import flow, karras
from stepwise.samplers.schedules.checks import faults, remarks
from stepwise.samplers.schedules.editing import (
    first_below,
    first_not_above,
    hand_over,
    joined,
    parsed,
    resampled,
    reversed_sigmas,
    split_at,
    step_of_calls,
)
from stepwise.samplers.schedules.tables import Trained

SD = Trained(VE, TABLE)
WAN = Trained(FLOW, tuple((i + 1) / 1000 for i in range(1000)), 8.0)


@pytest.mark.parametrize("path", [VE, FLOW])
def test_splitting_and_joining_is_the_same_schedule(path):
    """At every step of every schedule of the registry."""
    for sigmas in schedules(path, (2, 3, 20)).values():
        for step in range(1, len(sigmas) - 1):
            high, low = split_at(sigmas, step)
            assert high[-1] == low[0] == sigmas[step]
            assert joined(high, low) == tuple(sigmas)


@pytest.mark.parametrize(("step", "which"), [(0, "first"), (5, "second"), (7, "second"), (-1, "first")])
def test_a_part_without_a_step_is_refused(step, which):
    with pytest.raises(InputError, match=rf"^step cuts at step {step} of 5, which leaves the {which} part.*to step 4"):
        split_at(karras(5), step)


def test_joining_what_does_not_meet_names_both_levels():
    with pytest.raises(InputError, match=r"^low_sigmas\[0\] begins at 0.5, after a gap: high_sigmas ends at 1\."):
        joined((3.0, 1.0), (0.5, 0.0))
    with pytest.raises(InputError, match=r"begins at 1.5, above it: high_sigmas ends at 1\."):
        joined((3.0, 1.0), (1.5, 0.0))
    with pytest.raises(InputError, match=r"^high_sigmas is empty"):
        joined((), (1.5, 0.0))


def test_a_level_is_found_on_its_side():
    sigmas = (4.0, 2.0, 1.0, 0.0)
    assert [first_not_above(sigmas, level) for level in (5.0, 4.0, 3.0, 2.0, 0.5, 0.0)] == [0, 0, 1, 1, 3, 3]
    assert [first_below(sigmas, level) for level in (5.0, 4.0, 3.0, 2.0, 0.5)] == [0, 1, 1, 2, 3]


def test_hand_over_gives_each_model_the_calls_of_its_time():
    """The model for high noise takes exactly the calls whose trained time is at the boundary or above: on flow models
    the time is sigma itself (Wan 2.2: 0.875), on Stable Diffusion the timestep (SDXL's refiner: below 200 of 1000)."""
    sigmas = flow(20, shift=8.0)
    step = first_below(sigmas, hand_over(WAN, 0.875))
    assert all(sigma >= 0.875 for sigma in sigmas[:step])
    assert all(sigma < 0.875 for sigma in sigmas[step:])
    assert [hand_over(SD, boundary) for boundary in (0.0, 0.2, 0.875, 1.0)] == [TABLE[t] for t in (0, 200, 875, 999)]
    sigmas = karras(30, sigma_min=TABLE[0], sigma_max=TABLE[-1])
    step = first_below(sigmas, hand_over(SD, 0.2))
    nearest = [int(np.abs(np.log(TABLE) - math.log(sigma)).argmin()) for sigma in sigmas[:-1]]
    assert all(t >= 200 for t in nearest[:step])
    assert all(t <= 200 for t in nearest[step:])


@pytest.mark.parametrize(("name", "params"), [("DPMpp2M", {}), ("Heun", {}), ("DPMSolver", {"order": "3"})])
def test_a_budget_of_model_calls_is_kept_and_used(name, params):
    """No more calls than the budget, and one step more would exceed it."""
    plan = solver(name)(VE, karras(12), **params)
    for calls in range(1, len(plan.stages)):
        step = step_of_calls(plan, calls)
        assert plan.first_stage(step) <= calls
        assert plan.first_stage(step + 1) > calls
    for calls in (len(plan.stages), len(plan.stages) + 1, 10_000):
        assert step_of_calls(plan, calls) == plan.steps


@pytest.mark.parametrize("path", [VE, FLOW])
def test_resampling(path):
    """As many steps are the same schedule, bit for bit; twice as many pass through it; the ends never move."""
    for sigmas in schedules(path, (3, 20)).values():
        steps = len(sigmas) - 1
        assert resampled(sigmas, steps) == tuple(sigmas)
        zero = sigmas[-1] == 0.0
        gaps = steps - 1 if zero else steps
        double = resampled(sigmas, 2 * gaps + zero)
        np.testing.assert_allclose(double[: 2 * gaps + 1 : 2], sigmas[: gaps + 1], rtol=1e-12)
        for n in (1, 2, 7, 50):
            made = resampled(sigmas, n)
            assert len(made) == n + 1
            assert (made[0], made[-1]) == (sigmas[0], sigmas[-1])
            assert all(t < s for s, t in pairwise(made))


def test_resampling_one_level_and_zero_is_refused():
    assert resampled((3.0, 0.0), 1) == (3.0, 0.0)
    with pytest.raises(InputError, match="nothing between it and 0"):
        resampled((3.0, 0.0), 2)


def test_reversing_twice_changes_only_zero():
    assert reversed_sigmas((3.0, 1.0, 0.0), 0.01) == (0.01, 1.0, 3.0)
    assert reversed_sigmas(reversed_sigmas((3.0, 1.0, 0.5), 0.01), 0.01) == (3.0, 1.0, 0.5)


@pytest.mark.parametrize(
    "text",
    [
        "14.6, 1.5, 1e-3, 0",
        "14.6 1.5 0.001 0",
        "14.6\n1.5\n1e-3\n0\n",
        "14.6; 1.5;1E-3 ;0.",
        "+14.6,,1.5,\n, .001, 0.0",
        "[14.6, 1.5, 1e-03, 0.0]",
        "tensor([14.6, 1.5, 1.0e-3, 0.0], dtype=torch.float64)",
        "# mine\n14.6 1.5 # half way\n0.1e-2\t0",
        "14.6\r\n1.5\r\n1e-3\r\n0",
    ],
)
def test_numbers_as_people_write_them(text):
    assert parsed(text) == (14.6, 1.5, 0.001, 0.0)


def test_every_float_is_read_back():
    """Whatever Python or a tensor prints."""
    values = [sigma for sigmas in schedules(VE, (20,)).values() for sigma in sigmas]
    assert parsed(", ".join(map(repr, values))) == tuple(values)
    assert parsed(" ".join(f"{value:.17e}" for value in values)) == tuple(values)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("14.6, one, 0", "has 'one' in line 1, which is no number"),
        ("14.6\n1.5\n1e-\n0", "has '1e-' in line 3"),
        ("3, nan, 0", "has 'nan' in line 1"),
        ("3, --1, 0", "has '--1' in line 1"),
        ("1.2.3 0", "has '1.2.3' in line 1"),
        ("", "holds no number"),
        ("# nothing", "holds no number"),
        ("5", "holds one number, 5"),
    ],
)
def test_what_cannot_be_read_is_named(text, problem):
    with pytest.raises(InputError) as caught:
        parsed(text)
    assert str(caught.value).startswith(f"text {problem}")


def test_every_fault_is_found_at_its_index():
    found = list(faults(FLOW, (14.6, math.nan, 0.5, 0.5, 0.7, -1.0)))
    assert [each.index for each in found] == [0, 1, 3, 4, 5]
    assert all(each.fatal for each in found)
    assert str(found[0]).startswith("sigmas[0] is 14.6, and a flow model begins at 1. Wire the model")


def test_sound_schedules_have_no_findings():
    for sigmas in schedules(VE, (1, 2, 20), to_zero=True).values():
        assert not list(faults(VE, sigmas))
    sound = karras(20, sigma_min=SD.sigma_min, sigma_max=SD.sigma_max)
    assert not list(remarks(sound, SD))


@pytest.mark.parametrize(
    ("sigmas", "index", "fatal", "problem"),
    [
        ((20.0, 1.0, 0.0), 0, True, "is 20, above the highest noise level that the model was trained on, 14.6"),
        ((3.0, 1.0, 0.0), 0, False, "is 3, far below the model's highest noise level, 14.6"),
        ((14.6, 1.0, 0.1), 2, False, "is 0.1, so the run ends with noise in the picture"),
    ],
)
def test_how_a_schedule_fits_the_model(sigmas, index, fatal, problem):
    (found,) = remarks(sigmas, SD)
    assert (found.index, found.fatal) == (index, fatal)
    assert found.problem.startswith(problem)
