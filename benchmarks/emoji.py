"""What the samplers do to the Emoji model: its table in docs/quality.md, and its pictures in docs/images.

    python benchmarks/emoji.py              fills what stands between the page's marks and draws four pictures
    python benchmarks/emoji.py --table      measures the table alone
    python benchmarks/emoji.py --pictures   draws the pictures alone
    python benchmarks/emoji.py --time       prints how long the model takes to load, and a picture of 20 steps
    python benchmarks/emoji.py --quick      prints a small table and writes nothing

The model that comes with the pack runs in the real ComfyUI, on the CPU, through this pack's own nodes.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate import generated
from stepwise.tools.generate.markdown import filled, table
from stepwise.tools.measure.emoji import PROMPTS, SEED, emoji, guided, pictures, sample
from stepwise.tools.measure.host import execute, load_host, node, node_classes
from torch import Tensor

PAGE, IMAGES = ROOT / "docs" / "quality.md", ROOT / "docs" / "images"
GUIDANCE, STEPS = 4.0, 20
CALLS, GUIDANCES = (5, 10, 20, 50), (1.0, 4.0, 7.5)
SIDE_BY_SIDE = ("cat face", "rocket", "sunflower", "pizza", "panda", "birthday cake", "red apple", "tropical fish")
PAPER, INK, FAINT = "#f4f1ea", "#222222", "#666666"


@dataclass(frozen=True)
class Method:
    """A solver on a schedule, both at the defaults of their nodes, and how many steps a number of calls is."""

    name: str
    solver: str
    schedule: str
    calls_a_step: int = 1

    def steps(self, calls: int) -> int:
        """A solver of two calls a step makes one in the last, to noise level 0."""
        return (calls + self.calls_a_step - 1) // self.calls_a_step


METHODS = (
    Method("DDIM", "DDIM", "Timestep"),
    Method("Euler Karras", "Euler", "Karras"),
    Method("Heun Karras", "Heun", "Karras", 2),
    Method("DPM-Solver-2 Karras", "DPMSolver", "Karras", 2),
    Method("DPM++ 2M Karras", "DPMpp2M", "Karras"),
    Method("DPM++ 3M Karras", "DPMpp3M", "Karras"),
    Method("UniPC Karras", "UniPC", "Karras"),
)
EXACT, EXACT_STEPS = METHODS[3], 60


def distance(x: Tensor, reference: Tensor) -> float:
    return ((x - reference).square().mean() / reference.square().mean()).sqrt().item()


def measure(prompts: Sequence[str], calls: Sequence[int], guidances: Sequence[float], exact_steps: int) -> str:
    """A table: how far each method ends from the solution of its own equation, by calls and guidance."""
    rows: dict[str, list[str]] = {method.name: [] for method in METHODS}
    moved = []
    for cfg in guidances:
        exact, half = (sample(prompts, cfg, EXACT.solver, EXACT.schedule, n) for n in (exact_steps, exact_steps // 2))
        moved.append(f"{distance(half, exact):.4f} at {cfg:g}")
        for method in METHODS:
            for count in calls:
                made = sample(prompts, cfg, method.solver, method.schedule, method.steps(count))
                rows[method.name].append(f"{distance(made, exact):.3f}")
            print(f"{method.name}, guidance {cfg:g}: {rows[method.name][-len(calls) :]}", file=sys.stderr, flush=True)
    head = ["", *(f"{count} calls, guidance {cfg:g}" for cfg in guidances for count in calls)]
    return (
        table(head, [[name, *row] for name, row in rows.items()], figures=True)
        + f"\n{len(prompts)} pictures. The solution: {EXACT.name} with {exact_steps} steps; with half of them it "
        f"moves, by guidance: {', '.join(moved)}.\n"
    )


def image(picture: Tensor, side: int) -> Image.Image:
    made = Image.fromarray((picture * 255).round().byte().numpy())
    return made.resize((side, side), Image.Resampling.LANCZOS)


def sheet(rows: Sequence[tuple[str, str, Tensor]], side: int = 96, left: int = 250) -> Image.Image:
    """One row of pictures after another, each with a name and a line below it."""
    gap, margin = 8, 16
    width = left + max(len(made) for *_, made in rows) * (side + gap) + margin
    whole = Image.new("RGB", (width, 2 * margin + len(rows) * (side + gap) - gap), PAPER)
    draw, large, small = ImageDraw.Draw(whole), ImageFont.load_default(24), ImageFont.load_default(18)
    for j, (name, below, made) in enumerate(rows):
        y = margin + j * (side + gap)
        draw.text((margin, y + side // 2 - 28), name, fill=INK, font=large)
        draw.text((margin, y + side // 2 + 4), below, fill=FAINT, font=small)
        for i, picture in enumerate(made):
            whole.paste(image(picture, side), (left + i * (side + gap), y))
    return whole


def side_by_side() -> Image.Image:
    """The same noise and words through DDPM, DDIM, DPM-Solver, DPM++ 2M and LCM."""
    methods = (
        ("DDPM", "DDPM", "Timestep", 1000, "standard"),
        ("DDIM", "DDIM", "Timestep", 50, "standard"),
        ("DPM-Solver-2", "DPMSolver", "Exponential", 10, "standard"),
        ("DPM++ 2M Karras", "DPMpp2M", "Karras", 20, "standard"),
        ("LCM", "LCM", "LCM", 8, "lcm"),
        ("LCM", "LCM", "LCM", 4, "lcm"),
    )
    rows = []
    for name, solver, schedule, steps, variant in methods:
        cfg = 1.0 if variant == "lcm" else GUIDANCE
        calls = 2 * steps - 1 if solver == "DPMSolver" else steps
        made = pictures(sample(SIDE_BY_SIDE, cfg, solver, schedule, steps, variant))
        rows.append((name, f"{calls} calls, guidance {cfg:g}", made))
    return sheet(rows)


def by_guidance() -> Image.Image:
    """One prompt at five guidances, by the sampler that most people use."""
    rows = []
    for cfg in (1.0, 3.0, 7.5, 15.0, 30.0):
        prompts = SIDE_BY_SIDE[:4]
        rows.append((f"guidance {cfg:g}", "", pictures(sample(prompts, cfg, "DPMpp2M", "Karras", STEPS))))
    return sheet(rows, left=190)


def step_by_step() -> Image.Image:
    """What the model takes the clean picture for at each of 20 steps, and the latent decoded as it is."""
    run = guided(SIDE_BY_SIDE[:1], GUIDANCE)
    (guider,) = node("StepwiseCFGGuider", model=run.model, positive=run.positive, negative=run.negative, cfg=run.cfg)
    (sigmas,) = node("StepwiseKarrasSchedule", model=run.model, steps=STEPS)
    (noise,) = execute("RandomNoise", {"noise_seed": SEED})
    given = {"guider": guider, "noise": noise, "latent_image": {"samples": torch.zeros(1, 16, 8, 8)}, "sigmas": sigmas}
    guesses, latents = [], []
    for end in range(2, STEPS + 1, 2):
        stopped, guess, _ = node("StepwiseDPMpp2M", **given, end_step=end)
        guesses.append(guess["samples"])
        latents.append(stopped["samples"] / (1.0 + float(sigmas[end]) ** 2) ** 0.5)
    rows = [("the latent", latents), ("the guess", guesses)]
    return sheet([(name, "at steps 2, 4, ... 20", pictures(torch.cat(made))) for name, made in rows], left=220)


def forty() -> Image.Image:
    made = pictures(sample(PROMPTS, GUIDANCE, "DPMpp2M", "Karras", STEPS))
    rows = [("", "", made[start : start + 10]) for start in range(0, len(made), 10)]
    return sheet(rows, left=16)


def loading_and_drawing() -> str:
    """Wall and processor time of the model's first load in a running host, and of a picture, from words to pixels."""
    node_classes()
    found = []
    for what in (emoji, lambda: pictures(sample(SIDE_BY_SIDE[:1], GUIDANCE, "DPMpp2M", "Karras", STEPS))):
        wall, cpu = time.monotonic(), time.process_time()
        what()
        found.append(f"{time.monotonic() - wall:.2f} s ({time.process_time() - cpu:.2f} s of processor time)")
    return f"loaded in {found[0]}; a picture of {STEPS} steps at guidance {GUIDANCE:g}, two cores at most: {found[1]}"


DRAWN = {
    "emoji.png": forty,
    "emoji-samplers.png": side_by_side,
    "emoji-guidance.png": by_guidance,
    "emoji-steps.png": step_by_step,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run that writes nothing")
    parser.add_argument("--pictures", action="store_true", help="draw the pictures alone")
    parser.add_argument("--time", action="store_true", help="how long loading and a picture take")
    parser.add_argument("--table", action="store_true", help="measure the table alone")
    given = parser.parse_args()
    load_host()
    torch.set_num_threads(os.cpu_count() or 1)
    start = time.monotonic()
    if given.time:
        torch.set_num_threads(2)
        print(loading_and_drawing())
        return
    if given.quick:
        print(measure(PROMPTS[:2], (5, 20), (4.0,), 40))
        return
    for name, draw in () if given.table else DRAWN.items():
        draw().save(IMAGES / name, optimize=True)
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    if given.pictures:
        return
    text = measure(PROMPTS[:4], CALLS, GUIDANCES, EXACT_STEPS)
    print(text)
    generated.write({PAGE: filled(PAGE.read_text(encoding="utf-8"), text, "emoji")})


if __name__ == "__main__":
    main()
