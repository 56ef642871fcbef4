"""Schedules: exactly as many steps as asked for, and the tables of diffusers."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from cases import SCHEDULES, TABLE, variants
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
)
from stepwise.samplers.parameters import InputError
from stepwise.samplers.schedules import exponential, karras, lcm, lcm_timesteps, timestep, timesteps, trained_sigmas

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
VARIANTS = [pytest.param(entry, function, id=name) for entry in SCHEDULES for name, function in variants(entry)]
HALF = Fraction(1, 2)


# Numbers of steps


def refuses(function, n: int) -> bool:
    try:
        function(n)
    except InputError as error:
        return error.name == "steps"
    return False


@pytest.mark.parametrize(("entry", "function"), VARIANTS)
def test_exactly_n_steps_strictly_descending_to_zero(entry, function):
    """For every n from 1 to 1000, also after the cast to float32 that a SIGMAS tensor is.

    A schedule that has no n steps says so, and then has none for any larger n either.
    """
    largest = next((n for n in (1000, 50) if not refuses(function, n)), 0)
    assert largest >= 50
    for n in range(1, largest + 1):
        sigmas = function(n)
        assert len(sigmas) == n + 1
        assert all(type(sigma) is float for sigma in sigmas)
        assert sigmas[-1] == 0.0
        assert (np.diff(np.array(sigmas, dtype=np.float32)) < 0.0).all(), n
    assert largest == 1000 or all(refuses(function, n) for n in range(largest + 1, 1001))


@pytest.mark.parametrize("function", [karras, exponential])
def test_a_range_is_met_exactly(function):
    """From sigma_max to sigma_min, not a rounding beside them; one step is the jump from sigma_max to 0."""
    for low, high in ((0.0291675, 14.614642), (0.002, 80.0), (0.03, 0.1), (0.0001, 1000.0)):
        for n in range(2, 200):
            sigmas = function(n, sigma_min=low, sigma_max=high)
            assert (sigmas[0], sigmas[-2], sigmas[-1]) == (high, low, 0.0)
        assert function(1, sigma_min=low, sigma_max=high) == (high, 0.0)


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
        (lambda: timestep(TABLE, 1001), "steps", "is 1001, more than the 1000 trained timesteps", "at most 1000"),
        (lambda: timestep(TABLE[:10], 11, spacing="trailing"), "steps", "is 11, more than the 10", "at most 10"),
        (lambda: timestep(TABLE, 1000, steps_offset=1), "steps_offset", "would be 1000 of 0 to 999", "Lower it"),
        (lambda: timestep(TABLE, 2, steps_offset=500), "steps_offset", "is 500, and the first", "take fewer steps"),
        (lambda: lcm(TABLE, 51), "steps", "is 51, more than the 50 timesteps", "raise original_inference_steps"),
        (lambda: lcm(TABLE[:40], 4), "original_inference_steps", "is 50, more than the timesteps", "at most 40"),
    ],
)
def test_errors_name_the_input_the_value_and_the_cure(call, name, problem, cure):
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.name == name
    message = str(caught.value)
    assert message.startswith(f"{name} is ")
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
