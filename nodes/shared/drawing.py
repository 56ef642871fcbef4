"""A picture of schedules: noise levels over the steps, and the sizes of the steps below.

matplotlib is imported only when the node runs, and only its objects are used: no pyplot, no settings of the process.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np

from ...samplers import VE, Path
from ...samplers.parameters import InputError
from ...samplers.schedules.tables import Trained

LOG, LINEAR, LOG_SNR = "log sigma", "sigma", "log-SNR"

DOTS = 100
# The colours of Okabe and Ito 2008, which are told apart with every common colour vision; on each ground without the
# one that is hard to see there.
COLOURS = {
    "dark": ("#56B4E9", "#E69F00", "#2BC49A", "#F0E442", "#CC79A7", "#E8743B"),
    "light": ("#0072B2", "#D55E00", "#009E73", "#B35A8E", "#C98A00", "#56B4E9"),
}
GROUNDS = {"dark": ("#1f2023", "#e8e8ea", "#47494f"), "light": ("#ffffff", "#222327", "#d5d7dc")}
DASHES = ("solid", "dashed", "dotted", "dashdot")
MARKS = ("o", "s", "^", "D", "v", "P")
MISSING = (
    "Plots are drawn with the package matplotlib, which is not installed. Install it into the Python that runs "
    "ComfyUI: python -m pip install matplotlib"
)


@dataclass(frozen=True)
class Look:
    scale: str = LOG
    path: Path = VE
    theme: str = "dark"
    width: int = 768
    height: int = 576

    def level(self, sigma: float) -> float:
        """Where a noise level stands on the upper axis: sigma, or log-SNR = log(alpha^2 / sigma^2).

        What a logarithm makes infinite stays so: it is drawn at the edge. On the log axis 0 is its own infinity.
        """
        if self.scale == LOG_SNR:
            return 2.0 * self.path.lam(sigma)
        return -math.inf if self.scale == LOG and sigma == 0.0 else sigma

    def step(self, s: float, t: float) -> float:
        """The size of a step in what the upper axis measures; a step of 0 is below every log axis."""
        if s == t:
            return -math.inf if self.scale == LOG else 0.0
        return abs(s - t) if self.scale != LOG_SNR else abs(self.level(s) - self.level(t))


@dataclass(frozen=True)
class Drawing:
    """The figure and its two axes, `levels` above `steps`, each with its limits set: infinite values are at those."""

    figure: Any
    levels: Any
    steps: Any

    def pixels(self) -> np.ndarray:
        """`[height, width, 3]`, 0 to 255, row 0 at the top."""
        self.figure.canvas.draw()
        return np.asarray(self.figure.canvas.buffer_rgba())[..., :3].copy()

    def pixel_of(self, axes: Any, x: float, y: float) -> tuple[int, int]:
        """Row and column of the pixel at (x, y) of `axes`, once `pixels` was called."""
        low, high = axes.get_ylim()
        column, up = axes.transData.transform((x, min(max(y, low), high)))
        return int(self.figure.bbox.height - 1 - math.floor(up)), int(column)


def draw(schedules: Sequence[tuple[str, str, tuple[float, ...]]], look: Look, trained: Trained | None) -> Drawing:
    """The picture of (input, name, noise levels), with marks at the range that the model was trained on."""
    if not schedules:
        raise InputError("sigmas", "has no schedule wired", "wire a schedule to it")
    check_exist(schedules, look)
    drawing = empty(look)
    marks = [] if trained is None else [(look.level(sigma), sigma) for sigma in (trained.sigma_min, trained.sigma_max)]
    above = [[look.level(sigma) for sigma in sigmas] for _, _, sigmas in schedules]
    below = [[look.step(s, t) for s, t in pairwise(sigmas)] for _, _, sigmas in schedules]
    set_limits(drawing.levels, [*chain(*above), *(mark for mark, _ in marks)], look.scale == LOG)
    set_limits(drawing.steps, [*chain(*below), *([] if look.scale == LOG else [0.0])], look.scale == LOG)
    longest = max(map(len, above)) - 1
    drawing.levels.set_xlim(-0.02 * longest, 1.02 * longest)
    for number in reversed(range(len(schedules))):
        draw_levels(drawing.levels, above[number], style(number, look))
        draw_steps(drawing.steps, below[number], style(number, look), filled=len(schedules) == 1)
    draw_range(drawing.levels, marks, look)
    add_legend(drawing, [name for _, name, _ in schedules], look)
    return drawing


def check_exist(schedules: Sequence[tuple[str, str, tuple[float, ...]]], look: Look) -> None:
    """A log-SNR exists only up to the largest noise level of the path."""
    if look.scale != LOG_SNR:
        return
    for name, _, sigmas in schedules:
        for index, sigma in enumerate(sigmas):
            if sigma > look.path.sigma_max:
                problem = f"is {sigma:g}, and on the path FLOW noise levels end at {look.path.sigma_max:g}"
                raise InputError(name, problem, "choose the path VE, wire this schedule's model, or plot sigma", index)


def styled(look: Look, panels: int, heights: Sequence[float] | None = None) -> tuple[Any, Sequence[Any]]:
    """A figure, and so many axes without data over each other, the steps in whole numbers below the last."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ImportError(MISSING) from error

    ground, ink, grid = GROUNDS[look.theme]
    figure = Figure(figsize=(look.width / 100, look.height / 100), dpi=100, facecolor=ground, layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.006 * look.height / 50, w_pad=0.1, hspace=0.03)
    found = figure.subplots(panels, 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axes in found:
        axes.set_facecolor(ground)
        axes.grid(True, color=grid, linewidth=line(look) * 0.4, linestyle="solid")
        axes.set_axisbelow(True)
        axes.tick_params(colors=ink, labelcolor=ink, labelsize=points(look), length=0, which="both")
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(grid)
    for axes in found[:-1]:
        axes.tick_params(labelbottom=False)
    found[-1].xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=2))
    return figure, found


def empty(look: Look) -> Drawing:
    """Two axes, one over the other, without data."""
    figure, (above, below) = styled(look, 2, (3, 1))
    text = {"color": GROUNDS[look.theme][1], "fontsize": points(look) * 1.05}
    above.set_ylabel({LOG: "sigma", LINEAR: "sigma", LOG_SNR: f"log-SNR ({look.path.value})"}[look.scale], **text)
    below.set_ylabel("step size", **text)
    below.set_xlabel("step", labelpad=1, **text)
    return Drawing(figure, above, below)


def points(look: Look) -> float:
    """The size of the letters: a fixed part of the picture, since a node shows it at about half its size."""
    return 0.72 * min(look.height, look.width * 0.75) / 29


def line(look: Look) -> float:
    return points(look) / 5.5


def set_limits(axes: Any, values: Sequence[float], log: bool) -> None:
    """Limits around the finite values, with room at an edge where a value that is infinite is drawn."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    finite = [value for value in values if math.isfinite(value)]
    if log:
        axes.set_yscale("log")
        finite = [math.log10(value) for value in finite]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    room = (high - low) or abs(high) or 1.0
    low -= room * (0.16 if -math.inf in values else 0.04 if log or low < 0.0 or low == high else 0.0)
    high += room * (0.16 if math.inf in values else 0.06)
    if log:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high - low > 1.6 else (1.0, 2.0, 5.0), numticks=8))
        axes.yaxis.set_minor_locator(NullLocator())
        low, high = 10.0**low, 10.0**high
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axes.set_ylim(low, high)


def style(number: int, look: Look) -> dict[str, Any]:
    """Colour, dashes and mark of the curve with this number: two curves differ in more than colour."""
    colours = COLOURS[look.theme]
    return {
        "color": colours[number % len(colours)],
        "linestyle": DASHES[(number // len(colours)) % len(DASHES)],
        "marker": MARKS[number % len(MARKS)],
        "linewidth": line(look),
        "markersize": 2.2 * line(look),
    }


def edged(axes: Any, values: Sequence[float]) -> list[float]:
    """`values` with the infinite ones at the edges of `axes`."""
    low, high = axes.get_ylim()
    return [low if value == -math.inf else high if value == math.inf else value for value in values]


def draw_levels(axes: Any, values: Sequence[float], style: Mapping[str, Any]) -> None:
    """A curve through the noise levels; those that the axis cannot show are hollow marks at its edge."""
    places = edged(axes, values)
    plain = {**style, "marker": style["marker"] if len(values) <= DOTS else ""}
    inside = [i for i, value in enumerate(values) if math.isfinite(value)]
    unclipped(axes.plot(inside, [places[i] for i in inside], **plain))
    for i, j in pairwise(range(len(values))):
        if not (math.isfinite(values[i]) and math.isfinite(values[j])):
            faint = {"color": style["color"], "linewidth": 0.7 * style["linewidth"], "alpha": 0.6}
            axes.plot([i, j], [places[i], places[j]], linestyle=(0, (2, 2)), **faint)
    outside = [i for i, value in enumerate(values) if not math.isfinite(value)]
    hollow = {"markerfacecolor": axes.get_facecolor(), "markeredgewidth": 0.8 * style["linewidth"]}
    hollow |= {"markersize": 1.5 * style["markersize"], "zorder": 3}
    unclipped(axes.plot(outside, [places[i] for i in outside], **{**style, "linestyle": "none", **hollow}))


def draw_steps(axes: Any, values: Sequence[float], style: Mapping[str, Any], filled: bool) -> None:
    """One bar per step, from its first level to its last; an infinite one ends in an arrow at the edge."""
    low, high = axes.get_ylim()
    tops = edged(axes, values)
    edges = np.arange(len(values) + 1)
    if filled:
        axes.stairs(tops, edges, baseline=max(low, 0.0), fill=True, color=style["color"], alpha=0.3, linewidth=0)
    drawn = {name: style[name] for name in ("color", "linestyle", "linewidth")}
    axes.stairs(
        [top if math.isfinite(value) else math.nan for top, value in zip(tops, values, strict=True)],
        edges,
        baseline=None,
        **drawn,
    )
    for value, mark, place in ((math.inf, "^", high), (-math.inf, "v", low)):
        at = [i + 0.5 for i, each in enumerate(values) if each == value]
        size = 1.4 * style["markersize"]
        kept = {"color": style["color"], "marker": mark, "markersize": size, "linestyle": "none"}
        unclipped(axes.plot(at, [place] * len(at), **kept))


def unclipped(lines: Sequence[Any]) -> None:
    """Marks at an edge are drawn whole; the layout does not make room for them."""
    for each in lines:
        each.set_clip_on(False)
        each.set_in_layout(False)


def draw_range(axes: Any, marks: Sequence[tuple[float, float]], look: Look) -> None:
    """Lines at the lowest and the highest noise level that the model was trained on."""
    ground, ink, _ = GROUNDS[look.theme]
    across = axes.get_yaxis_transform()
    for place, sigma in marks:
        (at,) = edged(axes, [place])
        axes.axhline(at, color=ink, linewidth=0.7 * line(look), linestyle=(0, (1, 2)), zorder=1)
        lower = sigma == min(each for _, each in marks)
        text = f"model {'min' if lower else 'max'} {sigma:.4g}"
        # A schedule goes from the maximum on the left to the minimum on the right: the corners opposite are free.
        x, side = (0.01, "left") if lower else (0.99, "right")
        up = "bottom" if lower != (look.scale == LOG_SNR) else "top"
        small = {"color": ink, "fontsize": 0.8 * points(look), "ha": side, "va": up, "zorder": 4}
        box = {"facecolor": ground, "edgecolor": "none", "pad": 0.5, "alpha": 0.7}
        away = line(look) * (1.0 if up == "bottom" else -1.0)
        offset = {"textcoords": "offset points", "xytext": (0.0, away)}
        axes.annotate(text, (x, at), xycoords=across, **offset, bbox=box, **small)


def add_legend(drawing: Drawing, names: Sequence[str], look: Look) -> None:
    """The names above the plot. They are set as plain text: a name may begin with _ or hold a $."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **style(number, look)) for number in range(len(names))]
    longest = max(map(len, names))
    across = max(1, min(len(names), int(look.width / (points(look) * (0.85 * min(longest, 40) + 5)))))
    legend = drawing.figure.legend(
        handles,
        [str(number) for number in range(len(names))],
        loc="outside upper center",
        ncols=across,
        frameon=False,
        fontsize=points(look),
        labelcolor=GROUNDS[look.theme][1],
        handlelength=1.8,
        columnspacing=1.2,
        borderpad=0.1,
        borderaxespad=0.2,
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name if len(name) <= 40 else name[:39] + "\N{HORIZONTAL ELLIPSIS}")
