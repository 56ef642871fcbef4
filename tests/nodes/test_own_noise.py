"""Runs that begin from noise of their own, or from none, in the real host; and how high noise on the way may go."""

import logging
import math
from dataclasses import replace

import comfy.nested_tensor
import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from stepwise.nodes.host.sampler import Limits, make_plan
from stepwise.nodes.runs.files import from_bytes, to_bytes
from stepwise.samplers import VE
from stepwise.samplers.registry import SOLVERS
from stepwise.samplers.schedules import karras
from toy_models import Latent4, call, nodes_by_id, prompt, refused, toy_model

STEPS = 4
PARTS = ["DDPM", "EulerAncestral", "DPMppSDE", "LCM"]


def guider_of(kind):
    model = toy_model(kind)
    return call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=2.0)[0]


def schedule_of(kind):
    return torch.linspace(1.0, 0.0, STEPS + 1) if kind == "FLOW" else call("StepwiseKarrasSchedule", steps=STEPS)[0]


def empty(batch, *shape):
    return {"samples": torch.zeros(batch, *(shape or (4, 5, 7)))}


def random(seed):
    return core.RandomNoise.execute(seed).args[0]


def noise_of(**inputs):
    return call("StepwiseNoise", **inputs)[0]


def nested(*parts):
    return comfy.nested_tensor.NestedTensor(parts)


def components_of(samples):
    return samples.unbind() if samples.is_nested else [samples]


FORMS = {
    "image": lambda batch: {"samples": torch.zeros(batch, 4, 5, 7)},
    "video": lambda batch: {"samples": torch.zeros(batch, 4, 3, 5, 7)},
    "video and sound": lambda batch: {"samples": nested(torch.zeros(batch, 4, 3, 5, 7), torch.zeros(batch, 2, 11))},
    "half precision": lambda batch: {"samples": torch.zeros(batch, 4, 5, 7, dtype=torch.float16)},
}


def drawn(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_core(noise, guider, sampler, sigmas, latent):
    return core.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent).args[0]


def split(sigmas, step):
    return core.SplitSigmas.execute(sigmas, step).args


# No starting noise, and the seeds


@pytest.mark.parametrize("form", FORMS)
def test_without_a_start_there_is_no_noise_and_the_seeds_are_those(form):
    given = {"seed": 9, "seed_step": 5, "variation_seed": 3, "variation_strength": 0.2}
    latent = FORMS[form](3)
    none, noise = noise_of(**given, start="none"), noise_of(**given)
    made = components_of(none.generate_noise(latent))
    like = components_of(noise.generate_noise(latent))
    assert not any(part.any() for part in made)
    assert [(part.shape, part.dtype) for part in made] == [(part.shape, part.dtype) for part in like]
    assert none.image_seeds(latent) == noise.image_seeds(latent)
    assert none.seed == noise.seed


@pytest.mark.parametrize("solver", PARTS)
@pytest.mark.parametrize("cut", range(1, STEPS))
def test_a_split_stochastic_run_goes_on_bit_for_bit_through_cores_nodes(solver, cut):
    """On VE, where x is the latent: on FLOW the host divides by alpha at the cut and multiplies by it again."""
    guider, sigmas, latent = guider_of("EPS"), schedule_of("EPS"), empty(2)
    (sampler,) = call(f"Stepwise{solver}Sampler")
    whole = by_core(noise_of(seed=7), guider, sampler, sigmas, latent)
    high, low = split(sigmas, cut)
    half = by_core(noise_of(seed=7), guider, sampler, high, latent)
    on = by_core(noise_of(seed=7, start="none"), guider, sampler, low, half)
    assert torch.equal(on["samples"], whole["samples"])
    other = by_core(noise_of(seed=8, start="none"), guider, sampler, low, half)
    # The step to 0 adds nothing.
    assert torch.equal(other["samples"], whole["samples"]) == (cut == STEPS - 1)


@pytest.mark.parametrize("solver", PARTS)
def test_on_flow_a_split_run_is_off_by_roundings_alone(solver):
    guider, sigmas, latent = guider_of("FLOW"), schedule_of("FLOW"), empty(2)
    (sampler,) = call(f"Stepwise{solver}Sampler")
    whole = by_core(noise_of(seed=7), guider, sampler, sigmas, latent)["samples"]
    high, low = split(sigmas, 2)
    half = by_core(noise_of(seed=7), guider, sampler, high, latent)
    on = by_core(noise_of(seed=7, start="none"), guider, sampler, low, half)["samples"]
    assert (on - whole).abs().max() < 1e-5 * whole.abs().max()


@pytest.mark.parametrize("solver", PARTS)
def test_in_the_step_nodes_every_image_keeps_its_seed(solver):
    guider, sigmas, latent = guider_of("EPS"), schedule_of("EPS"), empty(3)
    seeds = {"seeds": "12, 5, 100"}
    whole = call(f"Stepwise{solver}", guider=guider, noise=noise_of(**seeds), latent_image=latent, sigmas=sigmas)[0]
    high, low = split(sigmas, 2)
    begun = {"guider": guider, "noise": noise_of(**seeds), "latent_image": latent, "sigmas": high}
    half = call(f"Stepwise{solver}", **begun)[0]
    rest = {"guider": guider, "noise": noise_of(**seeds, start="none"), "latent_image": half, "sigmas": low}
    assert torch.equal(call(f"Stepwise{solver}", **rest)[0]["samples"], whole["samples"])


# A latent as noise


@pytest.mark.parametrize("form", FORMS)
def test_noise_from_a_latent_is_that_latent(form):
    latent = FORMS[form](2)
    parts = [drawn(*part.shape).to(part.dtype) for part in components_of(latent["samples"])]
    own = {"samples": parts[0] if len(parts) == 1 else nested(*parts)}
    (noise,) = call("StepwiseNoiseFromLatent", latent=own)
    made = components_of(noise.generate_noise(latent))
    assert all(torch.equal(*pair) for pair in zip(made, parts, strict=True))
    assert noise.seed == 0


class Scaled(Latent4):
    """A latent format whose scale and shift are no powers of two."""

    def process_in(self, latent):
        return (latent - 0.3) * 0.18

    def process_out(self, latent):
        return latent / 0.18 + 0.3


@pytest.mark.parametrize("noise_scale", [1.0, 1.7])
def test_with_the_model_its_latent_format_and_noise_scale_are_undone(noise_scale):
    """What a flow run of no steps at level 1 leaves is its noise, as a LATENT has it: back to the NOISE that it was."""
    model = toy_model("FLOW", None, Scaled())
    model.get_model_object("model_sampling").noise_scale = noise_scale
    guider = call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=1.0)[0]
    noise, latent = random(5), empty(2)
    given = {"guider": guider, "noise": noise, "latent_image": latent, "sigmas": torch.tensor([1.0, 0.5])}
    at_one = call("StepwiseDPMpp2M", **given, start_step=0, end_step=10000)[2].noise
    left = {"samples": model.model.process_latent_out(at_one * noise_scale)}
    (back,) = call("StepwiseNoiseFromLatent", latent=left, model=model)
    assert torch.allclose(back.generate_noise(latent), noise.generate_noise(latent), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(call("StepwiseNoiseFromLatent", latent=left)[0].generate_noise(latent), at_one, atol=0.1)


@pytest.mark.parametrize("form", ["image", "video", "video and sound"])
def test_normalise_makes_mean_0_and_deviation_1_of_each_image(form):
    parts = [3.0 + 2.0 * drawn(*part.shape) for part in components_of(FORMS[form](2)["samples"])]
    own = {"samples": parts[0] if len(parts) == 1 else nested(*parts)}
    made = call("StepwiseNoiseFromLatent", latent=own, normalise=True)[0].generate_noise(own)
    for part, was in zip(components_of(made), parts, strict=True):
        for image, before in zip(part, was, strict=True):
            assert abs(image.mean()) < 1e-5
            assert abs(image.std(correction=0) - 1.0) < 1e-5
            assert torch.corrcoef(torch.stack([image.flatten(), before.flatten()]))[0, 1] > 0.9999


def test_a_latent_that_cannot_be_the_noise_is_refused_with_its_node():
    flat = {"samples": torch.stack([drawn(4, 5, 7), torch.ones(4, 5, 7)])}
    message = refused("StepwiseNoiseFromLatent", latent=flat, normalise=True)
    assert message.startswith("Noise from Latent: latent[1] is one value everywhere")
    broken = {"samples": torch.full((1, 4, 5, 7), torch.nan)}
    assert "latent[0] holds a value that is not finite" in refused("StepwiseNoiseFromLatent", latent=broken)
    (one,) = call("StepwiseNoiseFromLatent", latent={"samples": drawn(1, 4, 5, 7)})
    with pytest.raises(ValueError, match=r"^Noise from Latent: latent is a batch of 1, and .* is a batch of 3\. Give"):
        one.generate_noise(empty(3))
    with pytest.raises(ValueError, match=r"^Noise from Latent: latent has the shape 1x4x5x7, and .* 1x4x8x8"):
        one.generate_noise(empty(1, 4, 8, 8))


def test_the_noise_of_a_latent_is_not_changed_by_a_run():
    own = {"samples": drawn(1, 4, 5, 7)}
    (noise,) = call("StepwiseNoiseFromLatent", latent=own)
    before = own["samples"].clone()
    noise.generate_noise(empty(1)).zero_()
    assert torch.equal(own["samples"], before)


# What is said of a run without


NO_SEED = "noise has no seed but 0: what {} adds on the way is of seed 0"
NOTHING = "noise gives no starting noise, and at noise level 1 nothing of latent_image is left"


def silent():
    return core.DisableNoise.execute().args[0]


def remarks_of(node_id, **inputs):
    """What a step node says of a run with these inputs."""
    made = nodes_by_id()[node_id].execute(**{"start_step": 0, "end_step": 10000, **inputs})
    (shown,) = made.ui["stepwise_face"]
    return shown["remarks"]


def remarks(solver, kind, noise, sigmas):
    given = {"guider": guider_of(kind), "noise": noise, "latent_image": {"samples": drawn(1, 4, 5, 7)}}
    return remarks_of(f"Stepwise{solver}", **given, sigmas=sigmas, **params_of(solver))


def params_of(solver):
    declared = next(each for each in SOLVERS if each.id == solver)
    noise = {"noise_kind": "independent", "noise_device": "cpu"} if declared.stochastic else {}
    return {**{name: parameter.default for name, parameter in declared.parameters.items()}, **noise}


def test_disable_noise_before_a_stochastic_solver_is_said_in_the_node_and_the_log(caplog):
    _, low = split(schedule_of("EPS"), 2)
    (said,) = remarks("DDPM", "EPS", silent(), low)
    assert said.startswith(NO_SEED.format("DDPM"))
    assert said.endswith("Wire Noise (Stepwise) with that seed and with start at none.")
    assert said in caplog.text
    for noise in (noise_of(seed=0, start="none"), noise_of(seed=7, start="none"), random(0)):
        assert remarks("DDPM", "EPS", noise, low) == []
    assert remarks("DPMpp2M", "EPS", silent(), low) == []
    (said,) = remarks("DDPM", "EPS", call("StepwiseNoiseFromLatent", latent={"samples": drawn(1, 4, 5, 7)})[0], low)
    assert said.startswith(NO_SEED.format("DDPM"))


@pytest.mark.parametrize("noise", [silent, lambda: noise_of(seed=7, start="none")])
def test_no_noise_at_level_1_of_a_flow_model_is_said(noise):
    (said,) = remarks("DPMpp2M", "FLOW", noise(), schedule_of("FLOW"))
    assert said.startswith(NOTHING)
    assert "Noise from Latent" in said
    assert remarks("DPMpp2M", "FLOW", noise(), schedule_of("FLOW")[1:]) == []
    assert remarks("DPMpp2M", "EPS", noise(), schedule_of("EPS")) == []


def test_ksampler_stepwise_says_it_in_its_own_words():
    model = toy_model("FLOW")
    given = {"model": model, "positive": prompt(0.4), "negative": prompt(-0.3), "seed": 7, "steps": 4, "cfg": 1.0}
    choices = {"solver": {"solver": "DPM++ 2M"}, "schedule": {"schedule": "Flow", "shift": 1.0}}
    widgets = {"denoise": 1.0, "add_noise": "disable", "return_with_leftover_noise": "enable"}
    latent = {"samples": drawn(1, 4, 8, 8)}
    (said,) = remarks_of("StepwiseKSampler", **given, **choices, **widgets, latent_image=latent)
    assert said.startswith("add_noise gives no starting noise")
    assert said.endswith("Set add_noise to enable, or denoise below 1.")


@pytest.mark.parametrize(
    ("solver", "kind", "said"), [("DDPM", "EPS", NO_SEED.format("DDPM")), ("DPMpp2M", "FLOW", NOTHING)]
)
def test_under_cores_nodes_the_log_says_it(solver, kind, said, caplog):
    (sampler,) = call(f"Stepwise{solver}Sampler")
    latent = {"samples": drawn(1, 4, 5, 7)}
    with caplog.at_level(logging.WARNING):
        by_core(random(0), guider_of(kind), sampler, schedule_of(kind), latent)
        by_core(noise_of(seed=7, start="none"), guider_of("EPS"), sampler, schedule_of("EPS"), latent)
        assert said not in caplog.text
        by_core(silent(), guider_of(kind), sampler, schedule_of(kind), latent)
    assert f"Stepwise: {next(s.name for s in SOLVERS if s.id == solver)}: {said}" in caplog.text


# How high noise on the way may go


def levels_called(state):
    """The noise levels at which the plan of a held state calls the model."""
    solver = next(each for each in SOLVERS if each.name == state.solver)
    params = {name: value for name, value in state.params.items() if name in solver.parameters}
    limits = state.limits
    return [stage.sigma for stage in make_plan(solver, params, state.path, state.sigmas, limits=limits).stages]


@pytest.mark.parametrize("solver", ["Euler", "Heun"])
def test_churn_stays_in_the_range_of_the_model_that_is_wired(solver):
    guider, latent = guider_of("EPS"), empty(1)
    highest = float(guider.model_patcher.get_model_object("model_sampling").sigma_max)
    given = {"guider": guider, "noise": random(7), "latent_image": latent, "sigmas": schedule_of("EPS")}
    whole, _, end = call(f"Stepwise{solver}", **given, s_churn=3.0)
    assert max(levels_called(end)) == end.sigmas[0] == pytest.approx(highest)
    for cut in range(1, STEPS):
        state = call(f"Stepwise{solver}", **given, s_churn=3.0, end_step=cut)[2]
        rest = call(f"Stepwise{solver}", guider=guider, state=from_bytes(to_bytes(state, {})), s_churn=3.0)[0]
        assert torch.equal(rest["samples"], whole["samples"])
    (sampler,) = call(f"Stepwise{solver}Sampler", s_churn=3.0)
    assert torch.equal(by_core(random(7), guider, sampler, schedule_of("EPS"), latent)["samples"], whole["samples"])


def test_restart_in_a_run_from_a_picture_changes_no_more_than_the_run_itself_may():
    """With denoise .2 t_max is far above the beginning: there is one interval, from t_min to where the run began."""
    sigmas = torch.tensor([*karras(6, sigma_min=0.03, sigma_max=0.5)])
    guider, latent = guider_of("EPS"), {"samples": drawn(1, 4, 5, 7)}
    given = {"guider": guider, "noise": random(7), "latent_image": latent, "sigmas": sigmas}
    state = call("StepwiseRestart", **given, t_max=1000.0)[2]
    assert max(levels_called(state)) == sigmas[0]
    # The rest of a longer run knows where that began.
    longer = {**given, "sigmas": torch.tensor(karras(12))}
    state = call("StepwiseDPMpp2M", **longer, end_step=7)[2]
    assert 0.2 < state.level < 2.0
    forked = call("StepwiseRestart", guider=guider, state=state, on_mismatch="fork")[2]
    solver = next(each for each in SOLVERS if each.id == "Restart")
    plan = make_plan(solver, {}, VE, forked.sigmas[forked.solver_step :], True, limits=forked.limits)
    assert max(stage.sigma for stage in plan.stages) == pytest.approx(2.0)


def test_a_state_knows_the_limits_of_its_run_and_one_of_0_1_0_has_none():
    guider = guider_of("EPS")
    given = {"guider": guider, "noise": random(7), "latent_image": empty(1), "sigmas": schedule_of("EPS")}
    state = call("StepwiseEuler", **given, end_step=2)[2]
    assert state.limits == Limits(state.highest, state.sigmas[0], state.below)
    assert state.below == 1.0
    assert replace(state, highest=0.0, below=0.0).limits == Limits(math.inf, math.inf)
