"""CFG++ in the host: beside ComfyUI's own where that is right, with masks, in parts, and without a negative prompt."""

from itertools import pairwise
from types import SimpleNamespace

import comfy.k_diffusion.sampling as host_sampling
import comfy.samplers
import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from toy_models import call, prompt, toy_model

STEPS = 8


def guider_of(model, cfg=0.7, rule=()):
    given = {"model": model, "positive": prompt(0.4), "negative": prompt(-0.3), "cfg": cfg, "rule": rule}
    return call("StepwiseCFGGuider", **given)[0]


def sigmas_of(model):
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)


def latent_of(batch=2, mask=False):
    latent = {"samples": torch.zeros(batch, 4, 8, 8)}
    if mask:
        latent["samples"] = torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(3))
        latent["noise_mask"] = torch.ones(1, 1, 8, 8)
        latent["noise_mask"][..., :4] = 0.0
    return latent


def ours(solver, guider, sigmas, latent=None, **params):
    params = {"cfg_pp": True, **params}
    inputs = {"noise": core.RandomNoise.execute(7).args[0], "latent_image": latent or latent_of(), "sigmas": sigmas}
    return call(f"Stepwise{solver}", guider=guider, **inputs, **params)


def plain(solver, guider, sigmas):
    return ours(solver, guider, sigmas, cfg_pp=False)[0]["samples"]


def theirs(name, guider, sigmas, **options):
    noise = core.RandomNoise.execute(7).args[0]
    sampler = comfy.samplers.ksampler(name, options)
    return core.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent_of()).args[0]["samples"]


def relative(a, b):
    return ((a - b).square().mean() / b.square().mean()).sqrt().item()


@pytest.mark.parametrize("cfg", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("kind", "solver", "name", "options"),
    [
        ("EPS", "Euler", "euler_cfg_pp", {}),
        ("V_PREDICTION", "Euler", "euler_cfg_pp", {}),
        ("FLOW", "Euler", "euler_cfg_pp", {}),
        ("EPS", "EulerAncestral", "euler_ancestral_cfg_pp", {"eta": 0.0}),
    ],
)
def test_it_is_comfyuis(kind, solver, name, options, cfg, differences):
    """With one guidance scale and the host's own guider: at scale 1 and at 0 both predictions are evaluated too."""
    model = toy_model(kind)
    sigmas = sigmas_of(model)
    if kind == "FLOW":
        # At 1 the host divides 0 by 0.
        sigmas[0] = 0.999
    expected = theirs(name, guider_of(model, cfg), sigmas, **options)
    host_guider = core.CFGGuider.execute(model, prompt(0.4), prompt(-0.3), cfg).args[0]
    for guider in (guider_of(model, cfg), host_guider):
        result = ours(solver, guider, sigmas, **options)[0]["samples"]
        differences(f"ComfyUI {name}, {kind}", difference := relative(result, expected))
        assert difference < 1e-5


@pytest.mark.parametrize(("name", "right"), [("euler_cfg_pp", True), ("dpmpp_2m_cfg_pp", False)])
def test_comfyuis_2m_takes_guidance_for_a_change_from_step_to_step(name, right):
    """For constant predictions every solver ends on the guided image with the noise of the unconditional one. Theirs of
    2M does not: its second-order term is denoised minus the *unconditional* prediction of the step before. (Their 2S
    takes denoised from a step's first call and the unconditional prediction from its second; here those are equal.)"""
    x, guided, uncond = torch.randn(3, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sigmas = torch.tensor([10.0, 6.0, 3.0, 1.0])

    class Constant:
        inner_model = SimpleNamespace(model_patcher=toy_model("EPS"))

        def __call__(self, x, sigma, model_options):
            for function in model_options["sampler_post_cfg_function"]:
                function({"denoised": guided, "uncond_denoised": uncond})
            return guided

    expected = x
    for s, t in pairwise(sigmas.tolist()):
        expected = guided + t / s * (expected - uncond)
    result = getattr(host_sampling, f"sample_{name}")(Constant(), x, sigmas, disable=True)
    assert (relative(result, expected) < 1e-6) is right


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
@pytest.mark.parametrize("solver", ["Euler", "DPMpp2M", "Heun", "LMS", "UniPC"])
def test_outside_the_mask_the_picture_stays_as_it_was(kind, solver):
    model, latent = toy_model(kind), latent_of(mask=True)
    result = ours(solver, guider_of(model), sigmas_of(model), latent)[0]["samples"]
    kept = latent["noise_mask"].expand_as(result) == 0.0
    assert relative(result[kept], latent["samples"][kept]) < 1e-5
    assert relative(result[~kept], latent["samples"][~kept]) > 0.1


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("solver", ["DPMpp2M", "LMS", "UniPC"])
def test_a_run_in_two_parts_equals_the_run_in_one(solver, mask):
    """With momentum in its guidance."""
    model = toy_model("EPS")
    (rule,) = call("StepwiseAPGGuidance", norm_threshold=5.0)
    sigmas, latent = sigmas_of(model), latent_of(mask=mask)
    whole = ours(solver, guider_of(model, rule=rule), sigmas, latent)[0]["samples"]
    for cut in (1, 3, STEPS - 1):
        state = ours(solver, guider_of(model, rule=rule), sigmas, latent, end_step=cut)[2]
        inputs = {"guider": guider_of(model, rule=rule), "state": state, "cfg_pp": True}
        assert torch.equal(call(f"Stepwise{solver}", **inputs)[0]["samples"], whole)


def test_a_guider_without_a_negative_prompt_is_refused():
    model = toy_model("EPS")
    guider = core.BasicGuider.execute(model, prompt(0.4)).args[0]
    with pytest.raises(ValueError, match="Euler: cfg_pp needs the prediction of a negative prompt"):
        ours("Euler", guider, sigmas_of(model))


def test_in_an_interval_without_guidance_the_unconditional_prediction_is_evaluated_all_the_same():
    """There it keeps its noise and nothing else of the negative prompt: neither plain sampling nor an error."""
    model = toy_model("EPS")
    (rule,) = call("StepwiseIntervalGuidance", sigma_low=0.0, sigma_high=0.001)
    sigmas = sigmas_of(model)
    off = ours("Euler", guider_of(model, rule=rule), sigmas)[0]["samples"]
    assert torch.equal(off, ours("Euler", guider_of(model, 1.0), sigmas)[0]["samples"])
    assert relative(plain("Euler", guider_of(model, 1.0), sigmas), off) > 0.01


def test_where_guidance_rests_so_does_cfg_pp():
    """At the first level of a flow the picture stays, and the first step's denoised image is x itself."""
    model = toy_model("FLOW")
    (rule,) = call("StepwiseCFGZeroStarGuidance")
    guider, sigmas = guider_of(model, rule=rule), torch.tensor([1.0, 0.5])
    assert torch.equal(ours("Euler", guider, sigmas)[0]["samples"], plain("Euler", guider, sigmas))
