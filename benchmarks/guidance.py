"""Choosing guidance: the tables and the plots of docs/guidance.md.

    python benchmarks/guidance.py            about 12 minutes on one core; fills what stands between the marks of the
                                             page and draws its pictures in docs/images
    python benchmarks/guidance.py --newer    about 3 minutes; the table and the plot of the newer rules alone
    python benchmarks/guidance.py --way "AutoGuidance, weights off by 0.1"    one of the newer rules; prints its lines
    python benchmarks/guidance.py --quick    less than a minute; prints a small table and writes nothing

The Digits model runs in the real ComfyUI, on the CPU, through this pack's own nodes. docs/guidance.md says how
everything is measured and what it does not show.
"""

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from stepwise.demo.classifier import accuracy
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate import generated, markdown
from stepwise.tools.measure.digits import CHUNK, Samples, sample_digits
from stepwise.tools.measure.host import load_host
from stepwise.tools.measure.judge import Referee, full_ink

PAGE, IMAGES = ROOT / "docs" / "guidance.md", ROOT / "docs" / "images"
SEED = 0
SIGMA_MAX, SIGMA_MIN = 14.6146, 0.0292
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0)
STEPS = 20
SMALL_MODEL = (0.19, 1.61)

Rules = tuple[tuple[str, Mapping[str, Any]], ...]


@dataclass(frozen=True)
class Way:
    """A way to guide, with as many steps as make about 40 evaluations of the network for an image."""

    name: str
    steps: int = STEPS
    rules: Rules = field(default=(), hash=False)
    cfg_pp: bool = False
    moves_scale_1: bool = False
    perturbed: str = ""
    weaker: float = 0.0

    @property
    def changes_scale_1(self) -> bool:
        """All other ways are the conditional prediction there."""
        return self.cfg_pp or self.moves_scale_1 or not (self.rules or self.perturbed or self.weaker)

    def scale(self, guidance: float) -> float:
        """What the guider's scale is set to. CFG++ guides by scale / (1 - e^-h) in a step of length h in log-SNR: its
        scale is made to agree with that of plain guidance for steps of the mean length."""
        if not self.cfg_pp:
            return guidance
        return guidance * -math.expm1(-math.log(SIGMA_MAX / SIGMA_MIN) / (self.steps - 1))


CFG = Way("CFG")
WAYS = (
    CFG,
    Way("Rescale, phi 0.7", rules=(("Rescale", {"phi": 0.7}),)),
    Way("Interval 0.19 to 1.61", 31, (("Interval", {"sigma_low": SMALL_MODEL[0], "sigma_high": SMALL_MODEL[1]}),)),
    Way("APG, threshold 0.5", rules=(("APG", {"norm_threshold": 0.5}),)),
    Way("CFG++", cfg_pp=True),
)
# Momentum moves the one prediction of guidance 1, too.
NEWER = (
    Way("CFG Norm", rules=(("CFGNorm", {"space": "noise"}),)),
    Way("Tangential Damping", rules=(("TCFG", {}),)),
    Way("Frequencies, low 0.44", rules=(("FDG", {}),)),
    Way("MAMBO-G, alpha 8", rules=(("MAMBOG", {}),)),
    Way("Sliding mode, gain 0.2", rules=(("SMC", {}),)),
    Way("Momentum, alpha 0.5", rules=(("Momentum", {}),), moves_scale_1=True),
    Way("Perturbed attention as the negative", perturbed="attention"),
    Way("AutoGuidance, weights off by 0.1", weaker=0.1),
)
# At fewer scales, and on fewer images of each class.
FEWER_SCALES, FEWER = (1.0, 3.0, 7.5, 15.0), 5
# The interval at its fewest evaluations: the same steps as plain guidance.
SAVING = Way("Interval 0.19 to 1.61", STEPS, WAYS[2].rules)


def run(way: Way, guidance: float, count: int) -> Samples:
    """`count` digits, in chunks of their own noise: the same for every way and scale."""
    made: list[torch.Tensor] = []
    evaluations = 0.0
    for chunk, start in enumerate(range(0, count, CHUNK)):
        size, seed = min(CHUNK, count - start), SEED + 1000 * chunk
        params = {"cfg_pp": True} if way.cfg_pp else {}
        given = ("DPMpp2M", "Karras", way.steps, "standard", way.scale(guidance), seed, size)
        latents, evaluations = sample_digits(
            *given, rules=way.rules, params=params, perturbed=way.perturbed, weaker=way.weaker
        )
        made.append(latents)
    return Samples(torch.cat(made), evaluations)


@dataclass(frozen=True)
class Line:
    """One line of a table."""

    way: Way
    guidance: float
    evaluations: float
    accuracy: float
    spread: float
    frechet: float
    ink: float

    @staticmethod
    def of(way: Way, guidance: float, made: Samples, referee: Referee) -> "Line":
        images, labels = made.images, made.labels
        return Line(
            way,
            guidance,
            made.evaluations,
            accuracy(referee.judge, images, labels),
            referee.spread(images, labels),
            referee.frechet(images, labels),
            full_ink(images),
        )


def measured(ways: Sequence[Way], scales: Sequence[float], count: int, referee: Referee) -> list[Line]:
    lines, started = list[Line](), time.monotonic()
    wanted = [(way, guidance) for way in ways for guidance in scales if guidance > 1.0 or way.changes_scale_1]
    for way, guidance in wanted:
        lines.append(Line.of(way, guidance, run(way, guidance, count), referee))
        elapsed = time.monotonic() - started
        left = elapsed / len(lines) * (len(wanted) - len(lines))
        print(f"{len(lines)}/{len(wanted)}  {elapsed:.0f} s, about {left:.0f} s left", file=sys.stderr, flush=True)
    return lines


HEAD = ("", "guidance", "steps", "evaluations", "read right", "spread", "Frechet", "full ink")


def figures(line: Line) -> list[str]:
    set_to = f" (set to {line.way.scale(line.guidance):.2f})" if line.way.cfg_pp else ""
    return [
        line.way.name,
        f"{line.guidance:g}{set_to}",
        f"{line.way.steps}",
        f"{line.evaluations:.0f}",
        f"{line.accuracy:.1%}",
        f"{line.spread:.2f}",
        f"{line.frechet:.1f}",
        f"{line.ink:.1%}",
    ]


def table(lines: Sequence[Line], referee: Referee) -> str:
    floor = f"{referee.floor:.1f} ± {referee.floor_deviation:.1f}"
    real = ("real images", "", "", "", f"{referee.accuracy:.1%}", f"{referee.floor_spread:.2f}", floor)
    return markdown.table(HEAD, [*map(figures, lines), (*real, f"{full_ink(referee.real):.1%}")], figures=True)


def saved(lines: Sequence[Line], interval: Sequence[Line]) -> str:
    """The interval against plain guidance in as many steps: at each scale of plain guidance, the largest scale in the
    interval that comes as near to real digits, and what it saves."""
    rows = []
    for plain in (line for line in lines if line.way == CFG and line.guidance > 1.0):
        near = [line for line in interval if line.frechet <= plain.frechet and line.accuracy >= plain.accuracy]
        if not near:
            continue
        best = max(near, key=lambda line: line.guidance)
        share = 1.0 - best.evaluations / plain.evaluations
        left = (f"{plain.guidance:g}", f"{plain.accuracy:.1%}", f"{plain.frechet:.1f}", f"{plain.evaluations:.0f}")
        right = (f"{best.guidance:g}", f"{best.accuracy:.1%}", f"{best.frechet:.1f}", f"{best.evaluations:.0f}")
        rows.append((*left, *right, f"{share:.0%}"))
    plain, within = ("CFG: guidance", "read right", "Frechet", "evaluations"), ("interval: guidance", "read right")
    return markdown.table((*plain, *within, "Frechet", "evaluations", "saved"), rows, figures=True)


def plot(lines: Sequence[Line], referee: Referee, path: Path) -> None:
    """The figures over the guidance scale, one curve for each way."""
    import matplotlib.pyplot as plt

    panels = (
        ("read right", lambda line: 100.0 * line.accuracy, "%", 100.0 * referee.accuracy),
        ("Frechet distance", lambda line: line.frechet, "", referee.floor),
        ("spread within a class", lambda line: line.spread, "of real", 1.0),
        ("pixels in full ink", lambda line: 100.0 * line.ink, "%", 100.0 * full_ink(referee.real)),
    )
    picture, axes = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    ways = list(dict.fromkeys(line.way for line in lines))
    for axis, (title, value, unit, real) in zip(axes.flat, panels, strict=True):
        for way, marker in zip(ways, cycle("osD^vPX*h"), strict=False):
            own = [line for line in lines if line.way == way]
            axis.plot(
                [line.guidance for line in own], list(map(value, own)), marker=marker, markersize=4, label=way.name
            )
        axis.axhline(real, color="#888888", linestyle="--", linewidth=1, label="real images")
        axis.set_xscale("log")
        axis.set_xticks([line.guidance for line in lines if line.way == ways[0]])
        axis.set_xticklabels([f"{line.guidance:g}" for line in lines if line.way == ways[0]])
        axis.minorticks_off()
        axis.set_title(f"{title} ({unit})" if unit else title)
        axis.set_xlabel("guidance scale")
        axis.grid(alpha=0.25)
    axes[0, 1].legend(fontsize=9)
    path.parent.mkdir(exist_ok=True)
    picture.savefig(path, dpi=100)
    plt.close(picture)


def write(tables: Mapping[str, str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, between in tables.items():
        text = markdown.filled(text, between, name)
    generated.write({PAGE: text})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run that writes nothing")
    parser.add_argument("--newer", action="store_true", help="only the table and the plot of the newer rules")
    parser.add_argument("--way", choices=[way.name for way in NEWER], help="print the lines of one of the newer rules")
    given = parser.parse_args()
    torch.set_num_threads(1)
    load_host()
    if given.way:
        judge = Referee(FEWER)
        ways = [way for way in NEWER if way.name == given.way]
        print(table(measured(ways, FEWER_SCALES, 10 * FEWER, judge), judge))
        return
    per_class = 2 if given.quick else 20
    referee, tables = Referee(per_class), dict[str, str]()
    scales, fewer = ((1.0, 7.5), (1.0, 7.5)) if given.quick else (SCALES, FEWER_SCALES)
    if not given.newer:
        lines = measured(WAYS, scales, 10 * per_class, referee)
        interval = measured((SAVING,), scales, 10 * per_class, referee)
        tables |= {"guidance": table(lines, referee), "saved": saved(lines, interval)}
        if not given.quick:
            plot(lines, referee, IMAGES / "guidance.png")
    few = min(per_class, FEWER)
    judge = Referee(few)
    newer = measured((CFG, *NEWER), fewer, 10 * few, judge)
    tables["newer"] = table(newer, judge)
    if not given.quick:
        plot(newer, judge, IMAGES / "guidance_newer.png")
    print(*tables.values(), sep="\n")
    if not given.quick:
        write(tables)


if __name__ == "__main__":
    main()
