"""Whole runs against diffusers, an independent implementation, after every model call.

How they are run, and the bounds: support/diffusers_runs.py.
"""

import copy

import diffusers_runs
import pytest
import torch
from cases import FLOW, TABLE, VE, flow_line, solver
from diffusers_runs import (
    BETAS,
    DATA,
    InOrder,
    Theirs,
    generator,
    same_scale,
    set_sigmas,
    variance_preserving,
)
from stepwise.samplers import run, start
from stepwise.samplers.schedules import karras, lcm, timestep

make, compare, pytestmark = diffusers_runs.make, diffusers_runs.compare, diffusers_runs.pytestmark


@pytest.mark.parametrize(
    ("variance", "steps", "spacing", "offset"),
    [
        ("small", 1000, "leading", 0),
        ("small", 50, "leading", 1),
        ("small", 30, "trailing", 0),
        ("small", 20, "linspace", 0),
        ("large", 1000, "leading", 0),
        ("large", 50, "leading", 0),
    ],
)
def test_ddpm(make, compare, variance, steps, spacing, offset):
    """DDPM with fixed_small and fixed_large. For the latter only schedules that end at timestep 0: from another one
    diffusers adds beta's noise in the step to the image too, while Ho et al. 2020, algorithm 2, adds none."""
    config = {"timestep_spacing": spacing, "steps_offset": offset, "clip_sample": False}
    scheduler = make("DDPMScheduler", variance_type=f"fixed_{variance}", **config, **BETAS)
    scheduler.set_timesteps(steps)
    plan = solver("DDPM")(VE, timestep(TABLE, steps, spacing=spacing, steps_offset=offset), variance=variance)
    theirs = Theirs(scheduler, variance_preserving, arguments={"generator": generator()})
    compare(f"DDPMScheduler fixed_{variance}, VE", plan, theirs)


def test_ddpm_large_adds_no_noise_to_the_image(make, compare):
    """The exclusion above is as said: from timestep 1 all model calls but the last agree, and the last does not."""
    scheduler = make("DDPMScheduler", variance_type="fixed_large", steps_offset=1, clip_sample=False, **BETAS)
    scheduler.set_timesteps(50)
    plan = solver("DDPM")(VE, timestep(TABLE, 50, steps_offset=1), variance="large")
    theirs = Theirs(scheduler, variance_preserving, arguments={"generator": generator()})
    compare("DDPMScheduler fixed_large, VE", plan, theirs, calls=-1)
    theirs.arguments["generator"] = generator()
    x = DATA.sample(VE, plan.sigmas[0], 16)
    ours, image = run(plan, DATA.denoiser(VE), start(x), InOrder(torch.float64)).x, theirs.trajectory(plan, x)[-1]
    added = (1.0 - scheduler.alphas_cumprod[1].item()) ** 0.5
    assert (image - ours).std().item() == pytest.approx(added, rel=0.2)


class Supplied:
    """DDIMScheduler given its noise as a tensor per step, from the same stream."""

    def __init__(self, scheduler, eta: float):
        self.scheduler, self.eta, self.source, self.timesteps = scheduler, eta, generator(), scheduler.timesteps

    def step(self, prediction, t, x):
        noise = torch.randn(x.shape, generator=self.source, dtype=x.dtype) if self.eta else None
        return self.scheduler.step(prediction, t, x, eta=self.eta, variance_noise=noise)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("steps", "spacing", "offset"), [(50, "leading", 1), (7, "leading", 0), (50, "trailing", 0)])
def test_ddim(make, compare, eta, steps, spacing, offset):
    """DDIM. diffusers steps down by T // n whatever its timesteps are, so only where those lie T // n apart."""
    config = {"timestep_spacing": spacing, "steps_offset": offset, "clip_sample": False}
    scheduler = make("DDIMScheduler", **config, **BETAS)
    scheduler.set_timesteps(steps)
    plan = solver("DDIM")(VE, timestep(TABLE, steps, spacing=spacing, steps_offset=offset), eta=eta)
    compare(f"DDIMScheduler eta {eta:g}, VE", plan, Theirs(Supplied(scheduler, eta), variance_preserving))


@pytest.mark.parametrize(("steps", "original"), [(1, 50), (4, 50), (8, 50), (50, 50), (7, 100)])
def test_lcm(make, compare, steps, original):
    """LCM. The boundary scalings c_skip and c_out, which diffusers holds to be the sampler's, belong to the consistency
    function (Luo et al. 2023, eq. 9): they are folded into our denoiser."""
    scheduler = make("LCMScheduler", **BETAS)
    scheduler.set_timesteps(steps, original_inference_steps=original)
    sigmas = lcm(TABLE, steps, original_inference_steps=original)
    trained = dict(zip(sigmas, scheduler.timesteps.tolist(), strict=False))

    def consistent(x, sigma):
        c_skip, c_out = scheduler.get_scalings_for_boundary_condition_discrete(trained[sigma])
        return c_out * DATA.denoised(VE, x, sigma) + c_skip * variance_preserving(sigma) * x

    theirs = Theirs(scheduler, variance_preserving, arguments={"generator": generator()})
    compare("LCMScheduler, VE", solver("LCM")(VE, sigmas), theirs, consistent)


# Schedulers that index their own sigmas, which are then our schedule


@pytest.mark.parametrize("steps", [2, 10, 20])
@pytest.mark.parametrize("final", [{"lower_order_final": a, "euler_at_final": b} for a in (0, 1) for b in (0, 1)])
def test_dpmpp_2m(make, compare, steps, final):
    """DPM-Solver++(2M) on its Karras sigmas. With final_sigmas_type zero its last step is of order 1 whatever
    lower_order_final and euler_at_final say, since h is infinite: all four agree with our plan."""
    config = {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "use_karras_sigmas": True}
    scheduler = make("DPMSolverMultistepScheduler", **config, **final, **BETAS)
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)
    plan = solver("DPMpp2M")(VE, scheduler.sigmas.tolist())
    compare("DPMSolverMultistepScheduler dpmsolver++ 2M karras, VE", plan, Theirs(scheduler, variance_preserving))


@pytest.mark.parametrize("steps", [5, 20])
def test_dpmpp_2m_that_ends_above_zero(make, compare, steps):
    """There our last step keeps order 2: diffusers' does with both of its lower-order options off."""
    config = {"lower_order_final": False, "euler_at_final": False, "final_sigmas_type": "sigma_min"}
    scheduler = make("DPMSolverMultistepScheduler", solver_order=2, **config, **BETAS)
    scheduler.set_timesteps(steps)
    set_sigmas(scheduler, karras(steps + 1)[:-1])
    plan = solver("DPMpp2M")(VE, scheduler.sigmas.tolist())
    compare("DPMSolverMultistepScheduler dpmsolver++ 2M cut, VE", plan, Theirs(scheduler, variance_preserving))


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("skip", [0, 1])
def test_dpmpp_2m_on_flow(make, compare, shift, skip):
    """In half log-SNR, with alpha = 1 - sigma; from sigma = 1, where diffusers too extrapolates nothing in the second
    step, and from below."""
    config = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    scheduler = make("DPMSolverMultistepScheduler", solver_order=2, **config)
    scheduler.set_timesteps(20 - skip)
    set_sigmas(scheduler, flow_line(20, shift)[skip:])
    plan = solver("DPMpp2M")(FLOW, scheduler.sigmas.tolist())
    compare("DPMSolverMultistepScheduler dpmsolver++ 2M, FLOW", plan, Theirs(scheduler, velocity=True))


@pytest.mark.parametrize("path", [VE, FLOW])
@pytest.mark.parametrize("skip", [0, 1])
def test_ancestral_steps_on_both_paths(make, compare, path, skip):
    """DDPM small, which is DDIM with eta 1, is the first-order SDE-DPM-Solver++ (Lu et al. 2022b, appendix B); on FLOW
    from sigma = 1 and from below."""
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"} if path is FLOW else BETAS
    scheduler = make("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", solver_order=1, **flow)
    sigmas = (flow_line(20, 3.0) if path is FLOW else karras(20))[skip:]
    scheduler.set_timesteps(len(sigmas) - 1)
    set_sigmas(scheduler, sigmas)
    scale = same_scale if path is FLOW else variance_preserving
    theirs = Theirs(scheduler, scale, path is FLOW, {"generator": generator()}, draws_float32=True)
    plan = solver("DDPM")(path, scheduler.sigmas.tolist())
    compare(f"DPMSolverMultistepScheduler sde-dpmsolver++ 1, {path!r}", plan, theirs)


@pytest.mark.parametrize("path", [VE, FLOW])
@pytest.mark.parametrize("order", ["1", "2"])
def test_dpm_solver(make, compare, path, order):
    """Singlestep DPM-Solver, to a level above 0, where its exponential integrals are finite. Every second of its sigmas
    is an inner point of ours, at the middle of the step in half log-SNR."""
    config = {"algorithm_type": "dpmsolver", "solver_order": int(order), "final_sigmas_type": "sigma_min"}
    flow = {"use_flow_sigmas": True} if path is FLOW else BETAS
    scheduler = make("DPMSolverSinglestepScheduler", lower_order_final=False, **config, **flow)
    sigmas = tuple(s / (1.0 + s) for s in karras(13)[:-1]) if path is FLOW else karras(13)[:-1]
    plan = solver("DPMSolver")(path, sigmas, order=order)
    scheduler.set_timesteps(len(plan.stages))
    set_sigmas(scheduler, [*(stage.sigma for stage in plan.stages), plan.sigmas[-1]])
    theirs = Theirs(scheduler, same_scale if path is FLOW else variance_preserving)
    compare(f"DPMSolverSinglestepScheduler dpmsolver {order}, {path!r}", plan, theirs)


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_dpm_2_of_k_diffusion(make, compare, steps):
    """KDPM2, which goes to 0 with one call, on its own Karras sigmas and its own inner points."""
    scheduler = make("KDPM2DiscreteScheduler", use_karras_sigmas=True, **BETAS)
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)
    plan = solver("DPMSolver")(VE, [scheduler.sigmas[0].item(), *scheduler.sigmas[1:-1:2].tolist()], order="2")
    compare("KDPM2DiscreteScheduler, VE", plan, Theirs(scheduler))


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_euler(make, compare, steps):
    scheduler = make("EulerDiscreteScheduler", use_karras_sigmas=True, **BETAS)
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)
    scheduler.is_scale_input_called = True
    compare("EulerDiscreteScheduler, VE", solver("Euler")(VE, scheduler.sigmas.tolist()), Theirs(scheduler))


class AfterChurn(Theirs):
    """diffusers adds the churn inside `step`, after the model was called; Karras et al. 2022 call it on the raised x.
    Its step is linear in the prediction, so the raised x and sigma are read off it with predictions 0 and 1, and the
    model is called there."""

    def trajectory(self, plan, x):
        found = []
        for i, t in enumerate(self.scheduler.timesteps):
            after = self.scheduler.sigmas[i + 1].item()
            raised = self.try_step(t, x, 0.0)
            sigma = after - (self.try_step(t, x, 1.0) - raised).mean().item()
            prediction = self.predict(plan.path, raised.double(), sigma)
            x = self.scheduler.step(prediction, t, x, **self.arguments).prev_sample
            found.append(x)
        return found

    def try_step(self, t, x, prediction):
        scheduler, source = copy.deepcopy(self.scheduler), generator()
        source.set_state(self.arguments["generator"].get_state())
        arguments = {**self.arguments, "generator": source}
        return scheduler.step(torch.full_like(x, prediction), t, x, **arguments).prev_sample


@pytest.mark.parametrize(
    "churn",
    [
        {"s_churn": 5.0},
        {"s_churn": 100.0},
        {"s_churn": 10.0, "s_noise": 1.007},
        {"s_churn": 10.0, "s_tmin": 0.05, "s_tmax": 5.0, "s_noise": 0.9},
    ],
)
def test_euler_with_churn(make, compare, churn):
    scheduler = make("EulerDiscreteScheduler", use_karras_sigmas=True, **BETAS)
    scheduler.set_timesteps(20)
    scheduler.set_begin_index(0)
    scheduler.is_scale_input_called = True
    plan = solver("Euler")(VE, scheduler.sigmas.tolist(), **churn)
    theirs = AfterChurn(scheduler, arguments={**churn, "generator": generator()})
    compare("EulerDiscreteScheduler with churn, VE", plan, theirs)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_euler_on_flow(make, compare, steps, shift):
    scheduler = make("FlowMatchEulerDiscreteScheduler", shift=shift)
    scheduler.set_timesteps(steps)
    plan = solver("Euler")(FLOW, scheduler.sigmas.tolist())
    compare("FlowMatchEulerDiscreteScheduler, FLOW", plan, Theirs(scheduler, velocity=True))


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_lcm_on_flow(make, compare, steps):
    """The flow scheduler's stochastic sampling: denoise fully, noise again."""
    scheduler = make("FlowMatchEulerDiscreteScheduler", shift=3.0, stochastic_sampling=True)
    scheduler.set_timesteps(steps)
    theirs = Theirs(scheduler, velocity=True, arguments={"generator": generator()}, draws_float32=True)
    compare("FlowMatchEuler stochastic_sampling, FLOW", solver("LCM")(FLOW, scheduler.sigmas.tolist()), theirs)
