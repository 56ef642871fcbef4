"""Rules of guidance: identities, theorems about single rules, and the reductions that keep images apart."""

import math
from fractions import Fraction

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.guiders import AdaptiveProjectedGuidance, ClassifierFreeZeroStarGuidance
from diffusers.guiders.guider_utils import rescale_noise_cfg
from exact import relative_rms
from guidance_rules import EACH, LATENTS, PATHS, RULES, SIGMA, made, named, split, tensors
from stepwise.samplers import FLOW, VE
from stepwise.samplers.guidance import Call, Descent, cfg, extra_names, guide, needs, scale_at
from stepwise.samplers.parameters import InputError
from stepwise.tools.measure.counting import Device

SCALES = (0.0, 0.5, 1.5, 7.5, 30.0)
# Parameters with which the further prompts of a rule have no weight when the guider's scale is 1.
NEUTRAL = {
    "Dual": {"middle_scale": 1.0},
    "AnotherPrompt": {"prompt_scale": 0.0},
    "Component": {"first_scale": 1.0, "others_scale": 1.0},
}


@EACH
@LATENTS
@PATHS
def test_scale_1_is_the_conditional_prediction_alone(name, shape, components, path):
    rule = made(name, **NEUTRAL.get(name, {}))
    assert needs((rule,), 1.0, SIGMA, path) == {"cond"}
    x, cond = tensors(shape, 2)
    assert torch.equal(guide((rule,), Call(x, SIGMA, path, 1.0, components), {"cond": cond}), cond)


@EACH
@LATENTS
@PATHS
@pytest.mark.parametrize("scale", SCALES)
def test_equal_prompts_are_the_conditional_prediction_at_every_scale(name, shape, components, path, scale):
    """Bit for bit. Thresholding leaves values within its limit alone, and here they are."""
    rule = made(name)
    x, cond = tensors(shape, 2)
    cond = cond.clamp(-1.0, 1.0)
    predictions = {"cond": cond, "uncond": cond.clone(), **dict.fromkeys(extra_names((rule,)), cond)}
    call = Call(x, SIGMA, path, scale, components)
    for _ in range(2):
        assert torch.equal(guide((rule,), call, predictions), cond)


# For each rule, parameters with which it is plain guidance.
PLAIN = [
    ("Rescale", {"phi": 0.0}),
    ("Rescale", {"phi": 0.0, "space": "denoised"}),
    ("APG", {"eta": 1.0, "norm_threshold": 0.0, "momentum": 0.0}),
    ("Interval", {"sigma_low": 0.0, "sigma_high": 100000.0}),
    ("Curve", {"shape": "constant", "start": 1.0}),
    ("Curve", {"shape": "linear", "start": 1.0, "end": 1.0}),
    ("Curve", {"shape": "cosine", "start": 1.0, "end": 1.0}),
    ("DrawnCurve", {}),
    ("Threshold", {"limit": 1000.0}),
    ("AnotherPrompt", {"prompt_scale": 0.0}),
    ("FDG", {"low": 1.0}),
    ("MAMBOG", {"alpha": 0.0}),
    ("SMC", {"gain": 0.0}),
    ("CFGNorm", {"strength": 0.0}),
    ("CFGNorm", {"strength": 0.0, "space": "noise"}),
    ("Momentum", {"alpha": 0.0}),
]


@pytest.mark.parametrize(("name", "params"), PLAIN, ids=lambda value: str(value))
@LATENTS
@pytest.mark.parametrize("scale", SCALES)
def test_a_rule_that_does_nothing_is_plain_guidance(name, params, shape, components, scale):
    """Bit for bit, but where a result of exactly one factor 1 is multiplied in."""
    x, cond, uncond = tensors(shape, 3)
    result = guide((made(name, **params),), Call(x, SIGMA, VE, scale, components), {"cond": cond, "uncond": uncond})
    assert torch.equal(result, cfg(cond, uncond, cfg=scale))


@LATENTS
def test_apg_whose_threshold_is_not_reached_is_plain_guidance(shape, components):
    x, cond, uncond = tensors(shape, 3, torch.float64)
    rule = made("APG", eta=1.0, norm_threshold=1000.0, momentum=0.0)
    result = guide((rule,), Call(x, SIGMA, VE, 7.5, components), {"cond": cond, "uncond": uncond})
    assert relative_rms(result, cfg(cond, uncond, cfg=7.5)) < 1e-13


# Scales


@PATHS
@pytest.mark.parametrize("measure", ["sigma", "sigma / alpha"])
def test_the_interval_saves_the_unconditional_prediction_outside_it(path, measure):
    low, high = 0.2, 0.7
    rule = made("Interval", sigma_low=low, sigma_high=high, measure=measure)
    if measure == "sigma / alpha":
        low, high = path.sigma(-math.log(low)), path.sigma(-math.log(high))
    for sigma in (0.0, 0.5 * low, 0.999 * low, 1.001 * high, 1.0):
        assert needs((rule,), 7.5, sigma, path) == {"cond"}
    for sigma in (1.001 * low, 0.5 * (low + high), 0.999 * high):
        assert needs((rule,), 7.5, sigma, path) == {"cond", "uncond"}
        assert scale_at((rule,), 7.5, sigma, path) == 7.5


def test_the_interval_is_open_at_its_low_end_and_closed_at_its_high_one():
    rule = made("Interval", sigma_low=0.2, sigma_high=0.7, measure="sigma")
    assert [scale_at((rule,), 7.5, sigma, VE) for sigma in (0.2, math.nextafter(0.2, 1.0), 0.7)] == [1.0, 7.5, 7.5]


@PATHS
@pytest.mark.parametrize("over", ["sigma", "log_snr"])
@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_a_curve_has_its_ends_beyond_its_range_its_middle_in_the_middle_and_rises_between(path, over, shape):
    start, end = 5.0, 0.1
    rule = made("Curve", shape=shape, start=0.0, end=1.0, low=2.0, over=over, sigma_start=start, sigma_end=end)
    first, last = path.sigma(-math.log(start)), path.sigma(-math.log(end))
    middle = (first + last) / 2.0 if over == "sigma" else path.sigma(-math.log(start * end) / 2.0)
    values = [scale_at((rule,), 8.0, first + u / 20.0 * (last - first), path) for u in range(21)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(2.0, abs=1e-9)
    assert values[-1] == pytest.approx(8.0, abs=1e-9)
    assert scale_at((rule,), 8.0, middle, path) == pytest.approx(5.0)
    assert scale_at((rule,), 8.0, 0.0, path) == 8.0
    assert scale_at((rule,), 8.0, 1.0 if path is FLOW else 1000.0, path) == 2.0


@PATHS
def test_a_drawn_line_is_the_linear_curve(path):
    ends = {"low": 1.5, "sigma_start": 8.0, "sigma_end": 0.05}
    line, drawn = (
        made("Curve", shape="linear", start=0.0, end=1.0, **ends),
        made("DrawnCurve", curve=lambda u: u, **ends),
    )
    for sigma in (0.0, 0.05, 0.3, 0.7, 0.99):
        assert scale_at((drawn,), 9.0, sigma, path) == pytest.approx(scale_at((line,), 9.0, sigma, path))


def test_a_curve_with_its_range_upside_down_is_refused():
    with pytest.raises(InputError, match=r"sigma_end is 5, not below sigma_start = 0\.1"):
        made("Curve", sigma_start=0.1, sigma_end=5.0)


def test_scales_are_applied_in_the_order_of_the_chain():
    """A curve to scale 4, cut to an interval: 4 inside it and 1 outside."""
    chain = (made("Curve", shape="constant", start=0.5), made("Interval", sigma_low=0.1, sigma_high=1.0))
    assert [scale_at(chain, 7.0, sigma, VE) for sigma in (0.05, 0.5, 2.0)] == [1.0, 4.0, 1.0]


# What guidance moves away from


@LATENTS
def test_apg_without_the_parallel_part_moves_at_right_angles_to_the_prediction(shape, components):
    x, cond, uncond = tensors(shape, 3, torch.float64)
    call = Call(x, SIGMA, VE, 10.0, components)
    moved = guide((made("APG", eta=0.0),), call, {"cond": cond, "uncond": uncond}) - cond
    for part, along in split(components, moved, cond):
        assert (part * along).flatten(1).sum(1).abs().max() < 1e-9 * part.norm() * along.norm()
        assert part.norm() > 1.0


@LATENTS
def test_apg_moves_no_further_than_its_threshold(shape, components):
    x, cond, uncond = tensors(shape, 3, torch.float64)
    rule = made("APG", eta=1.0, norm_threshold=2.5, momentum=0.0)
    moved = guide((rule,), Call(x, SIGMA, VE, 10.0, components), {"cond": cond, "uncond": uncond}) - cond
    for (part,) in split(components, moved):
        assert part.flatten(1).norm(dim=1) == pytest.approx(torch.full((8,), 9.0 * 2.5, dtype=torch.float64))


def test_apgs_momentum_sums_the_steps_geometrically_and_advances_once_a_step():
    """With the same predictions at every step d is (1 + b + b^2 + ...) d_1, whatever the number of calls in a step."""
    x, cond, uncond = tensors((1, 4, 4, 4), 3, torch.float64)
    rule, memory = made("APG", eta=1.0, norm_threshold=0.0, momentum=-0.5), {}
    for step in range(4):
        expected = sum((-0.5) ** i for i in range(step + 1))
        for advances in (True, False, False):
            call = Call(x, SIGMA, VE, 3.0, advances=advances, memory=memory)
            moved = guide((rule,), call, {"cond": cond, "uncond": uncond}) - cond
            assert relative_rms(moved, 2.0 * expected * (cond - uncond)) < 1e-12


def test_two_rules_with_memory_keep_apart_and_so_do_two_chains():
    x, cond, uncond = tensors((1, 4, 4, 4), 3)
    memory = {}
    call = Call(x, SIGMA, VE, 3.0, memory=memory)
    for key in ("a", "b"):
        guide((made("APG"), made("APG")), call, {"cond": cond, "uncond": uncond}, key)
    assert set(memory) == {"a0.now", "a1.now", "b0.now", "b1.now"}


def test_memory_is_replaced_and_never_written_to():
    x, cond, uncond = tensors((1, 4, 4, 4), 3)
    memory = {}
    for _ in range(3):
        held = dict(memory)
        copies = {name: value.clone() for name, value in held.items()}
        guide((made("APG"),), Call(x, SIGMA, VE, 3.0, memory=memory), {"cond": cond, "uncond": uncond})
        assert all(torch.equal(held[name], copies[name]) for name in held)


def test_a_descent_advances_at_each_lower_noise_level_once():
    """Heun's calls, a restart and a repeated level."""
    descent = Descent()
    seen = [descent.advances(sigma) for sigma in (10.0, 5.0, 5.0, 2.0, 2.0, 4.0, 2.0, 1.0)]
    assert seen == [True, True, False, True, False, False, False, True]


@LATENTS
@PATHS
@pytest.mark.parametrize("scale", SCALES)
def test_zero_star_does_not_guide_where_the_velocities_point_the_same_way(shape, components, path, scale):
    """s v_uncond = v_cond then, whatever their lengths."""
    x, v_cond = tensors(shape, 2, torch.float64)
    factors = torch.linspace(0.3, 3.0, 8, dtype=torch.float64).view(-1, *[1] * (len(shape) - 1))
    predictions = {"cond": x - v_cond, "uncond": x - factors * v_cond}
    result = guide((made("CFGZeroStar", zero_init=2.0),), Call(x, SIGMA, path, scale, components), predictions)
    assert relative_rms(result, x - v_cond) < 1e-13


@PATHS
@pytest.mark.parametrize("form", ["conditional", "published"])
@pytest.mark.parametrize("scale", [0.5, 7.5])
def test_perp_neg_without_a_negative_asks_for_two_predictions(path, form, scale):
    """And for no more behind another rule of its kind, whose result it does not read; before one it is read itself."""
    x, cond, empty = tensors((2, 4, 6, 5), 3)
    rule = made("PerpNeg", negative_scale=0.0, form=form)
    assert needs((rule,), scale, SIGMA, path) == {"cond", "0.empty"}
    found = guide((rule,), Call(x, SIGMA, path, scale), {"cond": cond, "0.empty": empty})
    assert torch.equal(found, cfg(cond, empty, cfg=scale))
    behind = (made("APG"), rule)
    assert needs(behind, scale, SIGMA, path) == {"cond", "1.empty"}
    assert torch.equal(guide(behind, Call(x, SIGMA, path, scale), {"cond": cond, "1.empty": empty}), found)
    before = (rule, made("APG"))
    assert needs(before, scale, SIGMA, path) == {"cond", "0.empty"}
    given = {"cond": cond, "0.empty": empty}
    apg = guide((made("APG"),), Call(x, SIGMA, path, scale), {"cond": cond, "uncond": empty})
    assert torch.equal(guide(before, Call(x, SIGMA, path, scale), given), apg)


@pytest.mark.parametrize("level", [1.0, 0.99999994, 1.0000001])
def test_a_first_level_that_is_1_but_for_a_rounding_rests(level):
    assert needs((made("CFGZeroStar"),), 7.5, level, FLOW) == set()
    assert needs((made("CFGZeroStar"),), 7.5, 0.999998, FLOW) == {"cond", "uncond"}


def test_zero_init_asks_the_model_for_nothing_and_leaves_the_picture_at_the_start_of_a_flow():
    rule = made("CFGZeroStar")
    (x,) = tensors((2, 4, 4, 4), 1)
    assert needs((rule,), 7.5, 1.0, FLOW) == set()
    assert torch.equal(guide((rule,), Call(x, 1.0, FLOW, 7.5), {}), x)
    assert needs((rule,), 7.5, 0.98, FLOW) == needs((rule,), 7.5, 14.6, VE) == {"cond", "uncond"}
    assert needs((rule,), 1.0, 1.0, FLOW) == {"cond"}


@LATENTS
@pytest.mark.parametrize("scale", [0.5, 1.5, 7.5])
@pytest.mark.parametrize("form", ["conditional", "published"])
def test_perp_neg_with_equal_prompts_or_no_strength_is_guidance_against_the_empty_prompt(
    shape, components, scale, form
):
    x, cond, empty, negative = tensors(shape, 4)
    call = Call(x, SIGMA, VE, scale, components)
    for rule, uncond in (
        (made("PerpNeg", form=form), cond),
        (made("PerpNeg", negative_scale=0.0, form=form), negative),
    ):
        result = guide((rule,), call, {"cond": cond, "uncond": uncond, **named(rule, empty)})
        assert torch.equal(result, cfg(cond, empty, cfg=scale))


@LATENTS
def test_perp_negs_negative_acts_at_right_angles_to_the_positive(shape, components):
    x, cond, empty, negative = tensors(shape, 4, torch.float64)
    rule = made("PerpNeg", negative_scale=2.0)
    predictions = {"cond": cond, "uncond": negative, **named(rule, empty)}
    pushed = guide((rule,), Call(x, SIGMA, VE, 7.5, components), predictions) - cfg(cond, empty, cfg=7.5)
    for part, positive, n in split(components, pushed, cond - empty, negative - empty):
        assert (part * positive).flatten(1).sum(1).abs().max() < 1e-9 * part.norm() * positive.norm()
        assert (part * n).flatten(1).sum(1).max() < 0.0


# Several prompts


@pytest.mark.parametrize("scale", [1.0, 2.5, 7.5])
@pytest.mark.parametrize("middle_scale", [1.0, 1.5, 6.0])
def test_dual_guidance_is_plain_where_the_middle_prompt_is_one_of_the_others(scale, middle_scale):
    x, cond, uncond = tensors((2, 4, 4, 4), 3, torch.float64)
    call = Call(x, SIGMA, VE, scale)
    plain = {
        ("regular", "uncond"): scale,
        ("regular", "cond"): middle_scale,
        ("nested", "uncond"): scale * middle_scale,
        ("nested", "cond"): middle_scale,
    }
    for (style, middle), expected in plain.items():
        rule = made("Dual", middle_scale=middle_scale, style=style)
        predictions = {"cond": cond, "uncond": uncond, **named(rule, cond if middle == "cond" else uncond)}
        assert relative_rms(guide((rule,), call, predictions), cfg(cond, uncond, cfg=expected)) < 1e-13


@pytest.mark.parametrize("style", ["regular", "nested"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("middle_scale", [0.0, 1.0, 2.5, 6.0])
def test_dual_guidance_evaluates_only_the_prompts_that_have_a_weight(style, scale, middle_scale):
    """What it does not ask for does not matter: the result is that of all three predictions."""
    x, cond, uncond, middle = tensors((2, 4, 4, 4), 4, torch.float64)
    rule = made("Dual", middle_scale=middle_scale, style=style)
    predictions = {"cond": cond, "uncond": uncond, **named(rule, middle)}
    asked = needs((rule,), scale, SIGMA, VE)
    inner = middle + scale * (cond - middle)
    expected = uncond + middle_scale * (inner - uncond)
    if style == "regular":
        expected = uncond + middle_scale * (middle - uncond) + scale * (cond - middle)
    result = guide((rule,), Call(x, SIGMA, VE, scale), {name: predictions[name] for name in asked})
    assert relative_rms(result, expected) < 1e-12
    for name in asked:
        changed = {**predictions, name: predictions[name] + 1.0}
        different = guide((rule,), Call(x, SIGMA, VE, scale), {name: changed[name] for name in asked})
        assert relative_rms(different, expected) > 1e-3


def test_another_prompt_equal_to_the_positive_one_adds_its_scale_and_chains():
    x, cond, uncond, third = tensors((2, 4, 4, 4), 4, torch.float64)
    chain = tuple(made("AnotherPrompt", prompt_scale=s) for s in (2.0, -1.5))
    names = list(extra_names(chain))
    assert names == ["0.other", "1.other"]
    both = dict(zip(names, (cond, third), strict=True))
    result = guide(chain, Call(x, SIGMA, VE, 4.0), {"cond": cond, "uncond": uncond, **both})
    assert relative_rms(result, cfg(cond, uncond, cfg=6.0) - 1.5 * (third - uncond)) < 1e-13
    assert needs(chain, 1.0, SIGMA, VE) == {"cond", "uncond", *names}


# Results


@LATENTS
@PATHS
@pytest.mark.parametrize("space", ["velocity", "denoised"])
def test_full_rescaling_gives_each_image_the_contrast_of_its_conditional_prediction(shape, components, path, space):
    x, cond, uncond = tensors(shape, 3, torch.float64)
    rule = made("Rescale", phi=1.0, space=space)
    result = guide((rule,), Call(x, SIGMA, path, 12.0, components), {"cond": cond, "uncond": uncond})
    s = {"denoised": 0.0, "velocity": 1.0 if path is FLOW else 1.0 / (1.0 + SIGMA**2)}[space]
    for part, target in split(components, result - s * x, cond - s * x):
        assert part.flatten(1).std(1) == pytest.approx(target.flatten(1).std(1))


def test_half_way_between_plain_and_rescaled_is_phi_one_half():
    x, cond, uncond = tensors((3, 4, 4, 4), 3, torch.float64)
    zero, half, one = (
        guide((made("Rescale", phi=phi),), Call(x, SIGMA, VE, 12.0), {"cond": cond, "uncond": uncond})
        for phi in (0.0, 0.5, 1.0)
    )
    assert relative_rms(half, (zero + one) / 2.0) < 1e-13


@LATENTS
def test_thresholding_keeps_within_the_limit_and_clips_the_largest_values(shape, components):
    x, cond, uncond = tensors(shape, 3)
    rule = made("Threshold", percentile=0.9, limit=1.0)
    call = Call(x, SIGMA, VE, 7.5, components)
    plain, result = cfg(cond, uncond, cfg=7.5), guide((rule,), call, {"cond": cond, "uncond": uncond})
    for before, after in split(components, plain, result):
        before, after = before.flatten(1), after.flatten(1)
        assert after.abs().max() <= 1.0
        clipped = (after.abs() >= 1.0 - 1e-6).sum(1)
        assert torch.equal(clipped, torch.full((8,), before.shape[1] - math.ceil(0.9 * before.shape[1]) + 1))


@pytest.mark.parametrize(("count", "percentile"), [(100, 0.55), (200, 0.545), (400, 0.56), (400, 0.563)])
def test_the_threshold_takes_the_share_as_written(count, percentile):
    """0.55 of 100 values are 55, though 0.55 * 100 is 55.00000000000001."""
    image = torch.linspace(1.0, 3.0, count).view(1, 1, 1, count)
    rule = made("Threshold", percentile=percentile, limit=1.0)
    given = {"cond": image / 2.0, "uncond": torch.zeros_like(image)}
    result = guide((rule,), Call(image, SIGMA, VE, 2.0, ()), given)
    number = math.ceil(Fraction(str(percentile)) * count)
    torch.testing.assert_close(result[..., 0] * image[..., number - 1], torch.ones(1, 1, 1))


# Images and components


@EACH
@LATENTS
def test_an_image_comes_out_alone_as_in_its_batch(name, shape, components):
    """Bit for bit, over steps with memory."""
    rule = made(name)
    runs = []
    batches = (slice(None), slice(0, 1), slice(2, 3), slice(7, 8))
    for chosen in batches:
        memory, result = {}, None
        for step in range(3):
            x, cond, uncond, *others = (value[chosen] for value in tensors(shape, 3 + len(rule.others), seed=step))
            predictions = {"cond": cond, "uncond": uncond, **named(rule, *others)}
            call = Call(x, SIGMA, VE, 7.5, components, memory=memory)
            result = guide((rule,), call, predictions)
        runs.append(result)
    for chosen, alone in zip(batches, runs, strict=True):
        assert torch.equal(alone, runs[0][chosen])


@pytest.mark.parametrize("name", [name for name in RULES if name != "Component"])
def test_components_of_a_packed_latent_are_guided_apart(name):
    """As if each were a latent of its own."""
    rule, lengths = made(name), (240, 60)
    given = tensors((2, 1, 300), 3 + len(rule.others))

    def guided(components, x, cond, uncond, *others):
        predictions = {"cond": cond, "uncond": uncond, **named(rule, *others)}
        return guide((rule,), Call(x, SIGMA, VE, 7.5, components), predictions)

    parts = [guided((), *part) for part in split(lengths, *given)]
    assert torch.equal(guided(lengths, *given), torch.cat(parts, dim=-1))


@EACH
def test_no_rule_writes_to_what_it_is_given(name):
    rule = made(name)
    given = tensors((2, 4, 4, 4), 3 + len(rule.others))
    copies = [value.clone() for value in given]
    x, cond, uncond, *others = given
    guide((rule,), Call(x, SIGMA, VE, 7.5), {"cond": cond, "uncond": uncond, **named(rule, *others)})
    assert all(torch.equal(value, copy) for value, copy in zip(given, copies, strict=True))


def test_all_rules_together_act_in_the_order_of_their_kinds():
    """However they are chained: interval, then what to move away from, then the repair of the result."""
    x, cond, uncond = tensors((2, 4, 4, 4), 3)
    rules = (made("Rescale"), made("APG", momentum=0.0), made("Interval"))
    call, predictions = Call(x, SIGMA, VE, 7.5), {"cond": cond, "uncond": uncond}
    assert torch.equal(guide(rules, call, predictions), guide(rules[::-1], call, predictions))
    outside = Call(x, 10.0, VE, 7.5)
    assert torch.equal(guide(rules, outside, {"cond": cond}), cond)


def test_a_repair_of_the_result_has_the_conditional_prediction_even_where_no_prompt_of_the_guider_counts():
    """Style nested with middle_scale 0 is the unconditional prediction; scale 1 alone would not ask for another."""
    x, cond, uncond = tensors((2, 4, 4, 4), 3)
    chain = (made("Dual", middle_scale=0.0, style="nested"), made("Rescale", phi=0.0))
    assert needs(chain, 1.0, SIGMA, VE) == {"cond", "uncond"}
    result = guide(chain, Call(x, SIGMA, VE, 1.0), {"cond": cond, "uncond": uncond})
    assert torch.equal(result, uncond)


def test_scale_0_asks_for_the_unconditional_prediction_alone():
    x, _, uncond = tensors((2, 4, 4, 4), 3)
    assert needs((), 0.0, SIGMA, VE) == {"uncond"}
    assert torch.equal(guide((), Call(x, SIGMA, VE, 0.0), {"uncond": uncond}), uncond)
    assert needs((made("Rescale"),), 0.0, SIGMA, VE) == {"cond", "uncond"}


# References


@pytest.mark.parametrize("scale", [1.5, 7.5, 15.0])
@pytest.mark.parametrize("phi", [0.3, 0.7, 1.0])
def test_rescaling_is_that_of_diffusers_on_what_the_model_puts_out(scale, phi, differences):
    x, v_cond, v_uncond = tensors((2, 4, 6, 5), 3, torch.float64)
    expected = x - SIGMA * rescale_noise_cfg(cfg(v_cond, v_uncond, cfg=scale), v_cond, phi)
    predictions = {"cond": x - SIGMA * v_cond, "uncond": x - SIGMA * v_uncond}
    result = guide((made("Rescale", phi=phi),), Call(x, SIGMA, FLOW, scale), predictions)
    differences("diffusers rescale_noise_cfg", difference := relative_rms(result, expected))
    assert difference < 1e-13


@pytest.mark.parametrize("scale", [1.5, 7.5, 15.0])
@pytest.mark.parametrize(
    ("eta", "norm_threshold", "momentum"),
    [(0.0, 5.0, -0.5), (0.3, 2.5, -0.75), (1.0, 2.5, 0.5), (1.0, 0.0, 0.5), (1.0, 0.0, -0.5), (0.5, 0.0, 0.0)],
)
def test_apg_is_that_of_diffusers_over_steps(scale, eta, norm_threshold, momentum, differences):
    """In its original formulation, whose scale is w - 1. The other one of diffusers adds w g to the unconditional
    prediction, which at scale 1 is not the conditional one."""
    theirs = AdaptiveProjectedGuidance(
        guidance_scale=scale - 1.0,
        adaptive_projected_guidance_momentum=momentum,
        adaptive_projected_guidance_rescale=norm_threshold,
        eta=eta,
        use_original_formulation=True,
    )
    rule, memory = made("APG", eta=eta, norm_threshold=norm_threshold, momentum=momentum), {}
    for step in range(4):
        x, cond, uncond = tensors((3, 4, 6, 5), 3, torch.float64, seed=step)
        theirs.set_state(step, 4, torch.tensor(0))
        theirs.prepare_inputs({})
        expected = theirs.forward(cond, uncond).pred
        result = guide((rule,), Call(x, SIGMA, VE, scale, memory=memory), {"cond": cond, "uncond": uncond})
        differences("diffusers AdaptiveProjectedGuidance", difference := relative_rms(result, expected))
        assert difference < 1e-12


@pytest.mark.parametrize("scale", [1.5, 7.5, 15.0])
def test_zero_star_is_that_of_diffusers_on_velocities(scale, differences):
    """Theirs adds 1e-8 to the squared norm and computes the factor in float32."""
    x, v_cond, v_uncond = tensors((3, 4, 6, 5), 3, torch.float64)
    theirs = ClassifierFreeZeroStarGuidance(guidance_scale=scale, zero_init_steps=0)
    theirs.set_state(1, 10, torch.tensor(0))
    expected = x - SIGMA * theirs.forward(v_cond, v_uncond).pred
    predictions = {"cond": x - SIGMA * v_cond, "uncond": x - SIGMA * v_uncond}
    result = guide((made("CFGZeroStar"),), Call(x, SIGMA, FLOW, scale), predictions)
    differences("diffusers ClassifierFreeZeroStarGuidance", difference := relative_rms(result, expected))
    assert difference < 1e-6


def test_thresholding_is_that_of_diffusers_where_its_quantile_is_one_of_the_values(differences):
    """Of 1001 values the 0.995-quantile is the 996th; between two values theirs interpolates."""
    x, cond = tensors((3, 7, 11, 13), 2)
    theirs = DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=0.995, sample_max_value=100.0)
    rule = made("Threshold", percentile=0.995, limit=1.0)
    result = guide((rule,), Call(x, SIGMA, VE, 3.0), {"cond": cond, "uncond": torch.zeros_like(cond)})
    differences("diffusers thresholding", difference := relative_rms(result, theirs._threshold_sample(3.0 * cond)))
    assert difference < 1e-6


# Cost

COSTS = {
    "Interval": (1, 3),
    "Curve": (1, 3),
    "DrawnCurve": (1, 3),
    "Steps": (1, 3),
    "Component": (1, 3),
    "TCFG": (21, 29),
    "FDG": (15, 37),
    "MAMBOG": (10, 14),
    "SMC": (7, 19),
    "CFGNorm": (8, 7),
    "Momentum": (6, 17),
    "APG": (17, 20),
    "CFGZeroStar": (11, 20),
    "PerpNeg": (11, 23),
    "Dual": (2, 6),
    "AnotherPrompt": (3, 9),
    "Rescale": (10, 16),
    "Threshold": (9, 10),
}


@pytest.mark.parametrize("name", [None, *RULES])
def test_a_rule_costs_at_most_its_kernels_and_latents_and_never_waits(name):
    """With the combination itself; all launches are counted, those on single numbers too."""
    shape = (1, 4, 16, 16)
    chain = (made(name),) if name else ()
    kernels, latents = COSTS[name] if name else (1, 3)
    with Device(shape) as device:
        x, cond, uncond, *others = (device.put(value) for value in tensors(shape, 3 + len(extra_names(chain))))
        predictions = {"cond": cond, "uncond": uncond, **dict(zip(extra_names(chain), others, strict=True))}
        call = Call(x, SIGMA, VE, 7.5)
        guide(chain, call, predictions)  # from the second step on there is a memory
        device.begin()
        guide(chain, call, predictions)
        counts = device.end()
    assert counts.kernels_all <= kernels, counts.names
    assert counts.moved <= latents, counts.names
    assert (counts.syncs, counts.uploads) == (0, 0)
