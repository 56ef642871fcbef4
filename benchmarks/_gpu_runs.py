"""How benchmarks/gpu.py runs a sampler of ours and one of ComfyUI's on the same subject, and its results on disk."""

import contextlib
import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from stepwise.benchmarks._gpu_networks import DEVICE, Subject
from stepwise.tools.measure.host import execute, node

SEED = 7


def synchronise() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


class Results:
    """What was measured, written anew after every figure, so that a run that is stopped loses none."""

    def __init__(self, file: Path, seconds: float, began: float):
        self.file, self.end, self.began = file, began + seconds, began
        self.data: dict[str, Any] = {}

    def put(self, part: str, name: str, value: Any) -> None:
        self.data.setdefault(part, {})[name] = value
        beside = self.file.with_suffix(".tmp")
        beside.write_text(json.dumps(self.data, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, self.file)

    @property
    def left(self) -> float:
        return self.end - time.time()

    def part(self, name: str, most: float, work: Callable[[float], None]) -> None:
        """Lets `work` have `most` seconds at most; an error is noted, and the next part comes."""
        begun, allowed = time.time(), min(most, self.left - 2.0)
        if allowed < 3.0:
            self.put(name, "skipped", "no time left")
            return
        try:
            with alarm(allowed + 5.0):
                work(begun + allowed)
                synchronise()
        except Exception:
            self.put(name, "error", traceback.format_exc(limit=-6))
            print(f"{name}: {traceback.format_exc(limit=-3)}", flush=True)
        self.put(name, "seconds", round(time.time() - begun, 1))
        print(f"{name}: {time.time() - begun:.1f} s, {self.left:.0f} s left", flush=True)


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raises TimeoutError after so many seconds."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds:.0f} s")

    kept = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, kept)


@cache
def schedule(model: Any, steps: int) -> torch.Tensor:
    """ComfyUI's simple schedule, which reads every level back from the device, and so is made once."""
    return execute("BasicScheduler", {"model": model, "scheduler": "simple", "steps": steps, "denoise": 1.0})[0]


def sigmas_of(subject: Subject, steps: int) -> torch.Tensor:
    return schedule(subject.model, steps).clone()


def ours(subject: Subject, solver: str, steps: int, images: int = 1, **given: Any) -> tuple[Any, ...]:
    """The outputs of a step node of ours, from noise, unless another latent or a state is given."""
    inputs = {"model": subject.model, "positive": subject.positive, "negative": subject.negative, "cfg": subject.cfg}
    (guider,) = node("StepwiseCFGGuider", **inputs)
    if "state" not in given:
        (noise,) = node("StepwiseNoise", seed=SEED)
        latent = {"samples": torch.zeros(images, *subject.shape[1:])}
        given = {"noise": noise, "latent_image": latent, "sigmas": sigmas_of(subject, steps), **given}
    return node(f"Stepwise{solver}", guider=guider, **given)


def theirs(subject: Subject, sampler: str, steps: int) -> tuple[Any, ...]:
    """The outputs of ComfyUI's own node."""
    inputs = {"model": subject.model, "positive": subject.positive, "negative": subject.negative, "cfg": subject.cfg}
    given = {
        "guider": execute("CFGGuider", inputs)[0],
        "noise": execute("RandomNoise", {"noise_seed": SEED})[0],
        "sampler": execute("KSamplerSelect", {"sampler_name": sampler})[0],
        "sigmas": sigmas_of(subject, steps),
        "latent_image": {"samples": torch.zeros(1, *subject.shape[1:])},
    }
    return execute("SamplerCustomAdvanced", given)


Runner = Callable[[Subject, int], Any]


def our_runner(solver: str, **given: Any) -> Runner:
    return lambda subject, steps: ours(subject, solver, steps, **given)


def their_runner(sampler: str) -> Runner:
    return lambda subject, steps: theirs(subject, sampler, steps)


class Marks:
    """Takes the time at two calls of the network, with the device done each time."""

    def __init__(self, network: torch.nn.Module):
        self.calls, self.at, self.times = 0, (-1, -1), list[float]()
        self.hook = network.register_forward_pre_hook(self.called)

    def called(self, *_: Any) -> None:
        if self.calls in self.at:
            synchronise()
            self.times.append(time.perf_counter())
        self.calls += 1

    def __enter__(self) -> "Marks":
        return self

    def __exit__(self, *_: Any) -> None:
        self.hook.remove()


WARM = 3  # steps until every history is full
SETTLED = 8  # steps of a run that shows how many calls one has: the first ones of UniPC have more


def calls_of(runner: Runner, subject: Subject, steps: int) -> tuple[int, int]:
    """Calls of the network before step WARM, and in a step from there on, from a run that warms all up."""
    with Marks(subject.network) as marks:
        runner(subject, steps)
    a_step = marks.calls // steps
    return marks.calls - (steps - WARM) * a_step, a_step


def seconds_a_step(runner: Runner, subject: Subject, steps: int, first: int, a_step: int) -> float:
    """The time of a step, from `steps` of them in the middle of a run."""
    with Marks(subject.network) as marks:
        marks.at = (first, first + steps * a_step)
        runner(subject, WARM + steps + 2)
    begun, ended = marks.times
    return (ended - begun) / steps


def interleaved(
    runners: Mapping[str, Runner], subject: Subject, steps: int, repetitions: int, end: float, settled: int = SETTLED
) -> Iterator[dict[str, list[float]]]:
    """Milliseconds a step of each, one after the other, again and again; all so far, after each round."""
    calls = {name: calls_of(runner, subject, settled) for name, runner in runners.items()}
    taken: dict[str, list[float]] = {name: [] for name in runners}
    longest = 0.0
    for _ in range(repetitions):
        begun = time.time()
        if begun + longest > end and taken[next(iter(taken))]:
            break
        for name, runner in runners.items():
            taken[name].append(1e3 * seconds_a_step(runner, subject, steps, *calls[name]))
        longest = max(longest, time.time() - begun)
        yield taken


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference over the rms of `other`."""
    one, other = one.double().cpu(), other.double().cpu()
    return float((one - other).abs().max() / other.square().mean().sqrt())


def cuts_of(steps: int) -> Sequence[int]:
    return (1, steps // 2, steps - 1)
