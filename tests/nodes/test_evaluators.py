"""Predictions of other models and of perturbed ones: as ComfyUI's own nodes make them, counted, resumed, refused."""

import comfy.samplers
import folder_paths
import pytest
import torch
from comfy_extras.nodes_custom_sampler import DualModelGuider
from comfy_extras.nodes_nag import NAGuidance
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT
from guided_models import SHAPES, guiders, largest, predicted
from pixel_runs import PixelNet, evaluated, noise_of, run
from stepwise.tests.nodes.test_guider_networks import flux, sd3, wan
from toy_models import Latent4, Latent5D, SmoothNet, call, prompt, refused, toy_model

STEPS = 6


class Perturbed(PixelNet):
    """Each value by itself, with an attention and a layer that can be gone past, and weights of its own."""

    def __init__(self, share=1.0):
        super().__init__()
        self.share = share

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **kwargs):
        out = self.share * super().forward(x, timesteps, context, control, transformer_options, **kwargs)
        replaced = transformer_options.get("patches_replace", {})
        attention = replaced.get("attn1", {}).get(("middle", 0))
        out = out + (0.3 * torch.cos(x) if attention is None else 0.3 * attention(x, x, x, {}))
        layer = replaced.get("dit", {}).get(("double_block", 7))
        return out * 0.9 if layer is None else layer({"img": out}, {})["img"]


def model_of(kind="EPS", dims=2, share=1.0):
    return toy_model(kind, Perturbed(share), Latent5D() if dims == 3 else Latent4())


def leaf(conditioning, **given):
    return call("StepwisePrediction", conditioning=conditioning, **given)[0]


def perturbed(kind="attention", **given):
    return call("StepwisePerturbation", kind=kind, **given)[0]


def combined(positive, negative, scale):
    return call("StepwiseCFGCombine", positive=positive, negative=negative, scale=scale)[0]


def guided_by(prediction, difference, factor):
    """prediction + factor times a difference of two others."""
    a, b = difference
    apart = call("StepwiseAddPredictions", a=a, b=b, factor_b=-1.0)[0]
    return call("StepwiseAddPredictions", a=prediction, b=apart, factor_b=factor)[0]


def guider_of(model, prediction, **inputs):
    return call("StepwiseGuider", model=model, prediction=prediction, **inputs)[0]


def sigmas_of(kind):
    return torch.linspace(1.0, 0.0, STEPS + 1) if kind == "FLOW" else call("StepwiseKarrasSchedule", steps=STEPS)[0]


def smooth(kind, dims=2, share=1.0):
    network = SmoothNet(4, dims)
    network.mix.data *= share
    return toy_model(kind, network, Latent5D() if dims == 3 else Latent4())


# Another model


@pytest.mark.parametrize("cfg", [4.0, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
def test_a_negative_of_another_model_is_that_of_comfyuis_guider(kind, shape, cfg, differences):
    dims = len(SHAPES[shape]) - 2
    model, other = smooth(kind, dims), smooth(kind, dims, 0.3)
    (host,) = DualModelGuider.execute(model, prompt(0.4), cfg, other, prompt(-0.3)).args
    ours = guider_of(model, combined(leaf(prompt(0.4)), leaf(prompt(-0.3), model=other), cfg))
    difference = largest(predicted(ours, SHAPES[shape]), predicted(host, SHAPES[shape]))
    differences("ComfyUI's DualModelGuider", difference)
    assert difference < 1e-6
    if cfg != 1.0:
        plain = guider_of(model, combined(leaf(prompt(0.4)), leaf(prompt(-0.3)), cfg))
        assert largest(predicted(ours, SHAPES[shape]), predicted(plain, SHAPES[shape])) > 1e-3


def test_whole_runs_of_two_models_are_those_of_comfyuis_guider(differences):
    model, other, noise, sigmas = smooth("FLOW"), smooth("FLOW", share=0.3), noise_of(), sigmas_of("FLOW")
    (host,) = DualModelGuider.execute(model, prompt(0.4), 4.0, other, prompt(-0.3)).args
    ours = guider_of(model, combined(leaf(prompt(0.4)), leaf(prompt(-0.3), model=other), 4.0))
    theirs, mine = (run(guider, noise, sigmas)[0]["samples"] for guider in (host, ours))
    differences("ComfyUI's DualModelGuider", difference := largest(mine, theirs))
    assert difference < 1e-6


def test_special_conditioning_of_another_model_is_prepared_by_it():
    """A mask on the prompt of the other model, which takes the host's own path."""
    model, other = smooth("EPS"), smooth("EPS", share=0.3)
    mask = torch.zeros(1, 8, 8)
    mask[:, :4] = 1.0
    masked = [[prompt(-0.3)[0][0], {"mask": mask, "mask_strength": 0.5}]]
    (host,) = DualModelGuider.execute(model, prompt(0.4), 4.0, other, masked).args
    ours = guider_of(model, combined(leaf(prompt(0.4)), leaf(masked, model=other), 4.0))
    assert largest(predicted(ours), predicted(host)) < 1e-6


@pytest.mark.parametrize(("kind", "dims"), [("EPS", 2), ("FLOW", 3)])
def test_a_run_of_two_models_goes_on_bit_for_bit_and_each_picture_is_alone(kind, dims, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))

    def guider():
        weaker = leaf(prompt(0.4), model=model_of(kind, dims, 0.5), perturbation=perturbed("layers"))
        return guider_of(model_of(kind, dims), combined(leaf(prompt(0.4)), weaker, 3.0))

    noise, sigmas = noise_of(dims), sigmas_of(kind)
    whole = run(guider(), noise, sigmas)[0]["samples"]
    assert torch.equal(run(guider(), noise[1:2], sigmas)[0]["samples"], whole[1:2])
    for cut in range(1, STEPS):
        state = run(guider(), noise, sigmas, end_step=cut)[2]
        (name,) = call("StepwiseSaveState", state=state)
        (loaded,) = call("StepwiseLoadState", file=name)
        assert loaded.model["others"] == "BaseModel"
        assert torch.equal(call("StepwiseDPMpp2M", guider=guider(), state=loaded)[0]["samples"], whole)


def test_leaves_of_one_model_share_a_batch_and_those_of_another_are_a_call_of_their_own():
    """Three prompts on two models, one of them twice: what is evaluated is counted at both, and said in the report."""
    model, other, noise, sigmas = model_of(), model_of(share=0.5), noise_of(batch=1), sigmas_of("EPS")
    a, b = leaf(prompt(0.4)), leaf(prompt(-0.3))
    c, d = leaf(prompt(-0.3), model=other), leaf(prompt(0.1), model=other)
    mean = call("StepwiseMixPredictions", a=c, b=d)[0]
    whole = guided_by(combined(a, mean, 4.0), (b, b), 1.0)
    guider, report = call("StepwiseGuider", model=model, prediction=whole, sigmas=sigmas)
    run(guider, noise, sigmas, "Euler")
    assert (evaluated(model), evaluated(other)) == ([1] * STEPS, [2] * STEPS)
    assert report.splitlines()[0] == "6 model calls of the sampler: 18 of 24 predictions evaluated, 6 saved"
    assert "(another model): always" in report


def test_a_clone_with_patches_is_one_set_of_weights_with_options_of_its_own():
    model = model_of()
    clone = model.clone()
    clone.set_model_attn1_replace(lambda q, k, v, extra: 0.0 * v, "middle", 0)
    a, b = prompt(0.4), prompt(-0.3)
    ours = guider_of(model, combined(leaf(a), leaf(b, model=clone), 3.0))
    each = [predicted(guider_of(one, leaf(text))) for one, text in ((model, a), (clone, b))]
    assert largest(predicted(ours), each[1] + 3.0 * (each[0] - each[1])) < 1e-6
    run(ours, noise_of(), sigmas_of("EPS"))
    assert model.model.current_patcher is None


@pytest.mark.parametrize("fails", [False, True])
def test_both_models_are_made_ready_once_and_cleaned_up_whatever_happens(fails):
    model, other = model_of(), model_of(share=0.5)
    seen = []
    for name, each in (("own", model), ("other", other)):
        each.add_callback("on_pre_run", lambda patcher, name=name: seen.append(f"{name} ready"))
        each.add_callback("on_cleanup", lambda patcher, name=name: seen.append(f"{name} cleaned"))
    guider = guider_of(model, combined(leaf(prompt(0.4)), leaf(prompt(-0.3), model=other), 3.0))
    if fails:
        other.model.diffusion_model.forward = lambda *args, **kwargs: 1 / 0
        with pytest.raises(ZeroDivisionError):
            run(guider, noise_of(), sigmas_of("EPS"))
    else:
        run(guider, noise_of(), sigmas_of("EPS"))
    assert sorted(set(seen)) == ["other cleaned", "other ready", "own cleaned", "own ready"]
    assert (seen.count("own ready"), seen.count("other ready")) == (1, 1)
    assert guider.run.others is None
    assert other.model.current_patcher is None


def test_both_models_are_loaded_for_the_whole_run(monkeypatch):
    model, other = model_of(), model_of(share=0.5)
    loads, load = [], comfy.model_management.load_models_gpu

    def watched(models, *args, **kwargs):
        loads.append(list(models))
        return load(models, *args, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", watched)
    guider = guider_of(model, combined(leaf(prompt(0.4)), leaf(prompt(-0.3), model=other), 3.0))
    run(guider, noise_of(), sigmas_of("EPS"))
    assert loads == [[model, other]]


def test_models_that_do_not_agree_are_refused_with_the_cure():
    def message(model, other):
        said = refused(
            "StepwiseGuider", model=model, prediction=combined(leaf(prompt(0.4)), leaf(prompt(0.1), model=other), 3.0)
        )
        assert said.startswith("Guider (Stepwise): model ")
        return said

    assert "is a flow model, and the guider's is no flow model. Take two" in message(smooth("EPS"), smooth("FLOW"))
    assert "has latents of another kind (Latent5D)" in message(smooth("EPS"), smooth("EPS", 3))
    assert "has other noise levels" in message(smooth("FLOW"), smooth("FLUX"))
    model = smooth("EPS")
    patched = model.clone()
    patched.add_patches({"diffusion_model.mix": ("diff", (torch.ones(4, 4),))})
    assert "is the guider's own model with other weights, such as a LoRA" in message(model, patched)
    assert "Load it with a second loader" in message(model, patched)


# Perturbed


@pytest.fixture(scope="module")
def digits():
    (model, *_) = call("StepwiseDigitsModel")
    return model, *(call("StepwiseDigit", labels=text)[0] for text in ("3", ""))


@pytest.mark.parametrize("scale", [3.0, 0.5])
def test_perturbed_attention_is_comfyuis(digits, scale, differences):
    """On the network that comes with the pack, with plain guidance before it."""
    model, positive, negative = digits
    (patched,) = PerturbedAttentionGuidance.execute(model, scale).args
    (host,) = call("StepwiseCFGGuider", model=patched, positive=positive, negative=negative, cfg=4.0)
    a, b = leaf(positive), leaf(positive, perturbation=perturbed())
    ours = guider_of(model, guided_by(combined(a, leaf(negative), 4.0), (a, b), scale))
    shape = (2, 1, 8, 8)
    differences(
        "ComfyUI's PerturbedAttentionGuidance", difference := largest(predicted(ours, shape), predicted(host, shape))
    )
    assert difference < 1e-6
    plain = guider_of(model, combined(a, leaf(negative), 4.0))
    assert largest(predicted(ours, shape), predicted(plain, shape)) > 1e-3


@pytest.mark.parametrize(("network", "width"), [(flux, 32), (sd3, 32), (wan, 32)], ids=["flux", "sd3", "wan"])
def test_skipped_layers_are_comfyuis(network, width, differences):
    """On miniatures of its own networks."""
    video = network is wan
    model = toy_model("FLOW", network(), Latent5D() if video else Latent4())
    positive, negative = ([[torch.full((1, 4, width), value), {}]] for value in (0.4, -0.3))
    single = "0" if network is flux else ""
    (patched,) = SkipLayerGuidanceDiT.execute(model, 2.0, 0.0, 1.0, double_layers="0", single_layers=single).args
    (host,) = call("StepwiseCFGGuider", model=patched, positive=positive, negative=negative, cfg=4.0)
    layers = perturbed("layers", double_layers="0", single_layers=single)
    a, b = leaf(positive), leaf(positive, perturbation=layers)
    ours = guider_of(model, guided_by(combined(a, leaf(negative), 4.0), (a, b), 2.0))
    shape = (1, 4, 1, 8, 8) if video else (1, 4, 8, 8)
    differences("ComfyUI's SkipLayerGuidanceDiT", difference := largest(predicted(ours, shape), predicted(host, shape)))
    assert difference < 1e-6
    plain = guider_of(model, combined(a, leaf(negative), 4.0))
    assert largest(predicted(ours, shape), predicted(plain, shape)) > 1e-4


@pytest.mark.parametrize("kind", ["attention", "layers"])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_perturbed_run_goes_on_bit_for_bit_and_each_picture_is_alone(kind, dims):
    a, b = leaf(prompt(0.4)), leaf(prompt(0.4), perturbation=perturbed(kind))
    text = prompt(0.4)
    a, b = leaf(text), leaf(text, perturbation=perturbed(kind))
    whole_of = guided_by(combined(a, leaf(prompt(-0.3)), 3.0), (a, b), 1.5)
    guider, noise, sigmas = guider_of(model_of(dims=dims), whole_of), noise_of(dims), sigmas_of("EPS")
    whole = run(guider, noise, sigmas)[0]["samples"]
    for i in range(len(noise)):
        assert torch.equal(run(guider, noise[i : i + 1], sigmas)[0]["samples"], whole[i : i + 1])
    for cut in (1, 3, 5):
        state = run(guider, noise, sigmas, end_step=cut)[2]
        assert torch.equal(call("StepwiseDPMpp2M", guider=guider, state=state)[0]["samples"], whole)


def test_a_perturbed_prediction_without_weight_is_not_evaluated():
    """Nor outside of an interval; where it counts, it is a call of its own."""
    model, text = model_of(), prompt(0.4)
    a, b = leaf(text), leaf(text, perturbation=perturbed())
    apart = call("StepwiseAddPredictions", a=a, b=b, factor_b=-1.0)[0]
    rule = call("StepwiseCurveGuidance", shape="constant", start=1.0, low=0.0)[0]
    steps = call("StepwiseStepsGuidance", first_steps=2, first_scale=0.0, last_steps=1, last_scale=0.0, rule=rule)[0]
    scaled = call("StepwiseScalePrediction", prediction=apart, factor=2.0, rule=steps)[0]
    whole = call("StepwiseAddPredictions", a=combined(a, leaf(prompt(-0.3)), 3.0), b=scaled)[0]
    run(guider_of(model, whole), noise_of(batch=1), sigmas_of("EPS"), "Euler")
    assert evaluated(model) == [2, 2, *[2, 1] * (STEPS - 3), 2]


def test_equal_perturbations_are_one_prediction():
    model, text = model_of(), prompt(0.4)
    one, two = (leaf(text, perturbation=perturbed("layers", double_layers=names)) for names in ("7, 8", "7,8"))
    assert one == two
    whole = call("StepwiseMixPredictions", a=one, b=two)[0]
    run(guider_of(model, whole), noise_of(batch=1), sigmas_of("EPS"), "Euler")
    assert evaluated(model) == [1] * STEPS


def test_a_patch_that_is_told_the_side_sees_the_perturbed_positive_as_positive():
    """As under ComfyUI's own node, although the expression moves away from it."""
    model, text, seen = model_of(), prompt(0.4), []
    model.set_model_unet_function_wrapper(
        lambda apply, args: (
            seen.append(list(args["cond_or_uncond"])) or apply(args["input"], args["timestep"], **args["c"])
        )
    )
    a, b = leaf(text), leaf(text, perturbation=perturbed())
    predicted(guider_of(model, guided_by(combined(a, leaf(prompt(-0.3)), 3.0), (a, b), 1.5)))
    assert sorted(map(sorted, seen)) == [[0], [0, 1]]


@pytest.mark.parametrize(
    "given",
    [
        {"double_layers": "7; 8"},
        {"double_layers": "-1"},
        {"double_layers": "9" * 5000},
        {"double_layers": "", "single_layers": " , "},
    ],
)
def test_layers_that_are_no_numbers_are_refused(given):
    message = refused("StepwisePerturbation", kind="layers", **given)
    assert message.startswith("Perturbation: double_layers ")
    assert "rite numbers" in message


# What lives in the network's attention


@pytest.fixture(scope="module")
def attentive():
    """A miniature of Flux, without and with normalized attention guidance, and two prompts."""
    model = toy_model("FLOW", flux(), Latent4())
    (patched,) = NAGuidance.execute(model, 5.0, 0.5, 1.5).args
    return model, patched, *([[torch.full((1, 4, 32), value), {}]] for value in (0.4, -0.3))


@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_normalized_attention_guidance_does_under_our_guiders_what_it_does_under_the_hosts(attentive, cfg):
    """At guidance 1 too, where the patch asks for the negative prompt all the same."""
    plain, model, positive, negative = attentive
    ours, host = guiders(model, positive, negative, cfg)
    expected = predicted(host)
    assert largest(expected, predicted(guiders(plain, positive, negative, cfg)[1])) > 1e-4
    expression = guider_of(model, combined(leaf(positive), leaf(negative), cfg))
    rule = call("StepwiseRescaleGuidance", phi=0.0)[0]
    inputs = {"model": model, "positive": positive, "negative": negative, "cfg": cfg}
    (ruled,) = call("StepwiseCFGGuider", **inputs, rule=rule)
    assert torch.equal(predicted(ours), expected)
    assert largest(predicted(expression), expected) < 1e-6
    assert largest(predicted(ruled), expected) < 1e-6
