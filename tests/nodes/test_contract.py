"""What patches rely on: which side of guidance a row is on, both sides where they ask for them, inputs of their own."""

import comfy.samplers
import node_helpers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_custom_sampler import RandomNoise, SamplerCustomAdvanced
from comfy_extras.nodes_nag import NAGuidance
from guided_models import guiders, largest, predicted
from stepwise.nodes.host.batching import BatchingWatch
from stepwise.nodes.host.progress import Progress
from toy_models import SmoothNet, call, prompt, toy_model

POSITIVE, NEGATIVE, OTHER, ANOTHER = 0.4, -0.3, 0.9, 0.1


class Told(SmoothNet):
    """Notes which role each prompt has, and its leaf, and dies as patches do that know of two roles."""

    def __init__(self):
        super().__init__(4)
        self.roles, self.leaves = {}, {}

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **kwargs):
        roles = transformer_options["cond_or_uncond"]
        leaves = transformer_options.get("stepwise_leaves", roles)
        shown = context.mean(dim=(1, 2)).chunk(len(roles))
        for role, leaf, prompts in zip(roles, leaves, shown, strict=True):
            self.roles[round(prompts[0].item(), 3)] = ("positive", "negative")[role]
            self.leaves.setdefault(leaf, set()).add(round(prompts[0].item(), 3))
        return super().forward(x, timesteps, context, control, transformer_options, **kwargs)


def leaf(value):
    return call("StepwisePrediction", conditioning=prompt(value))[0]


def operation(id, **inputs):
    return call(f"Stepwise{id}", **inputs)[0]


def rule(id, before=(), **inputs):
    return call(f"Stepwise{id}Guidance", rule=before, **inputs)[0]


def by_hand():
    difference = operation("AddPredictions", a=leaf(POSITIVE), b=(negative := leaf(NEGATIVE)), factor_b=-1.0)
    return operation("AddPredictions", a=negative, b=operation("ScalePrediction", prediction=difference, factor=5.0))


def guided(positive, negative=NEGATIVE):
    return operation("CFGCombine", positive=leaf(positive), negative=leaf(negative), scale=5.0)


PAIR = {POSITIVE: "positive", NEGATIVE: "negative"}
BOTH = {POSITIVE: "positive", OTHER: "positive"}
# What is wired, and the role that each prompt then has.
RULES = {
    "dual": (lambda: rule("Dual", middle=prompt(OTHER), middle_scale=1.0), BOTH),
    "another twice": (
        lambda: rule("AnotherPrompt", rule("AnotherPrompt", other=prompt(OTHER)), other=prompt(ANOTHER)),
        {**PAIR, OTHER: "positive", ANOTHER: "positive"},
    ),
    "another to avoid": (
        lambda: rule("AnotherPrompt", other=prompt(OTHER), prompt_scale=-2.0),
        {**PAIR, OTHER: "negative"},
    ),
    "perp-neg": (lambda: rule("PerpNeg", empty=prompt(OTHER)), {**PAIR, OTHER: "negative"}),
}
EXPRESSIONS = {
    "mix": (lambda: operation("MixPredictions", a=leaf(POSITIVE), b=leaf(OTHER)), BOTH),
    "switch": (
        lambda: operation("SwitchPrediction", inside=guided(POSITIVE), outside=guided(OTHER), sigma_low=0.1),
        PAIR,
    ),
    "other switch": (
        lambda: operation("SwitchPrediction", inside=guided(OTHER), outside=guided(POSITIVE), sigma_low=1.0),
        PAIR,
    ),
    "mix of guidances": (
        lambda: operation("MixPredictions", a=guided(POSITIVE), b=guided(OTHER, ANOTHER)),
        {**PAIR, OTHER: "positive", ANOTHER: "negative"},
    ),
    "by hand": (by_hand, PAIR),
}


def function_wrapper(model):
    def wrapper(apply, args):
        assert args["cond_or_uncond"] == args["c"]["transformer_options"]["cond_or_uncond"]
        return apply(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(wrapper)


HOSTS_WAY = {
    "plain": lambda model: None,
    "function wrapper": function_wrapper,
    "batch wrapper": lambda model: model.add_wrapper(
        WrappersMP.CALC_COND_BATCH, lambda executor, *args: executor(*args)
    ),
}


@pytest.mark.parametrize("way", HOSTS_WAY)
@pytest.mark.parametrize("wired", [*RULES, *EXPRESSIONS])
def test_every_prompt_is_told_as_positive_or_negative_and_by_its_leaf(wired, way):
    model = toy_model("EPS", Told())
    HOSTS_WAY[way](model)
    if wired in RULES:
        make, expected = RULES[wired]
        inputs = {"positive": prompt(POSITIVE), "negative": prompt(NEGATIVE), "cfg": 5.0, "rule": make()}
        (guider,) = call("StepwiseCFGGuider", model=model, **inputs)
    else:
        make, expected = EXPRESSIONS[wired]
        guider = call("StepwiseGuider", model=model, prediction=make())[0]
    predicted(guider)
    network = model.model.diffusion_model
    assert network.roles == expected
    assert len(network.leaves) == len(expected)
    assert all(len(prompts) == 1 for prompts in network.leaves.values())
    # What is neither the host's positive nor its negative is told by the prompt itself.
    told = [cond for key, conds in guider.original_conds.items() if key.startswith("prediction") for cond in conds]
    kinds = {round(cond["cross_attn"].mean().item(), 3): cond["prompt_type"] for cond in told}
    assert all(kind == expected[value] for value, kind in kinds.items() if value in expected)
    assert len(kinds.keys() & expected.keys()) >= len(expected) - 2


@pytest.mark.parametrize("way", HOSTS_WAY)
def test_the_watch_of_batches_tells_leaves_apart(way):
    model = toy_model("EPS", Told())
    HOSTS_WAY[way](model)
    (guider,) = call(
        "StepwiseCFGGuider",
        model=model,
        positive=prompt(POSITIVE),
        negative=prompt(NEGATIVE),
        cfg=5.0,
        rule=RULES["another twice"][0](),
    )
    watch = BatchingWatch()
    watch.attach(guider.model_options, Progress())
    predicted(guider)
    assert [sorted(group) for group in watch.groups] == [[0, 1, 2, 3]]


DIGITS = (2, 1, 8, 8)


@pytest.fixture(scope="module")
def digits():
    return call("StepwiseDigitsModel")[0], call("StepwiseDigit", labels="3,7")[0], call("StepwiseDigit", labels="")[0]


@pytest.mark.parametrize("time_range", [False, True])
@pytest.mark.parametrize("id", [None, "APG", "PerpNeg", "CFGZeroStar", "Interval"])
def test_a_patch_that_asks_for_both_prompts_at_scale_1_gets_them(id, time_range, digits, differences):
    """NAG changes the positive prediction by the negative one. Under every rule scale 1 is the positive prediction."""
    model, positive, negative = digits
    if time_range:
        positive = node_helpers.conditioning_set_values(positive, {"start_percent": 0.0, "end_percent": 1.0})
    patched = NAGuidance.execute(model, 5.0, 0.5, 1.5).args[0]
    _, host = guiders(patched, positive, negative, 1.0)
    without, _ = guiders(model, positive, negative, 1.0)
    chain = () if id is None else rule(id, **({"empty": negative} if id == "PerpNeg" else {}))
    inputs = {"model": patched, "positive": positive, "negative": negative, "cfg": 1.0, "rule": chain}
    theirs = predicted(host, DIGITS)
    off = largest(predicted(call("StepwiseCFGGuider", **inputs)[0], DIGITS), theirs)
    differences("ComfyUI's CFGGuider with NAGuidance at 1", off)
    assert off < 1e-6
    assert largest(predicted(without, DIGITS), theirs) > 1e-2


def test_a_patch_that_asks_for_both_prompts_gets_them_in_an_expression(digits):
    model, positive, negative = digits
    patched = NAGuidance.execute(model, 5.0, 0.5, 1.5).args[0]
    hosts = [predicted(guiders(patched, each, negative, 1.0)[1], DIGITS) for each in (positive, negative)]
    nodes = [call("StepwisePrediction", conditioning=each)[0] for each in (positive, negative)]
    one = operation("CFGCombine", positive=nodes[0], negative=nodes[1], scale=1.0)
    same = operation("CFGCombine", positive=nodes[0], negative=nodes[1], scale=1.0)
    mixed = operation("MixPredictions", a=one, b=same, amount=0.25)
    guider = call("StepwiseGuider", model=patched, prediction=mixed)[0]
    assert largest(predicted(guider, DIGITS), hosts[0]) < 1e-6
    assert largest(hosts[1], hosts[0]) > 1e-2


def writes_context(executor, x, t, c_concat=None, c_crossattn=None, *args, **kwargs):
    c_crossattn.mul_(1.5)
    return executor(x, t, c_concat, c_crossattn, *args, **kwargs)


def writes_sigmas(executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
    c_crossattn = c_crossattn + transformer_options["sigmas"].mean() / 20.0
    transformer_options["sigmas"].mul_(0.5)
    return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)


WRITERS = {"context": writes_context, "sigmas": writes_sigmas}


@pytest.mark.parametrize("cfg", [1.0, 5.0])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("writer", WRITERS)
def test_what_a_patch_writes_into_its_inputs_is_gone_at_the_next_call(writer, batch, cfg):
    """A whole run, against the same under core's guider and sampler; and under core's guider in our step node."""
    model = toy_model("EPS")
    model.add_wrapper(WrappersMP.APPLY_MODEL, WRITERS[writer])
    sigmas = call("StepwiseKarrasSchedule", steps=4)[0]
    noise, latent = RandomNoise.execute(7).args[0], {"samples": torch.zeros(batch, 4, 8, 8)}
    ours, host = guiders(model, prompt(POSITIVE), prompt(NEGATIVE), cfg)
    euler = comfy.samplers.sampler_object("euler")
    theirs = SamplerCustomAdvanced.execute(noise, host, euler, sigmas, latent).args[0]["samples"]
    for guider in (ours, host):
        inputs = {"guider": guider, "noise": noise, "latent_image": latent, "sigmas": sigmas}
        assert largest(call("StepwiseEuler", **inputs)[0]["samples"], theirs) < 1e-5
    unpatched, _ = guiders(toy_model("EPS"), prompt(POSITIVE), prompt(NEGATIVE), cfg)
    inputs["guider"] = unpatched
    assert largest(call("StepwiseEuler", **inputs)[0]["samples"], theirs) > 1e-3
