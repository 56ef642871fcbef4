"""What the conversion knows: table.json, and the inputs of a node as its schema has them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

# Beyond it a number is not told.
LARGEST = 1e300
FILE = Path(__file__).with_name("table.json")


@dataclass(frozen=True)
class Input:
    """An input of a node: `name` as in a prompt, with the name of the choice that it belongs to before a dot."""

    name: str
    type: str
    widget: bool = False
    optional: bool = False
    advanced: bool = False
    control: bool = False
    default: Any = None
    min: float | None = None
    max: float | None = None
    options: tuple[Any, ...] = ()

    def refusal(self, value: Any) -> str:
        """Why the input does not take a value; "" where it does."""
        if self.options and value not in self.options:
            return f"{value!r} is none of its choices"
        if self.min is not None or self.max is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                return f"{value!r} is no number"
            if (self.min is not None and value < self.min) or (self.max is not None and value > self.max):
                return f"{'it' if abs(value) > LARGEST else f'{value:g}'} is out of its range"
        return ""


@cache
def table() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def known(kind: str) -> bool:
    return kind in table()["nodes"]


def title_of(kind: str) -> str:
    return table()["nodes"][kind]["title"]


def outputs_of(kind: str) -> list[tuple[str, str]]:
    return [(name, kind) for name, kind in table()["nodes"][kind]["outputs"]]


def inputs_of(kind: str, chosen: Mapping[str, Any] | None = None) -> tuple[Input, ...]:
    """The inputs in the editor's order, those of each choice behind it; `chosen` says what is chosen."""
    names = choices_of(kind)
    return inputs_with(kind, tuple((name, str(chosen[name])) for name in names if chosen and name in chosen))


@cache
def choices_of(kind: str) -> tuple[str, ...]:
    return tuple(one["name"] for one in table()["nodes"][kind]["inputs"] if "choices" in one)


# A workflow can have any text for a choice.
@lru_cache(4096)
def inputs_with(kind: str, chosen: tuple[tuple[str, str], ...]) -> tuple[Input, ...]:
    return tuple(read(table()["nodes"][kind]["inputs"], dict(chosen), ""))


def read(spec: list[dict[str, Any]], chosen: Mapping[str, Any], before: str) -> Iterator[Input]:
    for one in spec:
        rest = {name: value for name, value in one.items() if name not in ("choices", "name", "options")}
        choices = one.get("choices", ())
        options = tuple(each["key"] for each in choices) or tuple(one.get("options", ()))
        yield Input(name=before + one["name"], options=options, **rest)
        if choices:
            key = chosen.get(before + one["name"], one["default"])
            inner = next((each["inputs"] for each in choices if each["key"] == key), [])
            yield from read(inner, chosen, f"{before}{one['name']}.")


def defaults(kind: str, chosen: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {each.name: each.default for each in inputs_of(kind, chosen) if each.widget}
