"""What noise costs, and what a network's batch changes: the tables of docs/noise.md.

    python benchmarks/noise.py          a minute or two; rewrites the tables

Timed: all noise of a run of 20 steps on the Karras schedule of Stable Diffusion, one CPU thread, one image; a plain
torch.randn, both of our kinds and ComfyUI's tree in turn, for several rounds. A ratio is to the torch.randn of the same
round, and the median of the rounds.
"""

import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median

import torch
from stepwise.samplers import VE, AddressedNoise, BrownianNoise, Noise
from stepwise.samplers.schedules import karras
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate import generated
from stepwise.tools.generate.markdown import filled, table
from stepwise.tools.measure.counting import HostMemory
from stepwise.tools.measure.digits import sample_digits
from stepwise.tools.measure.host import load_host, node
from torch import Tensor

PAGE = ROOT / "docs" / "noise.md"
STEPS = 20
LEVELS = karras(STEPS)[:-1]
SIZES = {"SD1.5": (1, 4, 64, 64), "SDXL": (1, 4, 128, 128), "Flux, 2048 x 2048": (1, 16, 256, 256)}
Runner = Callable[[Tensor], None]


def plain(x: Tensor) -> None:
    for _ in pairwise(LEVELS):
        torch.randn(x.shape)


def ours(kind: type[AddressedNoise] | type[BrownianNoise]) -> Runner:
    def runner(x: Tensor) -> None:
        source = AddressedNoise([7]) if kind is AddressedNoise else BrownianNoise(VE, [7])
        for s, t in pairwise(LEVELS):
            source(Noise("step", s, t), x)

    return runner


def tree(x: Tensor) -> None:
    """As ComfyUI's SDE samplers make it: from the schedule's own ends, on the CPU."""
    from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler

    sigmas = torch.tensor(LEVELS)
    source = BrownianTreeNoiseSampler(x, sigmas[-1], sigmas[0], seed=7, cpu=True)
    for s, t in pairwise(sigmas):
        source(s, t)


RUNNERS: dict[str, Runner] = {
    "torch.randn": plain,
    "independent": ours(AddressedNoise),
    "brownian": ours(BrownianNoise),
    "ComfyUI's BrownianTreeNoiseSampler": tree,
}


def memory(runner: Runner, shape: tuple[int, ...]) -> float:
    """Most latents alive at once beyond the one that asks for noise."""
    x = torch.zeros(shape)
    with HostMemory(x.numel()) as counted:
        runner(x)
    return counted.peak


def draws(runner: Runner, shape: tuple[int, ...]) -> float:
    """Latents of random numbers made, for one step's noise on the average."""
    x = torch.zeros(shape)
    with HostMemory(x.numel()) as counted:
        runner(x)
    return counted.drawn / (len(LEVELS) - 1)


def timed(shape: tuple[int, ...]) -> dict[str, tuple[float, float]]:
    """Milliseconds for the noise of one step, and how many times torch.randn that is: in turn, medians of rounds."""
    x, took = torch.zeros(shape), {name: list[float]() for name in RUNNERS}
    for _ in range(31 if x.numel() < 100_000 else 7):
        for name, runner in RUNNERS.items():
            begun = time.perf_counter()
            runner(x)
            took[name].append((time.perf_counter() - begun) * 1e3 / (len(LEVELS) - 1))
    ratios = {name: median(a / b for a, b in zip(took[name], took["torch.randn"], strict=True)) for name in took}
    return {name: (median(took[name]), ratios[name]) for name in took}


def cost_table() -> str:
    small = SIZES["SD1.5"]
    head, rows = ["", "draws a step", "latents of memory"], list[list[str]]()
    times = {name: timed(shape) for name, shape in SIZES.items()}
    for name in SIZES:
        head += [f"{name}: ms a step", "times torch.randn"]
    for name, runner in RUNNERS.items():
        row = [name, f"{draws(runner, small):.1f}", f"{memory(runner, small):.1f}"]
        for measured in times.values():
            row += [f"{measured[name][0]:.3g}", f"{measured[name][1]:.2f}"]
        rows.append(row)
    return table(head, rows, figures=True)


@torch.no_grad()
def batch_table() -> str:
    """The shipped network, one call and whole runs, on 8 images at once and alone: largest difference over rms."""
    model = node("StepwiseDigitsModel", variant="standard")[0].model
    network = model.diffusion_model.float()
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    context = torch.randn(8, 4, 64, generator=torch.Generator().manual_seed(1))
    time_ = torch.full((8,), 500.0)
    together = network(x, time_, context)
    alone = torch.cat([network(x[i : i + 1], time_[:1], context[i : i + 1]) for i in range(8)])
    rows = [("one call of the network", relative(together, alone))]
    for solver in ("DPMpp2M", "DDPM"):
        whole, _ = sample_digits(solver, "Karras", STEPS, "standard", 1.0, 0, 1)
        again, _ = sample_digits(solver, "Karras", STEPS, "standard", 1.0, 0, 8)
        rows.append((f"first image of a run of {STEPS} steps, {solver}", relative(again[:1], whole)))
    head = ("Digits model, batch of 8 against alone", "largest difference over rms")
    return table(head, [(name, f"{value:.1e}") for name, value in rows], figures=True)


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.square().mean().sqrt()).item()


def main() -> None:
    torch.set_num_threads(1)
    load_host()
    tables = {"cost": cost_table(), "batch": batch_table()}
    text = PAGE.read_text(encoding="utf-8")
    for name, made in tables.items():
        print(made)
        text = filled(text, made, name)
    generated.write({PAGE: text})


if __name__ == "__main__":
    main()
