"""Schedule by Name is BasicScheduler's and KSampler's to the last bit; and the schedules of ComfyUI's other nodes."""

import math
from itertools import product

import comfy.samplers
import numpy as np
import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from comfy_extras.nodes_flux import Flux2Scheduler
from comfy_extras.nodes_lt import LTXVScheduler
from comfy_extras.nodes_optimalsteps import OptimalStepsScheduler
from stepwise.nodes.host.schedulers import ADDED, NAMES, OF_THE_HOST, WITHOUT_PENULTIMATE
from stepwise.nodes.shared.preview import answer
from stepwise.samplers.schedules import beta, bong_tangent, flux2, ltxv
from toy_models import call, nodes_by_id, refused, toy_model

KINDS = ("EPS", "V_PREDICTION", "EDM", "FLOW", "FLUX", "FLOW_COSMOS")
STEPS = (1, 2, 3, 4, 7, 8, 10, 13, 20, 25, 30, 31, 50)
ASKED = [(steps, denoise) for steps in STEPS for denoise in (1.0, 0.87, 0.5)]
# ddim_uniform has one level more at 30.
ASKED += [(30, 0.99995), (30, 0.9999)]
ASKED += [(steps, denoise) for steps in (1, 2, 8) for denoise in (0.99995, 0.99, 0.75, 0.33, 0.1, 0.01, 0.0)]


def sampling(model):
    return model.get_model_object("model_sampling")


def by_name(model, name, steps, denoise=1.0, for_sampler="none"):
    given = {"scheduler": name, "steps": steps, "denoise": denoise, "for_sampler": for_sampler}
    return call("StepwiseNamedSchedule", model=model, **given)[0]


def finite(sigmas):
    return bool(torch.isfinite(sigmas).all())


@pytest.fixture
def with_the_added(monkeypatch):
    """ComfyUI as a pack leaves it that adds its schedulers to the list."""
    for name, handler in ADDED.items():
        monkeypatch.setitem(comfy.samplers.SCHEDULER_HANDLERS, name, comfy.samplers.SchedulerHandler(handler))
        monkeypatch.setattr(comfy.samplers.KSampler, "SCHEDULERS", list(comfy.samplers.SCHEDULER_HANDLERS))


def test_the_names_are_a_fixed_list_that_begins_with_the_hosts():
    inputs = nodes_by_id()["StepwiseNamedSchedule"].define_schema().inputs
    assert [each.id for each in inputs] == ["model", "scheduler", "steps", "denoise", "for_sampler"]
    assert inputs[1].options == [*comfy.samplers.SCHEDULER_NAMES, "beta57", "bong_tangent"]
    assert list(OF_THE_HOST) == comfy.samplers.SCHEDULER_NAMES
    assert set(WITHOUT_PENULTIMATE) == comfy.samplers.KSampler.DISCARD_PENULTIMATE_SIGMA_SAMPLERS


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_basic_scheduler_bit_for_bit(kind, with_the_added, note):
    model, equal = toy_model(kind), 0
    for name, (steps, denoise) in product(NAMES, ASKED):
        if name == "bong_tangent" and denoise and int(steps / denoise) == 1:
            continue
        theirs = core.BasicScheduler.execute(model, name, steps, denoise).args[0]
        if not finite(theirs):
            said = refused("StepwiseNamedSchedule", model=model, scheduler=name, steps=steps, denoise=denoise)
            assert said.startswith(f"Schedule by Name: steps is {steps}, and ComfyUI's {name} gives levels")
            continue
        ours = by_name(model, name, steps, denoise)
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs), (name, steps, denoise)
        equal += 1
    note(f"Schedule by Name on {kind}: {equal} configurations equal to BasicScheduler bit for bit")


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_ksampler_bit_for_bit(kind, with_the_added, note):
    model, equal = toy_model(kind), 0
    for name, sampler in product(NAMES, ("other", *WITHOUT_PENULTIMATE)):
        dropped = sampler in WITHOUT_PENULTIMATE
        for steps, denoise in ASKED if sampler in ("other", "dpm_2") else ASKED[::5]:
            if name == "bong_tangent" and not dropped and denoise and int(steps / denoise) == 1:
                continue
            run_by = sampler if dropped else "euler"
            theirs = comfy.samplers.KSampler(model, steps, "cpu", run_by, name, denoise).sigmas
            if not finite(theirs):
                continue
            assert torch.equal(by_name(model, name, steps, denoise, sampler), theirs), (name, sampler, steps, denoise)
            equal += 1
    note(f"Schedule by Name on {kind}: {equal} configurations equal to KSampler bit for bit")


def test_where_basic_scheduler_and_ksampler_differ():
    """ddim_uniform gives 31 steps for 30: one leaves the first out, the other takes all."""
    model = toy_model("EPS")
    basic, sampler = by_name(model, "ddim_uniform", 30), by_name(model, "ddim_uniform", 30, for_sampler="other")
    assert (len(basic), len(sampler)) == (31, 32)
    assert torch.equal(basic, sampler[1:])


@pytest.fixture
def counted_equal(note, request):
    counts: dict[str, int] = {}

    def count(what):
        counts[what] = counts.get(what, 0) + 1

    yield count
    for what, number in counts.items():
        note(f"Schedule by Name equal to {what} bit for bit: {number} ({request.node.name})")


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
def test_beta57_is_beta_with_its_two_shapes(kind):
    model = toy_model(kind)
    for steps in (4, 20, 30):
        (ours,) = call("StepwiseBetaSchedule", model=model, steps=steps, alpha=0.5, beta=0.7)
        assert torch.equal(by_name(model, "beta57", steps), ours)
    table = sampling(model).sigmas.tolist()
    assert by_name(model, "beta57", 20).tolist() == torch.tensor(beta(table, 20, alpha=0.5, beta=0.7)).tolist()


# What RES4LYF's scheduler gives, in float64: evaluated from the four formulas that its source has, apart from ours.
BONG = {
    2: (1.0, 0.5, 0.0),
    5: (1.0, 0.9320355762164712, 0.8043062727289672, 0.5, 0.13226143461338505, 0.0),
    10: (
        *(1.0, 0.9780450221730236, 0.9479309183369982, 0.9043169221133078, 0.836365071831819, 0.7198344194456324, 0.5),
        *(0.2574298034111925, 0.11746056570255357, 0.04326514796352791, 0.0),
    ),
}


def test_bong_tangent_has_the_levels_of_res4lyf():
    for steps, levels in BONG.items():
        np.testing.assert_allclose(bong_tangent(steps), levels, rtol=0.0, atol=1e-15)


def test_bong_tangent_is_two_arcs_of_an_arctangent():
    """Tangents of the angles of each arc, from the levels alone, are in equal steps of 8 / (n + 2): tan is the inverse
    of what made them. The level between the arcs is 1/2."""
    for steps in (8, 20, 30, 53, 100):
        count, turn = steps + 2, 3 * (steps + 2) // 5
        sigmas = np.array(bong_tangent(steps))
        assert len(sigmas) == steps + 1
        assert (np.diff(sigmas) < 0.0).all()
        assert (sigmas[0], sigmas[turn - 1], sigmas[-1]) == pytest.approx((1.0, 0.5, 0.0), abs=1e-15)
        top, near, far = np.arctan(8 * turn / count), np.arctan(8 / count), np.arctan(8 * (count - turn - 1) / count)
        high = np.tan(near + (2 * sigmas[:turn] - 1) * (top - near))
        low = np.tan((1 - 2 * sigmas[turn - 1 :]) * far)
        np.testing.assert_allclose(np.diff(high), -8 / count, rtol=1e-9)
        np.testing.assert_allclose(np.diff(low), 8 / count, rtol=1e-9)


def test_bong_tangent_wants_two_steps():
    said = refused("StepwiseNamedSchedule", model=toy_model("EPS"), scheduler="bong_tangent", steps=1)
    assert (
        said == "Schedule by Name: steps is 1, and bong_tangent is made of two arcs of a step or more. Give at least 2."
    )


# The schedules of ComfyUI's other nodes


def off(ours, theirs, differences, name):
    assert ours.shape == theirs.shape
    assert (ours[-1], theirs[-1]) == (0.0, 0.0)
    difference = float((ours[:-1].double() / theirs[:-1].double() - 1.0).abs().max())
    differences(f"ComfyUI {name}", difference)
    return difference


@pytest.fixture
def in_float64():
    """Runs a node of ComfyUI that makes its levels in torch's default format in float64."""

    def run(node, *args, **kwargs):
        torch.set_default_dtype(torch.float64)
        try:
            return node.execute(*args, **kwargs).args[0]
        finally:
            torch.set_default_dtype(torch.float32)

    return run


@pytest.mark.parametrize("family", ["FLUX", "Wan", "Chroma"])
def test_optimal_steps(family, differences):
    for steps in (3, 4, 5, 8, 10, 11, 20, 28, 40, 50, 100):
        (ours,) = call("StepwiseOptimalStepsSchedule", model_type=family, steps=steps)
        theirs = OptimalStepsScheduler.execute(family, steps, 1.0).args[0]
        assert off(ours, theirs, differences, "OptimalStepsScheduler") < 2e-7
        # Its denoise leaves out the first steps, so that there are fewer; here as many as asked for are the last.
        if steps % 2 == 0:
            (half,) = call("StepwiseOptimalStepsSchedule", model_type=family, steps=steps // 2, denoise=0.5)
            theirs = OptimalStepsScheduler.execute(family, steps, 0.5).args[0]
            assert off(half, theirs, differences, "OptimalStepsScheduler, denoise") < 2e-7


SIZES = [(1024, 1024), (512, 768), (1360, 768), (2048, 2048), (333, 777), (16, 16)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_flux2(width, height, in_float64, differences):
    for steps in (1, 2, 4, 8, 20, 28, 50, 200, 333):
        (ours,) = call("StepwiseFlux2Schedule", steps=steps, width=width, height=height)
        theirs = Flux2Scheduler.execute(steps, width, height).args[0]
        assert off(ours, theirs, differences, "Flux2Scheduler") < 1e-5
        exact = in_float64(Flux2Scheduler, steps, width, height)
        mine = torch.tensor(flux2(steps, width=width, height=height), dtype=torch.float64)
        assert off(mine, exact, differences, "Flux2Scheduler in float64") < 1e-12


SHAPES = {"none": None, "video": (1, 128, 13, 16, 24), "long": (2, 128, 33, 22, 40), "picture": (1, 16, 8, 8)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("settings", [{}, {"stretch": False}, {"terminal": 0.3}, {"max_shift": 3.0, "base_shift": 0.2}])
def test_ltxv(settings, shape, in_float64, differences):
    """In float64, and as ComfyUI runs it: it stretches 1 - sigma, which is 1 / shift of the numbers that it is the
    difference of, and so loses shift roundings."""
    latent = None if shape is None else {"samples": torch.zeros(shape)}
    tokens = 4096 if shape is None else math.prod(shape[2:])
    for steps in (2, 3, 8, 20, 30, 50):
        widgets = {"max_shift": 2.05, "base_shift": 0.95, "stretch": True, "terminal": 0.1, **settings}
        given = {"steps": steps, **widgets, "latent": latent}
        line = np.polyfit((1024, 4096), (widgets["base_shift"], widgets["max_shift"]), 1)
        shift = math.exp(np.polyval(line, tokens))
        mine = torch.tensor(ltxv(steps, tokens=tokens, **settings), dtype=torch.float64)
        exact = in_float64(LTXVScheduler, **given)
        assert off(mine, exact, differences, f"LTXVScheduler in float64, {tokens} tokens") < max(1e-12, 1e-15 * shift)
        (ours,) = call("StepwiseLTXVSchedule", steps=steps, latent=latent, **settings)
        assert torch.equal(ours, mine.float())
        if shift < 1000:
            assert off(ours, LTXVScheduler.execute(**given).args[0], differences, "LTXVScheduler") < 1e-6 * max(
                shift, 1.0
            )


def test_ltxv_of_one_step_begins_at_1():
    """ComfyUI's stretch divides 0 by 0 there, or a rounding by a rounding."""
    assert LTXVScheduler.execute(1, 2.05, 0.95, True, 0.1).args[0][0] != 1.0
    assert call("StepwiseLTXVSchedule", steps=1)[0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("sigma", [136.0, 14.6, 20000.0, 4.0000005])
def test_set_first_sigma(sigma):
    for sigmas in (torch.tensor([9.0, 4.0, 1.0, 0.0]), torch.tensor([4.5, 4.0]), torch.tensor([5.0, 4.0, 0.3, 0.03])):
        before = sigmas.clone()
        (ours,) = call("StepwiseSetFirstSigma", sigmas=sigmas, sigma=sigma)
        assert torch.equal(ours, core.SetFirstSigma.execute(sigmas, sigma).args[0])
        assert torch.equal(sigmas, before)


@pytest.mark.parametrize(
    ("sigmas", "sigma", "said"),
    [
        ([9.0, 4.0, 0.0], 4.0, "sigma is 4, not above the level that the first step goes to, 4. Give a value above 4."),
        ([9.0, 4.0, 0.0], 1.0, "sigma is 1, not above the level that the first step goes to, 4. Give a value above 4."),
        ([0.1, 4.0, 9.0], 5.0, "sigma is 5, not below the level that the first step goes to, 4. Give a value below 4."),
        ([9.0], 10.0, "sigmas has no step. Wire a schedule with at least one step."),
    ],
)
def test_a_first_sigma_that_is_none(sigmas, sigma, said):
    message = refused("StepwiseSetFirstSigma", sigmas=torch.tensor(sigmas), sigma=sigma)
    assert message == f"Set First Sigma (Stepwise): {said}"


# denoise_mode on the nodes


@pytest.mark.parametrize("kind", ["FLOW", "FLUX"])
def test_exact_denoise_on_a_wired_flow_model(kind):
    """The level is that of the host's own time at `denoise`, for any number of steps."""
    model = toy_model(kind)
    for percent in (0.09, 0.33, 0.8):
        for steps in (1, 4, 20):
            given = {"model": model, "steps": steps, "denoise": 1.0 - percent, "denoise_mode": "exact"}
            (sigmas,) = call("StepwiseFlowSchedule", **given)
            assert float(sigmas[0]) == pytest.approx(sampling(model).percent_to_sigma(percent), rel=1e-6)
            assert len(sigmas) == steps + 1


def test_the_page_is_told_that_only_a_run_knows_the_hosts_levels():
    """And after a run has them, in numbers that JSON has."""
    assert answer({"node": "StepwiseNamedSchedule", "values": {"steps": 20}}) == {
        "note": "drawn after a run, of the model"
    }
    node = nodes_by_id()["StepwiseNamedSchedule"]
    made = node.execute(model=toy_model("EPS"), scheduler="karras", steps=4, denoise=1.0, for_sampler="none")
    assert made.ui["stepwise_sigmas"] == made.args[0].tolist()
