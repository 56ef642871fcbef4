"""What a step costs besides the model, counted on a pretended GPU: exactly what docs/claims.md and docs/cost.md say."""

import re

import pytest
import torch
from stepwise.benchmarks._methods import METHODS, PLANNED, Method
from stepwise.benchmarks.cost import CLAIMS, HEAD, PAGE, Measured, count_ours, extra_peak, short
from stepwise.samplers import FLOW, VE, AddressedNoise
from stepwise.tools.generate.markdown import marked, table
from stepwise.tools.measure.counting import Device

SHAPE = (1, 4, 16, 16)
EACH = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.label)


@EACH
def test_a_step_costs_what_the_tables_say(method):
    measured = Measured(method, count_ours(method, VE, SHAPE), count_ours(method, FLOW, SHAPE))
    rows = "".join(table(["", *HEAD[1:]], measured.our_rows).splitlines(keepends=True)[2:])
    assert rows in PAGE.read_text(encoding="utf-8"), measured.ours.names
    assert readme_rows()[method.label].startswith(f" {short(measured.ours)} |")


def readme_rows() -> dict[str, str]:
    """What the short table says, by its first column."""
    between = marked("cost").search(CLAIMS.read_text(encoding="utf-8"))[0]
    rows = (re.fullmatch(r"\| (.*?) \|(.*)", line) for line in between.splitlines()[2:])
    return {row[1]: row[2] for row in rows}


def test_the_tables_have_a_row_for_every_method_and_no_other():
    labels = [method.label for method in METHODS]
    assert re.findall(r"^\| \*\*(.*?)\*\* \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE) == labels
    assert list(readme_rows()) == labels


def test_every_solver_is_counted_at_its_default_and_a_setting_where_the_registry_says_so():
    defaults = {each.id: {p: value.default for p, value in each.parameters.items()} for each in PLANNED}
    counted = {m.solver for m in METHODS if all(defaults[m.solver][p] == value for p, value in m.params.items())}
    assert counted == set(defaults)
    further = [setting for solver in PLANNED for setting in solver.settings[1:] if setting.in_cost_table]
    assert len(METHODS) == len(PLANNED) + len(further)


@EACH
@pytest.mark.parametrize("path", [VE, FLOW])
def test_no_step_waits_for_the_device_or_copies_to_it_but_noise(method, path):
    """All launches are those on latents, and one for the noise level that each model call is told."""
    counts = count_ours(method, path, SHAPE)
    assert (counts.syncs, counts.uploads, counts.waited) == (0, 0, 0)
    assert counts.kernels_all == counts.kernels + method.calls
    assert counts.draws == 0 or any(setting.noise for setting in method.entry.settings)


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


def pinned(shape):
    return torch.empty(shape, pin_memory=True)


@pytest.mark.parametrize("shape", [SHAPE, (3,)], ids=["latent", "small"])
def test_a_copy_is_a_wait_unless_it_is_from_or_to_pinned_memory_and_asked_not_to_block(device, shape):
    """From memory that is not pinned a driver may wait in spite of being asked not to: told apart."""
    there, at_once = device.put(torch.ones(shape)), {"non_blocking": True}
    for memory, how, waits, staged in (
        (torch.ones, {}, 1, 0),
        (torch.ones, at_once, 1, 1),
        (pinned, {}, 1, 0),
        (pinned, at_once, 0, 0),
    ):
        for upload in (lambda m, h: m(shape).to(there.device, **h), lambda m, h: there.copy_(m(shape), **h)):
            device.begin()
            upload(memory, how)
            assert (device.end().waits, device.counts.staged, device.counts.downloads) == (waits, staged, 0)
        device.begin()
        memory(shape).copy_(there, **how)
        seen = memory is pinned and how is at_once
        assert (device.end().waits, device.counts.downloads) == ((0, 1) if seen else (1, 0))


@pytest.mark.parametrize("idle", [True, False])
def test_to_wait_for_an_event_is_counted_and_to_ask_for_it_is_not(idle):
    with Device(SHAPE, idle) as device:
        device.begin()
        first, second = torch.cuda.Event(), torch.cuda.Event()
        first.record()
        second.record()
        assert first.query() == second.query() == idle
        assert device.counts.waits == 0
        first.synchronize()
        assert first.query()
        assert second.query() == idle, "who waits for one has not waited for a later one"
        second.synchronize()
        assert second.query()
        assert device.end().waits == 2


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
