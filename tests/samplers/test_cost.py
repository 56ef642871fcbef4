"""What a step costs besides the model, counted on a pretended GPU. Ceilings, so that nothing gets dearer unnoticed."""

import pytest
import torch
from stepwise.benchmarks.cost import METHODS, Method, count_ours, extra_peak
from stepwise.samplers import FLOW, VE, AddressedNoise
from stepwise.samplers.registry import SOLVERS
from stepwise.tools.measure.counting import Device

SHAPE = (1, 4, 16, 16)
# Kernels on latents, latents moved, and the most latents alive beyond x and denoised, in a step in the middle on VE.
CEILINGS = {
    "DDPM": (3, 7, 2),
    "DDIM": (1, 3, 1),
    "Euler": (1, 3, 1),
    "Euler Ancestral": (3, 7, 2),
    "Heun": (4, 12, 2),
    "DPM-Solver, order 2": (3, 9, 2),
    "DPM-Solver, order 3": (7, 21, 3),
    "DPM++ 2S": (2, 6, 1),
    "DPM++ 2S, eta 1.0": (4, 10, 2),
    "DPM++ 2M": (2, 6, 2),
    "DPM++ 3M": (3, 9, 3),
    "DPM++ SDE": (8, 18, 2),
    "DPM++ 2M SDE": (4, 10, 2),
    "DPM++ 3M SDE": (5, 13, 3),
    "UniPC, order 2": (7, 21, 4),
    "UniPC, order 3": (7, 21, 5),
    "DEIS": (4, 12, 4),
    "LMS": (5, 15, 5),
    "Restart": (3, 9, 2),
    "LCM": (2, 4, 1),
}
EACH = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.label)


def noisy_rows(method: Method) -> int:
    """The rows of the counted step that add noise: on FLOW their weights do not sum to 1, and they cost one kernel and
    two latents more."""
    plan = method.plan(FLOW)
    stages = plan.stages[plan.first_stage(10) : plan.first_stage(11)]
    return sum(bool(row.draws) for stage in stages for row in (*stage.opening, *stage.rows))


@EACH
@pytest.mark.parametrize("path", [VE, FLOW])
def test_a_step_costs_at_most_its_ceiling(method, path):
    counts = count_ours(method, path, SHAPE)
    kernels, moved, peak = CEILINGS[method.label]
    dearer = noisy_rows(method) if path is FLOW else 0
    assert counts.kernels <= kernels + dearer, counts.names
    assert counts.moved <= moved + 2 * dearer, counts.names
    assert extra_peak(counts) <= peak


@EACH
@pytest.mark.parametrize("path", [VE, FLOW])
def test_no_step_waits_for_the_device_or_copies_to_it_but_noise(method, path):
    """All launches are those on latents, and one for the noise level that each model call is told."""
    counts = count_ours(method, path, SHAPE)
    assert (counts.syncs, counts.uploads, counts.waited) == (0, 0, 0)
    assert counts.kernels_all == counts.kernels + method.calls
    assert counts.draws == 0 or any(setting.noise for setting in solver_of(method).settings)


def solver_of(method):
    return next(solver for solver in SOLVERS if solver.id == method.solver)


def test_every_solver_is_counted_at_its_default_and_has_a_ceiling():
    defaults = {name: {p: value.default for p, value in solver.parameters.items()} for name, solver in by_id().items()}
    counted = {m.solver for m in METHODS if all(defaults[m.solver][p] == value for p, value in m.params.items())}
    assert counted == {solver.id for solver in SOLVERS}
    assert {method.label for method in METHODS} == set(CEILINGS)


def by_id():
    return {solver.id: solver for solver in SOLVERS}


# The counter itself


@pytest.fixture
def device():
    with Device(SHAPE) as device:
        device.begin()
        yield device


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x[0, 0, 0, 0].item(),
        lambda x: x.tolist(),
        lambda x: bool(x.sum() > 0),
        lambda x: float(x.mean()),
        lambda x: (x > 0).nonzero(),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: torch.tensor([x.mean(), 1.0]),
    ],
)
def test_what_makes_the_host_wait_is_counted(device, look):
    look(device.put(torch.ones(SHAPE)))
    assert device.end().syncs == 1


def test_what_is_copied_to_the_device_is_counted(device):
    x = device.put(torch.ones(SHAPE))
    assert torch.tensor(0.5, device=x.device).device == torch.ones(3).to(x.device).device == x.device
    x.new_tensor(2.0)
    assert (device.counts.uploads, device.counts.draws, device.counts.syncs) == (3, 0, 0)
    torch.ones(SHAPE).to(x.device)
    AddressedNoise([0])(next(noise_of(VE)), x)
    assert (device.counts.draws, device.counts.waited, device.counts.kernels) == (2, 1, 2)


def noise_of(path):
    plan = Method("DDPM").plan(path)
    return (noise for stage in plan.stages for row in stage.rows for noise in row.draws)


def test_kernels_traffic_and_memory_of_an_expression(device):
    """2 y: one latent read, one written. x minus it, plus y in place: two read, one written, each. 2 y and the result
    live at once. What is done to a quarter of a latent is a kernel, but none on latents."""
    x, y = device.put(torch.ones(SHAPE)), device.put(torch.ones(SHAPE))
    device.begin()
    z = x - 2.0 * y
    z += y
    z[:, :1].mul_(2.0)
    counts = device.end()
    assert (counts.names, counts.moved, counts.kernels_all) == (["mul", "sub", "add_"], 8.0, 4)
    assert extra_peak(counts) == 2.0
    assert torch.equal(z.host[:, 1:], torch.zeros(1, 3, 16, 16))


def test_the_latent_that_a_run_was_given_is_no_part_of_the_peak():
    with Device(SHAPE) as device:
        x = device.given(torch.ones(SHAPE))
        device.begin()
        y = x + 1.0
        assert device.end().peak == 1.0
        assert y.shape == x.shape
