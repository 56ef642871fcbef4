"""CFG-Zero*'s first steps: no model call, and the picture as it was, under every solver of the registry."""

import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced
from pixel_runs import Given, evaluated, guider_of, model_of, noise_of, run
from stepwise.samplers.parameters import parameters
from stepwise.samplers.registry import SOLVERS
from toy_models import call, nodes_by_id, prompt

SIGMAS = torch.linspace(1.0, 0.0, 7)
ROUNDED = torch.tensor([0.99999994, *SIGMAS[1:].tolist()])
SOLVER_IDS = [solver.id for solver in SOLVERS]


def resting(**params):
    return call("StepwiseCFGZeroStarGuidance", **params)[0]


def latent_of(result):
    return result[0]["samples"]


@pytest.mark.parametrize("sigmas", [SIGMAS, ROUNDED], ids=["one", "rounded"])
@pytest.mark.parametrize("solver", SOLVER_IDS)
def test_the_first_step_calls_no_model_and_leaves_the_picture_as_it_is(solver, sigmas):
    """What follows is the run of the schedule from its second level on, without a memory of the first."""
    model, noise = model_of("FLOW"), noise_of()
    guider = guider_of(model, resting())
    state = run(guider, noise, sigmas, solver, end_step=1)[2]
    assert evaluated(model) == []
    # The first level is 1 in the plan, also where a rounding of a table is wired.
    begun = noise
    assert torch.equal(state.state.x, begun)
    whole = latent_of(run(guider, noise, sigmas, solver))
    assert evaluated(model)
    # The host scales the noise by the first level.
    later = latent_of(run(guider, begun / sigmas[1], sigmas[1:], solver))
    torch.testing.assert_close(whole, later, rtol=2e-5, atol=2e-5)
    (sampler,) = call(f"Stepwise{solver}Sampler")
    latent = {"samples": torch.zeros_like(noise)}
    core = SamplerCustomAdvanced.execute(Given(noise), guider, sampler, sigmas, latent).args[0]["samples"]
    torch.testing.assert_close(core, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("zero_steps", [2, 6])
@pytest.mark.parametrize("solver", SOLVER_IDS)
def test_so_many_steps_rest_and_a_run_cut_anywhere_is_the_uncut_run(solver, zero_steps):
    model, noise = model_of("FLOW"), noise_of()
    guider = guider_of(model, resting(zero_init=2.0, zero_steps=zero_steps))
    whole = latent_of(run(guider, noise, SIGMAS, solver))
    if zero_steps == 6:
        assert evaluated(model) == []
        assert torch.equal(whole, noise)
        return
    for cut in range(1, 6):
        _, _, state = run(guider, noise, SIGMAS, solver, end_step=cut)
        assert torch.equal(state.state.x, noise) is (cut <= zero_steps)
        assert torch.equal(latent_of(call(f"Stepwise{solver}", guider=guider, state=state)), whole)


@pytest.mark.parametrize("solver", SOLVER_IDS)
def test_a_state_of_a_resting_run_goes_on_under_a_guider_that_does_not_rest_and_the_other_way_round(solver):
    model, noise = model_of("FLOW"), noise_of()
    with_rest, without = guider_of(model, resting(zero_steps=2)), guider_of(model)
    for first, second in ((with_rest, without), (without, with_rest)):
        for cut in range(1, 6):
            _, _, state = run(first, noise, SIGMAS, solver, end_step=cut)
            assert latent_of(call(f"Stepwise{solver}", guider=second, state=state)).isfinite().all()


def test_a_rest_inside_an_expression_lasts_for_all_calls_of_its_step():
    """The mean of a resting guidance and one that does not rest: Heun's first step has two calls of two prompts each,
    of the one that does not; then there are four prompts."""
    model, noise = model_of("FLOW"), noise_of(batch=1)
    leaves = [call("StepwisePrediction", conditioning=prompt(value))[0] for value in (0.4, -0.3, 0.9, 0.1)]
    still = call("StepwiseCFGCombine", positive=leaves[0], negative=leaves[1], scale=5.0, rule=resting())[0]
    moving = call("StepwiseCFGCombine", positive=leaves[2], negative=leaves[3], scale=5.0)[0]
    mixed = call("StepwiseMixPredictions", a=still, b=moving)[0]
    run(call("StepwiseGuider", model=model, prediction=mixed)[0], noise, SIGMAS, "Heun")
    assert evaluated(model) == [2, 2, *[4] * 9]


@pytest.mark.parametrize("cfg_pp", [False, True])
def test_the_report_counts_resting_steps_as_no_calls(cfg_pp):
    model, noise = model_of("FLOW"), noise_of(batch=1)
    leaves = [call("StepwisePrediction", conditioning=prompt(value))[0] for value in (0.4, -0.3)]
    still = call("StepwiseCFGCombine", positive=leaves[0], negative=leaves[1], scale=0.8, rule=resting(zero_steps=2))[0]
    (sampler,) = call("StepwiseDPMSolverSampler", cfg_pp=cfg_pp)
    guider, report = call("StepwiseGuider", model=model, prediction=still, sigmas=SIGMAS, sampler=sampler)
    run(guider, noise, SIGMAS, "DPMSolver", cfg_pp=cfg_pp)
    assert evaluated(model) == [2] * 7
    assert report.startswith("7 model calls of the sampler: 14 of 14 predictions evaluated")


@pytest.mark.parametrize("solver", [each.id for each in SOLVERS if "cfg_pp" in parameters(each.plan)])
def test_steps_of_cfg_pp_rest_too(solver):
    """What they would have remembered of both predictions is x."""
    model, noise = model_of("FLOW"), noise_of(batch=1)
    guider = guider_of(model, resting(zero_steps=2))
    assert torch.equal(run(guider, noise, SIGMAS, solver, cfg_pp=True, end_step=2)[2].state.x, noise)
    assert latent_of(run(guider, noise, SIGMAS, solver, cfg_pp=True)).isfinite().all()


def test_a_patch_that_asks_for_both_prompts_does_not_wake_a_step_that_rests():
    model, noise = model_of("FLOW"), noise_of(batch=1)
    model.model_options["disable_cfg1_optimization"] = True
    run(guider_of(model, resting()), noise, SIGMAS, "Euler")
    assert evaluated(model) == [2] * 5


def test_on_other_models_no_step_rests():
    model, noise = model_of("EPS"), noise_of(batch=1)
    run(guider_of(model, resting(zero_steps=3, zero_init=0.0)), noise, torch.tensor([2.0, 1.0, 0.0]), "Euler")
    assert evaluated(model) == [2, 2]


def test_under_a_foreign_sampler_each_call_goes_by_its_own_noise_level():
    model, noise = model_of("FLOW"), noise_of(batch=1)
    guider, sampler = guider_of(model, resting(zero_steps=3)), comfy.samplers.sampler_object("heun")
    latent = {"samples": torch.zeros_like(noise)}
    SamplerCustomAdvanced.execute(Given(noise), guider, sampler, SIGMAS, latent)
    assert evaluated(model) == [2] * 10


def test_the_number_of_steps_comes_after_the_inputs_that_were_there_before():
    schema = nodes_by_id()["StepwiseCFGZeroStarGuidance"].GET_SCHEMA()
    assert [(each.id, each.optional) for each in schema.inputs][-2:] == [("rule", True), ("zero_steps", True)]
