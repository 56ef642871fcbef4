"""Noise drawn on the CPU while the model runs elsewhere: the same noise, no more of it, and no thread that stays."""

import threading
from contextlib import nullcontext

import pytest
import torch
from cases import VE, solver
from stepwise.samplers import AddressedNoise, BrownianNoise, run, start, varied
from stepwise.samplers.noise import drawn_ahead
from stepwise.samplers.schedules import karras
from stepwise.tools.measure.counting import Device

SHAPE = (2, 4, 8, 8)
SEEDS = (3, 4)
SOLVERS = ("DDPM", "DPMppSDE", "DPMpp2MSDE", "LCM", "Restart")
BEGIN = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)) * 14.0
SOURCES = {
    "independent": lambda: AddressedNoise(SEEDS),
    "brownian": lambda: BrownianNoise(VE, SEEDS),
    "varied": lambda: varied(AddressedNoise(SEEDS), BrownianNoise(VE, (8, 9)), 0.3),
}


def plan_of(name, steps=6):
    return solver(name)(VE, karras(steps))


def half(x, sigma):
    return x * 0.5


def sampled(plan, source, ahead, model=half, stop=None):
    """What a run on the pretended device ends with, and what was counted."""
    with torch.no_grad(), Device(SHAPE) as device:
        state, stop = start(device.given(BEGIN.clone())), stop or len(plan.stages)
        device.begin()
        with drawn_ahead(source, plan, state, stop) if ahead else nullcontext(source) as noise:
            end = run(plan, model, state, noise, stop=stop)
        return end.x.host, device.end()


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("stepwise-noise")]


class Watched(AddressedNoise):
    """Notes what is drawn and on which thread, and fails at the draw of that number."""

    def __init__(self, seeds=SEEDS, fails_at=None):
        super().__init__(seeds)
        self.drawn, self.by, self.fails_at = [], set(), fails_at

    def apart(self):
        other = Watched(self.seeds, self.fails_at)
        other.drawn, other.by = self.drawn, self.by
        return other

    def draw(self, address, out):
        self.drawn.append(address)
        self.by.add(threading.current_thread())
        if len(self.drawn) == self.fails_at:
            raise OSError("no more numbers")
        return super().draw(address, out)


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("name", SOLVERS)
def test_it_is_the_same_noise_bit_for_bit(name, kind):
    plan = plan_of(name)
    here = run(plan, half, start(BEGIN.clone()), SOURCES[kind]()).x
    assert torch.equal(sampled(plan, SOURCES[kind](), ahead=True)[0], here)


@pytest.mark.parametrize("name", SOLVERS)
def test_nothing_is_drawn_that_a_run_to_its_end_does_not_ask_for(name):
    """And all of it on the thread; the last draw of a part is of its last step."""
    plan = plan_of(name)
    for step in range(1, plan.steps + 1):
        stop, asked, source = plan.first_stage(step), Watched(), Watched()
        sampled(plan, asked, ahead=False, stop=stop)
        sampled(plan, source, ahead=True, stop=stop)
        assert source.drawn == asked.drawn
        assert asked.by <= {threading.main_thread()}
        assert threading.main_thread() not in source.by
    assert source.by


def test_the_next_noise_is_drawn_while_the_model_runs():
    """Nobody asks for it before the model's call is over."""
    plan, told = plan_of("DDPM"), threading.Event()

    class Telling(Watched):
        def draw(self, address, out):
            told.set()
            return super().draw(address, out)

        def apart(self):
            return Telling(self.seeds)

    def model(x, sigma):
        assert told.wait(10.0)
        return x * 0.5

    source = Telling()
    sampled(plan, source, ahead=True, model=model, stop=plan.first_stage(1))
    assert source.drawn == [], "what is drawn out of turn would be drawn here"


class Cancelled(BaseException):
    """As the host's, no Exception."""


@pytest.mark.parametrize("error", [None, ValueError, Cancelled, KeyboardInterrupt])
def test_the_thread_is_gone_after_the_run_however_it_ends(error):
    plan, calls = plan_of("DDPM"), []

    def model(x, sigma):
        calls.append(len(threads()))
        if len(calls) == 3 and error is not None:
            raise error("in the model")
        return x * 0.5

    with pytest.raises(error, match="in the model") if error else nullcontext():
        sampled(plan, AddressedNoise(SEEDS), ahead=True, model=model)
    assert calls[:3] == [1, 1, 1]
    assert threads() == []


@pytest.mark.parametrize("fails_at", [1, 3])
def test_what_a_draw_raises_is_raised_in_the_run_where_it_was_asked_for(fails_at):
    plan = plan_of("DPMpp2MSDE")
    calls = {True: 0, False: 0}
    for ahead in calls:

        def model(x, sigma, ahead=ahead):
            calls[ahead] += 1
            return x * 0.5

        with pytest.raises(OSError, match="no more numbers"):
            sampled(plan, Watched(fails_at=fails_at), ahead, model)
        assert threads() == []
    assert calls[True] == calls[False]


@pytest.mark.parametrize("name", ["DDPM", "DPMppSDE"])
def test_one_latent_of_pinned_memory_more_is_held_and_none_of_the_device(name):
    plan = plan_of(name)
    ahead, plain = (sampled(plan, AddressedNoise(SEEDS), each)[1] for each in (True, False))
    assert ahead.pinned == plain.pinned + 1.0
    assert (ahead.peak, ahead.moved, ahead.kernels_all) == (plain.peak, plain.moved, plain.kernels_all)
    assert ahead.waits == plain.waits == 0


def test_a_source_that_gains_nothing_is_given_back():
    """On the CPU, without draws, or of somebody else."""
    noisy, without = plan_of("DDPM"), plan_of("Euler")
    own, foreign = AddressedNoise(SEEDS), lambda address, like: torch.zeros_like(like)
    with drawn_ahead(own, noisy, start(BEGIN), len(noisy.stages)) as noise:
        assert noise is own
    with torch.no_grad(), Device(SHAPE) as device:
        state = start(device.given(BEGIN))
        for source, plan in ((own, without), (foreign, noisy)):
            with drawn_ahead(source, plan, state, len(plan.stages)) as noise:
                assert noise is source
            assert threads() == []
