"""What an expression of predictions needs at a noise level, what it is worth, and its value."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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

Terms = tuple[tuple[Prediction, float], ...]


def summands(p: Prediction, sigma: float, path: Path) -> Terms | None:
    """The sum that a prediction is at this noise level; None if it is none."""
    match p:
        case Sum():
            return tuple((term, f.at(sigma, path)) for term, f in p.terms)
        case Mix():
            amount = p.amount.at(sigma, path)
            return (p.a, 1.0 - amount), (p.b, amount)
        case Guided() if p.linear:
            s = scale_at(p.rules, p.scale, sigma, path)
            return (p.negative, 1.0 - s), (p.positive, s)
        case Switched():
            return (((p.inside if p.chosen(sigma, path) else p.outside), 1.0),)
        case _:
            return None


def flat(p: Prediction, sigma: float, path: Path, known: Container[Prediction] = ()) -> dict[Prediction, float]:
    """The prediction as a sum of such as are `known` or no sums themselves, without those whose factors cancel.

    Each part is looked at once, however often it is used: its factors are summed before they are handed on.
    """
    sums: dict[Prediction, Terms | None] = {}
    order: list[Prediction] = []
    _unfold(p, sigma, path, known, sums, order)
    # For each part the factors of its uses, and their sizes: what is left of them by rounding alone is nothing.
    uses: dict[Prediction, list[tuple[float, float]]] = {p: [(1.0, 1.0)]}
    factors: dict[Prediction, float] = {}
    for part in reversed(order):
        value, size = total(value for value, _ in uses[part]), total(size for _, size in uses[part])
        terms = sums[part]
        if terms is None and abs(value) > 1e-12 * size:
            factors[part] = value
        for term, f in terms or ():
            uses.setdefault(term, []).append((value * f, size * abs(f)))
    return {part: factors[part] for part in sums if part in factors}


def _unfold(
    p: Prediction,
    sigma: float,
    path: Path,
    known: Container[Prediction],
    sums: dict[Prediction, Terms | None],
    order: list[Prediction],
) -> None:
    """The sums within `p` from the top down, and in `order` all parts, each after those that it is a sum of."""
    terms = None if p in known else summands(p, sigma, path)
    sums[p] = terms and tuple((term, f) for term, f in terms if f != 0.0)
    for term, _ in sums[p] or ():
        if term not in sums:
            _unfold(term, sigma, path, known, sums, order)
    order.append(p)


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
    seen: dict[Prediction, None] = {}
    _need(p, sigma, path, known, seen)
    return tuple(part for part in seen if isinstance(part, Leaf) or part in known)


def _need(p: Prediction, sigma: float, path: Path, known: Container[Prediction], seen: dict[Prediction, None]) -> None:
    """Notes what `p` is a sum of, and what that is computed from; `p` itself where it is a sum."""
    for atom in flat(p, sigma, path, known):
        if atom in seen:
            continue
        seen[atom] = None
        if not isinstance(atom, Leaf) and atom not in known:
            for operand in operands(atom, sigma, path).values():
                if operand not in seen:
                    _need(operand, sigma, path, known, seen)
    seen.setdefault(p)


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
    return _weight(p, sigma, path, {})


def _weight(p: Prediction, sigma: float, path: Path, known: dict[Prediction, float]) -> float:
    if p not in known:
        known[p] = total(f * _weight_of_atom(atom, sigma, path, known) for atom, f in flat(p, sigma, path).items())
    return known[p]


def _weight_of_atom(atom: Prediction, sigma: float, path: Path, known: dict[Prediction, float]) -> float:
    if atom in known:
        return known[atom]
    match atom:
        case Guided():
            s = scale_at(atom.rules, atom.scale, sigma, path)
            sides = ((atom.negative, 1.0 - s), (atom.positive, s))
            found = total(share * _weight(side, sigma, path, known) for side, share in sides)
        case Projected():
            whole = _weight(atom.prediction, sigma, path, known)
            # Along a clean image lies nearly all of another one; along a difference, nearly nothing of it.
            along = whole if abs(_weight(atom.onto, sigma, path, known)) > 1e-9 else 0.0
            found = whole - along if atom.rejected else along
        case Clamped():
            found = _weight(atom.prediction, sigma, path, known)
        case _:
            found = 1.0
    known[atom] = found
    return found


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
    return _value(p, call, _Values(dict(known), guided_in(p)))


@dataclass
class _Values:
    """What is known of a model call: the values of `atoms`, and of `sums` that several of them are computed from."""

    atoms: dict[Any, Tensor]
    keys: Mapping[Guided, str]
    sums: dict[Prediction, Tensor] = field(default_factory=dict[Prediction, Tensor])


# Functions and not closures of `evaluate`: closures that call each other are a cycle, which would keep the predictions
# in memory until Python's next collection.
def _value(p: Prediction, call: Call, values: _Values) -> Tensor:
    if p not in values.sums:
        atoms = flat(p, call.sigma, call.path, values.atoms)
        terms = [(_of_atom(atom, call, values), f) for atom, f in atoms.items()]
        values.sums[p] = combine(terms) if terms else torch.zeros_like(call.x)
    return values.sums[p]


def _of_atom(p: Prediction, call: Call, values: _Values) -> Tensor:
    if p not in values.atoms:
        asked = operands(p, call.sigma, call.path)
        given = {name: _value(operand, call, values) for name, operand in asked.items()}
        match p:
            case Guided():
                found = guide(p.rules, replace(call, scale=p.scale), given, values.keys[p])
            case Projected():
                found = projection(call.components, given["prediction"], given["onto"], p.rejected)
            case Clamped():
                found = clamped(call.components, given["prediction"], p.limit, p.of)
            case _:
                raise TypeError(f"the model's prediction for {p} is missing")
        values.atoms[p] = found
    return values.atoms[p]


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
