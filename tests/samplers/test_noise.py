"""Noise: one Brownian path per image whatever the schedule, and an image that does not depend on its neighbours."""

import math
from itertools import pairwise

import pytest
import torch
from cases import CASES, FLOW, VE, each_case, solver
from exact import mixture, relative_rms
from stepwise.samplers import AddressedNoise, BrownianNoise, Noise, run, start, varied
from stepwise.samplers.noise import brownian
from stepwise.samplers.noise.brownian import POINTS, clock, draws_of, increment, point
from stepwise.samplers.schedules import karras
from stepwise.tools.measure.counting import HostMemory

KINDS = {"independent": lambda path, seeds, **more: AddressedNoise(seeds, **more), "brownian": BrownianNoise}
SIZE = 140  # no multiple of a vector register
LIKE = torch.empty(1, 4000, dtype=torch.float64)
DATA = mixture(4, 8, seed=1)


def driven(case):
    """Settings whose noise drives the run from level to level, and so is an increment of the path."""
    draws = [
        d for stage in case.plan(levels(case.path, 4)).stages for r in (*stage.opening, *stage.rows) for d in r.draws
    ]
    return bool(draws) and not any(draw.fresh for draw in draws)


def levels(path, steps, low=1.0, high=9.0):
    """Levels that are points of the path, nested when the steps double: log2(1 + 16 alpha / sigma) in equal parts."""
    rhos = [16.0 / (2.0 ** (low + (high - low) * i / steps) - 1.0) for i in range(steps + 1)]
    return tuple(rhos if path is VE else [rho / (1.0 + rho) for rho in rhos])


def started(count, size=SIZE, dtype=torch.float32):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(0), dtype=dtype)


# The path


def made_of(start_point, end_point):
    """W(end) - W(start) on paper: coefficients of independent standard normal draws."""
    found = {}
    for sign, place in ((1.0, end_point), (-1.0, start_point)):
        for draw, value in draws_of(place):
            found[draw] = found.get(draw, 0.0) + sign * value
    for cell in range(start_point // POINTS, end_point // POINTS):
        draw, value = increment(cell)
        found[draw] = found.get(draw, 0.0) + value
    return found


def covariance(a, b):
    return math.fsum(value * b[draw] for draw, value in a.items() if draw in b)


def test_the_path_is_brownian_motion_in_the_clock():
    """The covariance of two increments is the length of their overlap, so disjoint ones are independent."""
    places = [0, 1, 5, 64, 127, 128, 129, 190, 255, 256, 300, 500, 511, 515, 1023, 1024, 1100]
    spans = [(a, b) for a in places for b in places if a < b]
    for a, b in spans:
        for c, d in spans:
            overlap = max(0.0, clock(min(b, d)) - clock(max(a, c)))
            scale = math.sqrt((clock(b) - clock(a)) * (clock(d) - clock(c)))
            assert abs(covariance(made_of(a, b), made_of(c, d)) - overlap) < 1e-11 * scale


@pytest.mark.parametrize("path", [VE, FLOW])
def test_a_draw_is_the_normalised_increment_and_increments_add_up(path):
    """The draws of [a, b] and [b, c], each times the root of its length, sum to that of [a, c], to float32 rounding."""
    source, sigmas = BrownianNoise(path, [3]), levels(path, 7) + ((0.001,) if path is VE else (0.0009,))

    def moved(s, t):
        width = clock(point(path, t)) - clock(point(path, s))
        return math.sqrt(width) * source(Noise("step", s, t), LIKE)

    for i in range(len(sigmas)):
        for j in range(i + 1, len(sigmas)):
            for k in range(j + 1, len(sigmas)):
                a, b, c = sigmas[i], sigmas[j], sigmas[k]
                assert relative_rms(moved(a, b) + moved(b, c), moved(a, c)) < 1e-6


def test_draws_are_standard_normal_and_independent_over_disjoint_intervals():
    """Of 20 steps on 60000 numbers: mean within 5 / sqrt(n), variance and correlations within 5 sqrt(2 / n)."""
    n, sigmas = 60000, karras(20)[:-1]
    source = BrownianNoise(VE, [1])
    drawn = torch.stack([source(Noise("step", s, t), torch.empty(1, n))[0] for s, t in pairwise(sigmas)])
    assert drawn.mean(1).abs().max() < 5.0 / n**0.5
    assert (drawn @ drawn.T / n - torch.eye(len(drawn))).abs().max() < 5.0 * (2.0 / n) ** 0.5
    assert (drawn.square().square().mean(1) - 3.0).abs().max() < 5.0 * (96.0 / n) ** 0.5


def test_a_thousand_steps_get_as_many_independent_draws():
    """Levels that share a point of the path: the draw between them is one of its own, and of variance 1."""
    sigmas, source = karras(1000)[:-1], BrownianNoise(VE, [1])
    drawn = torch.cat([source(Noise("step", s, t), torch.empty(1, 500)) for s, t in pairwise(sigmas)])
    assert any(point(VE, s) == point(VE, t) for s, t in pairwise(sigmas))
    assert abs(drawn.var() - 1.0) < 5.0 * (2.0 / drawn.numel()) ** 0.5
    assert abs((drawn[1:] * drawn[:-1]).mean()) < 5.0 / drawn.numel() ** 0.5


def test_a_draw_does_not_depend_on_what_was_drawn_before():
    sigmas = levels(VE, 9)
    draws = [Noise("step", s, t) for s, t in pairwise(sigmas)] + [Noise("step", sigmas[0], sigmas[5])]
    source = BrownianNoise(VE, [4, 5])
    like = torch.empty(2, 3, 5)
    first = [source(draw, like) for draw in draws]
    for i in (3, 0, 9, 8, 3, 1):
        assert torch.equal(source(draws[i], like), first[i])
        assert torch.equal(BrownianNoise(VE, [4, 5])(draws[i], like), first[i])


@pytest.mark.parametrize(
    "draw",
    [
        Noise("churn", 1.0, 1.4, fresh=True),
        Noise("step", 2.0, 1.0, fresh=True),
        Noise("step", 2.0, 1.0, occurrence=1),
        Noise("step", 1.0, 0.0),
        Noise("step", 1.0, 1.0 - 1e-7),
    ],
    ids=str,
)
def test_what_is_no_increment_is_drawn_independently(draw):
    assert torch.equal(BrownianNoise(VE, [4])(draw, LIKE), AddressedNoise([4])(draw, LIKE))


def test_lcm_churn_and_restart_do_not_follow_the_path():
    """Their noise renews or re-enters: it must be new however often an interval is run."""
    apart = {case.solver.id for case in CASES if case.setting.noise and not driven(case)}
    assert apart == {"LCM", "Restart", "Euler", "Heun"}


# One path for every schedule


EXACT = [
    {"variance": "small"},
    {"eta": 1.0},
    {"solver_type": "midpoint"},
    {"solver_type": "heun"},
    {},
    {"weights": "published"},
]


def integrates_exactly(case):
    """Ancestral steps of the variance of DDPM. ER-SDE has another variance, on FLOW the ancestral rule of ComfyUI is
    another SDE, the inner levels of DPM++ SDE and RES Singlestep are no points of the path, and SA-Solver adds noise in
    those steps alone that end in its interval."""
    others = ["DPMppSDE", "RESSinglestep", "ERSDE", "SASolver"]
    if case.path is FLOW:
        others += ["EulerAncestral", "DPM2Ancestral", "DPMAdaptive", "DPMpp2S", "RESMultistep"]
    return driven(case) and case.setting.params in EXACT and case.solver.id not in others


@each_case(integrates_exactly)
def test_with_a_constant_prediction_any_number_of_steps_ends_at_the_same_point(case):
    """Then the SDE is linear, and what its noise adds up to is a function of the path: 4 steps, 32 and 1 make the same
    x, image by image, to float32 rounding of the draws."""
    ends = []
    for steps in (1, 4, 32):
        sigmas = levels(case.path, steps)
        x = sigmas[0] * started(2, dtype=torch.float64)
        ends.append(
            run(case.plan(sigmas), lambda x, s: torch.full_like(x, 0.3), start(x), BrownianNoise(case.path, [1, 2])).x
        )
    noise = (ends[0] - case.path.alpha(levels(case.path, 1)[-1]) * 0.3).square().mean().sqrt()
    for end in ends[1:]:
        assert (end - ends[0]).abs().max() < 1e-5 * noise


def starts_and_ends_within(case):
    """Whether noise is added in an interval whose ends, levels of the schedule, move with the number of steps."""
    return case.solver.id == "SASolver" and "sde_start" not in case.setting.params


@pytest.fixture
def fine_paths(monkeypatch):
    """Paths whose points lie closer than any two levels here, three of which are in one step of SEEDS-3."""
    monkeypatch.setattr(brownian, "DEPTH", 12)
    monkeypatch.setattr(brownian, "POINTS", 1 << 12)
    brownian.draws_of.cache_clear()
    yield
    brownian.draws_of.cache_clear()


@pytest.mark.usefixtures("fine_paths")
@each_case(lambda case: driven(case) and case.setting.converges and not starts_and_ends_within(case))
def test_doubled_steps_converge_to_one_picture(case):
    """Strong order 1 on a mixture: the distance between n and 2n steps halves each time, in the median over 32 samples,
    8 to an image, from 16 steps to 128, and falls by less than 3 (strong order 1.5 is the most that increments alone
    allow). With independent draws it stays where it is."""
    e = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def denoiser(x, sigma):
        return DATA.denoised(case.path, x.flatten(0, 1), sigma).reshape(x.shape)

    def distances(kind, numbers):
        ends = []
        for steps in numbers:
            sigmas = levels(case.path, steps)
            source = KINDS[kind](case.path, range(len(e)))
            ends.append(run(case.plan(sigmas), denoiser, start(sigmas[0] * e), source).x)
        return [(a - b).norm(dim=-1).median().item() for a, b in pairwise(ends)]

    brownian = distances("brownian", (16, 32, 64, 128))
    assert 0.8 < math.log2(brownian[0] / brownian[-1]) / 2.0 < math.log2(3.0)
    assert distances("independent", (64, 128))[0] > 20.0 * brownian[-1]


# Images, and parts of a run


def elementwise(x, sigma):
    """A denoiser independent of the batch: of correctly rounded operations only."""
    return x / (x * x + (1.0 + sigma * sigma))


def schedule(path):
    return (*levels(path, 5), 0.0)


@pytest.mark.parametrize("kind", KINDS)
@each_case(lambda case: case.setting.noise)
def test_an_image_alone_equals_the_image_in_a_batch_in_any_order(case, kind):
    plan, x, seeds = case.plan(schedule(case.path)), started(8), [11, 7, 2**64 - 1, 0, 5, 12, 13, 10**18]
    together = run(plan, elementwise, start(x), KINDS[kind](case.path, seeds)).x
    order = [3, 1, 4, 7, 5, 0, 2, 6]
    shuffled = run(plan, elementwise, start(x[order]), KINDS[kind](case.path, [seeds[i] for i in order])).x
    assert torch.equal(shuffled, together[order])
    for i, seed in enumerate(seeds):
        alone = run(plan, elementwise, start(x[i : i + 1].clone()), KINDS[kind](case.path, [seed])).x
        assert torch.equal(alone, together[i : i + 1]), f"image {i}"


@each_case(lambda case: case.setting.noise)
def test_a_run_cut_at_any_call_is_the_uncut_run_on_a_brownian_path(case):
    plan, x = case.plan(schedule(case.path)), started(2)
    whole = run(plan, elementwise, start(x), BrownianNoise(case.path, [5, 6])).x
    for cut in range(len(plan.stages) + 1):
        half = run(plan, elementwise, start(x), BrownianNoise(case.path, [5, 6]), stop=cut)
        assert torch.equal(run(plan, elementwise, half, BrownianNoise(case.path, [5, 6])).x, whole), f"cut at {cut}"


@pytest.mark.parametrize("kind", KINDS)
def test_components_have_streams_of_their_own_and_do_not_depend_on_the_packing(kind):
    """Video and audio in one row: the first draws what it draws alone, and its length does not change the other."""
    make, draw = KINDS[kind], Noise("step", 2.0, 1.0)
    packed = make(VE, [8, 9], components=(300, 1000))(draw, torch.empty(2, 1, 1300))
    assert torch.equal(packed[..., :300].flatten(1), make(VE, [8, 9])(draw, torch.empty(2, 300)))
    other = make(VE, [8, 9], components=(60, 1000))(draw, torch.empty(2, 1, 1060))
    assert torch.equal(packed[..., 300:], other[..., 60:])
    video, audio = packed[..., :300], packed[..., 300:600]
    assert abs((video * audio).mean()) < 5.0 / 600**0.5
    with pytest.raises(ValueError, match="not components of"):
        make(VE, [8], components=(300, 1000))(draw, torch.empty(1, 1, 1299))


@pytest.mark.parametrize("kind", KINDS)
def test_a_variation_turns_from_one_noise_to_the_other_at_unit_variance(kind):
    """Its correlations with the two are cos and sin of the angle; at 0 and 1 it is one of them, bit for bit."""
    first, second, draw = KINDS[kind](VE, [1]), KINDS[kind](VE, [2]), Noise("step", 2.0, 1.0)
    like = torch.empty(1, 40000)
    a, b = first(draw, like), second(draw, like)
    assert torch.equal(varied(first, second, 0.0)(draw, like), a)
    assert torch.equal(varied(first, second, 1.0)(draw, like), b)
    for strength in (0.1, 0.5, 0.8):
        mixed, tolerance = varied(first, second, strength)(draw, like), 5.0 * (2.0 / 40000) ** 0.5
        angle = strength * math.pi / 2.0
        assert abs(mixed.square().mean() - 1.0) < tolerance
        assert abs((mixed * a).mean() - math.cos(angle)) < tolerance
        assert abs((mixed * b).mean() - math.sin(angle)) < tolerance


def test_the_device_and_the_dtype_are_those_of_the_latent():
    like = torch.empty(1, 100, dtype=torch.bfloat16)
    noise = BrownianNoise(VE, [1], scale=3.0)(Noise("step", 2.0, 1.0), like)
    assert noise.dtype == torch.bfloat16
    plain = BrownianNoise(VE, [1])(Noise("step", 2.0, 1.0), like.float())
    assert torch.allclose(noise.float(), 3.0 * plain, rtol=2**-7)


# What it costs


@pytest.mark.parametrize(("kind", "most_drawn", "most_held"), [(AddressedNoise, 1.0, 1.0), (BrownianNoise, 8.0, 6.0)])
def test_the_cost_of_a_step_stays_below_its_ceiling(kind, most_drawn, most_held):
    """Latents drawn for a step, on the average of a run of 20, and latents alive at once, the result among them."""
    x, sigmas = torch.zeros(2, 4, 32, 32), karras(20)[:-1]
    source = AddressedNoise([1, 2]) if kind is AddressedNoise else BrownianNoise(VE, [1, 2])
    with HostMemory(x.numel()) as counted:
        for s, t in pairwise(sigmas):
            source(Noise("step", s, t), x)
    assert 1.0 <= counted.drawn / (len(sigmas) - 1) <= most_drawn
    assert 1.0 <= counted.peak <= most_held


@pytest.mark.parametrize(("low", "high", "most"), [(0.002, 0.5, 0.003), (0.5, 14.6147, 0.0055)])
def test_a_noise_level_is_rounded_no_further_than_the_page_says(low, high, most):
    levels_ = [low * (high / low) ** (i / 5000) for i in range(5001)]
    off = [abs(1.0 / math.sqrt(clock(point(VE, sigma))) / sigma - 1.0) for sigma in levels_]
    assert 0.0 < max(off) <= most


def test_noise_is_clipped_at_deviations_of_a_model_whose_noise_is_wider():
    """HiDream-O1's noise has the deviation 8: the clip at 2.5 of them is at 20, and the deviation that of a normal one
    cut at 2.5, .978 of 8."""
    plan = solver("LCM")(FLOW, (1.0, 0.5, 0.0), noise_clip_std=2.5)
    like = torch.zeros(1, 200_000)
    for noise in (
        AddressedNoise([1], scale=8.0),
        BrownianNoise(FLOW, [1], scale=8.0),
        varied(AddressedNoise([1], scale=8.0), AddressedNoise([2], scale=8.0), 0.3),
    ):
        drawn = run(plan, lambda x, sigma: torch.zeros_like(x), start(like), noise, stop=1).x / 0.5
        assert drawn.abs().max().item() == pytest.approx(20.0)
        clipped = torch.randn(200_000, generator=torch.Generator().manual_seed(0)).clamp(-2.5, 2.5)
        assert drawn.std().item() == pytest.approx(8.0 * clipped.std().item(), rel=0.01)
