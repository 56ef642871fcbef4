"""What the samplers do to a trained network: the table and the pictures of docs/claims.md and docs/quality.md.

    python benchmarks/quality.py            about 20 minutes on two cores; fills what stands between the quality marks
                                            of both pages, and draws two pictures in docs/images
    python benchmarks/quality.py --quick    less than a minute; prints a small table and writes nothing

The Digits model runs in the real ComfyUI, on the CPU, through this pack's own nodes, in one process per core.
docs/quality.md says how everything is measured and what it does not show.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from stepwise.demo.classifier import accuracy
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate import generated
from stepwise.tools.generate.markdown import filled, table
from stepwise.tools.measure.digits import CHUNK, Samples, sample_digits
from stepwise.tools.measure.host import load_host, run_workflow
from stepwise.tools.measure.judge import SEED, Referee, enlarged, full_ink
from torch import Tensor

CLAIMS, PAGE, IMAGES = ROOT / "docs" / "claims.md", ROOT / "docs" / "quality.md", ROOT / "docs" / "images"
FIRST = ROOT / "example_workflows" / "api" / "dpmpp_2m_karras_cfg.json"
# What the first example is told so that it draws all digits.
DIGITS: dict[str, dict[str, Any]] = {
    "StepwiseEmojiModel": {"variant": "standard"},
    "EmptyLatentImage": {"batch_size": 10},
    "StepwiseCFGGuider": {"cfg": 3.0},
    "StepwiseImageGrid": {"columns": 5},
}

SHORT_GUIDANCES = (1.0, 7.5)


def first_of_digits() -> dict[str, Any]:
    """The first example with the model of digits in the place of that of emoji."""
    graph = json.loads(FIRST.read_text(encoding="utf-8"))
    for node in graph.values():
        kind, inputs = node["class_type"], node["inputs"]
        inputs.update(DIGITS.get(kind, {}))
        if kind == "StepwiseEmojiPrompt":
            node["inputs"] = {"labels": "0-9" if inputs["prompt"] else ""}
        node["class_type"] = {"StepwiseEmojiPrompt": "StepwiseDigit"}.get(kind, kind.replace("Emoji", "Digits"))
    return graph


@dataclass(frozen=True)
class Method:
    """A solver on a schedule, both at the defaults of their nodes; `ode` where it solves the probability-flow ODE."""

    name: str
    solver: str
    schedule: str
    steps: int
    ode: bool = False
    variant: str = "standard"

    @property
    def label(self) -> str:
        return f"{self.name}, {self.steps} steps"


METHODS = (
    Method("DDPM", "DDPM", "Timestep", 1000),
    Method("DDIM", "DDIM", "Timestep", 50, ode=True),
    Method("DPM-Solver-2", "DPMSolver", "Exponential", 10, ode=True),
    Method("DPM++ 2M Karras", "DPMpp2M", "Karras", 5, ode=True),
    Method("DPM++ 2M Karras", "DPMpp2M", "Karras", 10, ode=True),
    Method("DPM++ 2M Karras", "DPMpp2M", "Karras", 20, ode=True),
    Method("LCM", "LCM", "LCM", 4, variant="lcm"),
    Method("LCM", "LCM", "LCM", 8, variant="lcm"),
)


def converged(steps: int) -> Method:
    """The solution of the ODE; with half the steps it tells how far it is from its limit."""
    return Method("DPM-Solver-2 Karras", "DPMSolver", "Karras", steps)


@dataclass(frozen=True)
class Size:
    """How much is run: images of each class, methods, guidances, and steps for the solution of the ODE."""

    per_class: int
    methods: tuple[Method, ...]
    guidances: tuple[float, ...]
    ode_steps: int


FULL = Size(20, METHODS, (1.0, 3.0, 7.5, 15.0), 200)
QUICK = Size(2, METHODS[1:], (1.0, 7.5), 40)


@dataclass(frozen=True)
class Job:
    """One run of `count` images from the noise of chunk number `chunk`."""

    method: Method
    guidance: float
    chunk: int
    count: int

    @property
    def cost(self) -> float:
        return self.method.steps * self.count * (1 + (self.guidance != 1)) * (1 + (self.method.solver == "DPMSolver"))

    def run(self) -> tuple[Tensor, float]:
        """The latents, and the evaluations of the network per image."""
        m = self.method
        # 1000 apart: within a chunk image i draws its noise from seed + i.
        seed = SEED + 1000 * self.chunk
        return sample_digits(m.solver, m.schedule, m.steps, m.variant, self.guidance, seed, self.count)


def jobs_of(size: Size) -> list[Job]:
    counts = [min(CHUNK, 10 * size.per_class - start) for start in range(0, 10 * size.per_class, CHUNK)]
    runs = [Job(m, g, i, n) for m in size.methods for g in size.guidances for i, n in enumerate(counts)]
    exact = [converged(steps) for steps in (size.ode_steps, size.ode_steps // 2)]
    return runs + [Job(m, g, 0, counts[0]) for m in exact for g in size.guidances]


def run_jobs(jobs: Sequence[Job], pool: ProcessPoolExecutor) -> dict[Job, tuple[Tensor, float]]:
    """What the jobs made; the longest begin first, so that the processes end together."""
    total, done, results, started = sum(job.cost for job in jobs), 0.0, {}, time.monotonic()
    print(f"{len(jobs)} runs, the longest first", file=sys.stderr, flush=True)
    futures = {pool.submit(job.run): job for job in sorted(jobs, key=lambda job: -job.cost)}
    for future in as_completed(futures):
        job = futures[future]
        results[job] = future.result()
        done += job.cost
        elapsed = time.monotonic() - started
        clock = f"{elapsed:.0f} s, about {elapsed / done * (total - done):.0f} s left"
        what = f"{job.method.label}, guidance {job.guidance:g}"
        print(f"{len(results)}/{len(jobs)}  {clock}  ({what})", file=sys.stderr, flush=True)
    return results


Runs = Mapping[tuple[Method, float], Samples]


def joined(results: Mapping[Job, tuple[Tensor, float]]) -> Runs:
    """The chunks of each method and guidance put together."""
    parts: dict[tuple[Method, float], list[tuple[Tensor, float]]] = {}
    for job in sorted(results, key=lambda job: job.chunk):
        parts.setdefault((job.method, job.guidance), []).append(results[job])
    return {key: Samples(torch.cat([x for x, _ in made]), made[0][1]) for key, made in parts.items()}


def distance(x: Tensor, reference: Tensor) -> float:
    """rms(x - reference) / rms(reference) over the images that `reference` has, the first ones of `x`."""
    x = x[: len(reference)]
    return ((x - reference).square().mean() / reference.square().mean()).sqrt().item()


@dataclass(frozen=True)
class Figures:
    """One line of the table; `ode` is None for a method that does not solve the standard model's ODE."""

    method: Method
    guidance: float
    evaluations: float
    ode: float | None
    accuracy: float
    frechet: float
    spread: float
    ink: float

    @property
    def calls(self) -> float:
        """The sampler's: the host evaluates the network twice in each, except at guidance 1."""
        return self.evaluations / (1 if self.guidance == 1 else 2)


def measure(runs: Runs, size: Size, referee: Referee) -> list[Figures]:
    lines = []
    for method in size.methods:
        for guidance in size.guidances:
            made, exact = runs[method, guidance], runs[converged(size.ode_steps), guidance]
            figures = {
                "evaluations": made.evaluations,
                "ode": distance(made.latents, exact.latents) if method.ode else None,
                "accuracy": accuracy(referee.judge, made.images, made.labels),
                "frechet": referee.frechet(made.images, made.labels),
                "spread": referee.spread(made.images, made.labels),
                "ink": full_ink(made.images),
            }
            lines.append(Figures(method, guidance, **figures))
    return lines


def convergence(runs: Runs, size: Size) -> str:
    """How far the ODE's solution moves, at each guidance, when its steps are doubled."""
    full, half = converged(size.ode_steps), converged(size.ode_steps // 2)
    moves = [f"{distance(runs[half, g].latents, runs[full, g].latents):.4f} at {g:g}" for g in size.guidances]
    return (
        f"The solution of the ODE: {full.name} with {full.steps} steps, for {len(runs[full, 1.0].latents)} images. "
        f"From {half.steps} to {full.steps} steps it moves, by guidance: {', '.join(moves)}."
    )


def whole_table(lines: Sequence[Figures], referee: Referee) -> str:
    head = ("", "guidance", "calls", "evaluations", "to the ODE", "read right", "Frechet", "spread", "full ink")
    rows = [
        (
            line.method.label,
            f"{line.guidance:g}",
            f"{line.calls:.0f}",
            f"{line.evaluations:.0f}",
            "-" if line.ode is None else f"{line.ode:.4f}",
            f"{line.accuracy:.1%}",
            f"{line.frechet:.1f}",
            f"{line.spread:.2f}",
            f"{line.ink:.1%}",
        )
        for line in lines
    ]
    floor = f"{referee.floor:.1f} ± {referee.floor_deviation:.1f}"
    judged = (f"{referee.accuracy:.1%}", floor, f"{referee.floor_spread:.2f}", f"{full_ink(referee.real):.1%}")
    return table(head, [*rows, ("real images", "", "", "", "", *judged)], figures=True)


def short_table(lines: Sequence[Figures], referee: Referee, guidances: Sequence[float]) -> str:
    """One line per method: its cost, and two figures at some guidances."""
    at = {(line.method, line.guidance): line for line in lines}
    head = ["", "model calls"]
    head += [f"{figure}, guidance {g:g}" for figure in ("to the ODE", "Frechet") for g in guidances]
    rows = []
    for method in dict.fromkeys(line.method for line in lines):
        here = [at[method, g] for g in guidances]
        ode = ["-" if line.ode is None else f"{line.ode:.3f}" for line in here]
        rows.append([method.label, f"{here[0].calls:.0f}", *ode, *(f"{line.frechet:.0f}" for line in here)])
    floor = f"{referee.floor:.0f} ± {referee.floor_deviation:.0f}"
    real = ["real images", *[""] * (len(guidances) + 1), *[floor] * len(guidances)]
    return table(head, [*rows, real], figures=True)


def grid(runs: Runs, size: Size, shown: int = 5) -> Image.Image:
    """The first digits of every method at every guidance, all from the same noise, on a background of its own."""
    digit, gap, column_gap, margin, left, head = 64, 4, 28, 24, 300, 84
    rows = [*size.methods, converged(size.ode_steps)]
    column = shown * (digit + gap) - gap + column_gap
    extent = (left + len(size.guidances) * column - column_gap + margin, head + len(rows) * (digit + 2 * gap) + margin)
    picture = Image.new("RGB", extent, "#f4f1ea")
    draw, large, small = ImageDraw.Draw(picture), ImageFont.load_default(28), ImageFont.load_default(22)
    for i, guidance in enumerate(size.guidances):
        draw.text((left + i * column, head - 48), f"guidance {guidance:g}", fill="#222222", font=large)
    for j, method in enumerate(rows):
        y = head + j * (digit + 2 * gap)
        exact = method not in size.methods
        calls = f"{runs[method, 1.0].evaluations:.0f} calls"
        draw.text((margin, y + 2), "the ODE, solved" if exact else method.name, fill="#222222", font=large)
        draw.text((margin, y + 36), calls if exact else f"{method.steps} steps, {calls}", fill="#666666", font=small)
        for i, guidance in enumerate(size.guidances):
            for k, image in enumerate(runs[method, guidance].images[:shown]):
                x = left + i * column + k * (digit + gap)
                picture.paste(enlarged(image[0], digit // 8), (x, y))
    return picture


SHORT_TEXT = """{table}
![The first digits of every sampler at four guidances, from the same starting noise](docs/images/quality.png)

Measured on the small model that comes with the pack, in ComfyUI, on {count} images, the same starting noise in each
line. *To the ODE*: how far (rms over rms) the sampler ends from the exact solution of the equation that it solves, the
figure for a solver. *Frechet*: the distance to real digits that the model never saw, in the features of a small
classifier; the last line is what other real digits score. At guidance 1 most samplers are that near. At 7.5 the
equation itself leads away from real digits, so there it does not rank the samplers. Guidance other than 1 evaluates the
network twice in each call.
[All figures, how they are measured and what they do not show](docs/quality.md).
"""


def write(runs: Runs, lines: Sequence[Figures], size: Size, referee: Referee, first: Tensor) -> None:
    IMAGES.mkdir(exist_ok=True)
    grid(runs, size).save(IMAGES / "quality.png", optimize=True)
    enlarged(first, 2).save(IMAGES / "first-picture.png", optimize=True)
    whole = f"{whole_table(lines, referee)}\n{convergence(runs, size)}\n"
    short = SHORT_TEXT.format(table=short_table(lines, referee, SHORT_GUIDANCES), count=10 * size.per_class)
    texts = {PAGE: whole, CLAIMS: short}
    generated.write({path: filled(path.read_text(encoding="utf-8"), text, "quality") for path, text in texts.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run that writes nothing")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 8), help="processes, about 1 GB each")
    given = parser.parse_args()
    torch.set_num_threads(1)
    size = QUICK if given.quick else FULL
    with ProcessPoolExecutor(given.workers, multiprocessing.get_context("spawn"), load_host) as pool:
        try:
            runs = joined(run_jobs(jobs_of(size), pool))
            first = pool.submit(run_workflow, first_of_digits()).result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    referee = Referee(size.per_class)
    lines = measure(runs, size, referee)
    print(whole_table(lines, referee), convergence(runs, size), sep="\n")
    if not given.quick:
        write(runs, lines, size, referee, first)


if __name__ == "__main__":
    main()
