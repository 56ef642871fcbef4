"""A trajectory in words: a table for the node, and CSV for a spreadsheet."""

import math

from ...samplers.parameters import counted
from .trajectory import FIGURES, Row, Trajectory

# Of an image, in the order of FIGURES.
HEADS = ("update", "turn", "guidance", "angle")
UNITS = ("", "_degrees", "", "_degrees")
MOST_LINES = 400


def table(trajectory: Trajectory) -> str:
    """A line for each step and image; dashes where a figure does not exist."""
    rows = trajectory.rows
    if not rows:
        return "no steps were taken, or the SAMPLER reports none"
    calls, spent = sum(row.calls for row in rows), sum(row.seconds for row in rows)
    lines = [
        f"{counted(len(rows), 'step')}, {counted(calls, 'model call')}, {spent:.3g} s; kept: "
        f"{', '.join(map(str, trajectory.steps)) or 'none'}",
        f"{'step':>5} {'sigma':>9} {'log-SNR':>8} {'calls':>5} {'ms':>8} {'image':>5} "
        + " ".join(f"{head:>9}" for head in HEADS),
    ]
    for row in rows:
        head = f"{row.step:>5} {row.sigma:>9.4g} {row.log_snr:>8.3f} {row.calls:>5} {1000.0 * row.seconds:>8.1f}"
        for image, figures in enumerate(images_of(row)):
            place = head if image == 0 else " " * len(head)
            lines.append(f"{place} {image:>5} " + " ".join(f"{said(figure):>9}" for figure in figures))
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], f"and {len(lines) - MOST_LINES} lines more, which the CSV has"]
    return "\n".join(lines)


def csv(trajectory: Trajectory) -> str:
    """One line for each step and image, numbers in full; nothing where a figure does not exist."""
    heads = [name + unit for name, unit in zip(FIGURES, UNITS, strict=True)]
    lines = [",".join(("step", "image", "sigma", "sigma_reached", "log_snr", "calls", "seconds", *heads))]
    for row in trajectory.rows:
        for image, figures in enumerate(images_of(row)):
            numbers = (row.sigma, row.reached, row.log_snr)
            texts = ["" if math.isnan(figure) else repr(figure) for figure in figures]
            lines.append(
                ",".join((str(row.step), str(image), *map(repr, numbers), str(row.calls), repr(row.seconds), *texts))
            )
    return "\n".join(lines) + "\n"


def images_of(row: Row) -> list[tuple[float, ...]]:
    """The figures image by image."""
    return list(zip(*(row.figures[name] for name in FIGURES), strict=True))


def said(figure: float) -> str:
    return "-" if math.isnan(figure) else f"{figure:.4g}"
