"""Rules of guidance in whole runs: images by themselves, runs in parts, evaluations saved, memory once a step."""

import comfy.samplers
import folder_paths
import pytest
import torch
from comfy.nested_tensor import NestedTensor
from comfy_extras import nodes_custom_sampler as core
from pixel_runs import Given, evaluated, guider_of, model_of, noise_of, run
from stepwise.samplers.registry import GUIDANCE
from toy_models import call, prompt, refused

STEPS = 6
RULES = {entry.id: entry for entry in GUIDANCE if entry.kind}
SHARP = {"Interval": {"sigma_low": 0.1, "sigma_high": 3.0}, "APG": {"norm_threshold": 2.0}, "Threshold": {"limit": 0.5}}
# With which a rule leaves guidance 1 alone.
NEUTRAL = {
    "Dual": {"middle_scale": 1.0},
    "Steps": {"last_scale": 1.0},
    "Component": {"first_scale": 1.0, "others_scale": 1.0},
    "Momentum": {"alpha": 0.0},
}


def chain_of(name, rule=(), **params):
    curve = {"points": [[0.0, 0.2], [1.0, 1.0]], "interpolation": "linear"}
    entry = RULES[name]
    sockets = {**dict.fromkeys(entry.others, prompt(0.9)), **dict.fromkeys(entry.curves, curve)}
    return call(f"Stepwise{name}Guidance", rule=rule, **{**sockets, **SHARP.get(name, {}), **params})[0]


def sigmas_of(kind):
    return torch.linspace(1.0, 0.0, STEPS + 1) if kind == "FLOW" else call("StepwiseKarrasSchedule", steps=STEPS)[0]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("kind", "dims"), [("EPS", 2), ("FLOW", 3)])
def test_a_picture_comes_out_alone_as_in_its_batch(name, kind, dims):
    """Bit for bit, through the guider and the sampler; on pictures and on video."""
    model, noise, sigmas, rule = model_of(kind, dims), noise_of(dims), sigmas_of(kind), chain_of(name)
    whole = run(guider_of(model, rule), noise, sigmas)[0]["samples"]
    plain = run(guider_of(model), noise, sigmas)[0]["samples"]
    assert not torch.equal(whole, plain)
    for i in range(len(noise)):
        assert torch.equal(run(guider_of(model, rule), noise[i : i + 1], sigmas)[0]["samples"], whole[i : i + 1])


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
def test_the_picture_of_a_video_does_not_depend_on_its_sound(name, kind):
    """Packed into one row they are guided apart; the network is pointwise. Bit for bit."""
    model, rule = model_of(kind, dims=3), chain_of(name)
    generator = torch.Generator().manual_seed(1)
    picture, *sounds = (torch.randn(shape, generator=generator) for shape in ((2, 4, 2, 5, 6), *[(2, 4, 7, 3)] * 2))
    videos = []
    for sound in sounds:
        noise = NestedTensor([picture, sound])
        latent = {"samples": NestedTensor([torch.zeros_like(picture), torch.zeros_like(sound)])}
        inputs = {"noise": Given(noise), "latent_image": latent, "sigmas": sigmas_of(kind)}
        videos.append(call("StepwiseDPMpp2M", guider=guider_of(model, rule), **inputs)[0]["samples"].unbind())
    assert torch.equal(videos[0][0], videos[1][0])
    assert not torch.equal(videos[0][1], videos[1][1])
    (alone, *_) = run(guider_of(model, rule), picture, sigmas_of(kind))
    assert torch.equal(videos[0][0], alone["samples"])


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
@pytest.mark.parametrize("solver", ["Euler", "DPMpp2M", "Heun", "DPMSolver", "EulerAncestral"])
def test_momentum_goes_on_where_a_run_is_cut(kind, solver):
    """Bit for bit at every step, for solvers of one and of two calls; without the memory it would not."""
    model, noise, sigmas = model_of(kind), noise_of(), sigmas_of(kind)
    guider = guider_of(model, chain_of("Rescale", chain_of("APG", momentum=-0.7)))
    whole = run(guider, noise, sigmas, solver)[0]["samples"]
    for cut in range(1, STEPS):
        state = run(guider, noise, sigmas, solver, end_step=cut)[2]
        assert state.memory
        assert torch.equal(call(f"Stepwise{solver}", guider=guider, state=state)[0]["samples"], whole)


@pytest.mark.parametrize("name", ["Steps", "SMC", "Momentum"])
@pytest.mark.parametrize("solver", ["Euler", "DPMpp2M", "Heun", "EulerAncestral"])
def test_steps_and_memory_go_on_where_a_run_is_cut(name, solver):
    """Bit for bit at every step: steps count over the whole schedule, and what is remembered is in the state."""
    model, noise, sigmas = model_of("FLOW"), noise_of(), sigmas_of("FLOW")
    guider = guider_of(model, chain_of(name))
    whole = run(guider, noise, sigmas, solver)[0]["samples"]
    for cut in range(1, STEPS):
        state = run(guider, noise, sigmas, solver, end_step=cut)[2]
        assert bool(state.memory) == (name != "Steps")
        fresh = guider_of(model, chain_of(name))
        assert torch.equal(call(f"Stepwise{solver}", guider=fresh, state=state)[0]["samples"], whole)


@pytest.mark.parametrize("solver", ["Euler", "Heun", "DPMSolver", "EulerAncestral"])
def test_each_step_evaluates_what_its_scale_needs(solver):
    """Scale 1 in the first two steps and 0 in the last: all calls of a step have its scale, under every sampler."""
    model, noise, sigmas = model_of(), noise_of(batch=1), sigmas_of("EPS")
    params = {"first_steps": 2, "first_scale": 1.0, "last_steps": 1, "last_scale": 0.0}
    guider = guider_of(model, chain_of("Steps", **params))
    run(guider, noise, sigmas, solver)
    calls = 2 if solver in ("Heun", "DPMSolver") else 1
    assert evaluated(model) == [*[1] * 2 * calls, *[2] * (STEPS - 3) * calls, 1]
    evaluated(model).clear()
    run(guider, noise, sigmas, solver, start_step=2)
    assert evaluated(model) == [*[1] * 2 * calls, *[2] * (STEPS - 5) * calls, 1]


def test_steps_under_a_foreign_sampler_are_those_of_ours():
    """It tells its noise levels alone."""
    model, noise, sigmas = model_of(), noise_of(), sigmas_of("EPS")
    rule = chain_of("Steps", first_steps=2, first_scale=1.0, last_steps=2, last_scale=2.0)
    guider, latent = guider_of(model, rule), {"samples": torch.zeros_like(noise)}
    sampler = comfy.samplers.sampler_object("euler")
    theirs = core.SamplerCustomAdvanced.execute(Given(noise), guider, sampler, sigmas, latent).args[0]["samples"]
    calls = list(evaluated(model))
    torch.testing.assert_close(theirs, run(guider, noise, sigmas, "Euler")[0]["samples"], rtol=1e-5, atol=1e-5)
    assert evaluated(model)[len(calls) :] == calls


def test_momentum_needs_no_negative_prompt():
    """One prediction a call; with the prompt as its own negative it is the same picture."""
    model, noise, sigmas = model_of("FLOW"), noise_of(batch=1), sigmas_of("FLOW")
    given = {"model": model, "positive": prompt(0.4), "cfg": 1.0, "rule": chain_of("Momentum")}
    (guider,) = call("StepwiseCFGGuider", **given, negative=None)
    alone = run(guider, noise, sigmas)[0]["samples"]
    assert evaluated(model) == [1] * STEPS
    assert torch.equal(alone, run(guider_of(model, chain_of("Momentum"), 1.0), noise, sigmas)[0]["samples"])
    assert not torch.equal(alone, run(guider_of(model, cfg=1.0), noise, sigmas)[0]["samples"])
    message = refused("StepwiseCFGGuider", **{**given, "rule": chain_of("APG", chain_of("Momentum"))})
    assert "rule changes guidance, and there is no negative prompt" in message


def test_picture_and_sound_have_a_scale_each():
    """As two runs with these scales; the network is pointwise. Bit for bit, and at equal scales plain guidance."""
    model, sigmas = model_of("FLOW", dims=3), sigmas_of("FLOW")
    generator = torch.Generator().manual_seed(1)
    picture, sound = (torch.randn(shape, generator=generator) for shape in ((2, 4, 2, 5, 6), (2, 4, 7, 3)))

    def both(rule=(), cfg=5.0):
        noise = NestedTensor([picture, sound])
        latent = {"samples": NestedTensor([torch.zeros_like(picture), torch.zeros_like(sound)])}
        inputs = {"noise": Given(noise), "latent_image": latent, "sigmas": sigmas}
        return call("StepwiseDPMpp2M", guider=guider_of(model, rule, cfg), **inputs)[0]["samples"].unbind()

    apart = both(chain_of("Component", first_scale=2.0, others_scale=6.0))
    for i, scale in enumerate((2.0, 6.0)):
        assert torch.equal(apart[i], both(cfg=scale)[i])
    equal = both(chain_of("Component", first_scale=2.0, others_scale=2.0))
    assert all(torch.equal(a, b) for a, b in zip(equal, both(cfg=2.0), strict=True))
    (alone, *_) = run(guider_of(model, chain_of("Component", first_scale=2.0)), picture, sigmas)
    assert torch.equal(alone["samples"], apart[0])


@pytest.mark.parametrize(("solver", "params"), [("DPMpp2M", {}), ("LMS", {"cfg_pp": True})])
def test_momentum_and_cfg_pp_go_on_from_disk(solver, params, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    model, noise, sigmas = model_of(), noise_of(), sigmas_of("EPS")
    guider = guider_of(model, chain_of("APG", momentum=-0.7))
    whole = run(guider, noise, sigmas, solver, **params)[0]["samples"]
    (name,) = call("StepwiseSaveState", state=run(guider, noise, sigmas, solver, end_step=3, **params)[2])
    (loaded,) = call("StepwiseLoadState", file=name)
    fresh = guider_of(model_of(), chain_of("APG", momentum=-0.7))
    assert torch.equal(call(f"Stepwise{solver}", guider=fresh, state=loaded, **params)[0]["samples"], whole)


def test_momentum_of_a_foreign_sampler_is_that_of_ours():
    """Core's Euler and ours make the same calls; theirs are told apart by the noise level alone."""
    model, noise, sigmas = model_of(), noise_of(), sigmas_of("EPS")
    guider = guider_of(model, chain_of("APG", momentum=-0.7))
    sampler, latent = comfy.samplers.sampler_object("euler"), {"samples": torch.zeros_like(noise)}
    theirs = core.SamplerCustomAdvanced.execute(Given(noise), guider, sampler, sigmas, latent).args[0]["samples"]
    torch.testing.assert_close(theirs, run(guider, noise, sigmas, "Euler")[0]["samples"], rtol=1e-5, atol=1e-5)
    again = core.SamplerCustomAdvanced.execute(Given(noise), guider, sampler, sigmas, latent).args[0]["samples"]
    assert torch.equal(again, theirs)


def test_momentum_counts_steps_and_not_calls():
    """A run of one step: with the same d at every call, two calls of a step remember what one does."""
    model, noise = model_of(), noise_of()
    guider = guider_of(model, chain_of("APG", momentum=-0.7, eta=1.0, norm_threshold=0.0))
    sigmas = torch.tensor([2.0, 1.0])
    remembered = [run(guider, noise, sigmas, solver)[2].memory for solver in ("Euler", "Heun", "DPMSolver")]
    assert all(set(memory) == set(remembered[0]) for memory in remembered)
    for memory in remembered[1:]:
        assert all(torch.equal(value, memory[name]) for name, value in remembered[0].items())


def test_an_interval_evaluates_one_prompt_outside_it_at_the_noise_level_of_each_call():
    """DPM-Solver-2 from 10 to 1 calls the model at 10, at their geometric mean 3.16, and at 1 for the step to 0."""
    model, noise = model_of(), noise_of(batch=1)
    guider = guider_of(model, chain_of("Interval", sigma_low=2.0, sigma_high=5.0))
    run(guider, noise, torch.tensor([10.0, 1.0, 0.0]), "DPMSolver")
    assert evaluated(model) == [1, 2, 1]


def test_zero_init_calls_the_model_once_less():
    model, noise = model_of("FLOW"), noise_of(batch=1)
    run(guider_of(model, chain_of("CFGZeroStar")), noise, sigmas_of("FLOW"), "Euler")
    assert evaluated(model) == [2] * (STEPS - 1)


@pytest.mark.parametrize(
    ("name", "params", "cfg", "expected"),
    [
        ("Dual", {"middle_scale": 3.0}, 5.0, 3),
        ("Dual", {"middle_scale": 5.0}, 5.0, 2),
        ("Dual", {"middle_scale": 1.0}, 1.0, 1),
        ("PerpNeg", {}, 5.0, 3),
        ("PerpNeg", {"negative_scale": 0.0}, 5.0, 2),
        ("PerpNeg", {}, 1.0, 1),
        ("AnotherPrompt", {"prompt_scale": 2.0}, 5.0, 3),
        ("AnotherPrompt", {"prompt_scale": 0.0}, 5.0, 2),
        ("Curve", {"shape": "constant", "start": 0.0}, 5.0, 1),
    ],
)
def test_a_prompt_without_weight_is_not_evaluated(name, params, cfg, expected):
    model, noise = model_of(), noise_of(batch=1)
    run(guider_of(model, chain_of(name, **params), cfg), noise, sigmas_of("EPS"), "Euler")
    assert evaluated(model) == [expected] * STEPS


@pytest.mark.parametrize("name", [name for name in RULES if name != "AnotherPrompt"])
def test_guidance_1_is_the_run_of_the_positive_prompt_alone(name):
    model, noise, sigmas = model_of(), noise_of(), sigmas_of("EPS")
    guided = run(guider_of(model, chain_of(name, **NEUTRAL.get(name, {})), 1.0), noise, sigmas)[0]["samples"]
    basic = core.BasicGuider.execute(model, prompt(0.4)).args[0]
    torch.testing.assert_close(guided, run(basic, noise, sigmas)[0]["samples"], rtol=1e-5, atol=1e-5)
