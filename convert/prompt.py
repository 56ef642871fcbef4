"""A graph in the API's form: nodes by their ids, the subgraphs laid flat."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from .graph import Graph, Node, Wire
from .table import defaults, known, title_of


class PromptGraph(Graph):
    """`data` is written to."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.nodes: dict[str, Node] = {}
        # Who each node goes to: nodes and their inputs.
        self.uses: dict[str, dict[tuple[str, str], None]] = defaultdict(dict)
        for number in data:
            self.take(number)
        self.grown: list[str] = []
        self.last: int | None = None

    def take(self, number: str) -> Node:
        """Reads a node as it is now."""
        self.forget(number)
        now = self.nodes[number] = self.read(number, self.data[number])
        for name, value in now.inputs.items():
            if isinstance(value, Wire):
                self.uses[value.node][number, name] = None
        return now

    def forget(self, number: str) -> None:
        for name, value in self.nodes[number].inputs.items() if number in self.nodes else ():
            if isinstance(value, Wire):
                self.uses[value.node].pop((number, name), None)

    def read(self, number: str, raw: dict[str, Any]) -> Node:
        inputs = {name: self.value(each) for name, each in (raw.get("inputs") or {}).items()}
        meta = raw.get("_meta")
        title = meta.get("title") if isinstance(meta, dict) else None
        return Node(number, raw["class_type"], title or raw["class_type"], inputs)

    def value(self, value: Any) -> Any:
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int:
            return Wire(value[0], value[1])
        return value

    def users(self, node: Node, slot: int | None = None) -> Iterator[tuple[str, str]]:
        for other, name in list(self.uses[node.id]):
            wire = self.nodes[other].wire(name)
            if wire is not None and slot in (None, wire.slot):
                yield other, name

    def become(
        self, node: Node, kind: str, inputs: Mapping[str, Any], slots: Mapping[int, int], renamed: Mapping[str, str]
    ) -> None:
        raw = self.data[node.id]
        default = title_of(node.kind) if known(node.kind) else node.kind
        meta = raw.get("_meta")
        if isinstance(meta, dict) and meta.get("title") in (default, node.kind):
            meta["title"] = title_of(kind)
        for other, name in list(self.users(node)):
            wire = self.nodes[other].inputs[name]
            assert isinstance(wire, Wire)
            if wire.slot in slots:
                self.data[other]["inputs"][name] = [node.id, slots[wire.slot]]
            else:
                del self.data[other]["inputs"][name]
            self.take(other)
        self.write(raw, kind, inputs)
        self.take(node.id)

    def write(self, raw: dict[str, Any], kind: str, inputs: Mapping[str, Any]) -> None:
        typed = {name: value for name, value in inputs.items() if not isinstance(value, Wire)}
        every = {**defaults(kind, typed), **inputs}
        raw["class_type"] = kind
        raw["inputs"] = {
            name: [value.node, value.slot] if isinstance(value, Wire) else value
            for name, value in every.items()
            if value is not None
        }

    def add(self, kind: str, inputs: Mapping[str, Any], beside: Node, like: Node | None = None) -> Node:
        place, _, _ = beside.id.rpartition(":")
        number = f"{place}:{self.next()}" if place else str(self.next())
        raw: dict[str, Any] = {"inputs": {}, "class_type": kind, "_meta": {"title": title_of(kind)}}
        self.write(raw, kind, inputs)
        self.data[number] = raw
        return self.take(number)

    def next(self) -> int:
        """A number above all of the nodes."""
        if self.last is None:
            found = [int(last) for each in self.data if (last := each.rpartition(":")[2]).isdecimal()]
            self.last = max(found, default=0)
        self.last += 1
        return self.last

    def drop(self, node: Node) -> None:
        self.forget(node.id)
        del self.data[node.id], self.nodes[node.id]

    def promoted(self, node: Node, to: Node, renamed: Mapping[str, str]) -> None:
        """There is nothing here that shows widgets elsewhere."""
