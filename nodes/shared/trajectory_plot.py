"""A picture of a trajectory's figures: one panel for each, the steps from left to right."""

import math
from collections.abc import Sequence

import numpy as np

from .drawing import COLOURS, GROUNDS, Look, line, points, styled

MOST_LEGIBLE = 8


def plotted(
    steps: Sequence[int], panels: Sequence[tuple[str, Sequence[Sequence[float]], bool]], look: Look
) -> np.ndarray:
    """`[height, width, 3]`, 0 to 255. A panel has its name, the values of each image over the steps, NaN where there is
    none, and whether its axis is logarithmic. Up to 8 images have a curve each; of more, the median is drawn, and the
    range of all is filled."""
    figure, axes = styled(look, len(panels))
    for axis, (name, values, log) in zip(axes, panels, strict=True):
        axis.set_ylabel(name, color=GROUNDS[look.theme][1], fontsize=points(look) * 1.05)
        table = np.asarray(values, dtype=float).reshape(-1, len(steps))
        seen = table[np.isfinite(table) & ((table > 0.0) | (not log))]
        if log and seen.size:
            axis.set_yscale("log")
        if not seen.size:
            axis.set_ylim(0.0, 1.0)
            small = {"color": GROUNDS[look.theme][1], "fontsize": points(look), "ha": "center", "va": "center"}
            axis.text(0.5, 0.5, "none", transform=axis.transAxes, **small)
        drawn(axis, steps, np.where((table > 0.0) | (not log), table, math.nan), look)
    axes[-1].set_xlabel("step", labelpad=1, color=GROUNDS[look.theme][1], fontsize=points(look) * 1.05)
    low, high = (min(steps), max(steps)) if steps else (0, 1)
    axes[-1].set_xlim(low - 0.02 * (high - low) - 0.1, high + 0.02 * (high - low) + 0.1)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def drawn(axis, steps: Sequence[int], table: np.ndarray, look: Look) -> None:
    colours, width = COLOURS[look.theme], line(look)
    dots = {"marker": "o" if len(steps) <= 60 else "", "markersize": 1.8 * width, "linewidth": width}
    if len(table) <= MOST_LEGIBLE:
        for number, values in enumerate(table):
            axis.plot(steps, values, color=colours[number % len(colours)], **dots)
        return
    known = np.isfinite(table).any(axis=0)
    places, seen = np.asarray(steps)[known], table[:, known]
    low, middle, high = (np.nanpercentile(seen, share, axis=0) for share in (0, 50, 100))
    axis.fill_between(places, low, high, color=colours[0], alpha=0.25, linewidth=0)
    axis.plot(places, middle, color=colours[0], **dots)
