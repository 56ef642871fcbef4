"""What a server says of its nodes (/object_info): their inputs, and which values these take."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

DYNAMIC, GROWING = "COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3"
EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
NUMBERS = {"INT": "a whole number", "FLOAT": "a number"}


@dataclass(frozen=True)
class Input:
    """An input of a node, named as in a prompt: what belongs to a choice has the name of that before a dot."""

    name: str
    kind: str
    required: bool
    choices: tuple[Any, ...] | None
    about: Mapping[str, Any]

    @property
    def default(self) -> Any:
        if "default" in self.about:
            return self.about["default"]
        return self.choices[0] if self.choices else None

    @property
    def plain(self) -> bool:
        """Whether it is a number, a text, yes or no, or a choice."""
        return self.choices is not None or self.kind in ("INT", "FLOAT", "BOOLEAN", "STRING")

    @property
    def typed(self) -> bool:
        """Whether it is a value, not only a socket."""
        return (self.plain or "default" in self.about) and not self.about.get("forceInput")

    def refusal(self, value: Any, prompt: Mapping[str, Any]) -> str:
        """Why it does not take a value; "" where it does. A wire is written as in a prompt, [node, output]."""
        if is_wire(value):
            return "" if value[0] in prompt else f"is wired to the node {value[0]!r}, which is not there"
        if not self.typed:
            return f"is a socket ({self.kind}), which takes a wire, [node, output]" if self.kind.isupper() else ""
        if self.choices is not None:
            several = self.about.get("multiselect") and isinstance(value, list)
            # A list that the page asks another server for is not known here.
            known = "remote" in self.about or all(each in self.choices for each in (value if several else [value]))
            return "" if known else f"is none of its choices: {shortened(self.choices)}"
        if self.kind in NUMBERS:
            right = isinstance(value, int) or (self.kind == "FLOAT" and isinstance(value, float))
            if not right or isinstance(value, bool):
                exponent = isinstance(value, str) and EXPONENT.fullmatch(value)
                cure = "; YAML reads it as a text, and takes 1.0e-3 for a number" if exponent else ""
                return f"is not {NUMBERS[self.kind]}{cure}"
            low, high = self.about.get("min"), self.about.get("max")
            if low is not None and value < low:
                return f"is below its minimum, {low}"
            return f"is above its maximum, {high}" if high is not None and value > high else ""
        kinds = {"BOOLEAN": (bool, "true or false"), "STRING": (str, "a text")}
        if self.kind in kinds and not isinstance(value, kinds[self.kind][0]):
            return f"is not {kinds[self.kind][1]}"
        return ""


def fits(given: Any, taken: str) -> bool:
    """Whether a server lets an output of one type into an input of another: types are names with commas between, and
    one in common is enough. What takes or is any type, or one that only the page looks at, fits."""
    if not isinstance(given, str):
        return True
    known = [{each.strip() for each in types.split(",")} for types in (given, taken)]
    return bool(known[0] & known[1]) or any(each == "*" or each.startswith("COMFY_") for each in known[0] | known[1])


def is_wire(value: Any) -> bool:
    """Whether a value is a wire, as a prompt has it: [node, output]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int


def shortened(choices: tuple[Any, ...], most: int = 12) -> str:
    told = ", ".join(map(str, choices[:most]))
    return f"{told} and {len(choices) - most} more" if len(choices) > most else told or "it has none"


class Nodes:
    """The nodes of one server."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        self.info = info

    def __contains__(self, kind: str) -> bool:
        return kind in self.info

    def title(self, kind: str) -> str:
        return self.info.get(kind, {}).get("display_name") or kind

    def is_core(self, kind: str) -> bool:
        """Whether a node is ComfyUI's own, or of this pack."""
        module = str(self.info.get(kind, {}).get("python_module", "nodes"))
        return not module.startswith("custom_nodes") or kind.startswith("Stepwise")

    def is_output(self, kind: str) -> bool:
        return bool(self.info.get(kind, {}).get("output_node"))

    def inputs(self, kind: str, values: Mapping[str, Any], every: bool = False) -> dict[str, Input]:
        """The inputs of a node whose choices are made by `values`; with `every`, those of all choices."""
        found: dict[str, Input] = {}
        for one in read(self.info.get(kind, {}).get("input", {}), "", values, every):
            found.setdefault(one.name, one)
        return found

    def misfit(self, kind: str, one: Input, value: Any, prompt: Mapping[str, Any]) -> str:
        """Why a server refuses a wire to an input of a node of this kind for what it brings; "" where it does not. A
        node of another pack may look at that itself, and is left to it."""
        if not is_wire(value) or value[0] not in prompt or not self.is_core(kind):
            return ""
        source = prompt[value[0]]["class_type"]
        outputs = self.info.get(source, {}).get("output")
        if outputs is None:
            return ""
        told = f"is output {value[1]} of node {value[0]} ({source})"
        if not 0 <= value[1] < len(outputs):
            has = {0: "which has none", 1: "whose only output is 0"}
            return f"{told}, {has.get(len(outputs), f'whose outputs are 0 to {len(outputs) - 1}')}"
        given = outputs[value[1]]
        return "" if fits(given, one.kind) else f"{told}, of type {given}, and it takes {one.kind}"

    def takes(self, kind: str, name: str) -> bool:
        """Whether a node has an input of this name under any of its choices, or may grow one."""
        found = self.inputs(kind, {}, every=True)
        grows = (f"{one.name}." for one in found.values() if one.kind == GROWING)
        return name in found or any(name.startswith(before) for before in grows)


def read(spec: Mapping[str, Any], before: str, values: Mapping[str, Any], every: bool) -> Iterator[Input]:
    for part in ("required", "optional"):
        for name, told in (spec.get(part) or {}).items():
            full = before + name
            kind, *rest = told if isinstance(told, list | tuple) else [told]
            about = rest[0] if rest and isinstance(rest[0], dict) else {}
            options = about.get("options") or []
            if kind == DYNAMIC:
                choices = tuple(each["key"] for each in options)
                yield Input(full, kind, part == "required", choices, about)
                chosen = values.get(full, choices[0] if choices else None)
                for each in options:
                    if every or each["key"] == chosen:
                        yield from read(each.get("inputs") or {}, f"{full}.", values, every)
            elif isinstance(kind, list):
                yield Input(full, "COMBO", part == "required", tuple(kind), about)
            else:
                choices = tuple(options) if kind == "COMBO" else None
                yield Input(full, str(kind), part == "required", choices, about)
