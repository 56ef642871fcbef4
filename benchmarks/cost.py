"""What a step costs besides the model: the tables of docs/cost.md and docs/claims.md.

    python benchmarks/cost.py           less than a minute: counts, which are the same on every machine
    python benchmarks/cost.py --time    some minutes more: the time of a step on this CPU, against the other libraries

The samplers run on a pretended GPU (tools/measure/counting.py) with a model that costs nothing. Counted is one step in
the middle of a run: from the model call that begins it to the one that begins the next. Which methods have a row, the
registry says; what they are compared with, the table of twins (tools/generate/twins.py).
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from stepwise.benchmarks._methods import METHODS, MIDDLE, STEPS, Enough, Method, run_comfyui, run_diffusers, run_ours
from stepwise.samplers import FLOW, VE
from stepwise.samplers import Path as NoisePath
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.environment.inprocess import load_comfyui
from stepwise.tools.generate import generated
from stepwise.tools.generate.generated import Files
from stepwise.tools.generate.markdown import filled, from_heading, table
from stepwise.tools.measure.counting import Counts, Device
from torch import Tensor

CLAIMS, PAGE = ROOT / "docs" / "claims.md", ROOT / "docs" / "cost.md"
SHAPE = (1, 16, 256, 256)


# Counting


class CountedModel:
    """Returns a tensor that is there already. The count runs from its call `first` to its call `last`."""

    def __init__(self, device: Device, first: int, last: int):
        self.device, self.first, self.last, self.calls = device, first, last, 0

    def __call__(self, x: Tensor) -> Tensor:
        if self.calls == self.first:
            self.device.begin()
        if self.calls == self.last:
            self.device.end()
            raise Enough
        self.calls += 1
        return self.device.put(torch.ones(x.shape))


def counted(
    runner: Callable[..., None], method: Method, shape: Sequence[int], first: int, last: int, **options: Any
) -> Counts:
    with torch.no_grad(), Device(shape) as device:
        try:
            runner(method, CountedModel(device, first, last), device.given(torch.randn(*shape)), **options)
        except Enough:
            return device.counts
    raise RuntimeError(f"{method.label}: the run ended before its step {MIDDLE} did")


def count_ours(method: Method, path: NoisePath = VE, shape: Sequence[int] = SHAPE) -> Counts:
    plan = method.plan(path)
    return counted(run_ours, method, shape, plan.first_stage(MIDDLE), plan.first_stage(MIDDLE + 1), path=path)


def count_theirs(runner: Callable[..., None], method: Method, shape: Sequence[int] = SHAPE) -> Counts:
    return counted(runner, method, shape, MIDDLE * method.calls, (MIDDLE + 1) * method.calls)


def extra_peak(counts: Counts) -> float:
    """Latents beyond the current x and denoised."""
    return counts.peak - 2.0


# Tables


HEAD = (
    "Solver, and whose",
    "kernels",
    "kernels, all",
    "latents moved",
    "peak",
    "syncs",
    "copies to the device",
    "draw copies",
)


def cells(counts: Counts) -> list[str]:
    numbers = (counts.kernels, counts.kernels_all, counts.moved, extra_peak(counts), counts.syncs, counts.uploads)
    draws = f"{counts.draws}, waited for" if counts.waited else f"{counts.draws}"
    return [*(f"{number:.4g}" for number in numbers), draws]


def short(counts: Counts | None) -> str:
    return " / ".join(cells(counts)[i] for i in (0, 2, 3, 4)) if counts else "-"


@dataclass(frozen=True)
class Measured:
    method: Method
    ours: Counts
    flow: Counts
    comfyui: Counts | None = None
    diffusers: Counts | None = None

    @property
    def our_rows(self) -> list[list[str]]:
        flow = [["on flow models", *cells(self.flow)]] if cells(self.flow) != cells(self.ours) else []
        return [[f"**{self.method.label}**", *cells(self.ours)], *flow]


def measure(method: Method, shape: Sequence[int] = SHAPE) -> Measured:
    return Measured(
        method,
        count_ours(method, VE, shape),
        count_ours(method, FLOW, shape),
        count_theirs(run_comfyui, method, shape) if method.comfyui else None,
        count_theirs(run_diffusers, method, shape) if method.diffusers else None,
    )


def full_table(results: Sequence[Measured]) -> str:
    rows: list[list[str]] = []
    for result in results:
        method = result.method
        rows += result.our_rows
        if result.comfyui and method.comfyui:
            rows.append([f"ComfyUI `{method.comfyui[0]}`", *cells(result.comfyui)])
        if result.diffusers and method.diffusers:
            rows.append([f"diffusers `{method.diffusers[0]}`", *cells(result.diffusers)])
    return table(HEAD, rows)


def short_table(results: Sequence[Measured]) -> str:
    head = ("Kernels / latents moved / peak / syncs", "Stepwise", "ComfyUI", "diffusers")
    return table(head, [(r.method.label, short(r.ours), short(r.comfyui), short(r.diffusers)) for r in results])


# Time

SIZES = ((1, 4, 64, 64), (1, 4, 128, 128), (1, 16, 128, 128), (1, 16, 256, 256), (1, 16, 41, 120, 208))
TIMED = ("Euler", "DPMpp2M", "DPMSolver", "UniPC")
REPETITIONS = 15
WARM = 3  # steps until every history is full


class TimedModel:
    """Returns one tensor again and again, and takes the time from its call `first` to its call `last`."""

    def __init__(self, shape: Sequence[int], first: int, last: int):
        self.prediction = torch.ones(*shape)
        self.first, self.last, self.calls = first, last, 0

    def __call__(self, x: Tensor) -> Tensor:
        if self.calls == self.first:
            self.begun = time.perf_counter()
        if self.calls == self.last:
            self.seconds = time.perf_counter() - self.begun
            raise Enough
        self.calls += 1
        return self.prediction


def seconds(runner: Callable[..., None], method: Method, shape: Sequence[int], steps: int) -> float:
    """The time of a step, from a few in the middle of a run."""
    if runner is run_ours:
        first, last = (method.plan(VE).first_stage(step) for step in (WARM, WARM + steps))
    else:
        first, last = WARM * method.calls, (WARM + steps) * method.calls
    model = TimedModel(shape, first, last)
    try:
        runner(method, model, torch.randn(*shape))
    except Enough:
        return model.seconds / steps
    raise RuntimeError(f"{method.label}: the run ended too soon")


def quartiles(ratios: Sequence[float]) -> str:
    low, median, high = statistics.quantiles(ratios, n=4)
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def timed(method: Method, shape: Sequence[int]) -> list[str]:
    """Ours in milliseconds, and ours over each of the others', repetition by repetition in turn."""
    runners = (run_ours, run_comfyui, run_diffusers)
    steps = 10 if torch.Size(shape).numel() <= 1 << 20 else 1
    with torch.no_grad():
        taken = [[seconds(runner, method, shape, steps) for runner in runners] for _ in range(REPETITIONS + 1)][1:]
    size = "x".join(map(str, shape))
    ratios = [quartiles([times[0] / times[other] for times in taken]) for other in (1, 2)]
    return [method.label, size, f"{1e3 * statistics.median(times[0] for times in taken):.3g}", *ratios]


def time_table() -> str:
    head = ("Solver", "Latent", "ours, ms a step", "ours / ComfyUI", "ours / diffusers")
    methods = [method for method in METHODS if method.solver in TIMED and method.comfyui]
    return table(head, [timed(method, shape) for method in methods for shape in SIZES])


# The page

INTRODUCTION = f"""# What a step costs besides the model

Made by `python benchmarks/cost.py`. Every number but the times is counted, not measured, so it is the same on every
machine, and the tests hold it there.

The samplers run {STEPS} steps on a latent of {" x ".join(map(str, SHAPE))} float32 numbers, on tensors that pretend to
lie on a GPU, with a model that costs nothing. Counted is step {MIDDLE + 1}, from the model call that begins it to the
one that begins the next, so that all model calls of a step are in it:

- **kernels**: operations on the device that read or write a tensor of a latent's size; **kernels, all** has those on
  single numbers too.
- **latents moved**: what they read and write, in latents.
- **peak**: how many latents are alive at once beyond the current x and denoised. The latent that the run was given is
  not counted, for none of the three. Ours holds as long as nobody keeps a state of an earlier call.
- **syncs**: how often the host waits until the device has come to a value.
- **copies to the device**: of small tensors, made from numbers on the host.
- **draw copies**: latents of noise drawn on the host, each also counted as one kernel and one latent. Ours are pinned,
  so that nobody waits; drawn on the device they would be one kernel and one latent too.

diffusers' `step()` also turns the predicted noise into a denoised latent, 2 kernels and 5 latents moved, which for the
other two is part of the model call.

"""
TIMES = """
## Time

One CPU thread, a model that returns at once; the libraries in turn, {repetitions} times. The ratio is ours over theirs
in the same repetition, median and quartiles: below 1 ours is faster. Times depend on the machine and are not tested.

"""


def files(results: Sequence[Measured], times: str = "") -> Files:
    """The page, and the marked part of docs/claims.md. Without new times, those that the page has stay."""
    kept = from_heading(PAGE.read_text(encoding="utf-8"), "Time")
    times = TIMES.format(repetitions=REPETITIONS) + times if times else kept
    short = filled(CLAIMS.read_text(encoding="utf-8"), short_table(results), "cost")
    return {PAGE: INTRODUCTION + full_table(results) + times, CLAIMS: short}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", action="store_true", help="also take the time of a step")
    known = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    folder = load_comfyui()
    torch.set_num_threads(1)
    results = [measure(method) for method in METHODS]
    print(full_table(results))
    times = time_table() if known.time else ""
    print(times)
    generated.write(files(results, times))
    folder.cleanup()


if __name__ == "__main__":
    main()
