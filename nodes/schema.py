"""From the registry to node schemas: the one place where a parameter becomes a widget."""

from collections.abc import Callable, Iterable
from typing import Any

from comfy_api.latest import io

from ..samplers.parameters import Parameter, parameters


def widget(parameter: Parameter) -> io.Input:
    """The widget of a parameter: its range, step and tooltip as declared in the signature."""
    common = {"default": parameter.default, "tooltip": parameter.meaning}
    if parameter.choices:
        return io.Combo.Input(parameter.name, options=list(parameter.choices), **common)
    if parameter.kind is bool:
        return io.Boolean.Input(parameter.name, **common)
    limits = {"min": parameter.min, "max": parameter.max, "step": parameter.step}
    if parameter.kind is int:
        return io.Int.Input(parameter.name, **common, **{k: int(v) for k, v in limits.items() if v is not None})
    return io.Float.Input(parameter.name, **common, **limits, round=False)


def widgets(function: Callable[..., Any], names: Iterable[str] | None = None) -> list[io.Input]:
    """The widgets of a function's declared parameters, in the order of its signature."""
    return [widget(p) for p in parameters(function).values() if names is None or p.name in names]


def description(summary: str, advice: str, papers: Iterable[str] = ()) -> str:
    return "\n\n".join([f"{summary} {advice}".strip(), *papers])
