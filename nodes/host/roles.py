"""Which side of guidance the rows of a model call stand on, told to patches in the host's words.

Under `cond_or_uncond` the host writes the places of its conditionings in a list, which under its own guider are 0 for
the positive and 1 for the negative one. Patches take them for just that, so among more than two each says which of
those it is like. Under `LEAVES` stand the places.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

POSITIVE, NEGATIVE = 0, 1
LEAVES = "stepwise_leaves"


def roles_and_leaves(leaves: Sequence[int], roles: Sequence[int]) -> dict[str, list[int]]:
    return {"cond_or_uncond": [roles[leaf] for leaf in leaves], LEAVES: list(leaves)}


def with_roles(model_options: Mapping[str, Any], roles: Sequence[int]) -> dict[str, Any]:
    """Model options under which the host, given conditionings of these roles, tells them at every model call.

    It does so around the call itself, where a wrapper of others (their `model_function_wrapper`) is told too.
    """
    theirs = model_options.get("model_function_wrapper")

    def called(apply_model: Callable[..., Any], args: Mapping[str, Any]) -> Any:
        told = roles_and_leaves(args["cond_or_uncond"], roles)
        inputs = {**args["c"], "transformer_options": {**args["c"]["transformer_options"], **told}}
        if theirs is None:
            return apply_model(args["input"], args["timestep"], **inputs)
        return theirs(apply_model, {**args, "c": inputs, "cond_or_uncond": told["cond_or_uncond"]})

    return {**model_options, "model_function_wrapper": called}
