"""A schedule that was split before it came here: which solvers go on from its first half as if they had seen it all."""

import pytest
import torch
from cases import FLOW, VE, each_case, flow_line
from stepwise.samplers import AddressedNoise, run, start
from stepwise.samplers.schedules import karras
from stepwise.samplers.solvers.open_end import carried_over, open_ended

# Of each schedule the cuts at which one may look ahead: all of a short one, of a long one those at its ends and within.
CUTS = {4: range(1, 4), 8: range(1, 8), 40: (1, 2, 3, 4, 13, 20, 29, 36, 37, 38, 39)}


def smooth(x, sigma):
    return x / (x * x + (1.0 + sigma * sigma))


def schedule(path, steps):
    return tuple(karras(steps)) if path is VE else flow_line(steps, 3.0)


def halves(case, steps):
    """The plan of the whole schedule, and at each cut the plan of what lies before."""
    sigmas = schedule(case.path, steps)
    whole = case.plan(sigmas)
    for cut in CUTS[steps]:
        yield whole, open_ended(case.solver.plan, case.path, sigmas[: cut + 1], case.setting.params)


def end_of(half, whole):
    """Where a run of `half` ends, as a state of `whole`."""
    x = torch.randn(2, 4, 5, 7, generator=torch.Generator().manual_seed(1))
    return carried_over(run(half, smooth, start(x), AddressedNoise([5, 6])), half, whole)


@each_case()
def test_the_registry_says_which_settings_look_ahead(case):
    """Declared where, and only where, some first half cannot be gone on from."""
    cut = [end_of(half, whole) is None for steps in CUTS for whole, half in halves(case, steps)]
    assert any(cut) == case.setting.looks_ahead


@each_case()
def test_where_a_first_half_is_taken_up_the_run_is_the_whole_one_bit_for_bit(case, proved):
    x, noise = torch.randn(2, 4, 5, 7, generator=torch.Generator().manual_seed(1)), AddressedNoise([5, 6])
    for whole, half in halves(case, 8):
        state = end_of(half, whole)
        if state is not None:
            assert torch.equal(run(whole, smooth, state, noise).x, run(whole, smooth, start(x), noise).x)
            proved(1)


@each_case()
def test_an_open_end_changes_nothing_but_what_is_left(case):
    """The first half alone takes the steps that it always took."""
    for _, half in halves(case, 8):
        plain = case.plan(half.sigmas)
        x = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(2))
        noise = AddressedNoise([5])
        assert torch.equal(run(half, smooth, start(x), noise).x, run(plain, smooth, start(x), noise).x)
        assert len(half.stages) == len(plain.stages)


@pytest.mark.parametrize("path", [VE, FLOW])
def test_a_whole_schedule_is_planned_as_it_is(path):
    from cases import solver

    for name in ("DPMpp3M", "LMS", "Restart"):
        sigmas = schedule(path, 8)
        made = solver(name)
        assert open_ended(made, path, sigmas, {}) == made(path, sigmas)
