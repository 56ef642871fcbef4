"""A chain of rules: what it needs of the model, and what it makes of the predictions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from ..parameters import Value
from ..path import Path
from .combine import cfg
from .model_call import Call

Kind = Literal["scale", "away", "prompt", "result"]


@dataclass(frozen=True)
class Rule:
    """A rule with its parameters, one link of a chain.

    kind, function: see the package; the function's signature follows from its kind,
        scale:  (scale, sigma, path, **params) -> scale
        away:   (call, cond, uncond, **others, **params) -> uncond'
        prompt: (call, denoised, cond, uncond, **others, **params) -> denoised
        result: (call, denoised, cond, **params) -> denoised
    others: conditionings beyond the guider's own two, by name, in whatever form the guider evaluates.
    reads: for a `prompt` rule, (scale, **params) -> the names of the predictions that it reads there.
    rests: (sigma, path, **params) -> whether the clean image is not asked for at all there, and x stays as it is.
    """

    kind: Kind
    function: Callable[..., Any]
    params: Mapping[str, Value] = field(default_factory=dict[str, Value])
    others: Mapping[str, Any] = field(default_factory=dict[str, Any])
    reads: Callable[..., tuple[str, ...]] | None = None
    rests: Callable[..., bool] | None = None


Chain = Sequence[Rule]


def scale_at(rules: Chain, scale: float, sigma: float, path: Path) -> float:
    """The guidance scale at noise level `sigma`, from the guider's own `scale`."""
    for rule in rules:
        if rule.kind == "scale":
            scale = rule.function(scale, sigma, path, **rule.params)
    return scale


def extra_names(rules: Chain) -> dict[str, Any]:
    """The conditionings that a guider evaluates beside its own two: by the name of their prediction."""
    return {f"{i}.{name}": value for i, rule in enumerate(rules) for name, value in rule.others.items()}


def resting(rules: Chain, scale: float, sigma: float, path: Path) -> bool:
    return scale != 1.0 and any(rule.rests is not None and rule.rests(sigma, path, **rule.params) for rule in rules)


def needs(rules: Chain, scale: float, sigma: float, path: Path) -> frozenset[str]:
    """The predictions that must be evaluated at `sigma`: `cond`, `uncond`, and names of `extra_names`.

    Args:
        scale: the guider's own. Where the rules make it 1, `cond` is enough; an empty set means no evaluation at all.
    """
    scale = scale_at(rules, scale, sigma, path)
    if resting(rules, scale, sigma, path):
        return frozenset()
    away = [rule for rule in rules if rule.kind == "away"] if scale != 1.0 else []
    result = [rule for rule in rules if rule.kind == "result"] if scale != 1.0 else []
    names = {"cond"} if scale == 1.0 else {"cond", "uncond"} if scale != 0.0 or away or result else {"uncond"}
    for i, rule in enumerate(rules):
        if rule.kind == "away" and away:
            names |= {f"{i}.{name}" for name in rule.others}
        if rule.reads is not None:
            names |= {f"{i}.{name}" if name in rule.others else name for name in rule.reads(scale, **rule.params)}
    return frozenset(names)


def guide(rules: Chain, call: Call, predictions: Mapping[str, Tensor], key: str = "") -> Tensor:
    """The guided prediction.

    Args:
        call: with the guider's own scale.
        predictions: denoised, of x's shape, by the names that `needs` gave; none of them is written to.
        key: tells apart several chains that share one memory.
    """
    call = replace(call, scale=scale_at(rules, call.scale, call.sigma, call.path))
    if not predictions:
        return call.x
    named = [(rule, arguments(rule, i, predictions)) for i, rule in enumerate(rules)]
    cond, uncond = predictions.get("cond"), predictions.get("uncond")
    if call.scale == 1.0:
        denoised = predictions["cond"]
    elif cond is None:
        denoised = predictions["uncond"]
    else:
        away = predictions["uncond"]
        for i, (rule, given) in enumerate(named):
            if rule.kind == "away":
                scoped = replace(call, key=f"{key}{i}")
                away = rule.function(scoped, cond, away, **given, **rule.params)
        denoised = cfg(cond, away, cfg=call.scale)
    for rule, given in named:
        if rule.kind == "prompt":
            denoised = rule.function(call, denoised, cond, uncond, **given, **rule.params)
    if denoised is not cond and cond is not None:
        for rule, _ in named:
            if rule.kind == "result":
                denoised = rule.function(call, denoised, cond, **rule.params)
    return denoised


def arguments(rule: Rule, index: int, predictions: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    """The further predictions of a rule, None for those that are not needed here."""
    return {name: predictions.get(f"{index}.{name}") for name in rule.others}
