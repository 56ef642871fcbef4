"""A flow model begins at 1, whatever ComfyUI's float32 table of it says."""

import comfy.model_sampling
import comfy.samplers
import pytest
import torch
from comfy.model_base import ModelType
from stepwise.nodes.host.levels import snapped
from stepwise.nodes.host.models import trained_of
from stepwise.nodes.host.sampler import make_plan
from stepwise.nodes.host.small_models import host_model
from stepwise.samplers import FLOW, VE, run, start
from stepwise.samplers.exact import mixture, relative_rms
from stepwise.samplers.registry import GUIDANCE, SCHEDULES, SOLVERS
from toy_models import Latent4, SmoothNet, call, prompt

REST = (0.9, 0.7, 0.4, 0.1, 0.0)


def table(shift):
    sampling = comfy.model_sampling.ModelSamplingDiscreteFlow()
    sampling.set_parameters(shift=shift)
    return sampling


SHIFTS = [i / 100 for i in range(1, 10_001)]
FIRST = {shift: table(shift).sigma_max.item() for shift in SHIFTS}
OFF = sorted({first for first in FIRST.values() if first != 1.0})


def test_every_shift_has_its_first_level_at_1(note):
    above, below = (sum(sign * first > sign for first in FIRST.values()) for sign in (1.0, -1.0))
    assert above > 50
    assert below > 50
    assert {snapped(FLOW, (first, 0.5, 0.0)) for first in FIRST.values()} == {(1.0, 0.5, 0.0)}
    note(f"first level of a flow model: {above} shifts of {len(SHIFTS)} above 1 and {below} below, all snapped")


def test_nothing_else_snaps():
    assert snapped(VE, (1.0000001, 0.5)) == (1.0000001, 0.5)
    assert snapped(FLOW, (0.9999, 0.5)) == (0.9999, 0.5)
    assert snapped(FLOW, (1.0, 0.9999999)) == (1.0, 0.9999999)
    assert snapped(FLOW, (1.00001, 0.5)) == (1.00001, 0.5)
    assert snapped(FLOW, ()) == ()


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda each: each.id)
def test_every_solver_plans_from_1(solver):
    for setting in solver.settings:
        if "FLOW" in setting.paths:
            exact = make_plan(solver, setting.params, FLOW, (1.0, *REST))
            assert exact.sigmas[0] == 1.0
            for first in OFF:
                assert make_plan(solver, setting.params, FLOW, (first, *REST)) == exact


def flow_model(shift):
    return host_model(SmoothNet(4), ModelType.FLOW, Latent4(), {"shift": shift})


def one_shift_each():
    return [next(shift for shift, first in FIRST.items() if first == off) for off in OFF]


@pytest.mark.parametrize("schedule", [each for each in SCHEDULES if "FLOW" in each.paths], ids=lambda each: each.id)
def test_our_own_schedules_begin_at_1_with_the_model_wired(schedule):
    for shift in one_shift_each():
        model = flow_model(shift)
        (sigmas,) = call(f"Stepwise{schedule.id}Schedule", model=model, steps=4)
        top = trained_of(model.get_model_object("model_sampling")).sigma_max
        assert top == 1.0
        assert sigmas[0] <= 1.0
        # Theirs begins where the chosen timesteps do, or the published levels.
        if schedule.id not in ("Timestep", "LCM", "OptimalSteps"):
            assert sigmas[0] == 1.0
        (sampler,) = call("StepwiseDPMpp2MSampler")
        call("StepwisePlanTable", sampler=sampler, sigmas=sigmas, model=model)


def rule_of(entry):
    given = {name: prompt(0.2 + 0.1 * i) for i, name in enumerate(entry.others)}
    return call(f"Stepwise{entry.id}Guidance", **given)[0]


def begun(node, first, rule=(), shift=3.0):
    """Noise and latent sampled by a step node from `first`."""
    made = {"model": flow_model(shift), "positive": prompt(0.4), "negative": prompt(-0.3), "cfg": 3.0, "rule": rule}
    noise = call("StepwiseNoise", seed=4)[0]
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    sigmas = torch.tensor((first, *REST), dtype=torch.float64)
    return call(node, guider=call("StepwiseCFGGuider", **made)[0], noise=noise, latent_image=latent, sigmas=sigmas)


@pytest.mark.parametrize("entry", [each for each in GUIDANCE if each.kind], ids=lambda each: each.id)
def test_every_rule_is_at_its_first_level(entry):
    rule = rule_of(entry)
    expected = begun("StepwiseDPMpp2M", 1.0, rule)[0]["samples"]
    for first in OFF:
        assert torch.equal(begun("StepwiseDPMpp2M", first, rule)[0]["samples"], expected)


def test_the_state_keeps_what_was_wired_and_goes_on_with_either():
    for first in OFF:
        _, _, whole = begun("StepwiseDPMpp3M", first)
        assert whole.sigmas[0] == first
        guider = call("StepwiseCFGGuider", model=flow_model(3.0), positive=prompt(0.4), negative=prompt(-0.3), cfg=3.0)[
            0
        ]
        given = {
            "guider": guider,
            "noise": call("StepwiseNoise", seed=4)[0],
            "latent_image": {"samples": torch.zeros(1, 4, 8, 8)},
            "sigmas": torch.tensor((first, *REST), dtype=torch.float64),
        }
        *_, half = call("StepwiseDPMpp3M", **given, end_step=3)
        for wired in ((first, *REST), (1.0, *REST)):
            sigmas = torch.tensor(wired, dtype=torch.float64)
            *_, done = call("StepwiseDPMpp3M", guider=guider, state=half, sigmas=sigmas)
            assert torch.equal(done.state.x, whole.state.x)


@pytest.mark.parametrize("solver", ["DPMpp2M", "DPMpp3M", "UniPC", "DEIS", "DDPM"])
def test_a_state_of_a_version_that_did_not_snap_goes_on_as_it_would_have_there(solver, monkeypatch):
    """Version 0.1.0 planned from the level as it was wired, and said so in the state's fingerprint."""
    first = min(OFF)
    guider = call("StepwiseCFGGuider", model=flow_model(3.0), positive=prompt(0.4), negative=prompt(-0.3), cfg=3.0)[0]
    given = {
        "guider": guider,
        "noise": call("StepwiseNoise", seed=4)[0],
        "latent_image": {"samples": torch.zeros(1, 4, 8, 8)},
        "sigmas": torch.tensor((first, *REST), dtype=torch.float64),
    }
    with monkeypatch.context() as then:
        for module in ("host.sampler", "runs.run", "runs.resume"):
            then.setattr(f"stepwise.nodes.{module}.snapped", lambda path, levels: tuple(levels))
        *_, whole = call(f"Stepwise{solver}", **given)
        *_, half = call(f"Stepwise{solver}", **given, end_step=2)
    *_, now = call(f"Stepwise{solver}", **given, end_step=2)
    assert half.plan != now.plan
    *_, done = call(f"Stepwise{solver}", guider=guider, state=half)
    assert torch.equal(done.state.x, whole.state.x)


@pytest.mark.parametrize("shift", [1.43, 2.07])
def test_dpm_solver_3_is_as_right_from_a_rounding_below_1_as_from_1(shift):
    """Its error is against the exact solution's, in float32, on the shift's own 20 steps of `simple`."""
    data = mixture()
    levels = comfy.samplers.simple_scheduler(table(shift), 20).tolist()
    assert 0.0 < 1.0 - levels[0] < 1e-6
    noise = data.sample(FLOW, 1.0, 16)
    solver = next(each for each in SOLVERS if each.id == "DPMSolver")

    def clean(levels, snap=True, order="3", dtype=torch.float32):
        plan = make_plan(solver, {"order": order}, FLOW, levels, snap=snap)
        return run(plan, data.denoiser(FLOW), start(noise.to(dtype))).x

    fine = [1.0, *(levels[i] + (levels[i + 1] - levels[i]) * j / 20 for i in range(20) for j in range(20))][1:]
    exact = clean((1.0, *fine[1:], 0.0), order="3", dtype=torch.float64)
    right = relative_rms(clean((1.0, *levels[1:])), exact)
    assert right < 0.05
    for snap in (True, False):
        assert relative_rms(clean(levels, snap), exact) < 1.05 * right
