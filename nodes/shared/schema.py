"""From the registry to node schemas: where a parameter becomes a widget; and the types of our own that links carry."""

from collections.abc import Callable, Iterable
from typing import Any

from comfy_api.latest import io

from ...samplers.parameters import Parameter, parameters

StateType = io.Custom("STEPWISE_STATE")
GuidanceType = io.Custom("STEPWISE_GUIDANCE")
PredictionType = io.Custom("STEPWISE_PREDICTION")
PerturbationType = io.Custom("STEPWISE_PERTURBATION")
PlanType = io.Custom("STEPWISE_PLAN")
CompareEntryType = io.Custom("STEPWISE_COMPARE_ENTRY")
CleanType = io.Custom("STEPWISE_X0")

# Inputs that nodes got after they were first there, in that order. Saved workflows know widgets by their position and
# saved prompts by name, so these stand behind the others and may be missing.
LATER = (
    "interpolation",
    "zero_terminal_snr",
    "denoise",
    "last_sigma",
    "autosave_every",
    "on_mismatch",
    "cfg_pp",
    "zero_steps",
    "denoise_mode",
    "t_min_from",
)


def widget(parameter: Parameter, optional: bool | None = None) -> io.Input:
    """The widget of a parameter: its range, step and tooltip as declared in the signature."""
    common: dict[str, Any] = {"default": parameter.default, "tooltip": parameter.meaning}
    common |= {"optional": parameter.name in LATER if optional is None else optional}
    common |= {"advanced": parameter.rare or None, "extra_dict": only(*parameter.only) if parameter.only else None}
    if parameter.choices:
        return io.Combo.Input(parameter.name, options=list(parameter.choices), **common)
    if parameter.kind is bool:
        return io.Boolean.Input(parameter.name, **common)
    limits = {"min": parameter.min, "max": parameter.max, "step": parameter.step}
    if parameter.kind is int:
        return io.Int.Input(parameter.name, **common, **{k: int(v) for k, v in limits.items() if v is not None})
    return io.Float.Input(parameter.name, **common, **limits, round=False)


KINDS = {"INT": int, "FLOAT": float, "BOOLEAN": bool, "STRING": str, "COMBO": str}


def parameter_of(declared: io.Input, before: str = "") -> Parameter | None:
    """What the schema of a widget says of its values, named as in a prompt; None for one that is not in KINDS."""
    kind = KINDS.get(declared.get_io_type())
    if kind is None:
        return None
    limits = {name: limit for name in ("min", "max") if (limit := getattr(declared, name, None)) is not None}
    choices = tuple(getattr(declared, "options", None) or ())
    return Parameter(f"{before}{declared.id}", kind, declared.default, declared.tooltip, **limits, choices=choices)


def only(name: str, value: str) -> dict[str, Any]:
    """What tells the page (web/widgets.js) that an input is used with this value of another one alone."""
    return {"stepwise_only": [name, value]}


def from_socket(name: str) -> dict[str, Any]:
    """What tells the page that an input is not used once this socket is wired."""
    return {"stepwise_from": name}


def widgets(function: Callable[..., Any], names: Iterable[str] | None = None) -> list[io.Input]:
    """The widgets of a function's declared parameters, in the order of its signature.

    What stands behind cfg_pp there came later still.
    """
    declared = parameters(function)
    behind = list(declared)[list(declared).index("cfg_pp") + 1 :] if "cfg_pp" in declared else ()
    wanted = (p for p in declared.values() if names is None or p.name in names)
    return [widget(p, True if p.name in behind else None) for p in wanted]


def later_last(inputs: Iterable[io.Input]) -> list[io.Input]:
    """The inputs in the order that saved workflows know."""

    def place(each: io.Input) -> int:
        if each.id in LATER:
            return LATER.index(each.id)
        return len(LATER) if isinstance(each, io.WidgetInput) and each.optional else -1

    return sorted(inputs, key=place)


def description(summary: str, advice: str, papers: Iterable[str] = ()) -> str:
    return "\n\n".join([f"{summary} {advice}".strip(), *papers])
