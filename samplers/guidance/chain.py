"""A chain of rules around classifier-free guidance: what it needs of the model, and what it makes of predictions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from ..parameters import Param
from ..path import Path
from .model_call import Call, cuts


def cfg(
    cond: Tensor,
    uncond: Tensor,
    *,
    cfg: Annotated[
        float, Param("Guidance scale: 1 is the conditional prediction alone, 0 the unconditional.", 0.0, 100.0, 0.1)
    ] = 7.5,
) -> Tensor:
    """Classifier-free guidance: uncond + cfg (cond - uncond)   (Ho and Salimans 2022, eq. 6).

    Written with cfg = 1 + w of the paper, so that 1 is the conditional prediction and 0 the unconditional one. Any
    shape; denoised and noise predictions give the same result, since the rule is affine.
    """
    return torch.lerp(uncond, cond, cfg)


Kind = Literal["scale", "away", "combine", "prompt", "result", "history"]


@dataclass(frozen=True)
class Rule:
    """A rule with its parameters, one link of a chain.

    kind, function: see the package; the function's signature follows from its kind,
        scale:   (scale, sigma, path, **params) -> scale
        away:    (call, cond, uncond, **others, **params) -> uncond'
        combine: (call, cond, uncond', **others, **params) -> denoised
        prompt:  (call, denoised, uncond, **others, **params) -> denoised
        result:  (call, denoised, cond, **params) -> denoised
        history: (call, denoised, **params) -> denoised
    others: conditionings beyond the guider's own two, by name, in whatever form the guider evaluates.
    reads: (scale, **params) -> the names of the predictions that it reads there, for `combine`, `prompt`, and `away`
        where it is not all; the others are None where it is called.
    rests: (sigma, path, step, **params) -> whether the model is not asked there at all, and x stays as it is; `step` is
        None where the number of the step is not known.
    avoids: (**params) -> which of `others` are like the negative prompt.
    knows: parameters that only the run can give, see `informed`; until then they are as in the signature.
    """

    kind: Kind
    function: Callable[..., Any]
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    others: Mapping[str, Any] = field(default_factory=dict[str, Any])
    reads: Callable[..., tuple[str, ...]] | None = None
    rests: Callable[..., bool] | None = None
    avoids: Callable[..., tuple[str, ...]] | None = None
    knows: frozenset[str] = frozenset()


Chain = Sequence[Rule]


def informed(rules: Chain, **facts: int) -> Chain:
    """The rules, told of what they have to know: `step` and `steps` of the run, or the `component` that is guided."""
    if not any(rule.knows & facts.keys() for rule in rules):
        return rules
    told = ({name: facts[name] for name in rule.knows & facts.keys()} for rule in rules)
    return tuple(
        replace(rule, params={**rule.params, **given}, knows=rule.knows - given.keys())
        for rule, given in zip(rules, told, strict=True)
    )


def by_component(rules: Chain) -> bool:
    """Whether the scale of the components of a packed latent is not one."""
    return any("component" in rule.knows for rule in rules)


def scale_at(rules: Chain, scale: float, sigma: float, path: Path) -> float:
    """The guidance scale at noise level `sigma`, from the guider's own `scale`."""
    for rule in rules:
        if rule.kind == "scale":
            scale = rule.function(scale, sigma, path, **rule.params)
    return scale


def extra_names(rules: Chain) -> dict[str, Any]:
    """The conditionings that a guider evaluates beside its own two: by the name of their prediction."""
    return {f"{i}.{name}": value for i, rule in enumerate(rules) for name, value in rule.others.items()}


def avoided_names(rules: Chain) -> frozenset[str]:
    """Those of `extra_names` that are like the negative prompt."""
    pairs = ((i, rule.avoids(**rule.params)) for i, rule in enumerate(rules) if rule.avoids is not None)
    return frozenset(f"{i}.{name}" for i, names in pairs for name in names)


def resting(rules: Chain, scale: float, sigma: float, path: Path, step: int | None = None) -> bool:
    """Whether x stays as it is at noise level `sigma` or, where it is known, in this step of the run.

    Args:
        scale: the guider's own. Where the rules make it 1, nothing rests.
    """
    scale = scale_at(rules, scale, sigma, path)
    rests = (rule.rests(sigma, path, step, **rule.params) for rule in rules if rule.rests is not None)
    return scale != 1.0 and any(rests)


def reads_of(index: int, rule: Rule, scale: float) -> frozenset[str]:
    """The names of the predictions that a rule is computed from."""
    if rule.reads is not None:
        read = rule.reads(scale, **rule.params)
    else:
        read = {"away": ("cond", "uncond", *rule.others), "result": ("cond",)}.get(rule.kind, ())
    return frozenset(f"{index}.{name}" if name in rule.others else name for name in read)


def away_rules(rules: Chain, scale: float) -> dict[int, Rule]:
    """The rules that replace what guidance moves away from: from the last one on that does not read what is there."""
    found = {i: rule for i, rule in enumerate(rules) if rule.kind == "away" and scale != 1.0}
    first = max((i for i, rule in found.items() if "uncond" not in reads_of(i, rule, scale)), default=0)
    return {i: rule for i, rule in found.items() if i >= first}


def needs(rules: Chain, scale: float, sigma: float, path: Path) -> frozenset[str]:
    """The predictions that must be evaluated at `sigma`: `cond`, `uncond`, and names of `extra_names`.

    Args:
        scale: the guider's own. Where the rules make it 1, `cond` is enough; an empty set means no evaluation at all.
    """
    if by_component(rules):
        sides = (informed(rules, component=i) for i in (0, 1))
        return frozenset[str]().union(*(needs(side, scale, sigma, path) for side in sides))
    if resting(rules, scale, sigma, path):
        return frozenset()
    scale = scale_at(rules, scale, sigma, path)

    def read_by(*kinds: Kind) -> frozenset[str]:
        found = (reads_of(i, rule, scale) for i, rule in enumerate(rules) if rule.kind in kinds)
        return frozenset[str]().union(*found)

    names = read_by("combine")
    if not any(rule.kind == "combine" for rule in rules):
        names = frozenset({1.0: ("cond",), 0.0: ("uncond",)}.get(scale, ("cond", "uncond")))
    for i, rule in reversed(away_rules(rules, scale).items()):
        names = names - {"uncond"} | reads_of(i, rule, scale)
    return names | read_by("prompt", "result")


def guide(rules: Chain, call: Call, predictions: Mapping[str, Tensor], key: str = "") -> Tensor:
    """The guided prediction.

    Args:
        call: with the guider's own scale.
        predictions: denoised, of x's shape, by the names that `needs` gave; none of them is written to.
        key: tells apart several chains that share one memory.
    """
    if by_component(rules):
        return guided_apart(rules, call, predictions, key)
    call = replace(call, scale=scale_at(rules, call.scale, call.sigma, call.path))
    if not predictions:
        return call.x
    cond = predictions.get("cond")
    denoised = combined(rules, call, predictions, key)
    for rule, given in with_others(rules, predictions, "prompt"):
        denoised = rule.function(call, denoised, predictions.get("uncond"), **given, **rule.params)
    if denoised is not cond:
        for rule, _ in with_others(rules, predictions, "result"):
            denoised = rule.function(call, denoised, cond, **rule.params)
    for i, rule in enumerate(rules):
        if rule.kind == "history":
            denoised = rule.function(replace(call, key=f"{key}{i}"), denoised, **rule.params)
    return denoised


def guided_apart(rules: Chain, call: Call, predictions: Mapping[str, Tensor], key: str) -> Tensor:
    """Each component with the scale that is its own, and with memory of its own."""
    found: list[Tensor] = []
    for i, cut in enumerate(cuts(call.components or (call.x.shape[-1],))):
        part = call.x[..., cut]
        shape = (-1, *call.shapes[i]) if len(call.shapes) > 1 else part.shape
        alone = replace(call, x=part.reshape(shape), components=(), shapes=())
        given = {name: value[..., cut].reshape(shape) for name, value in predictions.items()}
        guided = guide(informed(rules, component=min(i, 1)), alone, given, f"{key}{i}.")
        found.append(guided.reshape(part.shape))
    return found[0] if len(found) == 1 else torch.cat(found, dim=-1)


def combined(rules: Chain, call: Call, predictions: Mapping[str, Tensor], key: str) -> Tensor:
    """The combination of the two prompts, or of those of the rule that combines them otherwise."""
    cond, uncond = predictions.get("cond"), predictions.get("uncond")
    for i, rule in away_rules(rules, call.scale).items():
        given = others_of(rule, i, predictions)
        uncond = rule.function(replace(call, key=f"{key}{i}"), cond, uncond, **given, **rule.params)
    for rule, given in with_others(rules, predictions, "combine"):
        return rule.function(call, cond, uncond, **given, **rule.params)
    if uncond is None or call.scale == 1.0:
        return predictions["cond"]
    return uncond if cond is None else cfg(cond, uncond, cfg=call.scale)


def others_of(rule: Rule, index: int, predictions: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    """The further predictions of a rule, None for those that are not needed here."""
    return {name: predictions.get(f"{index}.{name}") for name in rule.others}


def with_others(
    rules: Chain, predictions: Mapping[str, Tensor], kind: Kind
) -> Iterator[tuple[Rule, dict[str, Tensor | None]]]:
    return ((rule, others_of(rule, i, predictions)) for i, rule in enumerate(rules) if rule.kind == kind)
