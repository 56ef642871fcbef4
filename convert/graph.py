"""A graph as the rules see it, whichever form it is written in."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Wire:
    """A value that comes from an output of another node; `link` is its number in the editor's form."""

    node: str
    slot: int
    link: int | None = None


@dataclass
class Node:
    """A node: its inputs by name, each a typed value or a Wire.

    active: it runs; not where it is muted or bypassed.
    controls: what a seed does after each run, by the name of the input.
    under: the values of all widgets, those of wired ones too.
    """

    id: str
    kind: str
    title: str
    inputs: dict[str, Any]
    active: bool = True
    controls: dict[str, Any] = field(default_factory=dict)
    under: dict[str, Any] = field(default_factory=dict)

    def wire(self, name: str) -> Wire | None:
        value = self.inputs.get(name)
        return value if isinstance(value, Wire) else None

    def typed(self, name: str) -> Any:
        """The value of a widget; None where it is wired or not there."""
        value = self.inputs.get(name)
        return None if isinstance(value, Wire) else value

    def renamed(self, names: Mapping[str, str]) -> "Node":
        """What is kept of it, by the names that its inputs have now."""
        kept = [{names.get(name, name): value for name, value in each.items()} for each in (self.controls, self.under)]
        return Node(self.id, self.kind, self.title, {}, self.active, *kept)


OUTSIDE = "outside"
# Nodes that hand on what they get, and nodes that hold one value.
PASSING = ("Reroute",)
HOLDING = ("PrimitiveNode", "PrimitiveInt", "PrimitiveFloat", "PrimitiveString", "PrimitiveBoolean")


class Graph(ABC):
    """What the rules ask of a graph, and do to it."""

    name: str = ""
    nodes: dict[str, Node]

    @abstractmethod
    def users(self, node: Node, slot: int | None = None) -> Iterator[tuple[str, str]]:
        """Who an output goes to, or any output: node and input, or (OUTSIDE, "")."""

    @abstractmethod
    def become(
        self, node: Node, kind: str, inputs: Mapping[str, Any], slots: Mapping[int, int], renamed: Mapping[str, str]
    ) -> None:
        """Puts another node in the place of one, with its id, title, place and colours.

        inputs: typed values and wires; what is not named has its default. slots: where the outputs went. renamed: what
        a widget of before is called now, for what refers to it by name.
        """

    @abstractmethod
    def add(self, kind: str, inputs: Mapping[str, Any], beside: Node, like: Node | None = None) -> Node:
        """A new node to the left of another one. It takes over the links of the wires it is given, and of `like` what
        seeds do and what lies under the wires."""

    @abstractmethod
    def drop(self, node: Node) -> None:
        """Takes a node away that nothing uses."""

    @abstractmethod
    def promoted(self, node: Node, to: Node, renamed: Mapping[str, str]) -> None:
        """What showed widgets of a node elsewhere shows those of another node."""

    def source(self, wire: Wire | None) -> tuple[Node, int] | None:
        """The node that a value is made by, behind reroutes; None where it is not in this graph."""
        seen = set[str]()
        while wire is not None and (found := self.nodes.get(wire.node)) is not None and found.id not in seen:
            if found.kind not in PASSING:
                return found, wire.slot
            seen.add(found.id)
            wire = next((each for each in found.inputs.values() if isinstance(each, Wire)), None)
        return None

    def shown(self, node: Node, name: str) -> Any:
        """The value of a widget, here or on the subgraph's face; None where another node gives it."""
        value = node.inputs.get(name)
        if isinstance(value, Wire):
            return None if value.node in self.nodes else node.under.get(name)
        return value

    def constant(self, value: Any) -> Any:
        """The value of an input where it is known before a run, also behind a node that holds it; else None."""
        if not isinstance(value, Wire):
            return value
        found = self.source(value)
        if found is None or found[0].kind not in HOLDING or not found[0].active:
            return None
        return found[0].typed("value")

    def number(self, value: Any) -> int | float | None:
        """The same where it is a number; else None."""
        found = self.constant(value)
        return found if is_number(found) else None


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
