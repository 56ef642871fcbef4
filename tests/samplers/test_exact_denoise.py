"""denoise_mode = exact: the run begins at the level that `denoise` names, in exactly as many steps as asked for."""

from functools import partial

import numpy as np
import pytest
from cases import SCHEDULES, TABLE, variants
from scipy import stats as distributions
from stepwise.samplers.parameters import InputError, parameters
from stepwise.samplers.schedules import (
    beta,
    curve,
    flow,
    flux2,
    lcm,
    linear_quadratic,
    ltxv,
    optimal_steps,
    timestep,
)

CHOICES = ("spacing", "interpolation", "over", "model_type", "shift_from", "t_min_from", "stretch")
EXACT = [entry for entry in SCHEDULES if "denoise_mode" in parameters(entry.function)]
VARIANTS = [
    pytest.param(function, id=f"{name}-{'wired' if wired else 'alone'}")
    for entry in EXACT
    for wired in ((False, True) if set(entry.takes) - {"table"} and "VE" in entry.paths else (False,))
    for name, function in variants(entry, *CHOICES, wired=wired)
]
VARIANTS += [
    pytest.param(partial(flow, t_min_from="sigma_min", shift=3.0, sigma_min=0.003), id="Flow-sigma_min-wired"),
    pytest.param(partial(ltxv, stretch=False), id="LTXV-unstretched"),
    pytest.param(partial(linear_quadratic, linear_steps=1, threshold_noise=0.01), id="LinearQuadratic-one-even-step"),
    pytest.param(partial(timestep, TABLE, steps_offset=100), id="Timestep-offset"),
    pytest.param(partial(curve, shape=lambda u: 1.0 - u**2), id="Curve-bent"),
]
DENOISES = [i / 100 for i in range(1, 101)]
STEPS = range(1, 51)


def test_which_schedules_have_it():
    """All but those that are bound to a list of levels, which were chosen together."""
    without = {entry.id for entry in SCHEDULES} - {entry.id for entry in EXACT}
    assert without == {"LCM", "OptimalSteps"}
    assert {entry.function for entry in SCHEDULES if entry.id in without} == {lcm, optimal_steps}


@pytest.mark.parametrize("last_sigma", ["zero", "sigma_min", "drop_penultimate"])
@pytest.mark.parametrize("function", VARIANTS)
def test_n_steps_from_a_level_that_rises_with_denoise(function, last_sigma, counted):
    """For 1 to 50 steps and denoise .01 to 1: n steps, strictly descending in float32, with the right end; and the
    first level is strictly monotone in denoise, in float32 too."""
    for n in STEPS:
        before = 0.0
        for denoise in DENOISES if last_sigma == "zero" else DENOISES[::9]:
            sigmas = function(n, denoise=denoise, last_sigma=last_sigma, denoise_mode="exact")
            assert len(sigmas) == n + 1
            assert (np.diff(np.array(sigmas, dtype=np.float32)) < 0.0).all(), (n, denoise)
            assert sigmas[-1] > 0.0 if last_sigma == "sigma_min" else sigmas[-1] == 0.0
            assert np.float32(sigmas[0]) > np.float32(before), (n, denoise)
            before = sigmas[0]
            counted("schedules with exact denoise: n steps, strictly descending, the first level monotone")


@pytest.mark.parametrize("function", VARIANTS)
def test_the_first_level_does_not_hang_on_the_end(function):
    """The three ends begin alike where the function does not depend on the number of levels."""
    hangs = getattr(function, "func", function) in (linear_quadratic, flux2, ltxv)
    for n in (2, 7, 20):
        for denoise in (0.03, 0.5, 0.77):
            made = [
                function(n, denoise=denoise, last_sigma=end, denoise_mode="exact")
                for end in ("zero", "sigma_min", "drop_penultimate")
            ]
            assert made[1][:-1] == made[2][:-1]
            assert hangs or made[0][0] == made[1][0]


# Levels of a whole schedule lie at the fractions i / n, or at i / (n - 1) where the lowest level is the end of a range.
ON_THE_WAY = ("Flow", "Flow-resolution", "Timestep-trailing")
IN_A_RANGE = (
    *("Karras", "Exponential", "Polyexponential", "Laplace", "VP", "KLOptimal", "Curve"),
    *("AlignYourSteps-SD1", "AlignYourSteps-SDXL", "AlignYourSteps-SVD", "Timestep-linspace", "Beta-sigmas"),
)
CONTINUOUS = {
    "Flow": flow,
    "Flow-resolution": partial(flow, shift_from="resolution", width=1344),
    "Timestep-trailing": partial(timestep, TABLE, spacing="trailing", interpolation="log_linear"),
    "Timestep-linspace": partial(timestep, TABLE, spacing="linspace", interpolation="log_linear"),
    "Beta-sigmas": partial(beta, TABLE, over="sigmas"),
    **{
        name: function
        for entry in SCHEDULES
        for name, function in variants(entry, "model_type")
        if name in IN_A_RANGE and "table" not in entry.takes
    },
}


@pytest.mark.parametrize("name", [*ON_THE_WAY, *IN_A_RANGE])
def test_where_tail_reaches_the_asked_level_exact_is_tail(name, differences, counted):
    """The last n steps of the whole schedule of N steps begin at a fraction that can be asked for; there both modes
    have the same levels to 1e-12: exact runs on the schedule's own function."""
    function = CONTINUOUS[name]
    for longer in (2, 3, 8, 20, 37, 100):
        whole = function(longer, last_sigma="zero")
        for n in range(1 if name in ON_THE_WAY else 2, longer + 1):
            denoise = n / longer if name in ON_THE_WAY else (n - 1) / (longer - 1)
            made = function(n, denoise=denoise, last_sigma="zero", denoise_mode="exact")
            off = np.abs(np.array(made[:-1]) / np.array(whole[-n - 1 : -1]) - 1.0).max()
            differences("exact denoise: to the same levels of a longer schedule", off)
            counted("schedules with exact denoise equal to the tail")
            assert off < 1e-12, (n, longer)


@pytest.mark.parametrize("function", [linear_quadratic, partial(linear_quadratic, linear_steps=3), flux2, ltxv])
def test_functions_of_the_number_of_steps_begin_at_a_level_of_that_number(function, differences):
    """Theirs is the function of n steps at denoise 1, which has the level number j at the fraction j / n."""
    for n in STEPS[3:]:
        whole = function(n, last_sigma="zero")
        for j in range(n):
            first = function(n, denoise=1.0 - j / n, last_sigma="zero", denoise_mode="exact")[0]
            differences("exact denoise: first level, of the schedule of as many steps", abs(first / whole[j] - 1.0))
            assert first == pytest.approx(whole[j], rel=1e-12)


def test_flow_begins_at_the_shifted_denoise():
    """sigma / (1 - sigma) = shift denoise / (1 - denoise) (Esser et al. 2024, eq. 23), whatever the number of steps."""
    for shift in (0.3, 1.0, 3.0, 12.0):
        for denoise in DENOISES[:-1]:
            for n in (1, 2, 4, 30):
                first = flow(n, shift=shift, denoise=denoise, denoise_mode="exact")[0]
                assert first == pytest.approx(shift * denoise / (1.0 - denoise + shift * denoise), rel=1e-12)
    staircase = {flow(4, denoise=denoise)[0] for denoise in DENOISES[66:80]}
    assert len(staircase) == 1
    assert len({flow(4, denoise=denoise, denoise_mode="exact")[0] for denoise in DENOISES}) == 100


def test_beta_begins_between_the_timesteps_of_scipys_distribution():
    """log sigma read off the table by numpy at the quantiles of scipy's Beta distribution."""
    logs = np.log(TABLE)
    for a, b in ((0.6, 0.6), (0.5, 0.7), (2.0, 1.0)):
        for denoise in DENOISES:
            for n in (1, 5):
                places = 999 * distributions.beta.ppf(denoise * (1.0 - np.arange(n) / n), a, b)
                made = beta(TABLE, n, alpha=a, beta=b, denoise=denoise, denoise_mode="exact")
                np.testing.assert_allclose(made[:-1], np.exp(np.interp(places, np.arange(1000), logs)), rtol=1e-9)


def test_timesteps_run_from_the_asked_one_to_the_end_of_their_spacing():
    """In a table whose levels are its timesteps, and one whose logs are."""
    line, logs = tuple(float(i + 1) for i in range(1000)), tuple(float(np.exp(i / 100)) for i in range(1000))
    for denoise in (0.01, 0.37, 0.5, 1.0):
        for n in (2, 7, 30):
            ends = {
                "linspace": (999 * denoise, 0.0),
                "leading": (7 + 992 * denoise, 7.0),
                "trailing": (1000 * denoise - 1, max(1000 * denoise / n - 1, 0.0)),
            }
            ends["simple"] = ends["trailing"]
            for spacing, (first, last) in ends.items():
                given = {"spacing": spacing, "steps_offset": 7, "denoise": denoise, "denoise_mode": "exact"}
                places = np.linspace(first, last, n)
                made = timestep(line, n, interpolation="linear", **given)
                np.testing.assert_allclose(made[:-1], places + 1, rtol=1e-12)
                np.testing.assert_allclose(timestep(logs, n, **given)[:-1], np.exp(places / 100), rtol=1e-12)


ROUNDED = {"Timestep", "Beta"}


@pytest.mark.parametrize("entry", [each for each in EXACT if each.id not in ROUNDED], ids=lambda each: each.id)
def test_at_denoise_1_both_modes_are_one(entry):
    for n in STEPS:
        for _, function in variants(entry, *CHOICES):
            for end in ("zero", "sigma_min", "drop_penultimate"):
                both = [function(n, last_sigma=end, denoise_mode=mode) for mode in ("tail", "exact")]
                assert both[0] == both[1]


def test_at_denoise_1_timesteps_are_rounded_by_tail_alone():
    for n in STEPS:
        for spacing in ("trailing", "simple"):
            rounded = timestep(TABLE, n, spacing=spacing)
            exact = timestep(TABLE, n, spacing=spacing, denoise_mode="exact")
            assert exact[0] == rounded[0] == TABLE[-1]
            # No further than one timestep: half of one by rounding, all of one by simple's rounding up.
            for mine, other in zip(exact[:-1], rounded[:-1], strict=True):
                place = TABLE.index(other)
                assert TABLE[max(place - 1, 0)] * (1 - 1e-12) <= mine <= TABLE[min(place + 1, 999)] * (1 + 1e-12)


TOO_LOW = "denoise is 0.2, and the lowest time of the schedule is 0.3. Raise it"
BEYOND = "steps_offset is 60, of timesteps 0 to 49. Lower it"
TWO_ZEROS = "terminal is 0, so the level before the last is 0 as well. Give a value above 0"
TOO_LARGE = "max_shift is 2.05, and for 100000000 tokens that is e^35807.9 for the shift"
HALF = {"denoise": 0.5, "denoise_mode": "exact"}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: flow(4, t_min=0.3, denoise=0.2, denoise_mode="exact"), TOO_LOW),
        (lambda: timestep(TABLE[:50], 4, steps_offset=60, **HALF), BEYOND),
        (lambda: ltxv(4, terminal=0.0), TWO_ZEROS),
        (lambda: ltxv(4, tokens=10**8), TOO_LARGE),
    ],
)
def test_what_cannot_be_begun(call, said):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value).startswith(said)
