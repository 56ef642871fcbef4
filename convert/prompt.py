"""A graph in the API's form: nodes by their ids, the subgraphs laid flat."""

from collections.abc import Iterator, Mapping
from typing import Any

from .graph import Graph, Node, Wire
from .table import defaults, known, title_of


class PromptGraph(Graph):
    """`data` is written to."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.nodes = {number: self.read(number, raw) for number, raw in data.items()}
        self.grown: list[str] = []

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
        for other in self.nodes.values():
            for name, value in other.inputs.items():
                if isinstance(value, Wire) and value.node == node.id and slot in (None, value.slot):
                    yield other.id, name

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
            self.nodes[other] = self.read(other, self.data[other])
        self.write(raw, kind, inputs)
        self.nodes[node.id] = self.read(node.id, raw)

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
        numbers = [int(last) for each in self.data if (last := each.rpartition(":")[2]).isdecimal()]
        number = f"{place}:{max(numbers, default=0) + 1}" if place else str(max(numbers, default=0) + 1)
        raw: dict[str, Any] = {"inputs": {}, "class_type": kind, "_meta": {"title": title_of(kind)}}
        self.write(raw, kind, inputs)
        self.data[number] = raw
        self.nodes[number] = self.read(number, raw)
        return self.nodes[number]

    def drop(self, node: Node) -> None:
        del self.data[node.id], self.nodes[node.id]

    def promoted(self, node: Node, to: Node, renamed: Mapping[str, str]) -> None:
        """There is nothing here that shows widgets elsewhere."""
