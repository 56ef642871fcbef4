"""What a node of ours is given, looked at before it works with it.

The host checks the types of links and what a prompt writes for a widget: no value that a prompt writes where a link
belongs, none that a link brings to a widget, no NaN.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from inspect import signature
from typing import Any

import torch
from comfy_api.latest import io

from ...samplers.guidance import Rule
from ...samplers.guidance.expressions import Prediction
from ...samplers.parameters import InputError, quoted
from ...samplers.recipe import Recipe
from .messages import named
from .schema import parameter_of


def has(*names: str) -> Callable[[Any], bool]:
    return lambda value: all(hasattr(value, name) for name in names)


def is_conditioning(value: Any) -> bool:
    """Pairs of a tensor and a dictionary; a model without text has None for the tensor."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    pairs = [tuple(each) for each in value if isinstance(each, (list, tuple)) and len(each) == 2]
    sound = all((text is None or torch.is_tensor(text)) and isinstance(rest, Mapping) for text, rest in pairs)
    return sound and len(pairs) == len(value)


# SIGMAS have a reader of their own, which takes lists too.
IS_ONE: dict[str, Callable[[Any], bool]] = {
    "MODEL": has("get_model_object", "model_options"),
    "GUIDER": has("sample", "model_patcher"),
    "NOISE": has("generate_noise"),
    "SAMPLER": has("sample"),
    "VAE": has("decode", "encode"),
    "CONDITIONING": is_conditioning,
    "LATENT": lambda value: isinstance(value, Mapping) and "samples" in value,
    "IMAGE": torch.is_tensor,
    "STEPWISE_STATE": has("solver", "sigmas", "latent"),
    "STEPWISE_GUIDANCE": lambda value: isinstance(value, tuple) and all(isinstance(each, Rule) for each in value),
    "STEPWISE_PREDICTION": lambda value: isinstance(value, Prediction),
    "STEPWISE_PLAN": lambda value: isinstance(value, Recipe),
    "STEPWISE_PERTURBATION": has("attention", "layers"),
    "STEPWISE_X0": has("samples", "sigma", "path"),
}


def with_checked_inputs(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """`node`, whose execution begins with a look at what its sockets and widgets got."""
    # The host calls it on a clone of the class, which is what knows the hidden inputs.
    execute = node.execute.__func__
    # As for the host: what a node looks at itself is not looked at for it.
    own = signature(node.validate_inputs).parameters

    @cache
    def declared() -> tuple[str, list[io.Input]]:
        schema = node.define_schema()
        return schema.display_name, [each for each in schema.inputs if each.id not in own]

    def checked_first(cls: type[io.ComfyNode], **inputs: Any) -> io.NodeOutput:
        name, looked_at = declared()
        # Nothing on an optional input is the same whether a prompt leaves it out or says null.
        nothing = {each.id for each in looked_at if each.optional and inputs.get(each.id) is None}
        given = {key: value for key, value in inputs.items() if key not in nothing}
        with named(name):
            for each in looked_at:
                if each.id not in nothing and each.get_io_type() in IS_ONE:
                    check_socket(each, inputs.get(each.id))
            given |= read_widgets(looked_at, given)
        return execute(cls, **given)

    return type(node.__name__, (node,), {"execute": classmethod(checked_first), "__module__": node.__module__})


def read_widgets(declared: Iterable[io.Input], given: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """The values of the widgets that are `given` some; raises InputError for one that its schema does not allow."""
    found = {}
    for each in declared:
        value = given.get(each.id)
        if isinstance(each, io.DynamicCombo.Input) and isinstance(value, Mapping):
            found[each.id] = read_choice(each, value)
        elif each.id in given and (parameter := parameter_of(each, before)):
            found[each.id] = parameter.read(value)
    return found


def read_choice(declared: io.DynamicCombo.Input, value: Mapping[str, Any]) -> dict[str, Any]:
    """A choice with the settings that belong to it. An unknown one is left to the node."""
    options = (each.inputs for each in declared.options if each.key == value.get(declared.id))
    given = {name: setting for name, setting in value.items() if setting is not None}
    return {**given, **read_widgets(next(options, ()), given, f"{declared.id}.")}


def check_socket(declared: io.Input, value: Any) -> None:
    """Raises InputError for a value that is none of the socket's type."""
    kind = declared.get_io_type()
    if not IS_ONE[kind](value):
        raise InputError(declared.id, f"is not a {kind} but {said(value)}", f"wire a {kind} output into it")


def said(value: Any) -> str:
    """A value as a person may have typed it, or what it is."""
    typed = isinstance(value, (str, int, float, list, dict, type(None)))
    return quoted(value, 40) if typed else f"a {type(value).__name__}"
