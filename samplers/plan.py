"""The whole machine: a sampler is a table of numbers, and running it is a loop.

Every solver here is a general linear method. A run holds a few latent-shaped registers, among them `x`;
a stage shows `x` to the model at one noise level and then computes each new register as a linear
combination of registers, the model's `denoised`, and addressed noise. The coefficients are Python floats,
known before the first model call, so a plan can be printed, compared and proved, and running it never
waits for the device.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Concatenate, NamedTuple, ParamSpec

from torch import Tensor

from .linear_combination import accumulate, combine
from .parameters import InputError, counted
from .path import Path


class PlanError(ValueError):
    """A plan that breaks its own rules: a solver's fault, never the artist's."""


class Noise(NamedTuple):
    """An operand: standard normal noise, addressed by what it is for, so that it never depends on the order of drawing.

    `occurrence` tells apart several visits to one interval. `clip` bounds the values, in standard deviations of the
    source, and `fresh` says that it is no increment of the noise that drives the run from level to level, but made for
    its purpose alone; neither is part of the address.
    """

    purpose: str
    sigma_from: float
    sigma_to: float
    occurrence: int = 0
    clip: float = math.inf
    fresh: bool = False

    def __str__(self) -> str:
        again = f" #{self.occurrence}" if self.occurrence else ""
        clip = f" within {self.clip:g}" if self.clip < math.inf else ""
        return f"{self.purpose}[{self.sigma_from:.4g} to {self.sigma_to:.4g}{again}{clip}]"


class Predicted(NamedTuple):
    """What a denoiser returns to a plan that reads the unconditional prediction beside the guided one."""

    denoised: Tensor
    uncond: Tensor


# How far a row may be from what it must sum to, relatively.
TOLERANCE = 1e-9
# The operands that a model call makes.
PREDICTED = ("denoised", "uncond")
Operand = str | Noise
Params = ParamSpec("Params")
Denoiser = Callable[[Tensor, float], Tensor | Predicted]
NoiseSource = Callable[[Noise, Tensor], Tensor]


Terms = tuple[tuple[Operand, float], ...]


def read_by(terms: Terms) -> list[str]:
    """The registers and predictions among the operands."""
    return [operand for operand, _ in terms if isinstance(operand, str)]


class Row(NamedTuple):
    """target = sum of coefficient * operand.

    `weight` is what the target's coefficients sum to when each operand counts by its own weight: 1 for a state or a
    denoised value, 0 for a difference. Noise has none, and a row with noise need not sum to it; nor need one whose
    noise is `silenced`, of strength 0.
    """

    target: str
    terms: Terms
    weight: float = 1.0
    silenced: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(read_by(self.terms))

    @property
    def draws(self) -> tuple[Noise, ...]:
        return tuple([operand for operand, _ in self.terms if isinstance(operand, Noise)])

    def __str__(self) -> str:
        return f"{self.target} = " + " ".join(f"{value:+.6g} {operand}" for operand, value in self.terms)


def row(target: str, terms: Mapping[Operand, float] | Mapping[str, float], weight: float = 1.0) -> Row:
    """A row, noise last, without the terms whose coefficient is zero: nothing is read or drawn in vain."""
    plain, drawn = list[tuple[Operand, float]](), list[tuple[Operand, float]]()
    silenced = False
    for operand, value in terms.items():
        if value != 0.0:
            (plain if isinstance(operand, str) else drawn).append((operand, float(value)))
        elif isinstance(operand, Noise):
            silenced = True
    # Where noise is 0 because none is due, as with eta = 0, the rest sums to the weight: the row is like any other.
    silenced = silenced and not drawn and abs(sum([value for _, value in plain]) - weight) > TOLERANCE
    return Row(target, (*plain, *drawn), weight, silenced)


class Stage(NamedTuple):
    """One model call: `opening` rows, the model at (`x`, `sigma`), then `rows`. A row may read those above it.

    `step` is the interval of the schedule that the stage works in. `keeps` names the registers that a later stage
    reads; the plan fills it in.
    """

    sigma: float
    rows: tuple[Row, ...]
    step: int
    opening: tuple[Row, ...] = ()
    keeps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What a solver makes of a schedule: `len(plan.stages)` model calls, each with its rows.

    Rows whose result nobody reads are dropped when the plan is made, so equal methods are equal plans. `leaves` names
    the registers that a run of it leaves: more than `x` where another plan is to go on from there.

    Raises:
        PlanError: a row reads a register that is not set, has a coefficient that is not finite, or (without noise)
            does not sum to its weight.
    """

    path: Path
    sigmas: tuple[float, ...]
    stages: tuple[Stage, ...]
    leaves: tuple[str, ...] = ("x",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", pruned(self.stages, self.leaves))
        weights = {"x": 1.0}
        for index, stage in enumerate(self.stages):
            if stage.opening:
                weights = _checked(weights, stage.opening, f"opening of model call {index}")
            after = _checked(weights | dict.fromkeys(PREDICTED, 1.0), stage.rows, f"model call {index}")
            weights = {name: after[name] for name in stage.keeps if name in after}

    @property
    def steps(self) -> int:
        return max(len(self.sigmas) - 1, 0)

    @cached_property
    def adds_noise(self) -> bool:
        """Whether a run of it draws noise on the way."""
        return drawn_in(self.stages)

    @cached_property
    def reads_uncond(self) -> bool:
        """Whether it needs the unconditional prediction too (CFG++)."""
        return any("uncond" in r.reads for stage in self.stages for r in stage.rows)

    def first_stage(self, step: int) -> int:
        """The index of the first stage at or after `step`: where a run that has done `step` steps stands."""
        return next((i for i, stage in enumerate(self.stages) if stage.step >= step), len(self.stages))

    def __str__(self) -> str:
        head = f"{self.path!r}, {counted(self.steps, 'step')}, {counted(len(self.stages), 'model call')}"
        lines = [head, f"{'call':>4} {'step':>4} {'sigma':>12}   rows"]
        for index, stage in enumerate(self.stages):
            texts = [f"first {r}" for r in stage.opening] + [str(r) for r in stage.rows] or ["nothing"]
            place = f"{index + 1:>4} {stage.step + 1:>4} {stage.sigma:>12.6g}   "
            lines += [(place if i == 0 else " " * len(place)) + text for i, text in enumerate(texts)]
        return "\n".join(lines)


def planned(
    stages: Callable[Concatenate[Path, Sequence[float], Params], Sequence[Stage]],
) -> Callable[Concatenate[Path, Sequence[float], Params], Plan]:
    """A solver: makes of a function that gives the stages of a schedule the one that gives their plan.

    The former stays within reach of `inspect.unwrap`, for plans whose registers outlive them.
    """

    @wraps(stages)
    def plan(path: Path, sigmas: Sequence[float], *args: Params.args, **kwargs: Params.kwargs) -> Plan:
        return Plan(path, tuple(sigmas), staged(stages, path, sigmas, *args, **kwargs))

    return plan


def ascends(sigmas: Sequence[float]) -> bool:
    """Whether a schedule goes up: a run on it unsamples, from a picture to its noise."""
    return len(sigmas) > 1 and sigmas[-1] > sigmas[0]


def staged(
    stages: Callable[Concatenate[Path, Sequence[float], Params], Sequence[Stage]],
    path: Path,
    sigmas: Sequence[float],
    *args: Params.args,
    **kwargs: Params.kwargs,
) -> tuple[Stage, ...]:
    """The stages that the function of a solver gives of a schedule, upwards too, where it adds no noise.

    dx/dsigma = (x - denoised) / sigma has no direction, and so a method without noise has none: its rows go up as they
    go down, at the same order. At level 0 the slope is 0 / 0 and the half log-SNR infinite: that step is `from_zero`,
    and the method begins at the level above, without a history.

    Raises:
        InputError: noise would be added. What is undone has to be known.
    """
    if not ascends(sigmas):
        return tuple(stages(path, sigmas, *args, **kwargs))
    # Not every method with noise gives rows upwards, but it says on the way down that it draws.
    found = tuple(stages(path, tuple(reversed(sigmas)), *args, **kwargs))
    if not drawn_in(found):
        zero = sigmas[0] == 0.0
        rest = sigmas[1:] if zero else sigmas
        found = tuple(stages(path, rest, *args, **kwargs)) if len(rest) > 1 else ()
        if zero:
            opening = from_zero(sigmas[1], guided=bool(kwargs.get("cfg_pp")))
            found = (opening, *(stage._replace(step=stage.step + 1) for stage in found))
    if drawn_in(found):
        cure = "choose settings that add none, or a solver such as DPM++ 2M or Heun"
        raise InputError("sigmas", "go up, to unsample a picture, and these settings add noise on the way", cure)
    return found


def drawn_in(stages: Iterable[Stage]) -> bool:
    return any(r.draws for stage in stages for r in (*stage.opening, *stage.rows))


def from_zero(t: float, guided: bool) -> Stage:
    """x_t = x + t (x - denoised(x, t)) / t: Euler's step up from level 0, its slope taken at t, as in DDIM inversion
    (Song et al. 2021, section 4.3; Mokady et al. 2023, section 3.1).

    The error is of order t^2: of one step of order 1, as that of the step down to 0. CFG++ takes the slope of the
    unconditional prediction.
    """
    return Stage(t, (row("x", {"x": 2.0, "uncond" if guided else "denoised": -1.0}),), 0)


def pruned(stages: Sequence[Stage], leaves: Iterable[str]) -> tuple[Stage, ...]:
    """The stages without rows whose result nobody reads, where `leaves` are read at the end."""
    live, result = set(leaves), list[Stage]()
    for stage in reversed(stages):
        keeps = tuple(sorted(live))
        rows, live = _live(stage.rows, live)
        live.difference_update(PREDICTED)
        live.add("x")
        opening, live = _live(stage.opening, live) if stage.opening else ((), live)
        result.append(Stage(stage.sigma, rows, stage.step, opening, keeps))
    return tuple(reversed(result))


def _live(rows: tuple[Row, ...], live: set[str]) -> tuple[tuple[Row, ...], set[str]]:
    """The rows whose target somebody reads, and the names that are read before they are set."""
    kept, live = list[Row](), set(live)
    for r in reversed(rows):
        target, terms, *_ = r
        if target in live and terms != ((target, 1.0),):
            kept.append(r)
            live.discard(target)
            live.update(read_by(terms))
    return rows if len(kept) == len(rows) else tuple(reversed(kept)), live


def _checked(weights: Mapping[str, float], rows: Sequence[Row], where: str) -> dict[str, float]:
    """The weights after `rows`, each row checked against what it may read and must sum to."""
    known = dict(weights)
    for r in rows:
        target, terms, weight, silenced = r
        summed, size, exact = 0.0, 0.0, not silenced
        for operand, value in terms:
            if not isinstance(operand, str):
                exact = False
            elif operand in known:
                value *= known[operand]
            else:
                missing = [name for name in r.reads if name not in known]
                raise PlanError(f"{where}: '{r}' reads {', '.join(missing)}, which is not set")
            summed += value
            size += abs(value)
        if not size < math.inf:
            raise PlanError(f"{where}: '{r}' has a coefficient that is not finite")
        if exact and abs(summed - weight) > TOLERANCE * (1.0 + size):
            raise PlanError(f"{where}: '{r}' sums to {summed!r}, must be {weight!r}")
        known[target] = weight
    return known


@dataclass(frozen=True)
class Pace:
    """How far one image has come, and how fast it goes.

    level: the noise level of its x.
    h: the length of the next attempt, in log sigma.
    errors: inverse errors, of the last accepted attempt and of the one before; none before the first attempt.
    accepted, rejected: attempts.
    calls: model calls.
    """

    level: float
    h: float
    errors: tuple[float, ...] = ()
    accepted: int = 0
    rejected: int = 0
    calls: int = 0

    def __str__(self) -> str:
        return f"{self.calls} model calls, {self.accepted} steps accepted and {self.rejected} rejected"


@dataclass(frozen=True)
class State:
    """All there is of a run between two model calls; keep it, fork it, resume it.

    `registers` are latent-shaped tensors that no later step changes in place; `index` counts the model calls done;
    `denoised` is the last prediction, for whoever looks on. `paces` are those of the images, where their steps are
    adaptive.
    """

    registers: Mapping[str, Tensor]
    index: int = 0
    denoised: Tensor | None = None
    paces: tuple[Pace, ...] = ()

    @property
    def x(self) -> Tensor:
        return self.registers["x"]


def start(x: Tensor) -> State:
    """The state before the first model call: `x` at the schedule's first noise level, any shape, float32 or wider."""
    return State({"x": x})


def no_noise(address: Noise, like: Tensor) -> Tensor:
    raise PlanError(f"this plan draws noise ({address}): give run() a noise source, such as AddressedNoise(seeds)")


def advance(plan: Plan, denoiser: Denoiser, state: State, noise: NoiseSource = no_noise) -> State:
    """One model call and the rows that follow it.

    Args:
        denoiser: (x, sigma) -> denoised, of x's shape; a `Predicted` where the plan reads the unconditional one too;
            sigma is a Python float. It makes a new tensor at every call: a plan with memory keeps the earlier ones as
            they are, so one buffer written to again and again would change them.
        noise: (address, like) -> standard normal tensor of `like`'s shape, dtype and device, or one of the standard
            deviation that it has as `scale`.
    """
    return _advance(plan, denoiser, dict(state.registers), state.index, noise)


def _advance(plan: Plan, denoiser: Denoiser, held: dict[str, Tensor], index: int, noise: NoiseSource) -> State:
    """`advance`, from registers that are its own: each is let go as soon as no row needs it any more."""
    stage = plan.stages[index]
    opened = {"x", *_needed(stage.rows, stage.keeps)[0]}.difference(PREDICTED)
    _apply(stage.opening, held, noise, opened)
    predicted = denoiser(held["x"], stage.sigma)
    denoised = predicted.denoised if isinstance(predicted, Predicted) else predicted
    held["denoised"] = denoised
    if isinstance(predicted, Predicted):
        held["uncond"] = predicted.uncond
    elif any("uncond" in r.reads for r in stage.rows):
        raise PlanError("this plan reads the unconditional prediction: its denoiser must return a Predicted pair")
    del predicted
    _apply(stage.rows, held, noise, stage.keeps)
    return State({name: held[name] for name in stage.keeps}, index + 1, denoised)


def _needed(rows: Sequence[Row], keeps: Iterable[str]) -> list[set[str]]:
    """The registers that are still needed before each row, and after the last. Noise alone is shaped like x."""
    found = [set(keeps)]
    for r in reversed(rows):
        found.append((found[-1] - {r.target}).union(r.reads or ("x",)))
    return found[::-1]


def _apply(rows: Sequence[Row], held: dict[str, Tensor], noise: NoiseSource, keeps: Iterable[str]) -> None:
    """Sets the target of each row in `held`, where in the end there is what `keeps` names."""
    needed = _needed(rows, keeps)
    for r, before, after in zip(rows, needed[:-1], needed[1:], strict=True):
        _let_go(held, before)
        held[r.target] = _result(r, held, after - {r.target}, noise)


def _let_go(held: dict[str, Tensor], needed: set[str]) -> None:
    for name in held.keys() - needed:
        del held[name]


def _result(r: Row, held: dict[str, Tensor], after: set[str], noise: NoiseSource) -> Tensor:
    """The row's sum. Noise is drawn last, when `held` keeps only `after`, and so takes the memory of what has gone."""
    draws = [(operand, value) for operand, value in r.terms if isinstance(operand, Noise)]
    if not r.reads:
        return combine([(_drawn(address, held["x"], noise), value) for address, value in draws], affine=0)
    made = combine([(held[operand], value) for operand, value in r.terms if isinstance(operand, str)])
    if draws:
        owned = all(made is not held[name] for name in r.reads)
        _let_go(held, after)
        for address, value in draws:
            made, owned = accumulate(made, [(_drawn(address, made, noise), value)], owned), True
    return made


def _drawn(address: Noise, like: Tensor, noise: NoiseSource) -> Tensor:
    drawn = noise(address, like)
    if address.clip == math.inf:
        return drawn
    bound = address.clip * float(getattr(noise, "scale", 1.0))
    return drawn.clamp(-bound, bound)


def run(
    plan: Plan,
    denoiser: Denoiser,
    state: State,
    noise: NoiseSource = no_noise,
    *,
    stop: int | None = None,
    watch: Callable[[State], None] | None = None,
) -> State:
    """Advances `state` until `stop` model calls are done (all of them by default); `watch` sees every state on the way.

    `denoiser` and `noise` are as for `advance`. A run cut at any index and resumed from its state takes the same
    operations in the same order: the result is equal bit for bit.
    """
    stop = len(plan.stages) if stop is None else min(stop, len(plan.stages))
    while state.index < stop:
        held, index = dict(state.registers), state.index
        # What only this state holds is let go on the way.
        del state
        state = _advance(plan, denoiser, held, index, noise)
        if watch is not None:
            watch(state)
    return state
