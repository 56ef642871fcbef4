"""Guidance as an expression: which predictions a model call needs, and what becomes of them.

A `Prediction` is a frozen value. Nothing is computed when one is made. A guider asks `needed` for the leaves that count
at a noise level, has the model evaluate them, all in one batch, and gives them to `evaluate`.

Each prediction has a weight, as each register of a plan has: 1 for an estimate of the clean image, 0 for a difference
of two. What a guider uses must have weight 1 at every noise level, else the picture would be scaled.

All predictions are denoised and of x's shape. Every operation works on each image of a batch by itself, on any rank,
and on the components of packed latents apart.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from .combine import combine, total
from .guidance import Call, Chain, Rule, drawn, extra_names, guide, needs, scale_at
from .guidance.away import dot
from .guidance.model_call import apart, per_image
from .guidance.scales import Measure, Over, SigmaEnd, SigmaStart, interval, position
from .parameters import InputError, Param
from .path import Path


class Prediction:
    """Of the clean image, or a difference of two such. Each is its own: two are equal when they are one object."""


@dataclass(frozen=True, eq=False)
class Leaf(Prediction):
    """The model's prediction for one conditioning. Leaves of one conditioning are equal: it is evaluated once.

    `negative` tells two apart where guidance moves from a conditioning to itself: a model may look at the role, too.
    """

    conditioning: Any
    negative: bool = False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Leaf):
            return False
        return other.conditioning is self.conditioning and other.negative is self.negative

    def __hash__(self) -> int:
        return hash((id(self.conditioning), self.negative))


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
        return all(rule.kind == "scale" for rule in self.rules)


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
    return Mix(a, b, Factor(1.0, (Rule("scale", drawn, params),)))


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


def parts(p: Prediction) -> tuple[Prediction, ...]:
    """The expression and all that is in it, each once, from the top down."""
    found = {p: None}
    for child in children(p):
        found |= dict.fromkeys(parts(child))
    return tuple(found)


def terms(p: Prediction, sigma: float, path: Path) -> Iterator[tuple[Prediction, float]]:
    """The sum that a prediction is at this noise level; itself, if it is none."""
    match p:
        case Sum():
            yield from ((term, f.at(sigma, path)) for term, f in p.terms)
        case Mix():
            amount = p.amount.at(sigma, path)
            yield from ((p.a, 1.0 - amount), (p.b, amount))
        case Guided() if p.linear:
            s = scale_at(p.rules, p.scale, sigma, path)
            yield from ((p.negative, 1.0 - s), (p.positive, s))
        case Switched():
            yield (p.inside if p.chosen(sigma, path) else p.outside), 1.0
        case _:
            yield p, 1.0


def flat(p: Prediction, sigma: float, path: Path, known: Container[Prediction] = ()) -> dict[Prediction, float]:
    """The prediction as a sum of such as are `known` or no sums themselves, without those whose factors cancel."""
    factors: dict[Prediction, list[float]] = {}
    for atom, value in _spread(p, 1.0, sigma, path, known):
        factors.setdefault(atom, []).append(value)
    sums = {atom: (total(values), total(map(abs, values))) for atom, values in factors.items()}
    return {atom: value for atom, (value, size) in sums.items() if abs(value) > 1e-12 * size}


def _spread(
    p: Prediction, value: float, sigma: float, path: Path, known: Container[Prediction]
) -> Iterator[tuple[Prediction, float]]:
    for term, f in [(p, 1.0)] if p in known else terms(p, sigma, path):
        if term is p:
            yield p, value * f
        elif f != 0.0:
            yield from _spread(term, value * f, sigma, path, known)


def operands(p: Prediction, sigma: float, path: Path) -> dict[str, Prediction]:
    """What the value of a prediction that is no sum is computed from at this noise level."""
    match p:
        case Guided():
            known = {"cond": p.positive, "uncond": p.negative, **p.others}
            asked = needs(p.rules, p.scale, sigma, path)
            return {name: operand for name, operand in known.items() if name in asked}
        case Projected():
            return {"prediction": p.prediction, "onto": p.onto}
        case Clamped():
            return {"prediction": p.prediction}
        case _:
            return {}


def needed(p: Prediction, sigma: float, path: Path, known: Container[Prediction] = ()) -> tuple[Prediction, ...]:
    """What its value at this noise level is computed from, each once: leaves, and what is `known` by other means."""
    found: dict[Prediction, None] = {}
    for atom in flat(p, sigma, path, known):
        if isinstance(atom, Leaf) or atom in known:
            found[atom] = None
        else:
            for operand in operands(atom, sigma, path).values():
                found |= dict.fromkeys(needed(operand, sigma, path, known))
    return tuple(found)


def varies(p: Prediction) -> bool:
    """Whether it depends on the noise level in any other way than by its leaves."""

    def of(part: Prediction) -> bool:
        match part:
            case Sum():
                return any(f.rules for _, f in part.terms)
            case Mix():
                return bool(part.amount.rules)
            case Guided():
                return bool(part.rules)
            case _:
                return isinstance(part, Switched)

    return any(map(of, parts(p)))


def guided_in(p: Prediction) -> dict[Guided, str]:
    """Every guidance in the expression, and what the names of its memory begin with."""
    return {part: f"{i}." for i, part in enumerate(part for part in parts(p) if isinstance(part, Guided))}


def weight(p: Prediction, sigma: float, path: Path) -> float:
    """How many predictions of the clean image it is worth at this noise level."""

    def of_atom(atom: Prediction) -> float:
        match atom:
            case Guided():
                s = scale_at(atom.rules, atom.scale, sigma, path)
                return (1.0 - s) * weight(atom.negative, sigma, path) + s * weight(atom.positive, sigma, path)
            case Projected():
                whole = weight(atom.prediction, sigma, path)
                # Along a clean image lies nearly all of another one; along a difference, nearly nothing of it.
                along = whole if abs(weight(atom.onto, sigma, path)) > 1e-9 else 0.0
                return whole - along if atom.rejected else along
            case Clamped():
                return weight(atom.prediction, sigma, path)
            case _:
                return 1.0

    return total(f * of_atom(atom) for atom, f in flat(p, sigma, path).items())


def check_weight(p: Prediction, sigmas: Iterable[float], path: Path) -> None:
    """Raises InputError where the prediction is not one of the clean image."""
    for sigma in sigmas:
        found = weight(p, sigma, path)
        if abs(found - 1.0) > 1e-6:
            what = "is a difference of predictions" if abs(found) < 1e-6 else f"adds up to {found:.6g} predictions"
            cure = "let the factors add up to 1: mix predictions, and add to one of them only differences"
            raise InputError("prediction", f"{what} at sigma {sigma:.6g}, not to one", cure)


def evaluate(p: Prediction, call: Call, known: Mapping[Any, Tensor]) -> Tensor:
    """The value of a prediction.

    Args:
        call: the model call; the scale and the key in it are not used.
        known: denoised predictions, at least of the leaves that `needed` gave. None of them is written to.
    """
    return _value(p, call, dict(known), guided_in(p))


# Functions and not closures of `evaluate`: closures that call each other are a cycle, which would keep the predictions
# in memory until Python's next collection.
def _value(p: Prediction, call: Call, values: dict[Any, Tensor], keys: Mapping[Guided, str]) -> Tensor:
    atoms = flat(p, call.sigma, call.path, values)
    if not atoms:
        return torch.zeros_like(call.x)
    return combine([(_of_atom(atom, call, values, keys), f) for atom, f in atoms.items()])


def _of_atom(p: Prediction, call: Call, values: dict[Any, Tensor], keys: Mapping[Guided, str]) -> Tensor:
    if p not in values:
        asked = operands(p, call.sigma, call.path)
        given = {name: _value(operand, call, values, keys) for name, operand in asked.items()}
        match p:
            case Guided():
                values[p] = guide(p.rules, replace(call, scale=p.scale), given, keys[p])
            case Projected():
                values[p] = projection(call.components, given["prediction"], given["onto"], p.rejected)
            case Clamped():
                values[p] = clamped(call.components, given["prediction"], p.limit, p.of)
            case _:
                raise TypeError(f"the model's prediction for {p} is missing")
    return values[p]


def projection(components: Sequence[int], p: Tensor, onto: Tensor, rejected: bool) -> Tensor:
    def one(p: Tensor, o: Tensor) -> Tensor:
        length = per_image(dot, o, o)
        along = per_image(dot, p, o) / torch.where(length == 0.0, 1.0, length)
        return torch.addcmul(p, along, o, value=-1.0) if rejected else along * o

    return apart(components, one, p, onto)


def clamped(components: Sequence[int], p: Tensor, limit: float, of: str) -> Tensor:
    def one(p: Tensor) -> Tensor:
        if of == "value":
            return p.clamp(-limit, limit)
        rms = (per_image(dot, p, p) / p[0].numel()).sqrt()
        return p * (limit / rms.clamp_min(limit)) if limit > 0.0 else torch.zeros_like(p)

    return apart(components, one, p)
