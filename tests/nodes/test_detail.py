"""Detail in the real host: as samplers that lie about the level do it, and safe where those are not."""

from itertools import pairwise

import comfy.samplers
import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from pixel_runs import Given, guider_of, noise_of, run
from stepwise.nodes.host.models import path_of, sampling_of
from stepwise.samplers.detail import told_level
from toy_models import call, prompt, refused, toy_model

STEPS = 6


def model_of(kind):
    return toy_model(kind)


def sigmas_of(kind):
    return torch.linspace(1.0, 0.0, STEPS + 1) if kind == "FLOW" else call("StepwiseKarrasSchedule", steps=STEPS)[0]


def detailed(model, **params):
    return call("StepwiseDetail", model=model, amount=0.3, **params)[0]


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
@pytest.mark.parametrize("solver", ["Euler", "Heun", "DPMpp2M", "DPMpp2MSDE", "EulerAncestral", "UniPC"])
def test_a_run_goes_on_bit_for_bit_and_each_picture_is_alone(kind, solver):
    model, noise, sigmas = detailed(model_of(kind)), noise_of(), sigmas_of(kind)
    whole = run(guider_of(model), noise, sigmas, solver)[0]["samples"]
    assert not torch.equal(whole, run(guider_of(model_of(kind)), noise, sigmas, solver)[0]["samples"])
    for cut in (1, 3, STEPS - 1):
        state = run(guider_of(model), noise, sigmas, solver, end_step=cut)[2]
        assert not state.forgotten
        fresh = guider_of(detailed(model_of(kind)))
        assert torch.equal(call(f"Stepwise{solver}", guider=fresh, state=state)[0]["samples"], whole)
    if solver in ("Euler", "Heun"):
        alone = run(guider_of(model), noise[:1], sigmas, solver)[0]["samples"]
        torch.testing.assert_close(alone, whole[:1])


class Lying(comfy.samplers.Sampler):
    """Euler, that tells the model another level than its own."""

    def sample(self, guider, sigmas, extra_args, callback, noise, *_, **__):
        sampling = sampling_of(guider.model_patcher)
        x = sampling.noise_scaling(sigmas[0], noise, torch.zeros_like(noise), self.max_denoise(guider, sigmas))
        for here, there in pairwise(sigmas):
            told = told_level(here.expand(len(x)), path_of(sampling), amount=0.3)
            x = torch.lerp(guider(x, told, **extra_args), x, (there / here).item())
        return x


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
@pytest.mark.parametrize("guider", ["ours", "ComfyUI's"])
def test_it_is_what_samplers_do_that_lie(kind, guider, differences):
    """Under both guiders; the network is asked for the lower level, and x is moved along the step's own."""
    noise, sigmas = noise_of(), sigmas_of(kind)

    def guided(model):
        if guider == "ours":
            return guider_of(model)
        return core.CFGGuider.execute(model, prompt(0.4), prompt(-0.3), 5.0).args[0]

    expected = guided(model_of(kind)).sample(noise, torch.zeros_like(noise), Lying(), sigmas)
    found = run(guided(detailed(model_of(kind))), noise, sigmas, "Euler")[0]["samples"]
    difference = ((found - expected).abs().max() / expected.abs().max()).item()
    differences("a sampler that lies", difference)
    assert difference < 1e-5


def test_samplers_of_comfyui_have_it_too():
    noise, sigmas, latent = noise_of(), sigmas_of("EPS"), {"samples": torch.zeros_like(noise_of())}
    sampler, guider = comfy.samplers.sampler_object("euler"), guider_of(detailed(model_of("EPS")))
    theirs = core.SamplerCustomAdvanced.execute(Given(noise), guider, sampler, sigmas, latent).args[0]["samples"]
    torch.testing.assert_close(theirs, run(guider, noise, sigmas, "Euler")[0]["samples"], rtol=1e-4, atol=1e-4)


def test_nothing_is_changed_by_an_amount_of_nothing_and_the_model_itself_never():
    model = model_of("EPS")
    assert call("StepwiseDetail", model=model, amount=0.0)[0] is model
    assert detailed(model) is not model
    assert not model.wrappers.get("apply_model")
    message = refused("StepwiseDetail", model=model, sigma_start=0.1, sigma_end=1.0)
    assert message.startswith("Detail: sigma_end is 1, not below sigma_start")
