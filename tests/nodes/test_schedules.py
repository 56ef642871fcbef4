"""Schedules in the host: range and table come from the wired model, and ComfyUI's own are met where they are right."""

import comfy.samplers
import numpy as np
import pytest
import torch
from comfy.k_diffusion import sampling as k_diffusion
from comfy_extras import nodes_custom_sampler as core
from comfy_extras.nodes_align_your_steps import AlignYourStepsScheduler
from stepwise.nodes.shared.preview import schedule_values
from stepwise.samplers.parameters import InputError
from stepwise.samplers.registry import SCHEDULES
from stepwise.tools.generate.twins import SCHEDULERS
from toy_models import call, refused, toy_model

KINDS = ("EPS", "V_PREDICTION", "EDM", "FLOW", "FLUX", "FLOW_COSMOS")
FLOWS = ("FLOW", "FLUX")
STEPS = (1, 2, 3, 4, 5, 7, 8, 10, 13, 20, 25, 30, 40, 50, 100, 250, 500)


def sampling(model):
    return model.get_model_object("model_sampling")


def ours(schedule: str, steps: int, model=None, **widgets):
    (sigmas,) = call(f"Stepwise{schedule}Schedule", steps=steps, model=model, **widgets)
    assert sigmas.dtype == torch.float32
    return sigmas.double().numpy()


def largest(ours, theirs) -> float:
    theirs = torch.as_tensor(theirs).double().numpy()
    assert ours.shape == theirs.shape
    assert (ours[-1], theirs[-1]) == (0.0, 0.0)
    return float(np.abs(ours[:-1] / theirs[:-1] - 1.0).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", [entry.id for entry in SCHEDULES])
def test_a_wired_model_gives_the_range(schedule, kind):
    """The first level is the model's highest, none above 0 is below its lowest; or the model is refused by name."""
    entry = next(entry for entry in SCHEDULES if entry.id == schedule)
    model = toy_model(kind)
    low, high = float(sampling(model).sigma_min), float(sampling(model).sigma_max)
    if ("FLOW" if kind in FLOWS else "VE") not in entry.paths:
        message = refused(f"Stepwise{schedule}Schedule", model=model)
        assert message.startswith(f"{entry.name} Schedule: model is {'a' if kind in FLOWS else 'no'} flow model")
        assert "instead" in message
        return
    if schedule == "AlignYourSteps" and kind != "EPS":
        return
    sigmas = ours(schedule, 10, model)
    assert len(sigmas) == 11
    # leading begins below the top of the table, and the published levels of Flux below 1.
    if schedule not in ("Timestep", "OptimalSteps"):
        assert sigmas[0] == pytest.approx(high, rel=1e-6)
    table = sampling(model).sigmas.double().numpy()
    if "table" in entry.takes:
        assert all(sigma in table for sigma in sigmas[:-1])
    assert sigmas[-2] >= low * (1.0 - 1e-6)


def test_shift_comes_from_the_model_as_patches_leave_it():
    """The shift of a flow model, exp(shift) of a Flux one; also where ModelSamplingFlux or ModelSamplingSD3 set it."""
    from comfy_extras.nodes_model_advanced import ModelSamplingFlux, ModelSamplingSD3

    plain, flux = toy_model("FLOW"), toy_model("FLUX")
    np.testing.assert_allclose(ours("Flow", 9, plain), ours("Flow", 9, shift=3.0), rtol=1e-6)
    np.testing.assert_allclose(ours("Flow", 9, flux), ours("Flow", 9, shift=float(np.exp(1.15))), rtol=1e-6)
    (shifted,) = ModelSamplingSD3().patch(plain, 7.0)
    np.testing.assert_allclose(ours("Flow", 9, shifted), ours("Flow", 9, shift=7.0), rtol=1e-6)
    (sized,) = ModelSamplingFlux().patch(flux, 1.15, 0.5, 1344, 768)
    by_size = ours("Flow", 9, shift_from="resolution", width=1344, height=768)
    np.testing.assert_allclose(ours("Flow", 9, sized), by_size, rtol=1e-6)


def test_a_zero_terminal_snr_model_begins_at_the_hosts_infinity():
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    (model,) = ModelSamplingDiscrete().patch(toy_model("V_PREDICTION"), "v_prediction", True)
    trailing = ours("Timestep", 12, model, spacing="trailing")
    np.testing.assert_allclose(trailing[0], 4518.764, rtol=1e-5)
    unwired = ours("Timestep", 12, spacing="trailing", zero_terminal_snr=True)
    # The host's table is float32, which knows the small abar of the highest levels to few digits.
    np.testing.assert_allclose(trailing[1:-1], unwired[1:-1], rtol=1e-4)
    assert ours("Karras", 12, model)[0] == trailing[0]


def test_levels_above_the_model_are_refused():
    message = refused("StepwiseAlignYourStepsSchedule", model=toy_model("EPS"), model_type="SVD")
    assert message.startswith("Align Your Steps Schedule: model was trained up to noise level 14.6")
    assert "the schedule begins at 700" in message


def test_unknown_values_are_refused():
    entry = SCHEDULES[0]
    with pytest.raises(InputError, match=r"^nonsense is not a parameter here"):
        schedule_values(entry, None, {"nonsense": 1})


# ComfyUI's own schedulers


def core_sigmas(name: str, model, steps: int):
    return comfy.samplers.calculate_sigmas(sampling(model), name, steps)


TWINS = [(twin.name, kind, twin.ours, twin.params) for twin in SCHEDULERS for kind in twin.models]


def test_every_scheduler_of_core_has_its_twin():
    assert {twin.name for twin in SCHEDULERS} == set(comfy.samplers.SCHEDULER_NAMES)
    assert set(KINDS) == {kind for _, kind, *_ in TWINS}


@pytest.mark.parametrize(("name", "kind", "schedule", "widgets"), TWINS, ids=lambda v: v if isinstance(v, str) else "")
def test_cores_schedulers_where_they_are_right(name, kind, schedule, widgets, differences):
    """On models of every family, for every number of steps at which core gives that many, finite and descending."""
    model = toy_model(kind)
    compared = 0
    for n in STEPS:
        if n == 1 and schedule == "Timestep" and name == "normal":
            continue  # of one timestep, linspace takes the lowest here and in diffusers, the highest in core
        theirs = core_sigmas(name, model, n)
        if len(theirs) != n + 1 or not torch.isfinite(theirs).all() or (theirs.diff() >= 0.0).any():
            continue
        if name == "simple" and any(
            int(i * (len(sampling(model).sigmas) / n)) * n != i * len(sampling(model).sigmas) // n * n for i in range(n)
        ):
            continue  # core's float product falls short of a whole number
        difference = largest(ours(schedule, n, model, **widgets), theirs)
        differences(f"ComfyUI {name}, {kind}", difference)
        assert difference < (1e-12 if schedule in ("Timestep", "Beta") and "interpolation" not in widgets else 3e-5), n
        compared += 1
    assert compared >= 8


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        ("Karras", lambda n: k_diffusion.get_sigmas_karras(n, 0.0291675, 14.614642)),
        ("Exponential", lambda n: k_diffusion.get_sigmas_exponential(n, 0.0291675, 14.614642)),
        ("Polyexponential", lambda n: k_diffusion.get_sigmas_polyexponential(n, 0.0291675, 14.614642)),
        ("VP", lambda n: k_diffusion.get_sigmas_vp(n)),
    ],
)
def test_k_diffusions_schedules(schedule, theirs, differences):
    for n in STEPS:
        difference = largest(ours(schedule, n), theirs(n))
        differences(f"k-diffusion {schedule}", difference)
        assert difference < 1e-5


def test_polyexponential_with_a_bend_is_k_diffusions():
    for rho in (0.5, 2.0, 4.0):
        theirs = k_diffusion.get_sigmas_polyexponential(20, 0.03, 14.0, rho)
        assert largest(ours("Polyexponential", 20, sigma_min=0.03, sigma_max=14.0, rho=rho), theirs) < 1e-5


@pytest.mark.parametrize("family", ["SD1", "SDXL", "SVD"])
def test_cores_align_your_steps(family):
    for n in STEPS:
        theirs = AlignYourStepsScheduler.execute(family, n, 1.0).args[0]
        assert largest(ours("AlignYourSteps", n, model_type=family), theirs) < 1e-6


def test_cores_laplace_is_the_same_distribution_before_it_is_clamped():
    """Core's levels lie at the quantiles i / (n - 1) of the whole distribution; the mass between two of them is
    1 / (n - 1), and with ours there are as many steps per mass, of what the range leaves of it."""
    from scipy.stats import laplace

    theirs = k_diffusion.get_sigmas_laplace(201, 0.0291675, 14.614642).double().numpy()
    inner = theirs[(theirs > 0.03) & (theirs < 14.6)]
    np.testing.assert_allclose(-np.diff(laplace.cdf(np.log(inner), 0.0, 0.5)), 1.0 / 200, rtol=2e-3)
    mass = -np.diff(laplace.cdf(np.log(ours("Laplace", 201)[:-1]), 0.0, 0.5))
    np.testing.assert_allclose(mass, mass[0], rtol=1e-3)


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
def test_denoise_is_that_of_basic_scheduler(kind):
    model = toy_model(kind)
    for steps, denoise in ((20, 0.5), (20, 0.3), (7, 0.7), (30, 0.95), (4, 0.01)):
        theirs = core.BasicScheduler.execute(model, "karras", steps, denoise).args[0]
        assert largest(ours("Karras", steps, model, denoise=denoise), theirs) < 1e-5


def test_drop_penultimate_is_that_of_the_hosts_ksampler():
    """KSampler leaves the level before 0 out for some of its samplers."""
    model = toy_model("EPS")
    theirs = comfy.samplers.KSampler(model, 12, "cpu", "dpm_2", "karras").sigmas
    assert largest(ours("Karras", 12, model, last_sigma="drop_penultimate"), theirs) < 1e-5


def test_what_core_gets_wrong_is_right_here():
    """31 steps for 30, 999 for 600, a Laplace that repeats levels and never reaches 0, NaN at one step."""
    model = toy_model("EPS")
    assert [len(core_sigmas("ddim_uniform", model, n)) - 1 for n in (30, 600)] == [31, 999]
    assert [len(ours("Timestep", n, model, steps_offset=1)) - 1 for n in (30, 600)] == [30, 600]
    clamped = k_diffusion.get_sigmas_laplace(1000, 0.0291675, 14.614642)
    assert clamped[-1] > 0.0
    assert (clamped.diff() == 0.0).any()
    assert torch.isnan(core_sigmas("kl_optimal", model, 1)).any()
    np.testing.assert_allclose(ours("KLOptimal", 1, model), [float(sampling(model).sigma_max), 0.0])
