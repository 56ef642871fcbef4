"""Every sampler of a list over every seed or guidance scale: one run for each, whatever becomes of the others."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import comfy.model_management
import comfy.utils
import latent_preview
import torch

from ...compare import Axis, Cell
from ...samplers.noise import SEEDS
from ...samplers.parameters import InputError, counted, quoted
from ...samplers.schedules.editing import resampled
from ..host.latents import read_latent
from ..host.levels import read_sigmas
from ..host.sampler import PlanSampler
from ..host.seeds import components_of, reseeded, seed_of
from ..host.watched import calls_of, watched, with_scale
from ..shared.images import one_picture, png
from . import run
from .face import Face

# In capitals, as a word: "Skip Layer Guidance" is a name.
SKIP = re.compile(r"^SKIP(?=[:\s]|$)[:\s]*")
SKIPPED, ALL = Cell(note="skipped"), "all"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
MOST_COLUMNS = 100


@dataclass(frozen=True)
class Entry:
    """One row: what runs, and what it is called. `skip` names columns that are left out, or all of them."""

    sampler: Any
    sigmas: Any
    guider: Any
    label: str = ""
    skip: str = ""

    @property
    def name(self) -> str:
        return SKIP.sub("", self.label.strip()) or sampler_name(self.sampler)

    @property
    def left_out(self) -> list[str]:
        return [word for word in re.split(r"[,;\s]+", self.skip.lower()) if word]

    def skips(self, column: "Column") -> bool:
        named = any(word == ALL or column.is_called(word) for word in self.left_out)
        return column.skipped or named or bool(SKIP.match(self.label.strip()))


@dataclass(frozen=True)
class Column:
    """One column: another seed, or another guidance scale."""

    label: str
    skipped: bool = False
    seed: int | None = None
    scale: float | None = None

    def is_called(self, word: str) -> bool:
        """7.50 is 7.5."""
        if self.scale is None or not NUMBER.fullmatch(word):
            return word == self.label
        return float(word) == self.scale


@dataclass(frozen=True)
class Row:
    """An entry with the schedule that it runs on; or the error that keeps it from running at all."""

    entry: Entry
    sigmas: Any = None
    steps: int = 0
    error: str = ""

    @property
    def label(self) -> str:
        return self.entry.name if self.error else f"{self.entry.name}\n{counted(self.steps, 'step')}"


def sampler_name(sampler: Any) -> str:
    """A SAMPLER of ours by its solver, the host's by the name of its function."""
    if isinstance(sampler, PlanSampler):
        return sampler.solver.name
    function = getattr(sampler, "sampler_function", None)
    name = getattr(function, "__name__", "") or type(sampler).__name__
    return name.removeprefix("sample_")


def parts(text: str) -> list[tuple[str, bool]]:
    """The values of a written list, each with whether it is skipped: "1, SKIP 3, 7.5"."""
    # Among numbers it is no name, however it is written.
    found = [re.sub(r"(?i)^skip\b", "SKIP", part.strip()) for part in re.split(r"[,;\n]+", text)]
    return [(SKIP.sub("", part).strip(), bool(SKIP.match(part))) for part in found if part]


def seed_columns(text: str, noise: Any) -> list[Column]:
    """ "3, 10-12, SKIP 20": one column for each seed; without any, one for the seed of `noise`."""
    columns = list[Column]()
    for index, (part, skipped) in enumerate(parts(text)):
        match = re.fullmatch(r"(\d{1,20})(?:\s*-\s*(\d{1,20}))?", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < SEEDS:
            cure = "write whole numbers from 0 to 2^64 - 1 and ranges of them, such as 7, 12, 100-103"
            raise InputError("seeds", f"is {quoted(part)}", cure, index)
        if last - first >= MOST_COLUMNS:
            raise InputError("seeds", f"is {quoted(part)}, which is too many", f"write at most {MOST_COLUMNS}", index)
        columns += [Column(str(seed), skipped, seed=seed) for seed in range(first, last + 1)]
    return within("seeds", columns) if columns else [Column(str(seed_of(noise)))]


def scale_columns(text: str) -> list[Column]:
    """ "1, 3, SKIP 7.5": one column for each guidance scale."""
    columns = list[Column]()
    for index, (part, skipped) in enumerate(parts(text)):
        if not NUMBER.fullmatch(part) or abs(float(part)) > 1000.0:
            cure = "write numbers from -1000 to 1000 with commas between them, such as 1, 3, 7.5"
            raise InputError("scales", f"is {quoted(part)}, which is no guidance scale", cure, index)
        columns.append(Column(f"{float(part):g}", skipped, scale=float(part)))
    if not columns:
        raise InputError("scales", "is empty", "write the guidance scales to compare, such as 1, 3, 7.5")
    return within("scales", columns)


def within(name: str, columns: list[Column]) -> list[Column]:
    if len(columns) > MOST_COLUMNS:
        raise InputError(name, f"names {len(columns)} columns", f"write at most {MOST_COLUMNS}")
    return columns


def rows_of(
    entries: Sequence[Entry], columns: Sequence[Column], latent_image: Mapping[str, Any], equal_calls: int
) -> list[Row]:
    """The entries on their schedules: as they are wired, or with as many steps as make at most `equal_calls` calls."""
    found = list[Row]()
    for entry in entries:
        try:
            sigmas, levels = entry.sigmas, read_sigmas(entry.sigmas)
            runs = not all(map(entry.skips, columns))
            if equal_calls and runs and len(levels) > 1:
                levels = at_most(entry, levels, latent_image, equal_calls)
                sigmas = torch.tensor(levels)
            found.append(Row(entry, sigmas, max(len(levels) - 1, 0)))
        except Exception as error:
            found.append(Row(entry, error=described(error)))
    return found


def at_most(entry: Entry, levels: tuple[float, ...], latent_image: Mapping[str, Any], most: int) -> tuple[float, ...]:
    """The schedule in the largest number of steps whose run makes no more than so many model calls.

    It is looked for between 1 and `most` by halving, since more steps never make fewer calls.
    """
    latent = read_latent(entry.guider.model_patcher, latent_image)["samples"]
    noise = latent * 0.0

    def calls(steps: int) -> int:
        return calls_of(entry.guider, entry.sampler, noise, latent, torch.tensor(resampled(levels, steps)))

    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if calls(middle) <= most else (low, middle)
    if not low:
        problem = f"is {most}, and {entry.name} makes {calls(1)} model calls in one step"
        raise InputError("equal_calls", problem, "raise it")
    return resampled(levels, low)


def described(error: BaseException) -> str:
    """In a cell; what our own nodes say already names what is wrong."""
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


@dataclass
class Comparison:
    """All cells, and those that are done: by row and column, counted from 0."""

    rows: Sequence[Row]
    columns: Sequence[Column]
    noise: Any
    latent_image: Mapping[str, Any]
    vae: Any
    cells: dict[tuple[int, int], Cell] = field(default_factory=dict)
    said: dict[tuple[int, int], list[str]] = field(default_factory=dict)

    @property
    def remarks(self) -> list[str]:
        """What was said of runs, once each: of the row, or of the cells of it, that it is said of."""
        found = list[str]()
        for i, row in enumerate(self.rows):
            ran = [j for j in range(len(self.columns)) if (i, j) in self.said]
            for remark in dict.fromkeys(each for j in ran for each in self.said[i, j]):
                at = [j for j in ran if remark in self.said[i, j]]
                where = "" if at == ran else f", {self.axes[1].name} {', '.join(self.columns[j].label for j in at)}"
                found.append(f"{row.entry.name}{where}: {remark}")
        return found

    @property
    def axes(self) -> tuple[Axis, Axis]:
        name = "guidance" if self.columns[0].scale is not None else "seed"
        return (
            Axis("sampler", tuple(row.label for row in self.rows)),
            Axis(name, tuple(column.label for column in self.columns)),
        )

    def run(self, tell: Callable[[str], None]) -> None:
        """Runs what is not skipped, row by row. What a cell dies of is its error; Cancel ends all but keeps `cells`."""
        todo = list[tuple[int, int]]()
        for i, row in enumerate(self.rows):
            for j, column in enumerate(self.columns):
                if row.entry.skips(column):
                    self.cells[i, j] = SKIPPED
                elif row.error:
                    self.cells[i, j] = Cell(error=row.error)
                else:
                    todo.append((i, j))
        bar = Bar(sum(self.rows[i].steps for i, _ in todo))
        for number, (i, j) in enumerate(todo, 1):
            row, column = self.rows[i], self.columns[j]
            tell(f"{number} of {len(todo)}: {row.entry.name}, {self.axes[1].name} {column.label}")
            self.cells[i, j], self.said[i, j] = self.cell(row, column, bar)
            bar.finished(row.steps)

    def cell(self, row: Row, column: Column, bar: "Bar") -> tuple[Cell, list[str]]:
        """What came of it, and what is worth a remark about its run."""
        entry, figures, face = row.entry, Cell(), Face()
        try:
            noise = self.noise if column.seed is None else reseeded(self.noise, column.seed)
            guider = entry.guider if column.scale is None else with_scale(entry.guider, column.scale)
            with watched(guider, bar.callback(guider.model_patcher)) as counting:
                try:
                    wired = (noise, self.latent_image, row.sigmas, None)
                    output, _, _ = run.sample(counting, entry.sampler, *wired, 0, 10000, face=face)
                finally:
                    figures = self.figures(counting.figures)
            return replace(figures, picture=self.decoded(output["samples"])), face.remarks
        except Exception as error:
            logging.warning("Stepwise: Compare: %s at %s failed", entry.name, column.label, exc_info=True)
            if comfy.model_management.is_oom(error):
                # As the host does where a node runs out of memory: the next cell begins with all there is.
                comfy.model_management.unload_all_models()
            comfy.model_management.soft_empty_cache()
            return replace(figures, error=described(error)), face.remarks

    def figures(self, found: Any) -> Cell:
        images = len(components_of(self.latent_image["samples"])[0])
        return Cell(calls=found.calls, evaluations=found.evaluations(images), seconds=found.seconds)

    def decoded(self, samples: Any) -> bytes:
        return png(one_picture(self.vae.decode(components_of(samples)[0])))


class Bar:
    """The host's bar of the node, over the steps of all cells, with the previews of the one that runs."""

    def __init__(self, total: int):
        self.bar, self.done = comfy.utils.ProgressBar(max(total, 1)), 0

    def callback(self, patcher: Any) -> Callable[[int, Any, Any, int], None]:
        previewer = latent_preview.get_previewer(patcher.load_device, patcher.model.latent_format)

        def on_step(step: int, x0: Any, x: Any, steps: int) -> None:
            shown = components_of(x0)[0] if previewer else None
            preview = previewer.decode_latent_to_preview_image("JPEG", shown) if previewer else None
            self.bar.update_absolute(self.done + step + 1, None, preview)

        return on_step

    def finished(self, steps: int) -> None:
        self.done += steps
        self.bar.update_absolute(self.done)
