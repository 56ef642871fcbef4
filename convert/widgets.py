"""The values of a node's widgets, which the editor saves by position."""

from collections.abc import Iterable, Mapping
from typing import Any

from .table import Input, inputs_of, known

# What a page with the pack saves beside the values: their names (web/widgets.js).
NAMES = "stepwise_widgets"
CONTROL = "control_after_generate"
CONTROLS = ("fixed", "increment", "increment-wrap", "decrement", "randomize")
# Nodes with one value of their own, which may change after each run.
PRIMITIVES = ("PrimitiveNode", "PrimitiveInt", "PrimitiveFloat")


def read(node: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of a saved node by name, and what its seeds do after a run."""
    values = node.get("widgets_values")
    kind = node["type"]
    if isinstance(values, dict):
        return dict(values), {}
    values = values if isinstance(values, list) else []
    names = node.get("properties", {}).get(NAMES) if isinstance(node.get("properties"), dict) else None
    if isinstance(names, list) and len(names) == len(values) and all(isinstance(each, str) for each in names):
        found = dict(zip(names, values, strict=True))
        control = found.pop(CONTROL, None)
        return found, {"seed": control} if control is not None else {}
    if kind in PRIMITIVES or kind.startswith("Primitive"):
        moves = len(values) > 1 and values[1] in CONTROLS and values[1] != "fixed"
        return ({"value": values[0]} if values and not moves else {}), {}
    return by_position(kind, values) if known(kind) else ({}, {})


def by_position(kind: str, values: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    found: dict[str, Any] = {}
    controls: dict[str, Any] = {}
    rest, done = list(values), 0
    # A choice brings widgets of its own: the list is asked for again with what is known.
    while True:
        widgets = [each for each in inputs_of(kind, found) if each.widget]
        if done >= len(widgets) or not rest:
            return found, controls
        one = widgets[done]
        found[one.name] = rest.pop(0)
        if one.control and rest and rest[0] in CONTROLS:
            controls[one.name] = rest.pop(0)
        done += 1


def written(inputs: Iterable[Input], values: Mapping[str, Any], controls: Mapping[str, Any]) -> tuple[list[Any], list]:
    """The values by position, and their names; a wired one has its default there."""
    made: list[Any] = []
    names: list[str] = []
    for one in inputs:
        if not one.widget:
            continue
        made.append(values.get(one.name, one.default))
        names.append(one.name)
        if one.control:
            made.append(controls.get(one.name, "fixed"))
            names.append(CONTROL)
    return made, names
