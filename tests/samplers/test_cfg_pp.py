"""CFG++ in every solver that has it: the guided image with the noise of the unconditional prediction."""

import pytest
import torch
from cases import CASES, each_case, solver
from exact import relative_rms
from stepwise.samplers import FLOW, VE, PlanError, Predicted, advance, run, start
from stepwise.samplers.guidance import cfg
from stepwise.samplers.schedules import karras

GENERATOR = torch.Generator().manual_seed(0)
X, A, B = torch.randn(3, 3, 5, generator=GENERATOR, dtype=torch.float64).unbind()
WITHOUT = {"DDPM", "LCM", "Restart", "DPMFast", "DPMAdaptive"}
SIGMAS = {VE: (*karras(6, sigma_min=0.05, sigma_max=12.0), 0.0)[:7], FLOW: (1.0, 0.9, 0.7, 0.55, 0.3, 0.1, 0.0)}
STEPS = pytest.mark.parametrize("path", [VE, FLOW])


def plan_of(case, **params):
    return case.solver.plan(case.path, SIGMAS[case.path], **{**case.setting.params, **params})


def no_noise(address, like):
    return torch.zeros_like(like)


def has_it(case):
    return case.solver.id not in WITHOUT


def test_every_solver_has_it_but_those_without_a_trajectory_of_their_own_or_whose_steps_are_not_those_of_the_schedule():
    assert {case.solver.id for case in CASES if "cfg_pp" not in case.solver.parameters} == WITHOUT


@each_case(has_it)
def test_constant_predictions_end_each_step_on_the_guided_image_with_unconditional_noise(case):
    """x_t = alpha_t a + k (x_s - alpha_s b) for denoised = a and uncond = b, with k = t / s where no noise is renewed:
    DDIM with CFG++ is that step, and for constant predictions every solver is exact."""
    plan, state, x = plan_of(case, cfg_pp=True), start(X), X
    for step, (s, t) in enumerate(zip(plan.sigmas, plan.sigmas[1:], strict=False)):
        state = run(plan, lambda x, sigma: Predicted(A, B), state, no_noise, stop=plan.first_stage(step + 1))
        noise, was = state.x - case.path.alpha(t) * A, x - case.path.alpha(s) * B
        k = t / s if not case.setting.noise else (noise * was).sum() / was.square().sum()
        assert relative_rms(state.x, case.path.alpha(t) * A + k * was) < 1e-10
        x = state.x


def smooth(x, sigma):
    return torch.tanh(A + x / (1.0 + sigma))


@each_case(has_it)
def test_without_guidance_it_is_the_solver_itself(case):
    """Where the unconditional prediction is the guided one, there is nothing to move."""
    plain = run(plan_of(case), smooth, start(X), no_noise).x
    same = run(plan_of(case, cfg_pp=True), lambda x, sigma: Predicted(*[smooth(x, sigma)] * 2), start(X), no_noise).x
    assert relative_rms(same, plain) < 1e-11


def pair(x, sigma):
    return smooth(x, sigma), torch.tanh(B - x / (1.0 + sigma))


@STEPS
@pytest.mark.parametrize("name", ["DDIM", "Euler", "DPMSolver"])
@pytest.mark.parametrize("scale", [0.2, 0.6, 1.0])
def test_at_order_1_it_is_guidance_of_a_scale_that_the_step_decides(path, name, scale):
    """scale / (1 - e^-h), known of DDIM."""
    params = {"order": "1"} if name == "DPMSolver" else {}
    plan = solver(name)(path, SIGMAS[path], **params, cfg_pp=True)
    plain = solver(name)(path, SIGMAS[path], **params)

    def with_uncond(x, sigma):
        cond, uncond = pair(x, sigma)
        return Predicted(cfg(cond, uncond, cfg=scale), uncond)

    def guided(x, sigma):
        t = path_steps[sigma]
        posterior = t / sigma * path.alpha(sigma) / path.alpha(t)
        return cfg(*pair(x, sigma), cfg=scale / (1.0 - posterior))

    path_steps = dict(zip(plan.sigmas, plan.sigmas[1:], strict=False))
    ours, theirs = (run(p, d, start(X), no_noise).x for p, d in ((plan, with_uncond), (plain, guided)))
    assert relative_rms(ours, theirs) < 1e-12


@each_case(has_it)
def test_a_run_cut_at_any_call_goes_on_as_if_uncut(case):
    plan = plan_of(case, cfg_pp=True)
    denoiser = lambda x, sigma: Predicted(*pair(x, sigma))  # noqa: E731
    whole = run(plan, denoiser, start(X), no_noise).x
    for cut in range(len(plan.stages)):
        half = run(plan, denoiser, start(X), no_noise, stop=cut)
        assert torch.equal(run(plan, denoiser, half, no_noise).x, whole)


def test_a_denoiser_without_the_unconditional_prediction_is_refused():
    plan = solver("Euler")(VE, (1.0, 0.5, 0.0), cfg_pp=True)
    assert plan.reads_uncond
    assert not solver("Euler")(VE, (1.0, 0.5, 0.0)).reads_uncond
    with pytest.raises(PlanError, match="must return a Predicted pair"):
        advance(plan, smooth, start(X))


def test_the_printed_plan_shows_the_operand():
    """From 1 to 0.5 on VE: denoised + 0.5 (x - uncond)."""
    text = str(solver("Euler")(VE, (1.0, 0.5), cfg_pp=True))
    assert "+1 denoised" in text
    assert "-0.5 uncond" in text
    assert "+0.5 x" in text
