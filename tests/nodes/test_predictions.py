"""Expressions of predictions, and rules, in the real host: patches, counts of model calls, memory, foreign samplers."""

import logging
from dataclasses import replace

import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from comfy_extras.nodes_apg import APG
from comfy_extras.nodes_cfg import CFGNorm, CFGZeroStar
from comfy_extras.nodes_fresca import FreSca
from comfy_extras.nodes_mahiro import Mahiro
from comfy_extras.nodes_model_advanced import RescaleCFG
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_tcfg import TCFG
from guided_models import CONDITIONINGS, SHAPES, TAKEN_OVER, guiders, largest, model_of, predicted
from stepwise.nodes.host.guider import PredictionGuider
from stepwise.samplers.guidance import Rule
from toy_models import SmoothNet, call, prompt, refused, toy_model

STEPS = 6


def leaf(conditioning):
    return call("StepwisePrediction", conditioning=conditioning)[0]


def combined(positive, negative, scale, rule=()):
    return call("StepwiseCFGCombine", positive=leaf(positive), negative=leaf(negative), scale=scale, rule=rule)[0]


def guider_of(model, prediction, **inputs):
    return call("StepwiseGuider", model=model, prediction=prediction, **inputs)[0]


def rule_of(id, **inputs):
    return call(f"Stepwise{id}Guidance", **inputs)[0]


@pytest.mark.parametrize("cfg", [7.0, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
def test_cfg_combine_is_the_hosts_guider(kind, shape, cfg):
    model = model_of(kind, len(SHAPES[shape]) - 2)
    _, host = guiders(model, prompt(0.4), prompt(-0.3), cfg)
    ours = guider_of(model, combined(prompt(0.4), prompt(-0.3), cfg))
    assert largest(predicted(ours, SHAPES[shape]), predicted(host, SHAPES[shape])) < 1e-6


@pytest.mark.parametrize("feature", CONDITIONINGS)
def test_special_conditioning_works_in_an_expression(feature):
    """In guidance bit for bit as in the host; in a mean of three, the mean of what the host predicts for each."""
    model = model_of()
    special = CONDITIONINGS[feature](model, prompt(0.4))
    _, host = guiders(model, special, prompt(-0.3), 7.0)
    assert torch.equal(predicted(guider_of(model, combined(special, prompt(-0.3), 7.0))), predicted(host))
    if feature in ("area", "percentage area", "control for both"):
        return  # For these the host gives the other prompts something too.
    inner = call("StepwiseMixPredictions", a=leaf(special), b=leaf(prompt(0.9)), amount=0.25)[0]
    outer = call("StepwiseMixPredictions", a=inner, b=leaf(prompt(-0.3)), amount=0.5)[0]
    alone = [predicted(guiders(model, one, prompt(0.0), 1.0)[1]) for one in (special, prompt(0.9), prompt(-0.3))]
    expected = 0.5 * (0.75 * alone[0] + 0.25 * alone[1]) + 0.5 * alone[2]
    assert largest(predicted(guider_of(model, outer)), expected) < 1e-6


@pytest.mark.parametrize("feature", TAKEN_OVER, ids=lambda feature: feature.__name__)
def test_what_takes_over_the_hosts_evaluation_works_in_an_expression(feature):
    model = model_of()
    feature(model)
    _, host = guiders(model, prompt(0.4), prompt(-0.3), 7.0)
    assert torch.equal(predicted(guider_of(model, combined(prompt(0.4), prompt(-0.3), 7.0))), predicted(host))


# Core's own patch nodes, on the network that comes with the pack: its attention and its sizes are real.
PATCHES = {
    "RescaleCFG": lambda model: RescaleCFG().patch(model, 0.7)[0],
    "APG": lambda model: APG.execute(model, 0.3, 2.0, 0.0).args[0],
    "TCFG": lambda model: TCFG.execute(model).args[0],
    "FreSca": lambda model: FreSca.execute(model, 0.6, 1.5, 2).args[0],
    "PAG": lambda model: PerturbedAttentionGuidance.execute(model, 3.0).args[0],
    "Mahiro": lambda model: Mahiro.execute(model).args[0],
    "CFGZeroStar": lambda model: CFGZeroStar.execute(model).args[0],
    "CFGNorm": lambda model: CFGNorm.execute(model, 0.8).args[0],
    "PAG and RescaleCFG": lambda model: RescaleCFG().patch(PATCHES["PAG"](model), 0.7)[0],
}
DIGITS = (2, 1, 8, 8)


@pytest.fixture(scope="module")
def digits():
    model = call("StepwiseDigitsModel")[0]
    return model, call("StepwiseDigit", labels="3,7")[0], call("StepwiseDigit", labels="")[0]


@pytest.mark.parametrize("cfg", [7.0, 1.0])
@pytest.mark.parametrize("patch", PATCHES)
def test_cores_patches_do_under_our_guiders_what_they_do_under_its_own(patch, cfg, digits):
    model, positive, negative = digits
    plain = predicted(guiders(model, positive, negative, cfg)[1], DIGITS)
    model = PATCHES[patch](model)
    ours, host = guiders(model, positive, negative, cfg)
    theirs = predicted(host, DIGITS)
    if cfg != 1.0:
        assert largest(theirs, plain) > 1e-3
    assert torch.equal(predicted(ours, DIGITS), theirs)
    assert torch.equal(predicted(guider_of(model, combined(positive, negative, cfg)), DIGITS), theirs)


@pytest.mark.parametrize("patch", PATCHES)
def test_patches_act_on_the_one_guidance_inside_an_expression(patch, digits):
    model, positive, negative = digits
    model = PATCHES[patch](model)
    host = predicted(guiders(model, positive, negative, 7.0)[1], DIGITS)
    alone = predicted(guiders(digits[0], positive, negative, 1.0)[1], DIGITS)
    other = predicted(guiders(digits[0], negative, negative, 1.0)[1], DIGITS)
    inside = {"inside": combined(positive, negative, 7.0), "outside": leaf(negative), "measure": "sigma"}
    here = call("StepwiseSwitchPrediction", **inside, sigma_low=0.5, sigma_high=1.0)[0]
    elsewhere = call("StepwiseSwitchPrediction", **inside, sigma_low=2.0, sigma_high=3.0)[0]
    mixed = call("StepwiseMixPredictions", a=combined(positive, negative, 7.0), b=leaf(positive), amount=0.25)[0]
    assert torch.equal(predicted(guider_of(model, here), DIGITS), host)
    assert largest(predicted(guider_of(model, elsewhere), DIGITS), other) < 1e-5
    assert largest(predicted(guider_of(model, mixed), DIGITS), 0.75 * host + 0.25 * alone) < 1e-5


@pytest.mark.parametrize("patch", ["PAG", "Mahiro", "FreSca", "TCFG", "APG"])
def test_rules_and_patches_act_together(patch, digits):
    """A rule that computes plain guidance changes nothing, so under it a patch does what it does in the host."""
    model, positive, negative = digits
    model = PATCHES[patch](model)
    _, host = guiders(model, positive, negative, 7.0)
    same = Rule("result", lambda call, denoised, cond: denoised)
    guider = call("StepwiseCFGGuider", model=model, positive=positive, negative=negative, cfg=7.0, rule=(same,))[0]
    assert largest(predicted(guider, DIGITS), predicted(host, DIGITS)) < 1e-5


def test_patches_that_cannot_act_are_named(digits, caplog):
    model, positive, negative = digits
    patched = PATCHES["PAG and RescaleCFG"](model)
    mean = call("StepwiseMixPredictions", a=leaf(positive), b=leaf(negative))[0]
    guider, report = call("StepwiseGuider", model=patched, prediction=mean)
    for name in ("RescaleCFG", "PerturbedAttentionGuidance"):
        assert f"not applied: {name} (the expression has not exactly one guidance of two conditionings)" in report
    with caplog.at_level(logging.WARNING):
        predicted(guider, DIGITS)
        predicted(guider, DIGITS)
    assert len([r for r in caplog.records if "not applied: RescaleCFG" in r.getMessage()]) == 2
    inputs = {"model": patched, "positive": positive, "negative": negative, "cfg": 7.0}
    node = next(node for node in nodes() if node.__name__ == "StepwiseCFGGuider")
    shown = node.execute(**inputs, rule=rule_of("Rescale")).ui.as_dict()
    assert shown == {"text": ("not applied: RescaleCFG (it computes guidance itself, and so does the wired rule)",)}
    assert node.execute(**inputs, rule=rule_of("Interval")).ui is None
    assert "not applied" not in call("StepwiseGuider", model=patched, prediction=combined(positive, negative, 2.0))[1]


def nodes():
    from stepwise.nodes import all_nodes

    return all_nodes()


def test_cfg_override_of_core_changes_the_scale_of_a_guidance_and_says_where_there_is_none(caplog):
    model = core.CFGOverride.execute(model_of(), 2.0, 0.0, 1.0).args[0]
    _, host = guiders(model_of(), prompt(0.4), prompt(-0.3), 2.0)
    guider = guider_of(model, combined(prompt(0.4), prompt(-0.3), 7.0))
    with caplog.at_level(logging.WARNING):
        assert largest(predicted(guider), predicted(host)) < 1e-6
        assert "a guidance scale was set" not in caplog.text
        predicted(guider_of(model, leaf(prompt(0.4))))
    assert "a guidance scale was set to 2, and the expression has none of its own" in caplog.text


def test_guidance_both_ways_needs_no_conditioning_that_is_only_wanted():
    """The mean of A guided away from B and of B guided away from A is the mean of A and B."""
    model, a, b = model_of(), prompt(0.4), prompt(-0.3)
    there, back = combined(a, b, 5.0), combined(b, a, 5.0)
    mean = call("StepwiseMixPredictions", a=there, b=back, amount=0.5)[0]
    guider = guider_of(model, mean)
    alone = [predicted(guiders(model, one, one, 1.0)[1]) for one in (a, b)]
    assert largest(predicted(guider), 0.5 * (alone[0] + alone[1])) < 1e-5


class Counting(SmoothNet):
    """Notes for each of its calls how many images it was given, and at which noise level."""

    def __init__(self):
        super().__init__(4)
        self.images, self.sigmas = [], []

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **kwargs):
        self.images.append(len(x))
        self.sigmas.append(transformer_options["sigmas"][0].item())
        return super().forward(x, timesteps, context, control, transformer_options, **kwargs)


def run(model, guider, solver="DPMpp2M", steps=STEPS, **inputs):
    sigmas = call("StepwiseKarrasSchedule", steps=steps)[0]
    noise = core.RandomNoise.execute(7).args[0]
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    return call(f"Stepwise{solver}", guider=guider, noise=noise, latent_image=latent, sigmas=sigmas, **inputs)


def expressions():
    positive, other, negative = prompt(0.4), prompt(0.9), prompt(-0.3)
    limited = combined(positive, negative, 7.0, rule_of("Interval"))
    fading = call("StepwiseAddPredictions", a=leaf(other), b=leaf(positive), factor_b=-1.0)[0]
    fading = call("StepwiseScalePrediction", prediction=fading, factor=2.0, rule=rule_of("Curve", low=0.0))[0]
    return {
        "guidance": combined(positive, negative, 7.0),
        "prompt alone": combined(positive, negative, 1.0),
        "interval": limited,
        "two prompts": call("StepwiseAddPredictions", a=limited, b=fading)[0],
        "switch": call("StepwiseSwitchPrediction", inside=limited, outside=leaf(other))[0],
        "crossfade": call(
            "StepwiseCrossfadePredictions", a=leaf(positive), b=leaf(other), curve=[(0.0, 0.0), (0.6, 0.0), (1.0, 1.0)]
        )[0],
        "rescaled": combined(positive, negative, 7.0, (*rule_of("Interval"), *rule_of("Rescale"))),
        "perpendicular": combined(positive, negative, 7.0, rule_of("PerpNeg", empty=prompt(0.0))),
    }


@pytest.mark.parametrize("solver", ["DPMpp2M", "DPMSolver"])
@pytest.mark.parametrize("name", list(expressions()))
def test_the_report_counts_what_the_run_then_evaluates(name, solver):
    """Model calls and evaluations of a run, two-stage solvers too; each call is one batch."""
    model, prediction = toy_model("EPS", Counting()), expressions()[name]
    sigmas = call("StepwiseKarrasSchedule", steps=STEPS)[0]
    (sampler,) = call(f"Stepwise{solver}Sampler")
    guider, report = call("StepwiseGuider", model=model, prediction=prediction, sigmas=sigmas, sampler=sampler)
    run(model, guider, solver)
    network = model.model.diffusion_model
    leaves = len([leaf for leaf in guider.leaves if leaf is not None])
    made, possible = sum(network.images), len(network.images) * leaves
    counted = f"{len(network.images)} model calls of the sampler: {made} of {possible} predictions evaluated"
    assert report.startswith(f"{counted}, {possible - made} saved\n")
    assert len(network.images) == (STEPS if solver == "DPMpp2M" else 2 * STEPS - 1)
    if name in ("interval", "prompt alone", "two prompts", "switch", "crossfade", "rescaled"):
        assert made < possible


def test_two_lengths_of_prompt_are_still_one_call_where_the_host_can_batch_them():
    model = toy_model("EPS", Counting())
    long = [[torch.randn(1, 8, 8), {}]]
    mean = call("StepwiseMixPredictions", a=combined(prompt(0.4), long, 3.0), b=leaf(prompt(0.1)))[0]
    predicted(guider_of(model, mean))
    assert model.model.diffusion_model.images == [3]


def recorded(seen):
    def function(scale, sigma, path):
        seen.append(sigma)
        return scale

    return (Rule("scale", function),)


@pytest.mark.parametrize("solver", ["DPMpp2M", "DPMSolver", "DPMppSDE", "Restart"])
def test_rules_are_evaluated_at_the_noise_level_of_the_very_call(solver):
    """Inner stages too, and whatever the number of steps: guidance is a function of sigma alone."""
    for steps in (4, 7):
        seen, model = [], toy_model("EPS", Counting())
        inputs = {"model": model, "positive": prompt(0.4), "negative": prompt(-0.3), "cfg": 3.0}
        run(model, call("StepwiseCFGGuider", **inputs, rule=recorded(seen))[0], solver, steps)
        told = model.model.diffusion_model.sigmas
        assert torch.tensor(list(dict.fromkeys(seen))).equal(torch.tensor(list(dict.fromkeys(told))))


def momentum(call, cond, uncond):
    """Guidance along a running mean of the differences: the simplest rule with a memory."""
    difference = cond - uncond
    if call.key in call.memory:
        difference = difference + 0.5 * call.memory[call.key]
    if call.advances:
        call.memory[call.key] = difference
    return cond - difference


REMEMBERING = (Rule("away", momentum),)


@pytest.mark.parametrize("solver", ["DPMpp2M", "DPMSolver", "DPMppSDE"])
@pytest.mark.parametrize("through", ["CFG guider", "expression"])
def test_a_run_with_memory_and_curves_that_is_cut_anywhere_is_the_uncut_run(through, solver):
    model = toy_model("EPS")
    rules = (*REMEMBERING, *rule_of("Interval", sigma_low=0.5, sigma_high=20.0), *rule_of("Curve", start=0.5))
    positive, negative = prompt(0.4), prompt(-0.3)
    if through == "CFG guider":
        guider = call("StepwiseCFGGuider", model=model, positive=positive, negative=negative, cfg=4.0, rule=rules)[0]
    else:
        second = combined(prompt(0.9), negative, 2.0, REMEMBERING)
        guider = guider_of(
            model, call("StepwiseMixPredictions", a=combined(positive, negative, 4.0, rules), b=second)[0]
        )
    whole = run(model, guider, solver)[0]["samples"]
    for cut in range(1, STEPS):
        state = run(model, guider, solver, end_step=cut)[2]
        assert len(state.memory) == (1 if through == "CFG guider" else 2)
        assert torch.equal(call(f"Stepwise{solver}", guider=guider, state=state)[0]["samples"], whole)
        if cut == 2:
            forgetful = replace(state, memory={})
            assert not torch.equal(call(f"Stepwise{solver}", guider=guider, state=forgetful)[0]["samples"], whole)


def test_memory_begins_anew_with_every_run_and_under_foreign_samplers_moves_as_sigma_falls():
    model = toy_model("EPS")
    inputs = {"model": model, "positive": prompt(0.4), "negative": prompt(-0.3), "cfg": 4.0, "rule": REMEMBERING}
    (guider,) = call("StepwiseCFGGuider", **inputs)
    sigmas = call("StepwiseKarrasSchedule", steps=STEPS)[0]
    latent, noise = {"samples": torch.zeros(1, 4, 8, 8)}, core.RandomNoise.execute(7).args[0]

    def foreign(name):
        sampler = core.KSamplerSelect.execute(name).args[0]
        return core.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent).args[0]["samples"]

    first = foreign("euler")
    assert torch.equal(foreign("euler"), first)
    assert largest(first, run(model, guider, "Euler")[0]["samples"]) < 1e-5
    seen = []
    guider.set_rules((Rule("away", lambda call, cond, uncond: (seen.append((call.sigma, call.advances)), uncond)[1]),))
    guider.set_conds(prompt(0.4), prompt(-0.3))
    foreign("heun")
    assert len(seen) == 2 * STEPS - 1
    for i, (sigma, advances) in enumerate(seen):
        assert advances == all(sigma < before for before, _ in seen[:i])


class Failing(SmoothNet):
    """NaN for prompts above a level, from the third call on."""

    def forward(self, x, timesteps, context=None, **kwargs):
        out = super().forward(x, timesteps, context, **kwargs)
        if timesteps[0] < 500:
            out[context.mean(dim=(1, 2)) > 0.8, 0, 0, 0] = float("nan")
        return out


def test_the_guilty_prediction_of_an_expression_is_named():
    model = toy_model("EPS", Failing(4))
    mixed = call("StepwiseMixPredictions", a=combined(prompt(0.4), prompt(-0.3), 3.0), b=leaf(prompt(0.9)))[0]
    with pytest.raises(
        ValueError, match=r"DPM\+\+ 2M: .* at step 4 of 6, sigma .*: prediction 3 had it\. Run the model"
    ):
        run(model, guider_of(model, mixed))
    wired = guider_of(model, combined(prompt(0.9), prompt(-0.3), 3.0))
    with pytest.raises(ValueError, match="the conditional prediction had it"):
        run(model, wired)


def test_an_expression_of_one_prompt_is_that_prompt():
    model = model_of()
    guider, report = call("StepwiseGuider", model=model, prediction=leaf(prompt(0.4)))
    assert isinstance(guider, PredictionGuider)
    assert report == "positive: always"
    _, host = guiders(model, prompt(0.4), prompt(-0.3), 1.0)
    assert torch.equal(predicted(guider), predicted(host))


def test_what_cannot_be_is_refused_by_the_node_that_has_it():
    model, a, b = toy_model("EPS"), leaf(prompt(0.4)), leaf(prompt(-0.3))
    added = call("StepwiseAddPredictions", a=a, b=b)[0]
    assert refused("StepwiseGuider", model=model, prediction=added).startswith(
        "Guider (Stepwise): prediction adds up to 2 predictions at sigma"
    )
    text = refused("StepwiseScalePrediction", prediction=a, rule=rule_of("Rescale"))
    assert text.startswith("Scale Prediction: rule holds a rule that is no number")
    assert "Switch Prediction: sigma_low is 3" in refused(
        "StepwiseSwitchPrediction", inside=a, outside=b, sigma_low=3.0, sigma_high=2.0
    )
    assert "Clamp Prediction: limit is -1.0, out of range" in refused(
        "StepwiseClampPrediction", prediction=a, limit=-1.0
    )
