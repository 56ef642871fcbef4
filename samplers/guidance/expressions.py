"""Guidance as an expression: which predictions a model call needs, and what becomes of them.

A `Prediction` is a frozen value. Nothing is computed when one is made. A guider asks `needed` for the leaves that count
at a noise level, has the model evaluate them, all in one batch, and gives them to `evaluate`.

Each prediction has a weight, as each register of a plan has: 1 for an estimate of the clean image, 0 for a difference
of two. What a guider uses must have weight 1 at every noise level, else the picture would be scaled.

All predictions are denoised and of x's shape. Every operation works on each image of a batch by itself, on any rank,
and on the components of packed latents apart.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Annotated, Any, Literal

from ..parameters import InputError, Param
from ..path import Path
from .chain import Chain, Rule, avoided_names, by_component, extra_names, scale_at
from .scales import Measure, Over, SigmaEnd, SigmaStart, drawn_curve, interval, position


class Prediction:
    """Of the clean image, or a difference of two such. Each is its own: two are equal when they are one object."""


@dataclass(frozen=True, eq=False)
class Leaf(Prediction):
    """The model's prediction for one conditioning. Leaves of one conditioning are equal: it is evaluated once.

    `negative` tells two apart where guidance moves from a conditioning to itself: a model may look at the role, too.
    `evaluator` is what evaluates it where that is not the guider's own model as it is; equal ones are the same.
    """

    conditioning: Any
    negative: bool = False
    evaluator: Hashable | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Leaf):
            return False
        same = other.conditioning is self.conditioning and other.negative is self.negative
        return same and other.evaluator == self.evaluator

    def __hash__(self) -> int:
        return hash((id(self.conditioning), self.negative, self.evaluator))


@dataclass(frozen=True, eq=False)
class Factor:
    """A number, or a function of the noise level: `value` as rules of the kind `scale` change it."""

    value: float
    rules: Chain = ()

    def at(self, sigma: float, path: Path) -> float:
        return scale_at(self.rules, self.value, sigma, path)


@dataclass(frozen=True, eq=False)
class Sum(Prediction):
    terms: tuple[tuple[Prediction, Factor], ...]


@dataclass(frozen=True, eq=False)
class Mix(Prediction):
    """(1 - amount) a + amount b."""

    a: Prediction
    b: Prediction
    amount: Factor


@dataclass(frozen=True, eq=False)
class Guided(Prediction):
    """Guidance of two predictions by a chain of rules, with the predictions of the rules' own conditionings."""

    positive: Prediction
    negative: Prediction
    scale: float
    rules: Chain
    others: Mapping[str, Leaf]

    @property
    def linear(self) -> bool:
        """Whether it is classifier-free guidance, with a scale that may depend on the noise level."""
        return all(rule.kind == "scale" for rule in self.rules) and not by_component(self.rules)

    @property
    def avoided(self) -> frozenset[str]:
        """Those of `others` that are like the negative prediction."""
        return avoided_names(self.rules)


@dataclass(frozen=True, eq=False)
class Projected(Prediction):
    """The part of a prediction along another, or, when `rejected`, what is left without that part."""

    prediction: Prediction
    onto: Prediction
    rejected: bool


@dataclass(frozen=True, eq=False)
class Clamped(Prediction):
    prediction: Prediction
    limit: float
    of: str


@dataclass(frozen=True, eq=False)
class Switched(Prediction):
    """`inside` where `chosen` says so, else `outside`."""

    inside: Prediction
    outside: Prediction
    chosen: Callable[[float, Path], bool]


# What the nodes make


def _factor(value: float, rules: Chain) -> Factor:
    if any(rule.kind != "scale" for rule in rules):
        raise InputError("rule", "holds a rule that is no number", "wire rules that only set the scale, such as curves")
    if by_component(rules):
        raise InputError("rule", "holds a scale for each component", "wire it into the rule of a guidance")
    return Factor(value, tuple(rules))


def guided(
    positive: Prediction,
    negative: Prediction,
    *,
    scale: Annotated[
        float, Param("Guidance scale: 1 is the positive prediction alone, 0 the negative.", 0.0, 100.0, 0.1)
    ] = 7.5,
    rules: Chain = (),
) -> Guided:
    """Classifier-free guidance: negative + scale (positive - negative)   (Ho and Salimans 2022, eq. 6).

    Either may be an expression itself. Rules act as under a CFG guider.
    """
    others = {name: Leaf(value) for name, value in extra_names(rules).items()}
    if isinstance(positive, Leaf) and positive == negative:
        negative = Leaf(positive.conditioning, negative=True)
    return Guided(positive, negative, scale, tuple(rules), others)


def add(
    a: Prediction,
    b: Prediction,
    *,
    factor_a: Annotated[float, Param("What a is multiplied by.", -100.0, 100.0, 0.01)] = 1.0,
    factor_b: Annotated[
        float, Param("What b is multiplied by; -1 makes the difference a - b.", -100.0, 100.0, 0.01)
    ] = 1.0,
) -> Prediction:
    """Weighted sum: factor_a a + factor_b b.

    The difference of two predictions is a guidance direction. Added to a prediction it leaves a prediction; the sum of
    two predictions would be a picture of twice the contrast, which a guider refuses.
    """
    return Sum(((a, Factor(factor_a)), (b, Factor(factor_b))))


def scale(
    prediction: Prediction,
    *,
    factor: Annotated[float, Param("What the prediction is multiplied by.", -100.0, 100.0, 0.01)] = 1.0,
    rules: Chain = (),
) -> Prediction:
    """Multiple of a prediction: factor times prediction.

    With rules that set a scale, such as a curve or an interval, the factor depends on the noise level; an interval
    leaves a factor of 1 outside. Meant for differences: a guider refuses a whole prediction that is scaled.
    """
    return Sum(((prediction, _factor(factor, rules)),))


def mix(
    a: Prediction,
    b: Prediction,
    *,
    amount: Annotated[float, Param("How much of b: 0 is a, 1 is b.", -100.0, 100.0, 0.01)] = 0.5,
    rules: Chain = (),
) -> Prediction:
    """Weighted mean: (1 - amount) a + amount b.

    With rules that set a scale the amount depends on the noise level.
    """
    return Mix(a, b, _factor(amount, rules))


def project(prediction: Prediction, onto: Prediction) -> Prediction:
    """The part along another prediction: (p . o) / (o . o) o, with p the prediction and o the other one.

    The dot products are over each image. Where o is zero, so is the result.
    """
    return Projected(prediction, onto, rejected=False)


def reject(prediction: Prediction, onto: Prediction) -> Prediction:
    """The part at right angles to another prediction: p - (p . o) / (o . o) o.

    Together with the part along it, it is the whole prediction.
    """
    return Projected(prediction, onto, rejected=True)


def clamp(
    prediction: Prediction,
    *,
    limit: Annotated[float, Param("The largest value that is left.", 0.0, 1000.0, 0.01)] = 1.0,
    of: Annotated[
        Literal["rms", "value"],
        Param(
            "rms shrinks a whole image until its root mean square is within the limit, which keeps its direction; "
            "value cuts off single values."
        ),
    ] = "rms",
) -> Prediction:
    """Limited size: p min(1, limit / rms(p)), or each value of p cut off at -limit and limit.

    The root mean square is taken over each image.
    """
    return Clamped(prediction, limit, of)


def switch(
    inside: Prediction,
    outside: Prediction,
    *,
    sigma_low: Annotated[float, Param("`inside` is used above this noise level.", 0.0, 100000.0, 0.01)] = 0.28,
    sigma_high: Annotated[float, Param("`inside` is used up to this noise level.", 0.0, 100000.0, 0.01)] = 5.42,
    measure: Measure = "sigma / alpha",
) -> Prediction:
    """One prediction in an interval of noise levels, another outside: inside where sigma_low < sigma <= sigma_high.

    Only the one that is used is evaluated.
    """
    if sigma_low > sigma_high:
        raise InputError("sigma_low", f"is {sigma_low:g}, above sigma_high = {sigma_high:g}", "swap the two")

    def chosen(sigma: float, path: Path) -> bool:
        return interval(0.0, sigma, path, sigma_low=sigma_low, sigma_high=sigma_high, measure=measure) == 0.0

    return Switched(inside, outside, chosen)


def crossfade(
    a: Prediction,
    b: Prediction,
    *,
    curve: Callable[[float], float],
    over: Over = "log_snr",
    sigma_start: SigmaStart = 14.6146,
    sigma_end: SigmaEnd = 0.0292,
) -> Prediction:
    """Weighted mean along a drawn curve: (1 - curve(u)) a + curve(u) b, with u = 0 at sigma_start and 1 at sigma_end.

    Beyond its ends the curve stays at their values. Where it is 0 only a is evaluated, where it is 1 only b.
    """
    params = {"curve": curve, "low": 0.0, "over": over, "sigma_start": sigma_start, "sigma_end": sigma_end}
    position(over, 1.0, Path.VE, sigma_start, sigma_end)
    return Mix(a, b, Factor(1.0, (Rule("scale", drawn_curve, params),)))


# What a guider asks


def children(p: Prediction) -> tuple[Prediction, ...]:
    """What the expression is made of, at whatever noise level."""
    match p:
        case Sum():
            return tuple(term for term, _ in p.terms)
        case Mix():
            return (p.a, p.b)
        case Guided():
            return (p.positive, p.negative, *p.others.values())
        case Projected():
            return (p.prediction, p.onto)
        case Clamped():
            return (p.prediction,)
        case Switched():
            return (p.inside, p.outside)
        case _:
            return ()


def subexpressions(p: Prediction) -> tuple[Prediction, ...]:
    """The expression and all that is in it, each once, from the top down."""
    found: dict[Prediction, None] = {}
    _collect(p, found)
    return tuple(found)


def _collect(p: Prediction, found: dict[Prediction, None]) -> None:
    if p not in found:
        found[p] = None
        for child in children(p):
            _collect(child, found)


def negatives(p: Prediction) -> frozenset[Leaf]:
    """The leaves that the expression moves away from: those with a negative share in it.

    The share is 1 on the positive side of a guidance and -1 on the negative one, where conditionings of the rules stand
    too if these say so; in a sum or a mean it is the factor, as it is without rules. A direction has none. Where the
    shares cancel, it is the side of a guidance that decides.
    """
    parts = {part: children(part) for part in subexpressions(p)}
    shares = {**dict.fromkeys(parts, 0.0), p: 1.0}
    for part in reversed(tuple(TopologicalSorter(parts).static_order())):
        for child, share in _shares(part):
            shares[child] += share * shares[part]
    sides = {part.negative for part in parts if isinstance(part, Guided)}
    leaves = {part: share for part, share in shares.items() if isinstance(part, Leaf)}
    return frozenset(leaf for leaf, share in leaves.items() if share < 0.0 or (share == 0.0 and leaf in sides))


def _shares(p: Prediction) -> Iterator[tuple[Prediction, float]]:
    match p:
        case Sum():
            yield from ((term, f.value) for term, f in p.terms)
        case Mix():
            yield from ((p.a, 1.0 - p.amount.value), (p.b, p.amount.value))
        case Guided():
            yield from ((p.positive, 1.0), (p.negative, -1.0))
            yield from ((leaf, -1.0 if name in p.avoided else 1.0) for name, leaf in p.others.items())
        case Projected():
            yield p.prediction, 1.0
        case _:
            yield from ((child, 1.0) for child in children(p))
