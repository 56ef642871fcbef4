"""What a step costs around the model in ComfyUI, under its guider and under ours: the tables of
docs/guider_cost.md and docs/claims.md.

    python benchmarks/guiders.py           seconds: counts, which are the same on every machine
    python benchmarks/guiders.py --time    some minutes more: the time of a step on this CPU

A real MODEL of ComfyUI whose network costs nothing is sampled with DPM++ 2M at guidance 7, conditioning without areas,
masks or the like. Seen is one step in the middle of a run, from the network's output to its next input.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from stepwise.benchmarks import _run_waits
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate import generated
from stepwise.tools.generate.generated import Files
from stepwise.tools.generate.markdown import filled, from_heading, table
from stepwise.tools.measure.counting import Counts, Device
from stepwise.tools.measure.host import load_host, node
from torch import Tensor, nn

CLAIMS, PAGE = ROOT / "docs" / "claims.md", ROOT / "docs" / "guider_cost.md"
GUIDANCE = 7.0
STEPS, MIDDLE = 20, 10
SD_BETAS = {"beta_schedule": "linear", "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000}
FAMILIES = {"EPS": SD_BETAS, "FLUX": {"shift": 1.15}, "FLOW": {"shift": 8.0}}
TOKENS = (77, 768)


class Enough(Exception):
    """The step has been seen: the rest of the run is not needed."""


class FreeNetwork(nn.Module):
    """Returns a tensor that is there already, and tells when it is called."""

    def __init__(self):
        super().__init__()
        self.dtype = torch.float32
        self.prediction: Tensor | None = None
        self.watch: Callable[[], None] = lambda: None

    def forward(self, x: Tensor, timesteps: Tensor, context: Any = None, **_: Any) -> Tensor:
        self.watch()
        return self.prediction[: len(x)]


class Between:
    """Calls `begin` as the network returns for the `first` time that counts, and `end` as it is next called after
    `last`."""

    def __init__(self, first: int, last: int, begin: Callable[[], None], end: Callable[[], None]):
        self.first, self.last, self.begin, self.end, self.calls = first, last, begin, end, 0

    def __call__(self) -> None:
        if self.calls == self.last:
            self.end()
            raise Enough
        if self.calls == self.first:
            self.begin()
        self.calls += 1


@dataclass
class Stage:
    """A guider of either kind, ready to be called, as it stands within a run of ComfyUI."""

    guider: Any
    network: FreeNetwork
    sigmas: Tensor

    @property
    def extra_args(self) -> dict[str, Any]:
        return {"model_options": {"transformer_options": {"sample_sigmas": self.sigmas}}, "seed": 0}


def staged(kind: str, family: str, x: Tensor, put: Callable[[Tensor], Tensor], rule: Any = ()) -> Stage:
    """What ComfyUI's `outer_sample` and `inner_sample` do before the sampler runs; `put` moves to the device.

    The guider is the `host`'s or `ours`, with rules.
    """
    import comfy.samplers
    from comfy.latent_formats import LatentFormat
    from comfy.model_base import ModelType
    from stepwise.nodes.host.small_models import host_model

    form = LatentFormat()
    form.latent_channels, form.latent_dimensions = x.shape[1], x.ndim - 2
    network = FreeNetwork()
    patcher = host_model(network, ModelType[family], form, FAMILIES[family])
    network.prediction = put(torch.ones(2 * len(x), *x.shape[1:]))
    sampling = patcher.get_model_object("model_sampling")
    for name, buffer in list(sampling.named_buffers()):
        sampling._buffers[name] = put(buffer)
    if x.device.type != "cpu":
        # The pretended GPU cannot be asked.
        patcher.get_free_memory = lambda device: 1e15
    patcher.model.current_patcher = patcher
    prompts = [[[torch.ones(1, *TOKENS), {}]], [[torch.zeros(1, *TOKENS), {}]]]
    if kind == "ours":
        inputs = {"model": patcher, "positive": prompts[0], "negative": prompts[1], "cfg": GUIDANCE}
        (guider,) = node("StepwiseCFGGuider", **inputs, rule=rule)
    else:
        guider = comfy.samplers.CFGGuider(patcher)
        guider.set_conds(*prompts)
        guider.set_cfg(GUIDANCE)
    guider.inner_model = patcher.model
    conds = {name: [dict(cond[0])] for name, cond in guider.original_conds.items()}
    guider.conds = comfy.samplers.process_conds(patcher.model, x, conds, x.device)
    sigmas = put(comfy.samplers.calculate_sigmas(patcher.get_model_object("model_sampling"), "simple", STEPS).clone())
    return Stage(guider, network, sigmas)


def sample(kind: str, stage: Stage, x: Tensor) -> None:
    """DPM++ 2M, as ComfyUI's sampler function and as our nodes run it."""
    import comfy.samplers
    from comfy.k_diffusion import sampling
    from stepwise.nodes.host.models import path_of
    from stepwise.nodes.host.sampler import make_plan, solve
    from stepwise.samplers import AddressedNoise, start
    from stepwise.samplers.registry import SOLVERS

    model = comfy.samplers.KSamplerX0Inpaint(stage.guider, stage.sigmas)
    extra = {**stage.extra_args, "denoise_mask": None}
    if kind == "host":
        sampling.sample_dpmpp_2m(model, x, stage.sigmas, extra_args=extra, disable=True)
        return
    solver = next(solver for solver in SOLVERS if solver.id == "DPMpp2M")
    path = path_of(stage.guider.inner_model.model_sampling)
    plan = make_plan(solver, {}, path, stage.sigmas.tolist())
    solve("", plan, model, start(x), AddressedNoise([0]), extra, lambda step, state: None, rests=0, disable=True)


def until_enough(kind: str, stage: Stage, x: Tensor, between: Between) -> None:
    stage.network.watch = between
    try:
        sample(kind, stage, x)
    except Enough:
        return
    raise RuntimeError("the run ended before the step did")


class NoCheck:
    """In the place of the finite check, which is counted apart: one kernel and one latent a call."""

    def __init__(self, denoiser: Any, _: Any):
        self.denoiser = denoiser

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self.denoiser(x, sigma)

    def note(self, *_: Any) -> None:
        pass

    def look(self, *_: Any, **__: Any) -> None:
        pass


def count(
    kind: str,
    family: str,
    shape: Sequence[int],
    check: bool = False,
    rule: Any = (),
    sampler: str | None = None,
    idle: bool = False,
) -> Counts:
    """One step on a pretended GPU, an idle one or one that never is: guider and sampler of one kind, unless a `sampler`
    of the other is asked for."""
    from stepwise.nodes.host import sampler as host

    kept = host.FiniteCheck
    host.FiniteCheck = kept if check else NoCheck
    try:
        with torch.no_grad(), Device(shape, idle) as device:
            x = device.given(torch.ones(*shape))
            stage = staged(kind, family, x, device.put, rule)
            until_enough(sampler or kind, stage, x, Between(MIDDLE, MIDDLE + 1, device.begin, device.end))
            return device.counts
    finally:
        host.FiniteCheck = kept


# Time

SIZES = (
    ("SD1.5, 512 x 512", "EPS", (1, 4, 64, 64)),
    ("SDXL, 1024 x 1024, batch of 4", "EPS", (4, 4, 128, 128)),
    ("Flux, 2048 x 2048", "FLUX", (1, 16, 256, 256)),
    ("Wan, 81 frames of 1280 x 720", "FLOW", (1, 16, 21, 90, 160)),
)
REPETITIONS = 15


def seconds(kind: str, family: str, shape: Sequence[int], steps: int) -> float:
    """The time of a step, the finite check included, from a few in the middle of a run."""
    taken: list[float] = []
    x = torch.randn(*shape)
    stage = staged(kind, family, x, lambda tensor: tensor)

    def mark() -> None:
        taken.append(time.perf_counter())

    with torch.no_grad():
        until_enough(kind, stage, x, Between(3, 3 + steps, mark, mark))
    return (taken[1] - taken[0]) / steps


def timed(family: str, shape: Sequence[int]) -> list[str]:
    """Both in milliseconds, and the host's over ours, repetition by repetition in turn."""
    small = torch.Size(shape).numel() <= 1 << 18
    steps, repetitions = (16, 4 * REPETITIONS) if small else (2, REPETITIONS)
    pairs = [[seconds(kind, family, shape, steps) for kind in KINDS] for _ in range(repetitions + 1)][1:]
    medians = [f"{1e3 * statistics.median(times):.3g}" for times in zip(*pairs, strict=True)]
    low, median, high = statistics.quantiles([host / ours for host, ours in pairs], n=4)
    return [*medians, f"{median:.2f} ({low:.2f} to {high:.2f})"]


# Tables

KINDS = ("host", "ours")
SHAPE = (1, 16, 256, 256)
COUNTED = (("EPS", "Stable Diffusion"), ("FLUX", "Flux"), ("FLOW", "SD3, Wan and most flow models"))
HEAD = ("Kernels / latents moved / syncs / copies", "Stepwise", "ComfyUI")


def short(counts: Counts) -> str:
    return f"{counts.kernels_all} / {counts.moved:g} / {counts.syncs} / {counts.uploads}"


def count_table() -> str:
    rows = [(label, *(short(count(kind, family, SHAPE)) for kind in KINDS[::-1])) for family, label in COUNTED]
    return table(HEAD, rows)


def time_table() -> str:
    head = ("Latent of", "ComfyUI, ms a step", "ours, ms a step", "ComfyUI / ours")
    return table(head, [(label, *timed(family, shape)) for label, family, shape in SIZES])


INTRODUCTION = """# What a step costs around the model, under a guider

Made by `python benchmarks/guiders.py`. [cost.md](cost.md) is about the solver alone. This page has all that happens
between two calls of the network in ComfyUI: its model wrapper, the guider and the solver. A real MODEL whose network
costs nothing is sampled with DPM++ 2M at guidance 7, by ComfyUI's `dpmpp_2m` under its CFGGuider, and by DPM++ 2M under
CFG Guider (Stepwise). The predictions of the two guiders are equal to 1e-6.

## Counts

A latent of {shape} on a pretended GPU, one step in the middle of a run. All kernels are counted, those on single
numbers too. A sync is a time that the host waits for the device, a copy one of a small tensor to the device. Our check
for values that are not finite is not in it: one kernel and one latent.

"""
HOLDS = """
Ours holds for conditioning without area, mask, strength, ControlNet, hooks or time range, and for a model without CFG
patches. Everything else takes ComfyUI's own path, at its cost and with its result, bit for bit.
"""
TIMES = """
## Time

One CPU thread, the two in turn, {repetitions} times or more, our check for values that are not finite included. The
ratio is of one repetition: median and quartiles, above 1 ours is faster. Times depend on the machine, and no test
holds them.

"""


def files(counts: str, waits: str, times: str = "") -> Files:
    """The page, and the marked part of docs/claims.md. Without new times, those that the page has stay."""
    times = (
        TIMES.format(repetitions=REPETITIONS) + times
        if times
        else from_heading(PAGE.read_text(encoding="utf-8"), "Time")
    )
    page = (
        INTRODUCTION.format(shape=" x ".join(map(str, SHAPE)))
        + counts
        + HOLDS
        + _run_waits.INTRODUCTION
        + waits
        + times
    )
    return {PAGE: page, CLAIMS: filled(CLAIMS.read_text(encoding="utf-8"), counts, "guiders")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", action="store_true", help="also take the time of a step")
    known = parser.parse_args()
    folder = load_host()
    counts = count_table()
    waits = _run_waits.waits_table()
    print(counts, waits, sep="\n")
    times = time_table() if known.time else ""
    print(times)
    generated.write(files(counts, waits, times))
    folder.cleanup()


if __name__ == "__main__":
    main()
