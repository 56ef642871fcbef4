"""Rules of guidance for today's models: theorems about each, and independent references."""

import pytest
import torch
from diffusers.guiders import (
    FrequencyDecoupledGuidance,
    MagnitudeAwareGuidance,
    TangentialClassifierFreeGuidance,
)
from exact import mixture, relative_rms
from guidance_rules import LATENTS, PATHS, SIGMA, made, split, tensors
from stepwise.samplers import FLOW, VE, run, start
from stepwise.samplers.guidance import Call, cfg, guide, informed, needs, scale_at
from stepwise.samplers.guidance.expressions import Leaf, guided, mix
from stepwise.samplers.guidance.frequencies import coarse
from stepwise.samplers.guidance.informed import asks, told
from stepwise.samplers.parameters import InputError
from stepwise.samplers.registry import SOLVERS

PARTS, SHAPES = (240, 60), ((4, 3, 5, 4), (4, 15))


def plans(name, *args, **params):
    return next(solver for solver in SOLVERS if solver.id == name).plan(*args, **params)


# Tangential damping


@LATENTS
def test_tangential_damping_leaves_of_the_score_its_part_along_the_first_singular_vector(shape, components):
    """Against the decomposition itself, in float64."""
    x, cond, uncond = tensors(shape, 3, torch.float64)
    predictions = {"cond": cond, "uncond": uncond}
    result = guide((made("TCFG"),), Call(x, SIGMA, VE, 7.5, components), predictions)
    for part, x_part, c_part, u_part in split(components, result, x, cond, uncond):
        u, c = (x_part - u_part).flatten(1), (x_part - c_part).flatten(1)
        first = torch.linalg.svd(torch.stack([u, c], dim=1), full_matrices=False).Vh[:, 0]
        damped = (u * first).sum(1, keepdim=True) * first
        expected = x_part.flatten(1) - damped - 7.5 * (c - damped)
        assert relative_rms(part.flatten(1), expected) < 1e-13


def test_tangential_damping_is_that_of_diffusers_on_velocities(differences):
    x, v_cond, v_uncond = tensors((3, 4, 6, 5), 3)
    theirs = TangentialClassifierFreeGuidance(guidance_scale=7.5)
    theirs.set_state(1, 10, torch.tensor(0))
    expected = x - SIGMA * theirs.forward(v_cond, v_uncond).pred
    predictions = {"cond": x - SIGMA * v_cond, "uncond": x - SIGMA * v_uncond}
    result = guide((made("TCFG"),), Call(x, SIGMA, FLOW, 7.5), predictions)
    differences("diffusers TangentialClassifierFreeGuidance", difference := relative_rms(result, expected))
    assert difference < 1e-5


def test_tangential_damping_keeps_nothing_of_a_score_at_right_angles_to_a_longer_one():
    x = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    cond, uncond = torch.tensor([[[[-3.0, 0.0]]]]).double(), torch.tensor([[[[0.0, -1.0]]]]).double()
    result = guide((made("TCFG"),), Call(x, SIGMA, VE, 2.0), {"cond": cond, "uncond": uncond})
    assert result.flatten().tolist() == [-6.0, 0.0]


# MAMBO-G


@pytest.mark.parametrize("scale", [1.5, 7.5, 15.0])
@pytest.mark.parametrize("alpha", [0.5, 8.0])
def test_mambo_g_is_that_of_diffusers_on_velocities(scale, alpha, differences):
    """On a row of tokens: theirs takes no norm over more than two axes."""
    x, v_cond, v_uncond = tensors((3, 30, 4), 3, torch.float64)
    v_cond = 0.9 * v_uncond + 0.1 * v_cond
    theirs = MagnitudeAwareGuidance(guidance_scale=scale, alpha=alpha)
    theirs.set_state(1, 10, torch.tensor(0))
    expected = x - SIGMA * theirs.forward(v_cond, v_uncond).pred
    predictions = {"cond": x - SIGMA * v_cond, "uncond": x - SIGMA * v_uncond}
    result = guide((made("MAMBOG", alpha=alpha),), Call(x, SIGMA, FLOW, scale), predictions)
    differences("diffusers MagnitudeAwareGuidance", difference := relative_rms(result, expected))
    assert difference < 1e-13


@LATENTS
def test_mambo_g_does_not_guide_where_the_difference_is_all(shape, components):
    """exp(-100) is nothing: what is left is the conditional prediction."""
    x, cond, uncond = tensors(shape, 3, torch.float64)
    uncond = x - 1e-3 * (x - uncond)
    predictions = {"cond": cond, "uncond": uncond}
    result = guide((made("MAMBOG"),), Call(x, SIGMA, FLOW, 15.0, components), predictions)
    assert relative_rms(result, cond) < 1e-13


# Frequencies


@pytest.mark.parametrize("size", [(8, 16), (16, 8), (16, 16)])
@pytest.mark.parametrize("low", [0.1, 0.44, 2.0])
def test_frequencies_are_those_of_diffusers_where_sides_are_powers_of_two(size, low, differences):
    """Theirs makes other sides powers of two first, and hands back the larger picture."""
    x, cond, uncond = tensors((2, 4, *size), 3, torch.float64)
    theirs = FrequencyDecoupledGuidance(guidance_scales=[8.0, 1.0 + 7.0 * low])
    theirs.set_state(1, 10, torch.tensor(0))
    expected = theirs.forward(cond, uncond).pred
    result = guide((made("FDG", low=low),), Call(x, SIGMA, VE, 8.0), {"cond": cond, "uncond": uncond})
    differences("diffusers FrequencyDecoupledGuidance", difference := relative_rms(result, expected))
    assert difference < 1e-12


@pytest.mark.parametrize("size", [(8, 8), (5, 6), (7, 3), (2, 1), (1, 9), (1, 1)])
def test_a_flat_image_is_all_coarse_and_a_chessboard_all_fine(size):
    flat = torch.full((1, 3, *size), 2.5, dtype=torch.float64)
    assert (coarse(flat) - flat).abs().max() < 1e-14
    if min(size) < 3:
        return
    board = torch.tensor([[1.0 - 2.0 * ((i + j) % 2) for j in range(size[1])] for i in range(size[0])]).double()
    assert coarse(board.expand(1, 3, *size)).abs().max() < 1e-14


@pytest.mark.parametrize("size", [(5, 6), (6, 5), (7, 4), (9, 2)])
def test_frequencies_know_no_difference_between_the_axes(size):
    """Also where one side is odd and the other even."""
    (image,) = tensors((2, 3, *size), 1, torch.float64)
    across = coarse(image.transpose(-1, -2)).transpose(-1, -2)
    torch.testing.assert_close(coarse(image), across, rtol=0.0, atol=1e-14)


def test_frequencies_of_a_video_are_those_of_its_frames_and_of_a_row_those_of_a_picture_one_high():
    x, cond, uncond = tensors((2, 4, 3, 6, 5), 3)
    rule = (made("FDG"),)
    video = guide(rule, Call(x, SIGMA, VE, 8.0), {"cond": cond, "uncond": uncond})
    for frame in range(3):
        given = {"cond": cond[:, :, frame], "uncond": uncond[:, :, frame]}
        assert torch.equal(video[:, :, frame], guide(rule, Call(x[:, :, frame], SIGMA, VE, 8.0), given))
    row = guide(rule, Call(x[:, :, 0, 0], SIGMA, VE, 8.0), {"cond": cond[:, :, 0, 0], "uncond": uncond[:, :, 0, 0]})
    given = {"cond": cond[:, :, 0, :1], "uncond": uncond[:, :, 0, :1]}
    assert torch.equal(row, guide(rule, Call(x[:, :, 0, :1], SIGMA, VE, 8.0), given)[:, :, 0])


# CFG Norm


@pytest.mark.parametrize("shape", [(3, 4, 6, 5), (3, 4, 2, 6, 5)])
def test_a_norm_gives_each_place_its_length_and_leaves_its_direction(shape):
    x, cond, uncond = tensors(shape, 3, torch.float64)
    call, predictions = Call(x, SIGMA, FLOW, 7.5), {"cond": cond, "uncond": uncond}
    plain = cfg(cond, uncond, cfg=7.5)
    for space, origin in (("denoised", torch.zeros_like(x)), ("noise", x)):
        y = guide((made("CFGNorm", space=space),), call, predictions) - origin
        length, wanted, before = (value.norm(dim=1) for value in (y, cond - origin, plain - origin))
        expected = wanted if space == "noise" else torch.minimum(wanted, before)
        torch.testing.assert_close(length, expected)
        torch.testing.assert_close((y * (plain - origin)).sum(1), length * before)


def test_half_way_between_plain_and_normed_is_strength_one_half():
    x, cond, uncond = tensors((3, 4, 4, 4), 3, torch.float64)
    for space in ("denoised", "noise"):
        zero, half, one = (
            guide(
                (made("CFGNorm", strength=s, space=space),), Call(x, SIGMA, VE, 12.0), {"cond": cond, "uncond": uncond}
            )
            for s in (0.0, 0.5, 1.0)
        )
        assert relative_rms(half, (zero + one) / 2.0) < 1e-13


# Packed latents


@pytest.mark.parametrize("name", ["CFGNorm", "FDG"])
def test_components_whose_shape_is_known_are_guided_in_it(name):
    """As the latents that they are, and not as rows of numbers."""
    x, cond, uncond = tensors((2, 1, 300), 3)
    rule = (made(name),)
    packed = guide(rule, Call(x, SIGMA, VE, 7.5, PARTS, shapes=SHAPES), {"cond": cond, "uncond": uncond})
    rows = guide(rule, Call(x, SIGMA, VE, 7.5, PARTS), {"cond": cond, "uncond": uncond})
    assert not torch.equal(packed, rows)
    for (part, *given), shape in zip(split(PARTS, packed, x, cond, uncond), SHAPES, strict=True):
        x_part, c_part, u_part = (value.reshape(2, *shape) for value in given)
        alone = guide(rule, Call(x_part, SIGMA, VE, 7.5), {"cond": c_part, "uncond": u_part})
        assert torch.equal(part.reshape(2, *shape), alone)


def test_equal_scales_of_components_are_plain_guidance():
    x, cond, uncond = tensors((2, 1, 300), 3)
    rule = made("Component", first_scale=4.0, others_scale=4.0)
    for components in ((), PARTS):
        result = guide((rule,), Call(x, SIGMA, VE, 7.5, components), {"cond": cond, "uncond": uncond})
        assert torch.equal(result, cfg(cond, uncond, cfg=4.0))


@pytest.mark.parametrize("shapes", [(), SHAPES])
def test_each_component_is_guided_with_its_scale_as_a_latent_of_its_own(shapes):
    """With other rules in the chain, over steps with memory; bit for bit."""
    chain = (
        made("Component", first_scale=3.0, others_scale=9.0),
        made("APG", momentum=-0.5),
        made("Rescale"),
        made("CFGNorm"),
        made("Momentum"),
    )
    memory, alone = {}, [{}, {}]
    for step in range(3):
        x, cond, uncond = tensors((2, 1, 300), 3, seed=step)
        predictions = {"cond": cond, "uncond": uncond}
        whole = guide(chain, Call(x, SIGMA, VE, 1.0, PARTS, memory=memory, shapes=shapes), predictions)
        for i, part in enumerate(split(PARTS, whole, x, cond, uncond)):
            result, *given = (value.reshape(2, *shapes[i]) if shapes else value for value in part)
            x_part, c_part, u_part = given
            call = Call(x_part, SIGMA, VE, (3.0, 9.0)[i], memory=alone[i])
            assert torch.equal(result, guide(chain[1:], call, {"cond": c_part, "uncond": u_part}))


def test_what_no_component_needs_is_not_evaluated():
    interval = made("Interval", sigma_low=1.0, sigma_high=2.0)
    for first, others, expected in ((1.0, 1.0, {"cond"}), (0.0, 0.0, {"uncond"}), (1.0, 3.0, {"cond", "uncond"})):
        rule = made("Component", first_scale=first, others_scale=others)
        assert needs((rule,), 7.5, SIGMA, VE) == expected
        assert needs((rule, interval), 7.5, SIGMA, VE) == {"cond"}
        assert needs(informed((rule,), component=0), 7.5, SIGMA, VE) <= expected


def test_a_factor_cannot_have_a_scale_for_each_component():
    with pytest.raises(InputError, match="rule holds a scale for each component"):
        mix(Leaf("a"), Leaf("b"), rules=(made("Component"),))


# Steps


@pytest.mark.parametrize(("steps", "expected"), [(6, "a a 7 b b b"), (5, "a a b b b"), (4, "a b b b"), (2, "b b")])
def test_steps_have_the_scale_of_their_place_in_the_run(steps, expected):
    rule = made("Steps", first_steps=2, first_scale=2.0, last_steps=3, last_scale=3.0)
    found = [scale_at(informed((rule,), step=i, steps=steps), 7.0, SIGMA, VE) for i in range(steps)]
    assert found == [{"a": 2.0, "b": 3.0, "7": 7.0}[each] for each in expected.split()]
    assert scale_at((rule,), 7.0, SIGMA, VE) == 7.0


def test_an_expression_is_told_its_step_wherever_a_rule_asks_for_it():
    """What is used twice is still one, and leaves are the same."""
    rules = (made("Steps", last_steps=1, last_scale=1.0),)
    a, b = Leaf("a"), Leaf("b")
    inner = guided(a, b, scale=7.0, rules=rules)
    whole = mix(inner, mix(inner, b, amount=0.5, rules=rules), amount=0.25)
    assert asks(whole)
    assert not asks(guided(a, b))
    found = told(whole, step=4, steps=5)
    assert not asks(found)
    assert found.a is found.b.a
    assert (found.a.positive, found.a.negative) == (a, b)
    assert scale_at(found.a.rules, 7.0, SIGMA, VE) == 1.0
    assert found.b.amount.at(SIGMA, VE) == 1.0
    assert told(whole, step=3, steps=5).b.amount.at(SIGMA, VE) == 0.5


# Memory


def over_steps(rule, values, scale=1.0, path=FLOW, sigma=0.5):
    """The velocities that a rule makes of these, step for step; the unconditional one is 0."""
    memory, made_of = {}, []
    for value in values:
        for advances in (True, False):
            x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
            cond = torch.full_like(x, -sigma * value)
            call = Call(x, sigma, path, scale, advances=advances, memory=memory)
            made_of.append(-guide((rule,), call, {"cond": cond, "uncond": x}).item() / sigma)
    assert made_of[::2] == made_of[1::2]
    return made_of[::2]


@PATHS
def test_momentum_forgets_geometrically_and_advances_once_a_step(path):
    """Of velocities 1, 0, 0, .. the mean is 1, then beta, beta^2, ..; what does not change is not moved."""
    rule = made("Momentum", alpha=0.5, beta=0.8)
    found = over_steps(rule, [1.0, 0.0, 0.0, 0.0, 0.0], path=path)
    assert found == pytest.approx([1.0, *(-0.5 * 0.8**i for i in range(4))])
    assert over_steps(rule, [3.0] * 4, path=path) == pytest.approx([3.0] * 4)


@PATHS
def test_momentum_of_one_step_makes_euler_the_method_of_adams_and_bashforth(path):
    """On steps of equal length, from the second on: LMS of order 2."""
    data, sigmas = mixture(4, 6), [0.9 - 0.1 * i for i in range(9)]
    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    chain, memory, steps = (made("Momentum", alpha=0.5, beta=0.0),), {}, iter(range(99))

    def moved(x, sigma):
        next(steps)
        return guide(chain, Call(x, sigma, path, memory=memory), {"cond": data.denoised(path, x, sigma)})

    def plain(x, sigma):
        return data.denoised(path, x, sigma)

    euler = run(plans("Euler", path, sigmas), moved, start(x)).x
    lms = run(plans("LMS", path, sigmas, order=2), plain, start(x)).x
    assert relative_rms(euler, lms) < 1e-12
    assert relative_rms(run(plans("Euler", path, sigmas), plain, start(x)).x, lms) > 1e-4


@PATHS
def test_sliding_mode_makes_of_a_difference_what_it_does_by_hand(path):
    """K = 0.2, lambda = 5: s = 5; 0.5 - 0.8 + 4 = 3.7; -5 - 0.3 + 1.5 = -3.8; and -1 + 4.8 - 24 = -20.2."""
    rule = made("SMC", form="published")
    found = over_steps(rule, [1.0, 0.5, -5.0, -1.0], scale=3.0, path=path)
    assert found == pytest.approx([3.0 * e for e in (0.8, 0.3, -4.8, -0.8)])
    conditional = over_steps(made("SMC"), [1.0, 0.5, -5.0, -1.0], scale=3.0, path=path)
    assert conditional == pytest.approx([1.0 + 1.6, 0.5 + 0.6, -5.0 - 9.6, -1.0 - 1.6])


def test_sliding_mode_does_nothing_on_its_surface():
    """Where guidance is 1 - lambda times what it was made in the step before."""
    rule = made("SMC", gain=0.25, decay=0.5, form="published")
    assert over_steps(rule, [1.0, 0.5 * 0.75, 0.5 * 0.375], scale=2.0) == [2.0 * 0.75, 2.0 * 0.375, 2.0 * 0.1875]
