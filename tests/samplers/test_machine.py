"""The machine: one linear combination, one loop, addressed noise."""

import random
from dataclasses import replace

import pytest
import torch
from cases import CASES, FLOW, VE, each_case, flow_line, solver
from exact import mixture, relative_rms
from follow import FIRST_DRAW, draws_of, follow_gaussian
from kernels import Kernels
from stepwise.samplers import AddressedNoise, Noise, Plan, PlanError, Stage, State, advance, row, run, start
from stepwise.samplers.linear_combination import combine
from stepwise.samplers.schedules import karras

SIGMAS = {VE: karras(7), FLOW: flow_line(7, 3.0)}
SHAPE = (4, 5, 7)


def smooth(x, sigma):
    """Elementwise, nonlinear, and of correctly rounded operations only, so that it is independent of the batch."""
    return x / (x * x + (1.0 + sigma * sigma))


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# combine


def random_terms(kind: str, count: int, rng: random.Random):
    """Operands in float64 and values: affine (sum 1), difference (sum 0), plain (any), with a 1.0 among them, or
    cancelling: affine, and the first two leave next to nothing or nothing."""
    values = [rng.uniform(-2.0, 2.0) for _ in range(count)]
    if kind == "cancelling":
        values[:2] = [values[0], -values[0] * (1.0 - rng.choice([0.0, 1.0]) * 10.0 ** rng.uniform(-12.0, -2.0))]
        values[-1] = 1.0 - sum(values[:-1])
    elif kind == "affine":
        values[-1] = 1.0 - sum(values[:-1])
    elif kind == "difference":
        values[-1] = -sum(values[:-1])
    elif kind == "unit":
        values[rng.randrange(count)] = 1.0
    return [(draw(3, 50, seed=rng.randrange(10**6), dtype=torch.float64), value) for value in values]


LEAST = {"affine": 1, "difference": 2, "unit": 1, "plain": 1, "cancelling": 3}


@pytest.mark.parametrize("kind", LEAST)
@pytest.mark.parametrize("noises", [0, 1, 2])
def test_combine_is_the_sum(kind, noises):
    """Against value times tensor, summed in float64, to 1000 eps of the parts' size: what a chain may lose to partial
    sums that nearly cancel, of which it refuses smaller ones than 1e-3."""
    rng = random.Random(f"{kind}{noises}")
    for _ in range(60):
        terms = random_terms(kind, rng.randint(LEAST[kind], 6), rng)
        terms += random_terms("plain", noises, rng)
        expected = torch.stack([tensor * value for tensor, value in terms]).sum(0)
        size = torch.stack([(tensor * value).abs() for tensor, value in terms]).sum(0)
        result = combine(terms, affine=len(terms) - noises)
        assert ((result - expected).abs() <= 1e3 * torch.finfo(torch.float64).eps * size).all()
        single = combine([(tensor.float(), value) for tensor, value in terms], affine=len(terms) - noises)
        assert single.dtype == torch.float32
        assert ((single - expected).abs() <= 1e3 * torch.finfo(torch.float32).eps * size).all()


def test_an_affine_combination_of_equal_operands_is_exact():
    """A lerp of a and a is a: where states and predictions agree, float32 loses nothing, however large the values."""
    a = draw(1000)
    for values in ([0.25, 0.75], [0.3, 0.4, 0.3], [1.9, -0.6, -0.3]):
        assert torch.equal(combine([(a, value) for value in values]), a)


@pytest.mark.parametrize("kind", LEAST)
def test_combine_never_writes_to_its_operands(kind):
    """Neither values nor version counters change, and the result is nobody's memory, unless it is the operand."""
    rng = random.Random(kind)
    for _ in range(60):
        noises = rng.randint(0, 2)
        terms = random_terms(kind, rng.randint(LEAST[kind], 5), rng)
        terms += random_terms("plain", noises, rng)
        before = [(tensor.clone(), tensor._version) for tensor, _ in terms]
        result = combine(terms, affine=len(terms) - noises)
        assert all(torch.equal(tensor, old) for (tensor, _), (old, _) in zip(terms, before, strict=True))
        assert all(tensor._version == version for (tensor, _), (_, version) in zip(terms, before, strict=True))
        alias = any(result.data_ptr() == tensor.data_ptr() for tensor, _ in terms)
        assert alias == (len(terms) == 1 and terms[0][1] == 1.0)


@pytest.mark.parametrize("affine", [0, 1])
def test_a_lone_term_of_value_one_is_passed_on_uncopied(affine):
    x = draw(10)
    with Kernels() as kernels:
        assert combine([(x, 1.0)], affine).data_ptr() == x.data_ptr()
    assert kernels.names == []


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_sum_starts_from_a_term_of_value_one(place):
    """Wherever it stands: n - 1 kernels for n operands, whose other values do not sum to 0."""
    values = [0.5, 0.5, 0.5]
    values[place] = 1.0
    terms = [(draw(10, seed=i), value) for i, value in enumerate(values)]
    with Kernels() as kernels:
        combine(terms)
    assert kernels.names == ["add", "add_"]


# Cost


def kernels_of_each_stage(plan, shape=(1, 4, 8, 8)):
    """The kernels of every stage of a run beside the model, which here hands out a tensor that is there already."""
    prediction, state, found = draw(*shape, seed=1), start(draw(*shape)), []
    noise = AddressedNoise([0])
    for _ in plan.stages:
        with Kernels() as kernels:
            state = advance(plan, lambda x, sigma: prediction, state, noise)
        found.append(kernels.names)
    return found


@pytest.mark.parametrize(
    ("entry", "path", "params", "expected"),
    [
        ("Euler", VE, {}, ["lerp"]),
        ("Euler", FLOW, {}, ["lerp"]),
        ("DDIM", VE, {"eta": 0.0}, ["lerp"]),
        ("DPMpp2M", VE, {}, ["lerp", "lerp_"]),
        ("DPMpp2M", FLOW, {}, ["lerp", "lerp_"]),
        ("DPMSolver", VE, {"order": "2"}, ["lerp", "lerp", "lerp_"]),
        ("LCM", VE, {}, ["normal_", "add"]),
        ("LCM", FLOW, {}, ["mul", "normal_", "add_"]),
        ("DDPM", VE, {}, ["lerp", "normal_", "add_"]),
        ("DDPM", FLOW, {}, ["mul", "add_", "normal_", "add_"]),
    ],
)
def test_kernels_of_a_step(entry, path, params, expected):
    """The fewest that PyTorch can do it with: n - 1 for n operands that are averaged, one for each noise and its draw.

    The third step is looked at: no step is cheaper for being first or last.
    """
    plan = solver(entry)(path, SIGMAS[path], **params)
    found = kernels_of_each_stage(plan)
    third_step = [name for stage, names in zip(plan.stages, found, strict=True) if stage.step == 2 for name in names]
    assert third_step == expected


@each_case()
def test_kernels_are_bounded_by_the_operands(case):
    """No row takes more passes over memory than it has operands, besides the draws, and one less where it averages; the
    step to 0 takes none, but to add noise first where the solver does."""
    plan = case.plan(SIGMAS[case.path])
    for stage, names in zip(plan.stages, kernels_of_each_stage(plan), strict=True):
        rows = [*stage.opening, *stage.rows]
        averages = sum(not r.draws or case.path is VE for r in rows if r.weight == 1.0)
        draws = len({operand for r in rows for operand in r.draws})
        assert len(names) <= sum(len(r.terms) for r in rows) - averages + draws, names
    if case.setting.calls_to_zero == 1 and not stage.opening:
        assert names == []


# The loop


@each_case()
def test_the_machine_does_what_the_plan_says(case):
    """A run equals its plan followed on paper: the same coefficients, times the starting noise and the draws.

    The model is affine: the exact denoiser of Gaussian data.
    """
    plan, mean, variance, noise = case.plan(SIGMAS[case.path]), 0.7, 0.4, AddressedNoise([3])
    e, alpha, s = draw(1, 50, dtype=torch.float64), case.path.alpha(plan.sigmas[0]), plan.sigmas[0]
    scale = (alpha * alpha * variance + s * s) ** 0.5

    def denoiser(x, sigma):
        a = case.path.alpha(sigma)
        return mean + a * variance / (a * a * variance + sigma * sigma) * (x - a * mean)

    end = follow_gaussian(plan, mean, variance).end
    parts = [torch.ones_like(e), e, *(noise(address, e) for address in draws_of(plan))]
    assert len(parts) == FIRST_DRAW + len(draws_of(plan))
    expected = sum(value * part for value, part in zip(end.tolist(), parts, strict=True))
    made = run(plan, denoiser, start(alpha * mean + scale * e), noise).x
    assert relative_rms(made, expected) < 1e-13


@each_case()
def test_a_run_cut_anywhere_and_resumed_is_equal_bit_for_bit(case):
    """The state between two calls, copied into other memory, is all there is of a run."""
    plan, x = case.plan(SIGMAS[case.path]), draw(2, *SHAPE)
    whole = run(plan, smooth, start(x), AddressedNoise([5, 6]))
    for cut in range(len(plan.stages) + 1):
        half = run(plan, smooth, start(x.clone()), AddressedNoise([5, 6]), stop=cut)
        assert half.index == cut
        copied = State({name: tensor.clone() for name, tensor in dict(half.registers).items()}, half.index)
        rest = run(case.plan(SIGMAS[case.path]), smooth, copied, AddressedNoise([5, 6]))
        assert rest.index == len(plan.stages)
        assert torch.equal(rest.x, whole.x), f"cut at {cut}"


@each_case()
def test_a_state_that_somebody_holds_never_changes(case):
    """Registers are not written to by later steps; `watch` sees one state per model call; x given is left alone."""
    plan, x, held = case.plan(SIGMAS[case.path]), draw(2, *SHAPE), []
    given = x.clone()

    def watch(state):
        held.append((state, {name: tensor.clone() for name, tensor in state.registers.items()}, state.denoised.clone()))

    run(plan, smooth, start(x), AddressedNoise([5, 6]), watch=watch)
    assert torch.equal(x, given)
    assert [state.index for state, _, _ in held] == list(range(1, len(plan.stages) + 1))
    for state, registers, denoised in held:
        assert torch.equal(state.denoised, denoised)
        assert set(state.registers) == set(registers)
        assert all(torch.equal(state.registers[name], tensor) for name, tensor in registers.items())


@each_case()
def test_the_model_sees_the_sigmas_of_the_plan(case):
    """As Python floats, one call per stage: nothing is read back from a device."""
    plan, seen = case.plan(SIGMAS[case.path]), []

    def denoiser(x, sigma):
        seen.append(sigma)
        return smooth(x, sigma)

    run(plan, denoiser, start(draw(1, *SHAPE)), AddressedNoise([0]))
    assert seen == [stage.sigma for stage in plan.stages]
    assert all(type(sigma) is float for sigma in seen)


@each_case(lambda case: case.setting.order is None)
def test_an_image_is_independent_of_its_batch(case):
    """Alone, in a batch of 8, in another order: bit for bit the same, on a denoiser that acts elementwise.

    The images have 140 elements each, no multiple of a vector register, so that tails are covered.
    """
    plan, x, seeds = case.plan(SIGMAS[case.path]), draw(8, *SHAPE), [11, 7, 2**64 - 1, 0, 5, 12, 13, 10**18]
    together = run(plan, smooth, start(x), AddressedNoise(seeds)).x
    order = [3, 1, 4, 7, 5, 0, 2, 6]
    shuffled = run(plan, smooth, start(x[order]), AddressedNoise([seeds[i] for i in order])).x
    assert torch.equal(shuffled, together[order])
    for i, seed in enumerate(seeds):
        alone = run(plan, smooth, start(x[i : i + 1].clone()), AddressedNoise([seed])).x
        assert torch.equal(alone, together[i : i + 1]), f"image {i}"


@each_case()
def test_float32_loses_little(case):
    """A float32 run differs from float64 by less than 5e-8 a model call, relative, for equal noise, in the median over
    images: less than one unit roundoff of float32 (6e-8) a call, 1e-6 over 20 steps of one call. Where a step's
    coefficients are not all positive, what their sum without signs is above 1 counts as so many calls more. An image
    that passes just between two modes of the data grows any difference there, whatever the method."""
    data, sigmas = mixture(), karras(20) if case.path is VE else flow_line(20, 3.0)
    plan, noise = case.plan(sigmas), AddressedNoise(range(32))
    x = data.sample(case.path, sigmas[0], 32).float()
    double = run(plan, data.denoiser(case.path), start(x.double()), noise).x
    single = run(plan, data.denoiser(case.path), start(x), noise).x
    assert single.dtype == torch.float32
    sums = [
        [sum(abs(c) for each, c in r.terms if each in r.reads) for r in stage.rows if r.target == "x"]
        for stage in plan.stages
    ]
    error = ((single - double).norm(dim=1) / double.norm(dim=1)).median()
    assert 0.0 < error < 5e-8 * sum(max(1.0, *each) for each in sums)


# Noise


def test_without_a_source_of_noise_a_noisy_plan_stops_and_says_so():
    plan = solver("DDIM")(VE, (2.0, 1.0, 0.0), eta=1.0)
    with pytest.raises(PlanError, match=r"draws noise \(step\[2 to 1\]\): give run\(\) a noise source"):
        run(plan, smooth, start(draw(1, 4)))


@each_case(lambda case: case.setting.order is not None)
def test_a_deterministic_run_needs_no_source_of_noise(case):
    run(case.plan(SIGMAS[case.path]), smooth, start(draw(1, 4)))


ADDRESS = Noise("step", 2.0, 1.0)
OTHERS = [
    Noise("churn", 2.0, 1.0),
    Noise("step", 2.0, 1.0, 1),
    Noise("step", 2.0, 0.5),
    Noise("step", 3.0, 1.0),
    Noise("step", 1.0, 2.0),
    Noise("step", 2.0 + 1e-15, 1.0),
]


@pytest.mark.parametrize(("clip", "bound"), [(1.5, 1.5), (0.0, 4.0)])
def test_lcms_clip_bounds_what_it_adds(clip, bound):
    """x_t = alpha_t denoised + t noise, from a source whose values are all at four standard deviations."""
    plan = solver("LCM")(FLOW, (0.9, 0.5, 0.0), noise_clip_std=clip)
    state = advance(plan, lambda x, sigma: 0.2 * x, start(draw(1, 4)), lambda address, like: torch.full_like(like, 4.0))
    torch.testing.assert_close(state.x, 0.5 * state.denoised + 0.5 * bound)


def test_noise_is_a_function_of_its_address():
    """Not of what was drawn before, of the other images, or of the global generator."""
    like, seeds = torch.empty(3, *SHAPE), [4, 5, 6]
    first = {address: AddressedNoise(seeds)(address, like) for address in (ADDRESS, *OTHERS)}
    source = AddressedNoise(seeds)
    torch.manual_seed(123)
    for address in reversed(list(first)):
        assert torch.equal(source(address, like), first[address])
    assert torch.equal(AddressedNoise([6])(ADDRESS, like[:1]), first[ADDRESS][2:])
    assert torch.equal(AddressedNoise([6 + 2**64])(ADDRESS, like[:1]), first[ADDRESS][2:])


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    AddressedNoise([1, 2])(ADDRESS, torch.empty(2, 100))
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_are_standard_normal_and_independent():
    """Mean, variance and correlation at 5 standard deviations of their estimates; addresses and seeds are fixed."""
    count = 1 << 16
    like = torch.empty(1, count)
    sources = [(AddressedNoise([seed]), ADDRESS) for seed in (0, 1, 2, 2**32, 2**63, 2**64 - 1)]
    sources += [(AddressedNoise([0]), address) for address in OTHERS]
    draws = torch.cat([source(address, like) for source, address in sources]).double()
    assert (draws.mean(1).abs() < 5.0 / count**0.5).all()
    assert ((draws.var(1) - 1.0).abs() < 5.0 * (2.0 / count) ** 0.5).all()
    assert ((draws**4).mean(1) - 3.0).abs().max() < 5.0 * (96.0 / count) ** 0.5
    correlation = torch.corrcoef(draws) - torch.eye(len(draws))
    assert correlation.abs().max() < 5.0 / count**0.5


def test_noise_follows_the_latent_it_is_for():
    """Shape and dtype are those of `like`, and `scale` is its standard deviation."""
    like = torch.empty(2, 3, 16, 16, dtype=torch.float64)
    noise = AddressedNoise([1, 2])(ADDRESS, like)
    assert (noise.shape, noise.dtype) == (like.shape, like.dtype)
    assert torch.equal(noise.float(), AddressedNoise([1, 2])(ADDRESS, like.float()))
    assert torch.allclose(AddressedNoise([1, 2], scale=3.0)(ADDRESS, like), 3.0 * noise, rtol=1e-6)


def test_as_many_seeds_as_images():
    with pytest.raises(ValueError, match="noise for 2 images was asked to fill a batch of 3"):
        AddressedNoise([1, 2])(ADDRESS, torch.empty(3, 4))


# The state


def test_a_plan_reads_older_registers_after_a_resume():
    """A register set in one stage, skipped by the next and read two stages later survives a cut in between."""
    stages = (
        Stage(3.0, (row("old", {"denoised": 1.0}), row("x", {"x": 0.5, "denoised": 0.5})), 0),
        Stage(2.0, (row("x", {"x": 0.5, "denoised": 0.5}),), 1),
        Stage(1.0, (row("x", {"old": 2.0, "denoised": -1.0}),), 2),
    )
    plan, x = Plan(VE, (3.0, 2.0, 1.0, 0.0), stages), draw(1, 6)
    whole = run(plan, smooth, start(x)).x
    for cut in range(4):
        assert torch.equal(run(plan, smooth, run(plan, smooth, start(x), stop=cut)).x, whole)
    first = smooth(x, 3.0)
    second = torch.lerp(x, first, 0.5)
    third = torch.lerp(second, smooth(second, 2.0), 0.5)
    assert torch.allclose(whole, 2.0 * first - smooth(third, 1.0), atol=1e-6)


def test_a_state_forks():
    """Two runs may go on from one state; neither sees the other."""
    case = next(case for case in CASES if case.setting.order is None and case.path is VE)
    plan = case.plan(SIGMAS[VE])
    half = run(plan, smooth, start(draw(1, *SHAPE)), AddressedNoise([1]), stop=3)
    one = run(plan, smooth, half, AddressedNoise([1])).x
    other = run(plan, smooth, replace(half), AddressedNoise([2])).x
    assert not torch.equal(one, other)
    assert torch.equal(run(plan, smooth, half, AddressedNoise([1])).x, one)
