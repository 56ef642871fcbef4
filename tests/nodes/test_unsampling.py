"""From a picture up to its noise in the real host: every solver that adds none, in the step nodes and as SAMPLER."""

import re

import comfy.model_patcher
import comfy.nested_tensor
import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from stepwise.nodes.runs.files import from_bytes, to_bytes
from stepwise.samplers import Path
from stepwise.samplers.registry import SOLVERS
from toy_models import Latent4, Latent5D, MixtureNet, SmoothNet, call, nodes_by_id, prompt, refused, toy_model

STEPS = 5
FORMS = {
    "image": (lambda: torch.randn(2, 4, 8, 8, generator=seeded()), Latent4, 4),
    "video": (lambda: torch.randn(1, 4, 3, 8, 8, generator=seeded()), Latent5D, 4),
    "video and sound": (
        lambda: comfy.nested_tensor.NestedTensor(
            [torch.randn(2, 4, 3, 4, 4, generator=seeded()), torch.randn(2, 2, 10, generator=seeded())]
        ),
        Latent4,
        1,
    ),
}


def seeded():
    return torch.Generator().manual_seed(3)


@pytest.fixture(autouse=True)
def fixed(monkeypatch):
    """The host groups prompts by free memory: here there is always as much."""
    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda self, device: 1 << 33)


def upwards(kind, steps=STEPS, low=0.0):
    """From a picture to all noise: on a flow model to exactly 1."""
    if kind == "FLOW":
        return torch.linspace(low, 1.0, steps + 1)
    return call("StepwiseReverseSigmas", sigmas=call("StepwiseKarrasSchedule", steps=steps)[0], lowest=low)[0]


def guider_of(kind, form="image", cfg=3.0, module=None, rule=None):
    _, latent_format, channels = FORMS[form]
    model = toy_model(kind, module or SmoothNet(channels), latent_format())
    rules = {} if rule is None else {"rule": rule}
    prompts = {"positive": prompt(0.4), "negative": prompt(-0.3)}
    return call("StepwiseCFGGuider", model=model, **prompts, cfg=cfg, **rules)[0]


def silent():
    return call("StepwiseNoise", start="none")[0]


def by_core(guider, sampler, sigmas, latent, noise=None):
    return core.SamplerCustomAdvanced.execute(noise or silent(), guider, sampler, sigmas, latent).args[0]


def components_of(samples):
    return samples.unbind() if samples.is_nested else [samples]


def same(one, other):
    return all(torch.equal(*pair) for pair in zip(components_of(one), components_of(other), strict=True))


def finite(samples):
    return all(bool(part.isfinite().all()) for part in components_of(samples))


GOING_UP = [
    pytest.param(solver, setting, id=f"{solver.id}-{i}")
    for solver in SOLVERS
    for i, setting in enumerate(solver.settings)
    if setting.upwards
]


@pytest.mark.parametrize(("solver", "setting"), GOING_UP)
def test_a_run_upwards_cut_at_any_step_is_the_uncut_one_and_the_samplers(solver, setting, proved):
    """With guidance, from level 0 on, to 14.6 and to exactly 1. The parts are run from memory, and from each cut it
    goes on to the end through bytes, on another MODEL object."""
    forms = FORMS if setting is solver.settings[0] or not solver.settings[0].upwards else ["image"]
    for form in forms:
        for kind in ("EPS", "FLOW"):
            node, sigmas, guider = f"Stepwise{solver.id}", upwards(kind), guider_of(kind, form)
            latent = {"samples": FORMS[form][0]()}
            begin = {"noise": silent(), "latent_image": latent, "sigmas": sigmas}
            whole, denoised, end = call(node, guider=guider, **begin, **setting.params)
            assert finite(whole["samples"])
            assert end.step == STEPS
            state = None
            for cut in range(1, STEPS + 1):
                part = begin if state is None else {"state": state}
                state = call(node, guider=guider, **part, **setting.params, end_step=cut)[2]
                rest, last, _ = call(
                    node, guider=guider_of(kind, form), state=from_bytes(to_bytes(state, {})), **setting.params
                )
                assert same(rest["samples"], whole["samples"])
                assert same(last["samples"], denoised["samples"])
                proved(1)
            (sampler,) = call(f"{node}Sampler", **setting.params)
            assert same(by_core(guider, sampler, sigmas, latent)["samples"], whole["samples"])


@pytest.mark.parametrize("through", ["step node", "core's sampler"])
def test_the_result_at_level_1_is_the_noise_itself(through):
    """On a perfect model of a mixture it is standard normal, and through Noise from Latent it samples back to the
    picture."""
    guider = guider_of("FLOW", cfg=1.0, module=MixtureNet("FLOW", 4 * 64))
    down = torch.linspace(1.0, 0.0, 41)
    (sampler,) = call("StepwiseHeunSampler")

    def run(noise, latent, sigmas):
        if through == "core's sampler":
            return by_core(guider, sampler, sigmas, latent, noise)
        return call("StepwiseHeun", guider=guider, noise=noise, latent_image=latent, sigmas=sigmas)[0]

    empty, seed = {"samples": torch.zeros(2, 4, 8, 8)}, core.RandomNoise.execute(7).args[0]
    picture = run(seed, empty, down)
    picture = {"samples": picture["samples"]}
    found = run(silent(), picture, down.flip(0))
    assert abs(found["samples"].std() - 1.0) < 0.1
    (noise,) = call("StepwiseNoiseFromLatent", latent=found, model=guider.model_patcher)
    back = run(noise, empty, down)["samples"]
    assert (back - picture["samples"]).square().mean().sqrt() < 0.05 * picture["samples"].std()


def test_up_and_down_on_stable_diffusions_scale_is_the_picture():
    guider = guider_of("EPS", cfg=1.0)
    latent = {"samples": torch.randn(1, 4, 8, 8, generator=seeded())}
    up = upwards("EPS", 40, low=0.02)
    found = call("StepwiseHeun", guider=guider, noise=silent(), latent_image=latent, sigmas=up)[0]
    back = call("StepwiseHeun", guider=guider, noise=silent(), latent_image=found, sigmas=up.flip(0))[0]
    assert (back["samples"] - latent["samples"]).abs().max() < 0.02


def test_a_rule_that_rests_does_not_rest_upwards():
    (rule,) = call("StepwiseCFGZeroStarGuidance", zero_steps=2)
    latent = {"samples": torch.randn(1, 4, 8, 8, generator=seeded())}
    given = {"noise": silent(), "latent_image": latent, "sigmas": upwards("FLOW"), "end_step": 1}
    for held in (guider_of("FLOW", rule=rule), guider_of("FLOW")):
        moved = call("StepwiseDDIM", guider=held, **given)[0]["samples"] * (1.0 - 1.0 / STEPS)
        assert (moved - latent["samples"]).abs().max() > 1e-2


# Refused, and said


def begin(kind, **inputs):
    latent = {"samples": torch.randn(1, 4, 8, 8, generator=seeded())}
    return {"guider": guider_of(kind), "noise": silent(), "latent_image": latent, "sigmas": upwards(kind), **inputs}


@pytest.mark.parametrize(
    ("solver", "params", "cure"),
    [
        ("DDIM", {"eta": 0.5}, "Set eta to 0, or take a solver without noise"),
        ("Euler", {"s_churn": 5.0}, "Set s_churn to 0, or take"),
        ("Restart", {}, "Set restarts to 0, or take"),
        ("DPMpp2MSDE", {}, "Set eta to 0, or take"),
        ("DDPM", {}, "Take a solver without noise, such as DPM++ 2M or Heun."),
        ("LCM", {}, "Take a solver without noise"),
    ],
)
def test_a_setting_that_adds_noise_is_refused_with_the_one_that_does_not(solver, params, cure):
    for kind in ("EPS", "FLOW"):
        message = refused(f"Stepwise{solver}", **begin(kind), **params)
        name = next(each.name for each in SOLVERS if each.id == solver)
        assert message.startswith(f"{name}: sigmas go up, to unsample a picture, and {name} adds noise on the way")
        assert cure in message
    (sampler,) = call(f"Stepwise{solver}Sampler", **params)
    given = begin("EPS")
    with pytest.raises(ValueError, match=rf"^{re.escape(name)} Sampler: sigmas go up"):
        by_core(given["guider"], sampler, given["sigmas"], given["latent_image"])


def test_a_mask_is_refused_upwards_with_the_reason():
    masked = {"samples": torch.randn(1, 4, 8, 8, generator=seeded()), "noise_mask": torch.ones(1, 8, 8)}
    message = refused("StepwiseHeun", **begin("EPS", latent_image=masked))
    assert message.startswith(
        "Heun: latent_image has a noise_mask, and unsampling takes the whole picture to its noise"
    )
    (sampler,) = call("StepwiseHeunSampler")
    given = begin("EPS")
    with pytest.raises(ValueError, match=r"^Heun Sampler: latent_image has a noise_mask"):
        by_core(given["guider"], sampler, given["sigmas"], masked)


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
def test_a_sampler_of_others_runs_upwards_but_not_to_1(kind):
    euler = core.KSamplerSelect.execute("euler").args[0]
    given = begin(kind, sigmas=upwards(kind, low=0.001), sampler=euler)
    if kind == "FLOW":
        message = refused("StepwiseSample", **given)
        assert message.startswith("Sample (Stepwise): sigmas end at 1, where ComfyUI divides")
        assert ".9999" in message
        assert finite(call("StepwiseSample", **given, end_step=STEPS - 1)[0]["samples"])
        given["sigmas"] = torch.cat([given["sigmas"][:-1], torch.tensor([0.9999])])
    theirs = call("StepwiseSample", **given)[0]["samples"]
    ours = call("StepwiseEuler", **{name: value for name, value in given.items() if name != "sampler"})[0]["samples"]
    assert finite(theirs)
    assert (theirs - ours).abs().max() < 1e-3 * ours.abs().max()


def test_a_schedule_that_goes_up_and_down_names_restart():
    message = refused("StepwiseHeun", **begin("EPS", sigmas=torch.tensor([1.0, 2.0, 1.5])))
    assert message.startswith("Heun: sigmas[2] is 1.5, not above the value before it, 2")
    assert "Restart" in message


def test_a_state_does_not_turn_round():
    given = begin("EPS")
    state = call("StepwiseHeun", **given)[2]
    down = given["sigmas"].flip(0)
    for mismatch in ("error", "fork"):
        message = refused("StepwiseHeun", guider=given["guider"], state=state, sigmas=down, on_mismatch=mismatch)
        assert message.startswith("Heun: sigmas go down, and the state was made going up: it cannot turn round.")
        assert "Noise from Latent" in message


def test_a_second_half_upwards_goes_on_from_the_first():
    """SplitSigmas, and a fork to other levels above the present one."""
    given = begin("FLOW")
    whole = call("StepwiseDPMpp2M", **given)[0]["samples"]
    high, low = core.SplitSigmas.execute(given["sigmas"], 2).args
    state = call("StepwiseDPMpp2M", **{**given, "sigmas": high})[2]
    assert torch.equal(call("StepwiseDPMpp2M", guider=given["guider"], state=state, sigmas=low)[0]["samples"], whole)
    other = torch.tensor([0.1, 0.5, 0.7, 0.9])
    forked = call("StepwiseDPMpp2M", guider=given["guider"], state=state, sigmas=other, on_mismatch="fork")[2]
    assert forked.sigmas == pytest.approx((0.0, 0.2, 0.4, 0.5, 0.7, 0.9))


def test_the_face_of_an_unsampled_run_and_of_who_samples_it_again():
    given = begin("EPS")
    node = nodes_by_id()["StepwiseHeun"]
    widgets = {"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": 1000.0, "s_noise": 1.0, "cfg_pp": False}
    widgets |= {"noise_kind": "independent", "noise_device": "cpu", "start_step": 0}

    def face(**inputs):
        made = node.execute(**widgets, **inputs)
        return made.args, made.ui["stepwise_face"][0]

    (found, _, _), shown = face(**given, end_step=10000)
    assert (shown["did"], shown["paused"], shown["remarks"]) == ("", False, [])
    _, shown = face(**given, end_step=2)
    assert shown["did"].startswith("stopped at step 2 of 5")
    down = {"guider": given["guider"], "latent_image": found, "sigmas": given["sigmas"].flip(0), "end_step": 10000}
    assert face(**down, noise=silent())[1]["remarks"] == []
    (said,) = face(**down, noise=core.RandomNoise.execute(7).args[0])[1]["remarks"]
    assert said.startswith("latent_image: this picture is unsampled, to noise level 14.61")


def test_check_sigmas_lets_an_ascending_schedule_through_and_says_what_it_is():
    sigmas = upwards("EPS")
    passed, report = call("StepwiseCheckSigmas", sigmas=sigmas, sampler=call("StepwiseHeunSampler")[0])
    assert torch.equal(passed, sigmas)
    assert "sigmas go up, so a run takes a picture from noise level 0 back to its noise" in report
    _, report = call("StepwiseCheckSigmas", sigmas=sigmas, sampler=call("StepwiseDDPMSampler")[0])
    assert "but not for DDPM" in report


def test_the_path_is_that_of_the_model():
    assert call("StepwiseHeun", **begin("FLOW"))[2].path is Path.FLOW
