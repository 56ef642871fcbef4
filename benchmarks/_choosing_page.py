"""What the runs of choosing.py say: advice, tables, and a picture."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median, quantiles
from typing import Any

import numpy as np
from stepwise.samplers.registry import SCHEDULES, SOLVERS
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate import generated
from stepwise.tools.generate.markdown import table

PAGE, DATA = ROOT / "docs" / "choosing.md", ROOT / "docs" / "choosing.json"
PICTURE = ROOT / "docs" / "images" / "choosing.png"
NAMES = {each.id: each.name for each in (*SOLVERS, *SCHEDULES)}
# What is as good as the best: within this factor of it.
AS_GOOD = 1.25
TEXT = """\
# Choosing a sampler and a schedule

Eight solvers without noise on five schedules, each at the defaults of its node, with 3 to 50 model calls, at guidance
1, 3 and 7.5, from 64 starts, on the Digits model and on a mixture of Gaussians in 16 dimensions, in ComfyUI on the
CPU. What counts is how far a picture is from the exact solution of the ODE from the same start, relative. A solver
with several calls a step takes as many steps as the calls allow.

    python benchmarks/choosing.py

measures all of it anew, in about an hour of processor time, which two cores do in half; docs/choosing.json has every
figure.

## What to take

{advice}
For each number of model calls: the run whose error is least over both models and all guidances, as the geometric mean
of its error over the least error there. The error is the geometric mean of the median and of the worst tenth of the
starts, so that a run that goes wrong for some starts is not among the best. *At worst over the best there*: the
largest of those ratios, at the model and guidance that suit the run least. *As good*: within {as_good:g} of it, the
best four.

![The median error over the model calls, for every solver on its best schedule](images/choosing.png)

## The least error of each model and guidance

{table}
*Median*, *mean* and *worst tenth* are of the errors of the 64 starts; a tenth of them is above the last. What is
taken for the exact solution is a run of 128 steps of UniPC, and the last lines say how far it is from one of half the
steps: errors below that are not told apart.

## What it does not show

Both models are small. The distance to the ODE ranks solvers of the ODE, not pictures: samplers that add noise solve
another equation and are not here, and at high guidance the equation itself leads away from good pictures
([quality.md](quality.md)). Where two runs are within a tenth of each other, another set of starts may turn them
round.
"""


@dataclass(frozen=True)
class Result:
    """A solver on a schedule with at most so many calls: the errors of all starts, by their median, mean and the
    least of the worst tenth. A run that is not finite has infinite ones."""

    model: str
    guidance: float
    solver: str
    schedule: str
    calls: int
    median: float
    mean: float
    worst: float

    @staticmethod
    def of(model: str, guidance: float, solver: str, schedule: str, calls: int, errors: Sequence[float]) -> "Result":
        errors = [each if math.isfinite(each) else math.inf for each in errors]
        worst = max(errors) if math.inf in errors else quantiles(errors, n=10)[-1]
        return Result(model, guidance, solver, schedule, calls, median(errors), fmean(errors), worst)

    @property
    def where(self) -> tuple[str, float]:
        return self.model, self.guidance

    @property
    def run(self) -> tuple[str, str]:
        return self.solver, self.schedule

    def data(self) -> dict[str, Any]:
        """For JSON, in four digits, None for what is not finite."""

        def rounded(value: Any) -> Any:
            if not isinstance(value, float):
                return value
            return float(f"{value:.4g}") if math.isfinite(value) else None

        return {name: rounded(each) for name, each in asdict(self).items()}

    @staticmethod
    def read(data: dict[str, Any]) -> "Result":
        return Result(**{name: math.inf if each is None else each for name, each in data.items()})


def runs(results: Iterable[Result]) -> list[Result]:
    return [each for each in results if each.solver != "exact"]


def said(run: tuple[str, str]) -> str:
    return " on ".join(NAMES.get(each, each) for each in run)


def calls_in(results: Iterable[Result]) -> list[int]:
    return sorted({each.calls for each in runs(results)})


def ranked(results: Sequence[Result], calls: int) -> list[tuple[float, float, tuple[str, str]]]:
    """All runs with so many calls, the best first: the geometric mean over models and guidances of the error over the
    least error there, then the largest of these ratios. The error is the median of a start and the worst tenth, in
    equal parts, so that a run that fails for some starts is not among the best."""
    here = [each for each in runs(results) if each.calls == calls]
    score = {each: math.sqrt(each.median * each.worst) for each in here}
    least = {where: min(score[each] for each in here if each.where == where) for where in {each.where for each in here}}
    ratios: dict[tuple[str, str], list[float]] = {}
    for each in here:
        ratios.setdefault(each.run, []).append(score[each] / least[each.where])
    return sorted((math.exp(fmean(map(math.log, found))), max(found), run) for run, found in ratios.items())


def advice(results: Sequence[Result]) -> str:
    """A line for each number of calls: what is best over models and guidances, and what is as good."""
    rows = []
    for calls in calls_in(results):
        order = ranked(results, calls)
        best = order[0]
        as_good = [said(run) for mean, _, run in order[1:] if mean <= AS_GOOD * best[0]]
        euler = next((mean for mean, _, run in order if run == ("DDIM", "Karras")), None)
        beside = "-" if euler is None else f"{euler / best[0]:.1f}"
        rows.append((calls, said(best[2]), f"{best[1]:.1f}", ", ".join(as_good[:4]) or "-", beside))
    head = ("calls", "take", "at worst over the best there", "as good", "error of Euler on Karras over it")
    return table(head, rows)


def page_of(results: Sequence[Result]) -> str:
    """The best run of each model, guidance and number of calls, with its errors."""
    rows = []
    for where in sorted({each.where for each in runs(results)}):
        for calls in calls_in(results):
            here = [each for each in runs(results) if each.where == where and each.calls == calls]
            best = min(here, key=lambda each: each.median)
            figures = (f"{each:.2g}" for each in (best.median, best.mean, best.worst))
            rows.append((where[0], f"{where[1]:g}", calls, said(best.run), *figures))
    exact = [
        (
            each.model,
            f"{each.guidance:g}",
            "-",
            "the solution, with half its steps",
            *(f"{value:.1g}" for value in values),
        )
        for each in results
        if each.solver == "exact"
        for values in [(each.median, each.mean, each.worst)]
    ]
    return table(("model", "guidance", "calls", "least error", "median", "mean", "worst tenth"), [*rows, *exact])


def picture(results: Sequence[Result]) -> np.ndarray:
    """The median over the calls, a panel for each model and guidance: of every solver its best schedule there."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = (
        "#0072B2",
        "#D55E00",
        "#009E73",
        "#CC79A7",
        "#E69F00",
        "#56B4E9",
        "#222327",
        "#999999",
        "#8C510A",
        "#762A83",
    )
    places = sorted({each.where for each in runs(results)})
    columns = len({guidance for _, guidance in places})
    figure = Figure(figsize=(4.6 * columns, 4.0 * (len(places) // columns)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(places) // columns, columns, squeeze=False, sharex=True).flatten()
    for axis, where in zip(axes, places, strict=True):
        here = [each for each in runs(results) if each.where == where]
        for number, solver in enumerate(dict.fromkeys(each.solver for each in here)):
            mine = [each for each in here if each.solver == solver]
            calls = sorted({each.calls for each in mine})
            least = [min(each.median for each in mine if each.calls == count) for count in calls]
            axis.plot(calls, least, color=colours[number % len(colours)], marker="o", markersize=3, label=NAMES[solver])
        axis.set(xscale="log", yscale="log", title=f"{where[0]}, guidance {where[1]:g}")
        axis.set_xticks(calls_in(results), [str(calls) for calls in calls_in(results)], minor=False)
        axis.set_xticks([], minor=True)
        axis.grid(True, color="#d5d7dc", linewidth=0.6)
    axes[0].set_ylabel("error, median")
    axes[-1].set_xlabel("model calls")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def write_page(results: Sequence[Result]) -> None:
    from PIL import Image

    generated.write({PAGE: TEXT.format(advice=advice(results), table=page_of(results), as_good=AS_GOOD)})
    PICTURE.parent.mkdir(exist_ok=True)
    Image.fromarray(picture(results)).quantize(64).save(PICTURE, optimize=True)
