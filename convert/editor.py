"""A graph in the editor's form: the root of a workflow, or what is in a subgraph."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from . import widgets
from .graph import OUTSIDE, Graph, Node, Wire
from .layout import box, placed_beside, size_of
from .links import Link, made
from .table import Input, inputs_of, known, outputs_of, title_of

# The ends of a subgraph, from within.
ENTRY, EXIT = "-10", "-20"
MUTED, BYPASSED = 2, 4
OPTIONAL = 7
# What other programs keep with a node of ComfyUI's, and what is not true of one of ours.
OF_THE_OLD = ("cnr_id", "ver", "aux_id", "models", widgets.NAMES)


class Numbers:
    """The next free numbers of nodes and of links, in all graphs of a workflow together."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root
        given = {name: root.get(name) for name in ("last_node_id", "last_link_id")}
        self.last = {name: number if isinstance(number, int) else 0 for name, number in given.items()}

    def take(self, graph: "EditorGraph") -> None:
        self.last["last_node_id"] = max(self.last["last_node_id"], *map(whole, graph.raw), 0)
        self.last["last_link_id"] = max(self.last["last_link_id"], *map(whole, graph.links), 0)

    def next(self, name: str, graph: "EditorGraph") -> int:
        self.last[name] += 1
        self.root[name] = self.last[name]
        state = graph.data.get("state")
        inner = {"last_node_id": "lastNodeId", "last_link_id": "lastLinkId"}[name]
        if isinstance(state, dict):
            state[inner] = self.last[name]
        return self.last[name]


def whole(number: Any) -> int:
    """A number of the editor's; 0 for what is none, such as a name."""
    return int(number) if str(number).isdecimal() else 0


class EditorGraph(Graph):
    """`data` is written to; `instances` are the nodes, in any graph, that stand for this one as a subgraph."""

    def __init__(self, data: dict[str, Any], name: str, counter: Numbers) -> None:
        self.data, self.name, self.counter = data, name, counter
        # What a person calls it.
        self.label = str(data.get("name") or name) if name else ""
        self.instances: list[tuple[EditorGraph, str]] = []
        self.raw = {str(each["id"]): each for each in data["nodes"]}
        found = [Link(each) for each in data.get("links") or []]
        self.links = {each["id"]: each for each in found if each.sound}
        # The same by the node that they come from, which never changes.
        self.leaving: dict[str, dict[Any, Link]] = defaultdict(dict)
        for number, link in self.links.items():
            self.leaving[str(link["origin_id"])][number] = link
        self.nodes = {number: self.read(raw) for number, raw in self.raw.items()}
        # Those that may have another size now, and the boxes of new ones.
        self.grown: list[str] = []
        self.placed: dict[int, list[float]] = {}

    def read(self, raw: dict[str, Any]) -> Node:
        inputs, controls = widgets.read(raw)
        under = dict(inputs)
        for socket in raw.get("inputs") or []:
            number = socket.get("link")
            link = self.links.get(number) if isinstance(number, int | str) else None
            if link is not None:
                inputs[socket["name"]] = Wire(str(link["origin_id"]), link["origin_slot"], link["id"])
        title = raw.get("title") or raw["type"]
        active = raw.get("mode", 0) not in (MUTED, BYPASSED)
        return Node(str(raw["id"]), raw["type"], title, inputs, active, controls, under)

    def users(self, node: Node, slot: int | None = None) -> Iterator[tuple[str, str]]:
        for link in list(self.leaving[node.id].values()):
            if slot not in (None, link["origin_slot"]):
                continue
            target = str(link["target_id"])
            if target in self.raw:
                sockets = self.raw[target].get("inputs") or []
                place = link["target_slot"]
                name = next((each["name"] for each in sockets if each.get("link") == link["id"]), "")
                yield target, name or (sockets[place]["name"] if place < len(sockets) else "")
            else:
                yield OUTSIDE, ""

    def become(
        self, node: Node, kind: str, inputs: Mapping[str, Any], slots: Mapping[int, int], renamed: Mapping[str, str]
    ) -> None:
        raw = self.raw[node.id]
        before = {name: value for name, value in node.inputs.items() if isinstance(value, Wire)}
        default = title_of(node.kind) if known(node.kind) else node.kind
        if raw.get("title") in (None, default, node.kind):
            raw.pop("title", None)
        self.move_outputs(raw, kind, slots)
        self.fill(raw, kind, inputs, node.renamed(renamed))
        now = self.nodes[node.id] = self.read(raw)
        kept = {value.link for value in now.inputs.values() if isinstance(value, Wire)}
        for value in before.values():
            link = self.links.get(value.link)
            if value.link not in kept and link is not None and str(link["target_id"]) == node.id:
                self.cut(link)
        self.promoted(node, now, renamed)
        self.grow(raw, kind, now)

    def grow(self, raw: dict[str, Any], kind: str, now: Node) -> None:
        before = raw.get("size")
        raw["size"] = size_of(
            inputs_of(kind, now.inputs), len(outputs_of(kind)), before, raw.get("showAdvanced", False)
        )
        self.grown.append(now.id)

    def add(self, kind: str, inputs: Mapping[str, Any], beside: Node, like: Node | None = None) -> Node:
        number = self.counter.next("last_node_id", self)
        near = self.raw[beside.id]
        raw: dict[str, Any] = {"id": number, "type": kind, "pos": [0, 0], "size": [0, 0], "flags": {}}
        raw |= {"order": near.get("order", 0), "mode": near.get("mode", 0), "properties": {}}
        self.data["nodes"].append(raw)
        self.raw[str(number)] = raw
        raw["outputs"] = [{"name": name, "type": type_, "links": []} for name, type_ in outputs_of(kind)]
        self.fill(raw, kind, inputs, like or Node("", kind, "", {}))
        now = self.nodes[str(number)] = self.read(raw)
        raw["size"] = size_of(inputs_of(kind, now.inputs), len(outputs_of(kind)), None, False)
        raw["pos"] = placed_beside(near, raw, self.data["nodes"])
        self.placed[id(raw)] = box(raw)
        return now

    def drop(self, node: Node) -> None:
        for value in node.inputs.values():
            if isinstance(value, Wire) and value.link in self.links:
                self.cut(self.links[value.link])
        for link in list(self.leaving[node.id].values()):
            self.cut(link)
        self.data["nodes"].remove(self.raw.pop(node.id))
        del self.nodes[node.id]

    def promoted(self, node: Node, to: Node, renamed: Mapping[str, str]) -> None:
        for graph, number in self.instances:
            properties = graph.raw[number].get("properties")
            entries = properties.get("proxyWidgets") if isinstance(properties, dict) else None
            if not isinstance(entries, list):
                continue
            for entry in entries:
                names = isinstance(entry, list) and len(entry) >= 2 and isinstance(entry[1], str)
                if names and str(entry[0]) == node.id and entry[1] in renamed:
                    entry[0], was, entry[1] = to.id, entry[1], renamed[entry[1]]
                    graph.promoted(graph.nodes[number], graph.nodes[number], {was: entry[1]})

    # What the above is made of.

    def fill(self, raw: dict[str, Any], kind: str, inputs: Mapping[str, Any], old: Node) -> None:
        """Type, sockets and values of a node, with its links; `old` has what its seeds do, and lies under the wires."""
        typed = {name: value for name, value in inputs.items() if not isinstance(value, Wire)}
        declared = inputs_of(kind, typed)
        sockets = [each for each in declared if not each.widget]
        wired = [each for each in declared if each.widget and isinstance(inputs.get(each.name), Wire)]
        raw["inputs"] = [self.socket(raw, place, one, inputs) for place, one in enumerate([*sockets, *wired])]
        raw["type"] = kind
        had = raw.get("properties")
        had = had if isinstance(had, dict) else {}
        properties = {name: value for name, value in had.items() if name not in OF_THE_OLD}
        under = {each.name: old.under[each.name] for each in wired if each.name in old.under}
        values, names = widgets.written(declared, {**typed, **under}, old.controls)
        raw["properties"] = {**properties, "Node name for S&R": kind}
        if any(each.type == "COMFY_DYNAMICCOMBO_V3" for each in declared):
            raw["properties"][widgets.NAMES] = names
        raw["widgets_values"] = values
        if kind.startswith("Stepwise"):
            raw["showAdvanced"] = any(
                each.advanced
                and each.name.count(".") == 0
                and (each in wired or typed.get(each.name, each.default) != each.default)
                for each in declared
            )
        else:
            raw.pop("showAdvanced", None)

    def socket(self, raw: dict[str, Any], place: int, one: Input, inputs: Mapping[str, Any]) -> dict[str, Any]:
        value = inputs.get(one.name)
        made: dict[str, Any] = {"name": one.name, "type": one.type}
        if one.optional and not one.widget:
            made["shape"] = OPTIONAL
        if one.widget:
            made["widget"] = {"name": one.name}
        made["link"] = self.aim(value, raw, place, one.type) if isinstance(value, Wire) else None
        return made

    def aim(self, wire: Wire, raw: dict[str, Any], place: int, kind: str) -> int:
        """Leads a wire to an input: its own link where it has one, else a new one."""
        link = self.links.get(wire.link)
        if link is None:
            number = self.counter.next("last_link_id", self)
            link = made(number, self.raw[wire.node]["id"], wire.slot, raw["id"], place, kind, self.links_are_objects)
            self.data.setdefault("links", []).append(link.raw)
            self.links[number] = self.leaving[wire.node][number] = link
            origin = self.raw[wire.node]["outputs"][wire.slot]
            origin["links"] = [*(origin.get("links") or []), number]
        link["target_id"], link["target_slot"] = raw["id"], place
        return link["id"]

    @property
    def links_are_objects(self) -> bool:
        return bool(self.name) or any(isinstance(each, dict) for each in self.data.get("links") or [])

    def move_outputs(self, raw: dict[str, Any], kind: str, slots: Mapping[int, int]) -> None:
        outputs: list[dict[str, Any]] = [{"name": name, "type": type_, "links": []} for name, type_ in outputs_of(kind)]
        for slot, old in enumerate(raw.get("outputs") or []):
            if slot in slots:
                outputs[slots[slot]]["links"] = old.get("links") or []
                if old.get("label"):
                    outputs[slots[slot]]["label"] = old["label"]
        raw["outputs"] = outputs
        for link in list(self.leaving[str(raw["id"])].values()):
            if link["origin_slot"] in slots:
                link["origin_slot"] = slots[link["origin_slot"]]
            else:
                self.cut(link)

    def cut(self, link: Link) -> None:
        """Takes a link away from both its ends and from the list."""
        number, origin, target = link["id"], str(link["origin_id"]), str(link["target_id"])
        begin = self.data.get("inputs") if origin == ENTRY else self.raw.get(origin, {}).get("outputs")
        end = self.data.get("outputs") if target == EXIT else self.raw.get(target, {}).get("inputs")
        for sockets in (begin, end):
            for socket in sockets or []:
                for name in ("links", "linkIds"):
                    if number in (socket.get(name) or []):
                        socket[name] = [each for each in socket[name] if each != number]
                if socket.get("link") == number:
                    socket["link"] = None
        self.data["links"] = [each for each in self.data["links"] if each is not link.raw]
        del self.links[number], self.leaving[origin][number]
