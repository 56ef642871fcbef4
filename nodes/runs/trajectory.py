"""The trajectory of a run: x and the prediction after chosen steps, and figures of every step and image."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...samplers import Path
from ...samplers.exact import Mixture
from ...samplers.parameters import InputError, quoted
from ..host.latents import unpacked
from ..host.mixtures import data_of
from ..host.models import path_of, sampling_of
from ..host.onlooker import Moment, Step, seconds
from ..host.transfer import Arriving
from .held import HeldRun

ALL = "all"
FIGURES = ("update", "turn", "guidance", "guidance_angle")
LISTED = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")
CURE = "write all, every 5, or numbers and ranges such as 1, 5, 10-20"


def chosen_steps(text: str) -> Callable[[int], bool]:
    """Whether a step, counted from 1, is among those that `text` names: all, every 5, or 1, 5, 10-20."""
    words = text.strip().lower()
    if words in ("", ALL):
        return lambda step: True
    if every := re.fullmatch(r"every\s+([1-9]\d*)", words):
        return lambda step: step % int(every[1]) == 0
    ranges = []
    for part in filter(None, (part.strip() for part in words.split(","))):
        found = LISTED.fullmatch(part)
        if found is None:
            raise InputError("steps", f"has {quoted(part, 40)}, which is neither a step nor a range of steps", CURE)
        first = int(found[1])
        ranges.append((first, int(found[2] or first)))
    return lambda step: any(first <= step <= last for first, last in ranges)


def rms(each: Tensor) -> Tensor:
    """The root mean square of each image: `[B]`."""
    return each.float().flatten(1).square().mean(dim=1).sqrt()


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Degrees between a and b, image by image: `[B]`, NaN where one of them is 0.

    2 atan2(|u - v|, |u + v|) of the unit vectors u and v   (Kahan 2006, section 12), which keeps its digits where they
    are nearly parallel.
    """
    u, v = (torch.nn.functional.normalize(each.float().flatten(1), dim=1, eps=0.0) for each in (a, b))
    return torch.rad2deg(2.0 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1)))


@dataclass(frozen=True)
class Row:
    """A step: its number in the schedule, from 1; the noise levels it goes from and to; log(alpha^2 / sigma^2) of the
    first; model calls; seconds; and by the names of FIGURES a number for each image, NaN where there is none."""

    step: int
    sigma: float
    reached: float
    log_snr: float
    calls: int
    seconds: float
    figures: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Trajectory:
    """`rows` has all steps; `x` and `denoised` are the chosen ones, as LATENTs have them, each a batch. `start` is what
    the run began with, in the same form, at the level `began`; None where it took no step. `data`: those of the model,
    where it is a Mixture Model's."""

    rows: list[Row]
    steps: tuple[int, ...]
    x: tuple[Any, ...]
    denoised: tuple[Any, ...]
    path: Path
    start: Any
    began: float
    data: Mixture | None

    @property
    def levels(self) -> list[float]:
        """The noise levels that the chosen steps have reached."""
        reached = {row.step: row.reached for row in self.rows}
        return [reached[step] for step in self.steps]


class Taken(NamedTuple):
    """What is kept of every step besides its figures."""

    calls: int
    ended: Moment
    level: Tensor | None
    reached: Tensor | None


@dataclass
class Recorder:
    """Looks at a run, and keeps of it no latents but its beginning, those of the `chosen` steps, on the CPU, and the
    last update.

    update: the root mean square of the change of x. turn: degrees between it and the update of the step before.
    guidance: the root mean square of positive - negative, both predictions of the clean latent, at the model call that
    begins the step. guidance_angle: degrees between that difference and the positive prediction: 90 moves along what is
    seen and adds no contrast   (Sadat et al. 2024, section 3.1).
    """

    chosen: Callable[[int], bool]
    sigmas: tuple[float, ...] = ()
    done: int = 0
    taken: list[Taken] = field(default_factory=list)
    kept: dict[int, Arriving] = field(default_factory=dict)
    figures: list[dict[str, Tensor]] = field(default_factory=list)
    pending: dict[str, Tensor] = field(default_factory=dict)
    guidance: dict[str, Tensor] = field(default_factory=dict)
    opening: dict[str, Tensor] | None = None
    start: Arriving | None = None
    x: Tensor | None = None
    update: Tensor | None = None
    began: Moment = None

    def of_steps(self, held: HeldRun, end: int) -> None:
        """The run goes from where `held` stands to step `end`; raises InputError where none of that is chosen."""
        self.sigmas, self.done = held.sigmas[: end + 1], held.step
        if end > held.step and not any(map(self.chosen, range(held.step + 1, end + 1))):
            problem = f"names none of the steps {held.step + 1} to {end} that are taken"
            raise InputError("steps", problem, CURE)

    def begins(self, x: Tensor, at: Moment) -> None:
        self.x, self.began, self.start = x, at, Arriving([x])

    def predicted(self, name: str, value: Tensor) -> None:
        self.pending[name] = value
        if {"positive", "negative"} <= self.pending.keys():
            positive, negative = self.pending["positive"], self.pending["negative"]
            difference = positive - negative
            self.guidance = {"guidance": rms(difference), "guidance_angle": angle(difference, positive)}
            self.pending = {}

    def opened(self) -> None:
        """What was predicted last belongs to the step that ends next."""
        self.opening, self.guidance, self.pending = self.guidance, {}, {}

    def stepped(self, step: Step) -> None:
        if self.opening is None:
            self.opened()
        assert self.x is not None
        figures, self.opening = self.opening or {}, None
        update = step.x - self.x
        figures["update"] = rms(update)
        if self.update is not None:
            figures["turn"] = angle(update, self.update)
        self.x, self.update = step.x, update
        self.figures.append(figures)
        self.taken.append(Taken(step.calls, step.ended, step.level, step.reached))
        number = self.done + len(self.taken)
        if self.chosen(number):
            self.kept[number] = Arriving([step.x, step.denoised])

    def trajectory(self, guider: Any, held: HeldRun) -> Trajectory:
        """What was seen of the run of `held`, with its latents as a LATENT has them."""
        model, like = guider.model_patcher, held.latent["samples"]
        sampling = sampling_of(model)
        path = path_of(sampling)

        def shown(x: Tensor, level: float | None = None) -> Any:
            """As a LATENT has it; what stands at a noise level is divided by alpha, where there is any."""
            if level is not None and path.alpha(level) != 0.0:
                x = sampling.inverse_noise_scaling(torch.tensor(level), x)
            return model.model.process_latent_out(unpacked(x.float(), like))

        rows = self.rows(path)
        began = self.level(0, None) if rows and self.sigmas else 0.0
        reached = {row.step: row.reached for row in rows}
        kept = [(each.taken(), reached[number]) for number, each in self.kept.items()]
        xs, clean = [shown(x, level) for (x, _), level in kept], [shown(denoised) for (_, denoised), _ in kept]
        start = None if self.start is None or not rows else shown(self.start.taken()[0], began)
        return Trajectory(rows, tuple(self.kept), tuple(xs), tuple(clean), path, start, began, data_of(model))

    def rows(self, path: Path) -> list[Row]:
        figures = self.numbers()
        levels = [self.level(i, step.level) for i, step in enumerate(self.taken)]
        # Where a SAMPLER of others ends nobody says but the schedule.
        after = [*levels[1:], self.sigmas[-1] if self.sigmas else 0.0]
        rows, began = list[Row](), self.began
        for i, step in enumerate(self.taken):
            to = self.level(i + 1, step.reached) if step.level is None or step.reached is not None else after[i]
            log_snr = 2.0 * path.lam(min(levels[i], path.sigma_max))
            rows.append(
                Row(self.done + i + 1, levels[i], to, log_snr, step.calls, seconds(began, step.ended), figures[i])
            )
            began = step.ended
        return rows

    def level(self, i: int, seen: Tensor | None) -> float:
        """A noise level that was seen, or that of the schedule."""
        return self.sigmas[self.done + i] if seen is None else float(seen[0])

    def numbers(self) -> list[dict[str, tuple[float, ...]]]:
        """The figures of all steps, in one copy from the device."""
        if not self.figures:
            return []
        nothing = torch.full_like(self.figures[0]["update"], math.nan)
        table = torch.stack([torch.stack([each.get(name, nothing) for name in FIGURES]) for each in self.figures])
        return [dict(zip(FIGURES, map(tuple, step), strict=True)) for step in table.tolist()]
