"""The rules of guidance beside ComfyUI's own patches and guiders, where those are right; and their nodes."""

import comfy.model_patcher
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_apg import APG
from comfy_extras.nodes_cfg import CFGNorm, CFGZeroStar
from comfy_extras.nodes_custom_sampler import Guider_DualCFG
from comfy_extras.nodes_model_advanced import RescaleCFG
from comfy_extras.nodes_perpneg import Guider_PerpNeg
from comfy_extras.nodes_tcfg import TCFG
from stepwise.nodes.shared.schema import LATER
from stepwise.samplers import FLOW, VE
from stepwise.samplers.guidance import Call, extra_names, guide, needs
from toy_models import call, nodes_by_id, prompt, refused, toy_model

SIGMA = 1.7
PROMPT = prompt(0.2)
SCALES = (1.5, 7.5, 15.0)


def images(count, batch=3):
    """In float64, so that what remains is a difference of formulas."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, batch, 4, 6, 5, generator=generator, dtype=torch.float64).unbind()


def patched(patch, x, cond, uncond, scale, sigma=SIGMA):
    """What the host makes of two predictions under a model patch."""
    sigmas = x.new_full((len(x),), sigma)
    options = patch(toy_model()).model_options
    out = [cond, uncond]
    for function in options.get("sampler_pre_cfg_function", []):
        given = {
            "conds": [PROMPT, PROMPT],
            "conds_out": out,
            "cond_scale": scale,
            "timestep": sigmas,
            "input": x,
            "sigma": sigmas,
        }
        out = function({**given, "input": x, "sigma": sigmas, "model": None, "model_options": options})
    return comfy.samplers.cfg_function(None, *out, scale, x, sigmas, options)


def by_rule(name, x, predictions, scale, path=VE, sigma=SIGMA, memory=None, **params):
    (chain,) = call(f"Stepwise{name}Guidance", **params)
    cond, uncond, *others = predictions
    given = {"cond": cond, "uncond": uncond, **dict(zip(extra_names(chain), others, strict=True))}
    return guide(chain, Call(x, sigma, path, scale, memory={} if memory is None else memory), given)


def relative(a, b):
    return ((a - b).square().mean() / b.square().mean()).sqrt().item()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("phi", [0.3, 0.7, 1.0])
def test_rescale_is_comfyuis(scale, phi, differences):
    x, cond, uncond = images(3)
    theirs = patched(lambda model: RescaleCFG().patch(model, phi)[0], x, cond, uncond, scale)
    ours = by_rule("Rescale", x, (cond, uncond), scale, phi=phi)
    differences("comfyui RescaleCFG", difference := relative(ours, theirs))
    assert difference < 1e-12


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("eta", "norm_threshold", "momentum"), [(0.0, 5.0, -0.5), (0.3, 2.5, -0.75), (1.0, 0.0, 0.5)])
def test_apg_in_comfyuis_form_is_comfyuis(scale, eta, norm_threshold, momentum, differences):
    """Over three steps of falling noise."""
    params, memory = {"eta": eta, "norm_threshold": norm_threshold, "momentum": momentum}, {}
    (model,) = APG.execute(toy_model(), **params).args
    for step, sigma in enumerate((5.0, 2.0, 1.0)):
        x, cond, uncond = (value.roll(step, -1) for value in images(3))
        theirs = patched(lambda _: model, x, cond, uncond, scale, sigma)
        ours = by_rule("APG", x, (cond, uncond), scale, sigma=sigma, memory=memory, form="comfyui", **params)
        differences("comfyui APG", difference := relative(ours, theirs))
        assert difference < 1e-12


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("path", [VE, FLOW])
def test_zero_star_is_comfyuis_but_for_a_share_of_x(scale, path):
    """Theirs fits the velocity, and then scales the denoised image instead of the velocity: some of x is lost."""
    x, cond, uncond = images(3)
    theirs = patched(lambda model: CFGZeroStar.execute(model).args[0], x, cond, uncond, scale)
    lost = (by_rule("CFGZeroStar", x, (cond, uncond), scale, path=path, sigma=0.9) - theirs).flatten(1)
    images_x = x.flatten(1)
    shares = (lost * images_x).sum(1, keepdim=True) / images_x.square().sum(1, keepdim=True)
    assert relative(shares * images_x, lost) < 1e-7
    assert shares.abs().min() > 0.1


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("space", "pre_cfg"), [("denoised", False), ("noise", True)])
def test_cfg_norm_is_comfyuis_in_both_of_its_forms(scale, space, pre_cfg, differences):
    """Theirs adds 1e-8 to a length. Its strength multiplies the picture in the one form and mixes in the other; ours
    mixes in both, which is the same at 1."""
    x, cond, uncond = images(3)
    for strength in (1.0, 0.5) if pre_cfg else (1.0,):
        theirs = patched(lambda model: CFGNorm.execute(model, strength, pre_cfg).args[0], x, cond, uncond, scale)  # noqa: B023
        ours = by_rule("CFGNorm", x, (cond, uncond), scale, strength=strength, space=space)
        differences("comfyui CFGNorm", difference := relative(ours, theirs))
        assert difference < 1e-7


@pytest.mark.parametrize("scale", SCALES)
def test_tangential_damping_is_comfyuis(scale, differences):
    """Theirs decomposes in float32."""
    x, cond, uncond = images(3)
    theirs = patched(lambda model: TCFG.execute(model).args[0], x, cond, uncond, scale)
    ours = by_rule("TCFG", x, (cond, uncond), scale)
    differences("comfyui TCFG", difference := relative(ours, theirs))
    assert difference < 1e-5


def evaluated(monkeypatch, guider, conds, predictions, x):
    """The result of a guider of the host for given predictions, by the names of its conditionings."""
    guider.inner_model, guider.conds = None, {name: [name] for name in conds}
    given = dict(zip(conds, predictions, strict=True))
    batch = lambda model, asked, *rest: [x * 0 if cond is None else given[cond[0]] for cond in asked]  # noqa: E731
    monkeypatch.setattr(comfy.samplers, "calc_cond_batch", batch)
    return guider.predict_noise(x, x.new_full((len(x),), SIGMA))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("negative_scale", [0.5, 1.0, 2.0])
def test_perp_neg_as_published_is_comfyuis_for_one_image(scale, negative_scale, monkeypatch, differences):
    """For one: theirs projects a whole batch as if it were one image."""
    x, cond, negative, empty = images(4, batch=1)
    guider = Guider_PerpNeg(toy_model())
    guider.set_cfg(scale, negative_scale)
    names = ("positive", "negative", "empty_negative_prompt")
    theirs = evaluated(monkeypatch, guider, names, (cond, negative, empty), x)
    params = {"negative_scale": negative_scale, "form": "published", "empty": PROMPT}
    ours = by_rule("PerpNeg", x, (cond, negative, empty), scale, **params)
    differences("comfyui PerpNegGuider", difference := relative(ours, theirs))
    assert difference < 1e-12


@pytest.mark.parametrize("style", ["regular", "nested"])
@pytest.mark.parametrize("scale", [1.0, 1.5, 7.5])
@pytest.mark.parametrize("middle_scale", [1.0, 3.0])
def test_dual_guidance_is_comfyuis(style, scale, middle_scale, monkeypatch, differences):
    x, cond, uncond, middle = images(4)
    guider = Guider_DualCFG(toy_model())
    guider.set_cfg(scale, middle_scale, nested=style == "nested")
    names = ("positive", "negative", "middle")
    theirs = evaluated(monkeypatch, guider, names, (cond, uncond, middle), x)
    params = {"middle_scale": middle_scale, "style": style, "middle": PROMPT}
    ours = by_rule("Dual", x, (cond, uncond, middle), scale, **params)
    differences("comfyui DualCFGGuider", difference := relative(ours, theirs))
    assert difference < 1e-12


# The nodes


def test_rules_chain_in_the_order_of_their_wires():
    (first,) = call("StepwiseIntervalGuidance")
    (second,) = call("StepwiseAPGGuidance", rule=first)
    (third,) = call("StepwiseAnotherPromptGuidance", rule=second, other=PROMPT)
    assert [rule.kind for rule in third] == ["scale", "away", "prompt"]
    assert third[:2] == second
    assert extra_names(third) == {"2.other": PROMPT}


def test_a_drawn_curve_comes_from_the_editors_points():
    """Half of the guidance in the middle, none where the curve is 0."""
    points = {"points": [[0.0, 0.0], [0.5, 0.5], [1.0, 0.0]], "interpolation": "linear"}
    ends = {"sigma_start": 10.0, "sigma_end": 0.1, "low": 1.0, "over": "log_snr"}
    (chain,) = call("StepwiseDrawnCurveGuidance", curve=points, **ends)
    x, cond, uncond = images(3)
    result = guide(chain, Call(x, 1.0, VE, 9.0), {"cond": cond, "uncond": uncond})
    assert relative(result, uncond + 5.0 * (cond - uncond)) < 1e-12
    assert needs(chain, 9.0, 10.0, VE) == {"cond"}


def test_wrong_inputs_are_refused():
    assert "phi is 2.0, out of range" in refused("StepwiseRescaleGuidance", phi=2.0)
    (dual,) = call("StepwiseDualGuidance", middle=PROMPT)
    message = refused("StepwiseDualGuidance", middle=PROMPT, rule=dual)
    assert message.startswith("Dual Guidance: rule holds another Dual Guidance")
    upside_down = refused("StepwiseCurveGuidance", sigma_start=0.1, sigma_end=5.0)
    assert upside_down.startswith("Guidance Curve: sigma_end is 5, not below sigma_start")


def test_every_rule_node_takes_and_gives_a_chain():
    rules = {name: node for name, node in nodes_by_id().items() if name.endswith("Guidance")}
    assert len(rules) == 18
    for node in rules.values():
        schema = node.GET_SCHEMA()
        (*_, rule) = (each for each in schema.inputs if each.id not in LATER)
        assert rule.id == "rule"
        assert rule.optional
        assert [output.io_type for output in schema.outputs] == ["STEPWISE_GUIDANCE"]
