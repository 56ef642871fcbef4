"""What an expression of predictions needs at a noise level, what it is worth, and its value."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..linear_combination import combine, total
from ..parameters import InputError
from ..path import Path
from .chain import guide, needs, scale_at
from .expressions import Clamped, Guided, Leaf, Mix, Prediction, Projected, Sum, Switched, subexpressions
from .model_call import Call, apart, per_image
from .unconditional import dot


def summands(p: Prediction, sigma: float, path: Path) -> Iterator[tuple[Prediction, float]]:
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
    for term, f in [(p, 1.0)] if p in known else summands(p, sigma, path):
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

    return any(map(of, subexpressions(p)))


def guided_in(p: Prediction) -> dict[Guided, str]:
    """Every guidance in the expression, and what the names of its memory begin with."""
    return {part: f"{i}." for i, part in enumerate(part for part in subexpressions(p) if isinstance(part, Guided))}


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
