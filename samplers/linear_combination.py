"""The only tensor arithmetic of the pack: one linear combination, in as few passes over memory as it needs."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def total(values: Iterable[float]) -> float:
    """The correctly rounded sum."""
    return math.fsum(values)


def combine(terms: Sequence[tuple[Tensor, float]], affine: int | None = None) -> Tensor:
    """sum of value * tensor over `terms`, all of one shape; a lone term with value 1.0 is returned itself, not copied.

    The first `affine` terms (all by default), when their values sum to 1, become a chain of n - 1 `torch.lerp`s, which
    is both the fewest kernels and the most accurate form in float32: each lerp is exact where its two operands agree,
    as consecutive states and predictions nearly do. Whatever else there is is multiplied and added into the new buffer.
    Operands are never written to.
    """
    affine = len(terms) if affine is None else affine
    head, tail = terms[:affine], terms[affine:]
    weights = _chain([value for _, value in head])
    if weights is None:
        return accumulate(None, terms)
    result, owned = head[0][0], False
    for (tensor, _), weight in zip(head[1:], weights, strict=True):
        result = result.lerp_(tensor, weight) if owned else torch.lerp(result, tensor, weight)
        owned = True
    return accumulate(result, tail, owned)


def _chain(values: Sequence[float]) -> list[float] | None:
    """The lerp weights that build `values` up one operand at a time, or None where they do not sum to 1 or nearly
    cancel on the way."""
    partial, weights = 0.0, list[float]()
    for value in values:
        partial += value
        if abs(partial) < 1e-3 * abs(value):
            return None
        weights.append(value / partial)
    return weights[1:] if values and abs(total(values) - 1.0) < 1e-9 else None


def accumulate(result: Tensor | None, terms: Sequence[tuple[Tensor, float]], owned: bool = False) -> Tensor:
    """`result` plus the terms, in place only where `result` is `owned`.

    Without a `result`, the sum starts from a term with value 1.0 where there is one, which costs nothing.
    """
    if result is None:
        (first, value), *terms = sorted(terms, key=lambda term: term[1] != 1.0)
        owned = value != 1.0
        result = first * value if owned else first
    for tensor, value in terms:
        result = result.add_(tensor, alpha=value) if owned else torch.add(result, tensor, alpha=value)
        owned = True
    return result
