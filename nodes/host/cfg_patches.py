"""CFG patches of the host (RescaleCFG, APG, PAG and their like) on an expression of predictions.

They are made for two predictions and a scale. So they act where an expression has that: at its one guidance, if both
sides of it are conditionings. What cannot act is named.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import comfy.samplers
from torch import Tensor

from ...samplers.guidance import Call, guide, needs, scale_at
from ...samplers.guidance.expressions import Guided, Leaf, Prediction, subexpressions
from .plain_calls import CFG_PATCHES

Options = Mapping[str, Any]
Conds = list[dict[str, Any]] | None


def pair_of(expression: Prediction) -> Guided | None:
    """The guidance that CFG patches act on."""
    guided = [part for part in subexpressions(expression) if isinstance(part, Guided)]
    if len(guided) != 1:
        return None
    pair = guided[0]
    # They evaluate the positive one anew, as the guider's own model has it.
    both = isinstance(pair.positive, Leaf) and isinstance(pair.negative, Leaf)
    return pair if both and pair.positive.evaluator is None else None


def patches(options: Options) -> Iterator[tuple[str, Any]]:
    for kind in CFG_PATCHES:
        held = options.get(kind) or []
        yield from ((kind, function) for function in (held if isinstance(held, list) else [held]))


def not_applied(expression: Prediction, options: Options) -> list[str]:
    """The CFG patches that have no effect on this expression, each with the reason. Stepwise's own are no such."""
    pair, here = pair_of(expression), __name__.rpartition(".")[0]
    foreign = [
        (kind, patch) for kind, patch in patches(options) if not getattr(patch, "__module__", "").startswith(here)
    ]
    if pair is None:
        reason = "the expression has not exactly one guidance of two conditionings"
        return [f"{name_of(function)} ({reason})" for _, function in foreign]
    if not pair.linear:
        reason = "it computes guidance itself, and so does the wired rule"
        return [f"{name_of(function)} ({reason})" for kind, function in foreign if kind == "sampler_cfg_function"]
    return []


def name_of(function: Any) -> str:
    """What made the patch, as far as Python knows: the class or function that it was defined in."""
    qualified = getattr(function, "__qualname__", type(function).__qualname__)
    return qualified.split(".<locals>")[0].removesuffix(".execute").removesuffix(".patch")


def asked(pair: Guided, call: Call, options: Options) -> frozenset[str]:
    """What the pair needs of the model under patches, which always see the positive prediction, as in the host."""
    names = needs(pair.rules, pair.scale, call.sigma, call.path)
    if not names:
        return names
    if options.get("disable_cfg1_optimization"):
        return names | {"cond", "uncond"}
    return names | {"cond"}


def guided_with_patches(
    pair: Guided,
    call: Call,
    predictions: Mapping[str, Tensor],
    conds: tuple[Conds, Conds],
    model: Any,
    timestep: Tensor,
    options: Options,
) -> Tensor:
    """The value of the pair, from the predictions that it `asked` for, the patches called as the host calls them."""
    if not predictions:
        return guide(pair.rules, call, predictions)
    given = (conds[0], conds[1] if "uncond" in predictions else None)
    scale = scale_at(pair.rules, pair.scale, call.sigma, call.path)
    out = [predictions["cond"], predictions["uncond"] if given[1] is not None else call.x.new_zeros(call.x.shape)]
    shared = {"timestep": timestep, "input": call.x, "sigma": timestep, "model": model, "model_options": options}
    for function in options.get("sampler_pre_cfg_function", []):
        out = function({"conds": list(given), "conds_out": out, "cond_scale": scale, **shared})
    cond, uncond = out[:2]
    if pair.linear:
        return comfy.samplers.cfg_function(
            model, cond, uncond, scale, call.x, timestep, model_options=options, cond=given[0], uncond=given[1]
        )
    changed = {"cond": cond} if given[1] is None else {"cond": cond, "uncond": uncond}
    denoised = guide(pair.rules, call, {**predictions, **changed}, call.key)
    for function in options.get("sampler_post_cfg_function", []):
        args = {"denoised": denoised, "cond": given[0], "uncond": given[1], "cond_scale": scale}
        denoised = function({**args, "cond_denoised": cond, "uncond_denoised": uncond, **shared})
    return denoised
