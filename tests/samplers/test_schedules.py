"""Schedules: exactly as many steps as asked for, and the tables of diffusers."""

import math
import re
from fractions import Fraction
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from cases import SCHEDULES, TABLE, variants
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)
from scipy import stats as distributions
from stepwise.samplers import FLOW, VE
from stepwise.samplers.parameters import InputError
from stepwise.samplers.schedules import (
    align_your_steps,
    beta,
    curve,
    exponential,
    flow,
    flux_shift,
    karras,
    kl_optimal,
    laplace,
    lcm,
    lcm_timesteps,
    linear_quadratic,
    polyexponential,
    timestep,
    timesteps,
    trained_sigmas,
    vp,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ENDS = ("zero", "sigma_min", "drop_penultimate")
VARIANTS = [
    pytest.param(entry, function, id=name)
    for entry in SCHEDULES
    for name, function in variants(entry, "spacing", "interpolation", "over", "model_type", "shift_from")
]
HALF = Fraction(1, 2)
SOME = (*range(1, 41), *range(50, 1000, 50), 997, 998, 999, 1000)
FEW = (1, 2, 3, 8, 20, 40, 350, 1000)


# Numbers of steps


def held(function, n: int, **params):
    """The schedule, or None where it says that it has not so many steps, or so little of them."""
    try:
        return function(n, **params)
    except InputError as error:
        if error.name != "steps" and "which leaves 0 of" not in error.problem:
            raise
        return None


def check(sigmas, n: int, last_sigma: str) -> None:
    """Exactly n steps, strictly descending even after the cast to float32 that SIGMAS are, and the right end."""
    assert len(sigmas) == n + 1
    assert set(map(type, sigmas)) == {float}
    assert (np.diff(np.array(sigmas, dtype=np.float32)) < 0.0).all(), n
    assert sigmas[-1] > 0.0 if last_sigma == "sigma_min" else sigmas[-1] == 0.0


@pytest.mark.parametrize("last_sigma", ENDS)
@pytest.mark.parametrize(("entry", "function"), VARIANTS)
def test_exactly_n_steps_strictly_descending(entry, function, last_sigma, counted):
    """For every n from 1 to 1000: what a schedule holds it holds exactly, and continuous ones hold them all.

    One that is bound to a table says where it ends, and the number that it gives does work. The two other
    ends are this one without a level (test_the_three_ends_are_one_schedule), and are looked at for some n.
    """
    most = 0
    for n in range(1, 1001) if last_sigma == "zero" else SOME:
        if (sigmas := held(function, n, last_sigma=last_sigma)) is not None:
            check(sigmas, n, last_sigma)
            counted("schedules with exactly n steps, strictly descending, right at the end")
            most = n
    if "table" not in entry.takes:
        assert most == 1000
    elif most < 1000:
        with pytest.raises(InputError, match=r"^steps is 1000") as refused:
            function(1000, last_sigma=last_sigma)
        told = int(re.search(r" at most (\d+)\.", str(refused.value))[1])
        assert most == told if last_sigma == "zero" else most <= told
        check(function(told, last_sigma=last_sigma), told, last_sigma)


@pytest.mark.parametrize("denoise", [0.999, 0.7, 0.5, 0.3, 0.01])
@pytest.mark.parametrize(("entry", "function"), VARIANTS)
def test_denoise_is_the_tail_of_the_longer_schedule(entry, function, denoise, counted):
    """n steps of denoise d are the last n of floor(n / d), for every end."""
    for n in SOME if denoise > 0.1 else SOME[:12]:
        for last_sigma in ENDS if n in FEW else ENDS[:1]:
            sigmas = held(function, n, denoise=denoise, last_sigma=last_sigma)
            if sigmas is None:
                continue
            check(sigmas, n, last_sigma)
            counted("schedules with exactly n steps, strictly descending, right at the end")
            if entry.id != "LCM":
                longer = int(Fraction(n) / Fraction(str(denoise)))
                assert sigmas == function(longer, last_sigma=last_sigma)[-n - 1 :]


@pytest.mark.parametrize(("entry", "function"), VARIANTS)
def test_the_three_ends_are_one_schedule(entry, function):
    """sigma_min is n + 1 steps without the one to 0, drop_penultimate the same without the level before 0."""
    for n in SOME:
        if (longer := held(function, n + 1, last_sigma="zero")) is not None:
            assert function(n, last_sigma="sigma_min") == longer[:-1]
            assert function(n, last_sigma="drop_penultimate") == (*longer[:-2], 0.0)


@pytest.mark.parametrize(
    ("largest", "denoise", "last_sigma", "most"),
    [(1000, 1.0, "zero", 1000), (1000, 0.5, "zero", 500), (1000, 0.3, "zero", 300), (1000, 1.0, "sigma_min", 999)],
)
def test_a_table_holds_its_size_times_denoise(largest, denoise, last_sigma, most):
    table = tuple(0.01 * (i + 1) for i in range(largest))
    assert len(timestep(table, most, spacing="trailing", denoise=denoise, last_sigma=last_sigma)) == most + 1
    with pytest.raises(InputError, match=rf"^steps is {most + 1}, .* Give at most {most}"):
        timestep(table, most + 1, spacing="trailing", denoise=denoise, last_sigma=last_sigma)


# A drawn curve may end where it likes, so its ends are computed.
PINNED = {curve: 1e-14}
RANGES = [karras, exponential, polyexponential, laplace, kl_optimal, curve]


@pytest.mark.parametrize("function", RANGES)
def test_a_range_is_met_exactly(function):
    """From sigma_max to sigma_min, not a rounding beside them; one step is the jump from sigma_max to 0."""
    for low, high in ((0.0291675, 14.614642), (0.002, 80.0), (0.03, 0.1), (0.0001, 1000.0)):
        for n in range(2, 200):
            sigmas = function(n, sigma_min=low, sigma_max=high)
            assert (sigmas[0], sigmas[-2], sigmas[-1]) == pytest.approx((high, low, 0.0), rel=PINNED.get(function, 0.0))
        assert function(1, sigma_min=low, sigma_max=high) == pytest.approx((high, 0.0), rel=PINNED.get(function, 0.0))


def test_exponential_steps_are_equal_in_log_sigma():
    ratios = np.diff(np.log(exponential(30)[:-1]))
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-12)


def test_karras_steps_are_equal_in_the_root_of_sigma():
    for rho in (1.0, 3.0, 7.0, 100.0):
        roots = np.diff(np.array(karras(30, rho=rho)[:-1]) ** (1.0 / rho))
        np.testing.assert_allclose(roots, roots[0], rtol=1e-9)


def test_the_ends_of_the_timesteps():
    """leading ends at steps_offset; linspace goes from the last trained timestep to the first; trailing begins at the
    last (Lin et al. 2023, table 2)."""
    for n in range(2, 1001):
        assert timesteps(n, 1000, "leading")[-1] == 0
        assert timesteps(n, 1000, "linspace")[:: n - 1] == (999, 0)
        assert timesteps(n, 1000, "trailing")[0] == 999
    for n in range(1, 1000):
        assert timesteps(n, 1000, "leading", 1)[-1] == 1


# Errors


@pytest.mark.parametrize(
    ("call", "name", "problem", "cure"),
    [
        (
            lambda: karras(5, sigma_min=2.0, sigma_max=1.0),
            "sigma_min",
            "is 2, not between 0 and sigma_max = 1",
            "below",
        ),
        (lambda: karras(5, sigma_min=1.0, sigma_max=1.0), "sigma_min", "is 1, not between", "below sigma_max"),
        (lambda: karras(5, sigma_min=0.0), "sigma_min", "is 0, not between 0 and", "above 0"),
        (lambda: exponential(5, sigma_min=-1.0), "sigma_min", "is -1, not between 0 and", "above 0"),
        (lambda: timestep(TABLE, 1001), "steps", "is 1001, and there are 1000 noise levels", "at most 1000"),
        (lambda: timestep(TABLE[:10], 11, spacing="trailing"), "steps", "is 11, and there are 10", "at most 10"),
        (lambda: timestep(TABLE, 1000, steps_offset=1), "steps_offset", "would be 1000 of 0 to 999", "Lower it"),
        (lambda: timestep(TABLE, 2, steps_offset=500), "steps_offset", "is 500, and the first", "take fewer steps"),
        (lambda: lcm(TABLE, 51), "steps", "is 51, and there are 50 noise levels", "at most 50"),
        (lambda: lcm(TABLE, 20, denoise=0.3), "steps", "is 20, and there are 15", "at most 15"),
        (lambda: timestep(TABLE, 501, denoise=0.5), "steps", "is 501, and there are 1000", "at most 500, or raise"),
        (lambda: beta(TABLE, 200), "steps", "is 200, and there are 138 noise levels", "at most 138"),
        (lambda: karras(1000, sigma_min=1.0, sigma_max=1.00001), "steps", "is 1000, so many that two", "wider range"),
        (lambda: vp(5, beta_d=1000.0, beta_min=900.0), "beta_d", "is 1000, and the first noise level", "Lower it"),
        (lambda: vp(5, beta_d=400.0), "beta_d", "is 400, and the first noise level, e^100.05, is more", "most 353.8"),
        (lambda: linear_quadratic(100, linear_steps=1), "linear_steps", "is 1, and 99 steps", "Give at least 2"),
        (lambda: lcm(TABLE, 4, denoise=0.01), "denoise", "is 0.01, which leaves 0 of the 50", "Give at least 0.08"),
        (lambda: lcm(TABLE, 1, original_inference_steps=1, last_sigma="sigma_min"), "steps", "is 1", "Set last_sigma"),
        (lambda: curve(5, shape=lambda u: 0.5), "curve", "does not fall between step 1 and step 2 of 5", "downwards"),
        (lambda: curve(5, shape=lambda u: 1.5 - u), "curve", "is 1.5 at step 1 of 5", "between 0 and 1"),
        (lambda: lcm(TABLE[:40], 4), "original_inference_steps", "is 50, more than the timesteps", "at most 40"),
    ],
)
def test_errors_name_the_input_the_value_and_the_cure(call, name, problem, cure):
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.name == name
    message = str(caught.value)
    assert message.startswith(f"{name} ")
    assert problem in message
    assert cure in message.split(". ", 1)[1]


# diffusers


def diffusers_timesteps(scheduler, steps: int, **kwargs) -> list[int]:
    scheduler.set_timesteps(steps, **kwargs)
    return scheduler.timesteps.tolist()


def disagreements(ours, theirs, fractions, steps: int):
    """Where two roundings of the same fractions differ, other than by the two sides of an exact half.

    There the rounding of a float product decides, and neither side is wrong.
    """
    if list(ours) == theirs:
        return []
    exact = fractions(steps)[: len(theirs)]
    return [
        (mine, yours, float(value))
        for mine, yours, value in zip(ours, theirs, exact, strict=True)
        if mine != yours and not {value - mine, value - yours} <= {HALF, -HALF}
    ]


def linspace_fractions(steps: int) -> list[Fraction]:
    return [Fraction(999 * i, max(steps - 1, 1)) for i in reversed(range(steps))]


def trailing_fractions(steps: int) -> list[Fraction]:
    return [999 - Fraction(1000 * i, steps) for i in range(steps)]


TRAILING_ONE_TOO_MANY = (
    *(61, 103, 121, 122, 201, 206, 217, 223, 227, 233, 242, 244, 397, 402, 412, 419, 434, 446, 454, 457, 463, 465, 466),
    *(484, 485, 487, 488, 497, 499, 769, 794, 804, 805, 824, 829, 835, 838, 868, 871, 887, 892, 908, 914, 926, 930),
    *(932, 937, 941, 951, 961, 965, 968, 970, 974, 975, 976, 979, 981, 985, 994, 995, 998),
)


@pytest.mark.parametrize("scheduler", [DDPMScheduler, DDIMScheduler], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("offset", [0, 1, 20])
def test_leading_timesteps_are_those_of_diffusers(scheduler, offset):
    """For every number of steps. Excluded: where steps_offset leads diffusers out of its own table; there we refuse."""
    reference = scheduler(timestep_spacing="leading", steps_offset=offset)
    for n in range(1, 1001):
        theirs = diffusers_timesteps(reference, n)
        if theirs[0] >= 1000:
            with pytest.raises(InputError, match=f"would be {theirs[0]} of 0 to 999"):
                timesteps(n, 1000, "leading", offset)
        else:
            assert list(timesteps(n, 1000, "leading", offset)) == theirs, n


@pytest.mark.parametrize("scheduler", [DDPMScheduler, DDIMScheduler], ids=lambda cls: cls.__name__)
def test_linspace_timesteps_are_those_of_diffusers(scheduler):
    """For every number of steps, up to the side of exact halves (27 steps: 499.5)."""
    reference = scheduler(timestep_spacing="linspace")
    for n in range(1, 1001):
        theirs = diffusers_timesteps(reference, n)
        assert disagreements(timesteps(n, 1000, "linspace"), theirs, linspace_fractions, n) == [], n


@pytest.mark.parametrize(
    "scheduler", [DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler], ids=lambda cls: cls.__name__
)
def test_trailing_timesteps_are_those_of_diffusers(scheduler):
    """For every number of steps, up to the side of exact halves (48 steps: 936.5).

    Excluded: TRAILING_ONE_TOO_MANY, where a float arange gives diffusers one timestep more than asked, and it is -1;
    without it they agree.
    """
    reference = scheduler(timestep_spacing="trailing")
    for n in range(1, 1001):
        theirs = diffusers_timesteps(reference, n)
        assert (len(theirs) == n + 1) == (n in TRAILING_ONE_TOO_MANY), n
        if len(theirs) == n + 1:
            assert theirs.pop() == -1
        assert disagreements(timesteps(n, 1000, "trailing"), theirs, trailing_fractions, n) == [], n


@pytest.mark.parametrize(("spacing", "offset"), [("leading", 0), ("leading", 1), ("linspace", 0)])
def test_multistep_timesteps_of_diffusers_are_ours_of_one_step_more(spacing, offset):
    """diffusers' DPM-Solver counts timestep 0 as a step and leaves it out: n of its steps are the first n of our n + 1.

    So it agrees with no n of ours but by that shift, which is asserted to be no agreement at n itself.
    """
    reference = DPMSolverMultistepScheduler(timestep_spacing=spacing, steps_offset=offset)
    for n in range(1, 999):
        theirs = diffusers_timesteps(reference, n)
        ours = timesteps(n + 1, 1000, spacing, offset)[:-1]
        if spacing == "leading":
            assert list(ours) == theirs, n
        else:
            assert disagreements(ours, theirs, linspace_fractions, n + 1) == [], n
        assert list(timesteps(n, 1000, spacing, offset)) != theirs, n


@pytest.mark.parametrize("original", [1, 4, 10, 20, 25, 50, 100])
def test_lcm_timesteps_are_those_of_diffusers(original):
    reference = LCMScheduler()
    for n in range(1, original + 1):
        theirs = diffusers_timesteps(reference, n, original_inference_steps=original)
        assert list(lcm_timesteps(n, 1000, original)) == theirs, n


def test_lcm_timesteps_differ_from_diffusers_only_where_a_float_floor_falls_short():
    """i original / n is then a whole number, which diffusers' float linspace misses by a rounding and floors one down,
    so that its timestep is one skip higher: 38 of 1000 takes the index 499 for 500."""
    reference, differing = LCMScheduler(), 0
    for n in range(1, 1001):
        ours = lcm_timesteps(n, 1000, 1000)
        for i, (mine, theirs) in enumerate(
            zip(ours, diffusers_timesteps(reference, n, original_inference_steps=1000), strict=True)
        ):
            if mine != theirs:
                differing += 1
                assert theirs - mine == 1
                assert i * 1000 % n == 0
    assert differing


@pytest.mark.parametrize("beta_schedule", ["scaled_linear", "linear"])
def test_trained_sigmas_are_those_of_diffusers(beta_schedule, differences):
    """diffusers' betas are float32, a few roundings of 6e-8 away from ours: sigmas made of their product in float64 are
    within 1e-6. Its own float32 table loses more, most at the first timestep: 1 - 0.99915 is known to 2^-25 / 0.00085 =
    3.5e-5, the sigma, which is the root, to half of that."""
    reference = EulerDiscreteScheduler(**{**STABLE_DIFFUSION, "beta_schedule": beta_schedule})
    ours = torch.tensor(trained_sigmas(beta_schedule=beta_schedule), dtype=torch.float64)
    abar = torch.cumprod(1.0 - reference.betas.double(), 0)
    exact = ((1.0 - abar) / abar).sqrt()
    table = ((1.0 - reference.alphas_cumprod) / reference.alphas_cumprod).sqrt().double()
    for name, theirs, bound in (("float64 product", exact, 1e-6), ("float32 table", table, 2e-5)):
        difference = (ours / theirs - 1.0).abs().max().item()
        differences(f"diffusers trained sigmas, {beta_schedule}, {name}", difference)
        assert difference < bound


@pytest.mark.parametrize("n", [1, 2, 3, 5, 20, 100, 1000])
def test_karras_and_exponential_are_those_of_diffusers(n, differences):
    """To the rounding of the float32 tensor that diffusers keeps them in: 2^-24 of each value, and as much from its
    float32 table for the ends. EDM's exponential interpolates float32 logs and divides by 0 at one step."""
    table = EulerDiscreteScheduler(**STABLE_DIFFUSION)
    table = ((1.0 - table.alphas_cumprod) / table.alphas_cumprod).sqrt().double()
    ends = {"sigma_min": table[0].item(), "sigma_max": table[-1].item()}
    edm = {"sigma_min": 0.002, "sigma_max": 80.0}
    pairs = {
        "DPMSolverMultistep karras": (
            karras(n, **ends),
            DPMSolverMultistepScheduler(use_karras_sigmas=True, **STABLE_DIFFUSION),
            1.2e-7,
        ),
        "DPMSolverMultistep exponential": (
            exponential(n, **ends),
            DPMSolverMultistepScheduler(use_exponential_sigmas=True, **STABLE_DIFFUSION),
            1.2e-7,
        ),
        "EDM karras": (karras(n, **edm), EDMEulerScheduler(**edm), 1.2e-7),
    }
    if n > 1:
        pairs["EDM exponential"] = (
            exponential(n, **edm),
            EDMEulerScheduler(**edm, sigma_schedule="exponential"),
            1e-6,
        )
    for name, (ours, reference, bound) in pairs.items():
        reference.set_timesteps(n)
        theirs = reference.sigmas.double().numpy()
        assert len(theirs) == len(ours)
        assert theirs[-1] == ours[-1] == 0.0
        difference = np.abs(np.array(ours[:-1]) / theirs[:-1] - 1.0).max()
        differences(f"diffusers {name} sigmas", difference)
        assert difference < bound, name


def relative(ours, theirs) -> float:
    """The largest difference of the levels above 0, relative; both must have as many levels, and end alike."""
    ours, theirs = np.array(ours), np.array(theirs, dtype=np.float64)
    assert ours.shape == theirs.shape
    assert (ours[-1] == 0.0) == (theirs[-1] == 0.0)
    above = theirs > 0.0
    return float(np.abs(ours[above] / theirs[above] - 1.0).max())


def diffusers_sigmas(scheduler, steps: int, **kwargs) -> list[float]:
    scheduler.set_timesteps(steps, **kwargs)
    return scheduler.sigmas.tolist()


def from_range(function, **kwargs):
    ends = {"sigma_min": TABLE[0], "sigma_max": TABLE[-1]}
    return partial(function, **ends, **kwargs)


def from_table(function, **kwargs):
    return partial(function, TABLE, **kwargs)


def named_of(cls, **config):
    return cls(**STABLE_DIFFUSION, **config)


# Configuration of diffusers, and its twin here. Both float32 tables differ from ours by 2e-5 at most, as above.
TWINS = [
    *(
        (EulerDiscreteScheduler, {"timestep_spacing": spacing, "steps_offset": offset}, twin)
        for spacing, offset, twin in (
            ("leading", 0, from_table(timestep)),
            ("leading", 1, from_table(timestep, steps_offset=1)),
            ("trailing", 0, from_table(timestep, spacing="trailing")),
            ("linspace", 0, from_table(timestep, spacing="linspace", interpolation="linear")),
        )
    ),
    *(
        (cls, {"timestep_spacing": spacing, "steps_offset": offset, **config}, from_table(timestep, **ours))
        for cls in (DPMSolverMultistepScheduler, UniPCMultistepScheduler)
        for spacing, offset, config, ours in (
            ("leading", 0, {}, {"last_sigma": "drop_penultimate"}),
            ("leading", 1, {}, {"last_sigma": "drop_penultimate", "steps_offset": 1}),
            ("linspace", 0, {}, {"last_sigma": "drop_penultimate", "spacing": "linspace"}),
            ("trailing", 0, {}, {"spacing": "trailing"}),
            ("leading", 0, {"final_sigmas_type": "sigma_min"}, {"last_sigma": "sigma_min"}),
            ("linspace", 0, {"final_sigmas_type": "sigma_min"}, {"last_sigma": "sigma_min", "spacing": "linspace"}),
        )
    ),
    *(
        (cls, {name: True}, twin)
        for cls in (DPMSolverMultistepScheduler, UniPCMultistepScheduler, DPMSolverSinglestepScheduler)
        for name, twin in (
            ("use_karras_sigmas", from_range(karras)),
            ("use_exponential_sigmas", from_range(exponential)),
            ("use_beta_sigmas", from_table(beta, over="sigmas")),
        )
    ),
    # DEIS ends at the lowest trained level whatever its configuration says.
    (DEISMultistepScheduler, {"timestep_spacing": "leading"}, from_table(timestep, last_sigma="sigma_min")),
    (
        DEISMultistepScheduler,
        {"timestep_spacing": "linspace"},
        from_table(timestep, spacing="linspace", last_sigma="sigma_min"),
    ),
    (DPMSolverMultistepScheduler, {"use_lu_lambdas": True}, from_range(exponential)),
    (EulerDiscreteScheduler, {"use_karras_sigmas": True}, from_range(karras)),
    (EulerDiscreteScheduler, {"use_exponential_sigmas": True}, from_range(exponential)),
    (EulerDiscreteScheduler, {"use_beta_sigmas": True}, from_table(beta, over="sigmas")),
]


def twin_name(value) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={setting}" for name, setting in value.items())
    return getattr(value, "__name__", "")


@pytest.mark.parametrize(("cls", "config", "ours"), TWINS, ids=twin_name)
def test_sigmas_are_those_of_diffusers(cls, config, ours, differences, counted):
    """For a grid of step numbers, wherever diffusers itself gives n distinct timesteps; see docs/schedules.md."""
    name = f"diffusers {cls.__name__} {twin_name(config)}"
    for n in (1, 2, 3, 4, 5, 7, 10, 15, 20, 25, 30, 40, 50, 100, 250, 333, 500):
        if without_twin(cls, config, n):
            continue
        theirs = diffusers_sigmas(named_of(cls, **config), n)
        if any(t >= s for s, t in pairwise(theirs)):
            continue  # repeated levels: a step of no length
        difference = relative(ours(n), theirs)
        differences(name, difference)
        counted("configurations of diffusers with equal sigmas")
        assert difference < 2e-5, n


def without_twin(cls, config, n: int) -> bool:
    """What of the grid has no twin here: singlestep needs three steps; Euler takes ranges from its chosen timesteps,
    and one step chooses timestep 0 alone. linspace has exact halves at even n, which float rounding decides there."""
    if cls is DPMSolverSinglestepScheduler:
        return n < 3
    if cls is EulerDiscreteScheduler:
        return n == 1 and any(name.startswith("use_") for name in config)
    return config.get("timestep_spacing") == "linspace" and n % 2 == 0


@pytest.mark.parametrize("strength", [1.0, 0.9, 0.75, 0.5, 0.25, 0.1])
@pytest.mark.parametrize("original", [10, 20, 50, 100])
def test_lcm_strength_is_that_of_diffusers(original, strength, counted):
    """`denoise` is diffusers' strength, for every number of steps that it holds; both refuse one more."""
    reference = LCMScheduler(**STABLE_DIFFUSION)
    most = int(original * strength)
    for n in range(1, most + 1):
        theirs = diffusers_timesteps(reference, n, original_inference_steps=original, strength=strength)
        ours = lcm_timesteps(n, 1000, original, strength)
        # The float floor of above: where i most / n is whole, theirs may be one skip higher.
        floored = [i for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)) if mine != other]
        assert all(i * most % n == 0 and theirs[i] - ours[i] == 1000 // original for i in floored), n
        assert lcm(TABLE, n, original_inference_steps=original, denoise=strength) == (*(TABLE[t] for t in ours), 0.0)
        counted("configurations of diffusers with equal timesteps")
    with pytest.raises(ValueError, match="original"):
        diffusers_timesteps(reference, most + 1, original_inference_steps=original, strength=strength)
    with pytest.raises(InputError, match=f"Give at most {most}"):
        lcm(TABLE, most + 1, original_inference_steps=original, denoise=strength)


@pytest.mark.parametrize("beta_schedule", ["scaled_linear", "linear"])
def test_zero_terminal_snr_is_that_of_diffusers(beta_schedule):
    """All but the last level, where infinity has another stand-in: 2^-24 for abar there, ComfyUI's here."""
    reference = EulerDiscreteScheduler(
        **{**STABLE_DIFFUSION, "beta_schedule": beta_schedule}, rescale_betas_zero_snr=True
    )
    theirs = (((1.0 - reference.alphas_cumprod) / reference.alphas_cumprod) ** 0.5).double().numpy()
    ours = np.array(trained_sigmas(beta_schedule=beta_schedule, zero_terminal_snr=True))
    assert theirs[-1] == pytest.approx(4096.0, rel=1e-6)
    assert ours[-1] == pytest.approx(4518.764, rel=1e-6)
    # The level before the last is 1 - abar = 1 - 3e-7 in float32 there, so its abar is known to a tenth.
    np.testing.assert_allclose(ours[:-50], theirs[:-50], rtol=1e-3)
    assert ours[0] == pytest.approx(trained_sigmas(beta_schedule=beta_schedule)[0], rel=1e-9)


@pytest.mark.parametrize("shift", [1.0, 1.15, 3.0, 8.0])
def test_flow_is_that_of_diffusers(shift, differences, counted):
    """FlowMatchEuler as its pipelines call it: with sigmas from 1 to 1 / n (Flux, SD3), with mu, and by default, where
    it shifts the lower end once more."""
    mu, terminal = math.log(shift), shift * 0.001 / (1.0 + (shift - 1.0) * 0.001)
    dynamic = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    for n in (1, 2, 3, 5, 10, 20, 28, 50, 100, 500):
        even = np.linspace(1.0, 1.0 / n, n)
        pairs = {
            "given sigmas": (flow(n, shift=shift), FlowMatchEulerDiscreteScheduler(shift=shift), {"sigmas": even}),
            "given sigmas and mu": (flow(n, shift=shift), dynamic, {"sigmas": even, "mu": mu}),
            "mu": (flow(n, shift=shift, t_min=0.001), dynamic, {"num_inference_steps": n, "mu": mu}),
            "default": (
                flow(n, shift=shift, t_min=terminal),
                FlowMatchEulerDiscreteScheduler(shift=shift),
                {"num_inference_steps": n},
            ),
        }
        for name, (ours, reference, arguments) in pairs.items():
            reference.set_timesteps(**arguments)
            difference = relative(ours, reference.sigmas.tolist())
            differences(f"diffusers FlowMatchEuler, {name}", difference)
            counted("configurations of diffusers with equal sigmas")
            assert difference < 1e-6


def test_the_shift_of_a_resolution_is_that_of_flux():
    """exp(0.5) at 256 x 256 and exp(1.15) at 1024 x 1024, log-linear in the number of tokens (diffusers'
    calculate_shift)."""
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    assert math.log(flux_shift(256, 256)) == pytest.approx(0.5)
    assert math.log(flux_shift(1024, 1024)) == pytest.approx(1.15)
    for width, height in ((512, 512), (1344, 768), (2048, 2048), (16, 16)):
        mu = calculate_shift((width // 16) * (height // 16), 256, 4096, 0.5, 1.15)
        assert math.log(flux_shift(width, height)) == pytest.approx(mu, rel=1e-12)
        shifted = flow(7, shift_from="resolution", width=width, height=height, shift=99.0)
        assert shifted == flow(7, shift=flux_shift(width, height))


def test_linear_quadratic_is_that_of_diffusers(differences):
    from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule

    for n in range(2, 200):
        for threshold in (0.01, 0.025, 0.1):
            theirs = np.array(linear_quadratic_schedule(n, threshold))
            ours = np.array(linear_quadratic(n, threshold_noise=threshold)[:-1])
            difference = np.abs(ours - theirs).max()
            differences("diffusers linear_quadratic_schedule", difference)
            assert difference < 1e-12


# What the schedules are made to do


def test_laplace_parts_its_distribution_equally():
    """By scipy's Laplace distribution: all steps hold the same mass of log sigma; on FLOW of log(sigma / alpha)."""
    for path, low, high in ((VE, 0.0291675, 14.614642), (FLOW, 0.003, 0.97), (FLOW, 0.001, 1.0)):
        for mu in (-2.0, 0.0, 1.0):
            for scale in (0.3, 0.5, 2.0):
                sigmas = laplace(40, sigma_min=low, sigma_max=high, mu=mu, beta=scale, path=path)[:-1]
                places = [-path.lam(sigma) for sigma in sigmas]
                mass = np.diff(distributions.laplace.sf(places, mu, scale))
                np.testing.assert_allclose(mass, mass[0], rtol=1e-6)


@pytest.mark.parametrize("c", [0.3, 1.0, 3.0])
def test_kl_optimal_is_best_for_euler_on_gaussian_data(c):
    """Sabour et al. 2024, theorem 3.1: moving any inner level either way leaves the deviation after Euler steps further
    from that of the exact flow, sqrt(min^2 + c^2)."""
    low, high = 0.05, 20.0

    def deviation(sigmas) -> float:
        """Of x after Euler steps on dx/dsigma = x sigma / (sigma^2 + c^2), from the exact deviation at the start."""
        factors = [1.0 + (t - s) * s / (s * s + c * c) for s, t in pairwise(sigmas)]
        return math.sqrt(high**2 + c * c) * math.prod(factors)

    for n in (2, 3, 5, 12):
        best = kl_optimal(n, sigma_min=low, sigma_max=high, data_std=c, last_sigma="sigma_min")
        off = abs(math.log(deviation(best) / math.sqrt(low**2 + c * c)))
        for i in range(1, n):
            for factor in (0.98, 1.02):
                moved = [*best[:i], best[i] * factor, *best[i + 1 :]]
                assert abs(math.log(deviation(moved) / math.sqrt(low**2 + c * c))) > off


def test_vp_has_a_noise_rate_that_grows_linearly():
    """log(1 + sigma^2) is the integral of beta_min + beta_d t: even times have one second difference, beta_d dt^2."""
    logs = np.log1p(np.square(vp(50, beta_d=19.9, beta_min=0.1, eps_s=1e-3)[:-1]))
    dt = (1.0 - 1e-3) / 49
    np.testing.assert_allclose(np.diff(logs, 2), 19.9 * dt**2, rtol=1e-9)
    np.testing.assert_allclose(logs[0], 19.9 / 2 + 0.1, rtol=1e-12)
    wired = vp(50, sigma_min=0.03, sigma_max=14.0)
    assert (wired[0], wired[-2]) == (14.0, 0.03)
    second = np.diff(np.log1p(np.square(wired[:-1])), 2)
    np.testing.assert_allclose(second, second[0], rtol=1e-7)


def test_a_shift_scales_the_odds_of_time():
    """sigma / (1 - sigma) = shift t / (1 - t) (Esser et al. 2024, eq. 23)."""
    for shift in (0.3, 1.0, 3.0, 12.0):
        sigmas = np.array(flow(30, shift=shift)[1:-1])
        t = 1.0 - np.arange(1, 30) / 30
        np.testing.assert_allclose(sigmas / (1.0 - sigmas), shift * t / (1.0 - t), rtol=1e-12)


@pytest.mark.parametrize(("steps", "even"), [(10, 0), (11, 0), (20, 3), (20, 25), (2, 0)])
def test_linear_quadratic_is_even_then_a_parabola_with_the_same_slope(steps, even):
    sigmas = np.array(linear_quadratic(steps, linear_steps=even))
    m = min(even or steps // 2, steps - 1)
    first = np.diff(sigmas)
    np.testing.assert_allclose(first[:m], -0.025 / m, rtol=1e-9)
    second = np.diff(sigmas[m:], 2)
    np.testing.assert_allclose(second, second[:1].repeat(len(second)), rtol=1e-9)
    if steps - m > 1:
        # A parabola through 0 with slope a at the seam: its first difference is a + c, its second 2 c.
        np.testing.assert_allclose(first[m] - second[0] / 2, first[m - 1], rtol=1e-9)


@pytest.mark.parametrize(
    ("family", "rounded"),
    [
        ("SD1", (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)),
        ("SDXL", (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)),
        ("SVD", (700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)),
    ],
)
def test_align_your_steps_are_the_levels_of_the_paper(family, rounded):
    """Table 3 of Sabour et al. 2024, which the published timesteps meet to 1.5 percent."""
    np.testing.assert_allclose(align_your_steps(10, model_type=family, last_sigma="sigma_min"), rounded, rtol=0.015)
    used = align_your_steps(10, model_type=family)
    np.testing.assert_allclose(used[:-1], rounded[:-1], rtol=0.015)
    assert used[-1] == 0.0
    # Twenty steps go through the levels of ten, halving each in log sigma.
    double = np.array(align_your_steps(20, model_type=family, last_sigma="sigma_min"))
    np.testing.assert_allclose(double[1::2] ** 2, double[:-1:2] * double[2::2], rtol=1e-9)


def test_beta_takes_the_quantiles_of_scipys_distribution():
    for a, b in ((0.6, 0.6), (1.0, 1.0), (0.5, 2.0)):
        timesteps_of = [round(999 * q) for q in distributions.beta.ppf(1.0 - np.arange(30) / 30, a, b)]
        assert beta(TABLE, 30, alpha=a, beta=b) == (*(TABLE[t] for t in timesteps_of), 0.0)


def test_a_straight_curve_is_exponential():
    for n in (1, 2, 20):
        np.testing.assert_allclose(curve(n), exponential(n), rtol=1e-12)
    flat = curve(20, shape=lambda u: 0.7 - 0.4 * u)
    assert flat[-2] == pytest.approx(exponential(21)[14], rel=1e-9)


def test_what_diffusers_gives_that_has_no_twin():
    """The rows of docs/schedules.md that no comparison above shows."""
    assert len(TRAILING_ONE_TOO_MANY) == 62
    log_linear = named_of(EulerDiscreteScheduler, interpolation_type="log_linear")
    assert (len(diffusers_sigmas(log_linear, 20)), len(log_linear.timesteps)) == (22, 20)
    flow_sigmas = DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=1.0)
    assert diffusers_sigmas(flow_sigmas, 20)[0] == pytest.approx(0.999)
    twice = named_of(DPMSolverMultistepScheduler, use_karras_sigmas=True, final_sigmas_type="sigma_min")
    assert diffusers_sigmas(twice, 20)[-2] == pytest.approx(diffusers_sigmas(twice, 20)[-1], rel=1e-6)
    lowest = named_of(EulerDiscreteScheduler, use_karras_sigmas=True)
    assert diffusers_sigmas(lowest, 1)[0] == pytest.approx(TABLE[0], rel=1e-4)


def test_a_picture_too_large_for_the_shift_of_flux2_is_said_to_be():
    from stepwise.samplers.schedules import flux2

    assert len(flux2(20, width=4096, height=4096)) == 21
    with pytest.raises(InputError, match="5000 x 5000, a size whose shift") as refused:
        flux2(20, width=5000, height=5000)
    assert refused.value.name == "width"
