"""A parameter is declared once, in the signature that uses it.

    def ddim(path: Path, sigmas: Sequence[float], *, eta: Annotated[float, Param("...", 0.0, 1.0)] = 0.0) -> Plan

Node inputs, tooltips, help tables, translations and tests all read it from there.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from inspect import signature
from operator import index
from typing import Any, Literal, SupportsFloat, SupportsIndex, cast, get_args, get_origin, get_type_hints

Value = float | int | bool | str


@dataclass(frozen=True)
class Param:
    """What a widget needs to know: its meaning in one sentence, its range and its step.

    rare: few people set it.
    only: another parameter and the value of it with which this one is used at all.
    """

    meaning: str
    min: float = -math.inf
    max: float = math.inf
    step: float | None = None
    rare: bool = False
    only: tuple[str, str] | None = None


@dataclass(frozen=True)
class Parameter:
    name: str
    kind: type
    default: Value
    meaning: str
    min: float = -math.inf
    max: float = math.inf
    step: float | None = None
    choices: tuple[str, ...] = ()
    rare: bool = False
    only: tuple[str, str] | None = None

    def read(self, value: object) -> Value:
        """`value` in the parameter's kind. Raises InputError where it is of another one, or out of range."""
        if self.kind is bool:
            if not isinstance(value, bool):
                raise InputError(self.name, f"is {quoted(value)}, neither true nor false", "give true or false")
            return value
        if self.kind is str:
            if not isinstance(value, str) or (self.choices and value not in self.choices):
                cure = f"choose one of {', '.join(self.choices)}" if self.choices else "write text"
                raise InputError(self.name, f"is {quoted(value)}{'' if self.choices else ', and no text'}", cure)
            return value
        found = number(value)
        if found is None:
            raise InputError(self.name, f"is {quoted(value)}, and no number", f"give a {'whole ' * self.whole}number")
        if not self.min <= found <= self.max or not math.isfinite(found):
            bounded = math.isfinite(self.min) and math.isfinite(self.max)
            cure = f"give a value from {self.min:g} to {self.max:g}" if bounded else "give a number"
            raise InputError(self.name, f"is {quoted(value)}, out of range", cure)
        if self.whole and found % 1:
            raise InputError(self.name, f"is {quoted(value)}, and no whole number", "give a whole number")
        return int(found) if self.whole else found

    @property
    def whole(self) -> bool:
        return self.kind is int


class InputError(ValueError):
    """An input that cannot be used: which one, what is wrong, and the cure; a node puts its own name before it."""

    def __init__(self, name: str, problem: str, cure: str, index: int | None = None):
        self.name, self.problem, self.cure, self.index = name, problem, cure, index
        place = name if index is None else f"{name}[{index}]"
        super().__init__(printable(f"{place} {problem}. {cure[:1].upper()}{cure[1:]}."))


def printable(text: str) -> str:
    """`text` with half characters (lone surrogates) written out, which no console, page or file takes."""
    return text.encode(errors="backslashreplace").decode()


def quoted(value: object, most: int = 80) -> str:
    """What somebody typed, for a message: between quotes, on one line, and shortened where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 :]}"


def counted(number: int, thing: str) -> str:
    """ "1 step", "2 steps", "0 steps"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def number(value: object) -> float | None:
    """`value` as a number of Python; None for what is not one number. True is none, and neither is "3"."""
    if isinstance(value, bool | str | bytes):
        return None
    try:
        return index(cast(SupportsIndex, value))
    except (TypeError, ValueError, RuntimeError):
        pass
    try:
        return float(cast(SupportsFloat, value))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    """The keyword parameters of `function` that are annotated with a Param, in order."""
    return dict(declared(function))


@cache
def declared(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    """`parameters`, read from the function once."""
    hints = get_type_hints(function, include_extras=True)
    found: dict[str, Parameter] = {}
    for name, declared in signature(function).parameters.items():
        kind, *extras = get_args(hints[name]) or (hints[name],)
        param = next((extra for extra in extras if isinstance(extra, Param)), None)
        if param is None:
            continue
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        kind = str if choices else kind
        found[name] = Parameter(
            name,
            kind,
            declared.default,
            param.meaning,
            param.min,
            param.max,
            param.step,
            tuple(choices),
            param.rare,
            param.only,
        )
    return found


def checked(function: Callable[..., Any], values: Mapping[str, Value]) -> dict[str, Value]:
    """`values` completed by the defaults of `function`, each in range; raises InputError for one that is not."""
    known = parameters(function)
    for name in values:
        if name not in known:
            raise InputError(name, "is not a parameter here", f"known are {', '.join(known) or 'none'}")
    return {name: parameter.read(values.get(name, parameter.default)) for name, parameter in known.items()}
