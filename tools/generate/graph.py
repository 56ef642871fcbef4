"""A workflow described once, as the JSON of the editor and as the API's.

The nodes' own schemas give the order of sockets and widgets, so a workflow cannot disagree with its nodes.
"""

from dataclasses import dataclass, field
from typing import Any

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "CURVE"}
COLUMN, ROW = 330, 60


@dataclass
class Link:
    node: "Node"
    output: int


@dataclass
class Node:
    """A node of the description: its class, its place on a grid of columns, and its inputs, values or links."""

    kind: str
    place: tuple[float, float]
    inputs: dict[str, Any]
    title: str | None = None
    size: tuple[int, int] | None = None
    id: int = 0

    def __getitem__(self, output: int) -> Link:
        return Link(self, output)


@dataclass
class Workflow:
    """`name` is the title in the template browser; `api` is the file for headless runs."""

    name: str
    api: str
    note: str
    nodes: list[Node] = field(default_factory=list)

    def add(self, kind: str, place: tuple[float, float], title: str | None = None, size=None, **inputs: Any) -> Node:
        node = Node(kind, place, inputs, title, size, len(self.nodes) + 1)
        self.nodes.append(node)
        return node


def api_json(workflow: Workflow) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return [str(value.node.id), value.output] if isinstance(value, Link) else value

    return {
        str(node.id): {
            "class_type": node.kind,
            "inputs": {name: plain(value) for name, value in node.inputs.items()},
            "_meta": {"title": node.title},
        }
        for node in workflow.nodes
    }


def declared(info: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Every input of a node in the editor's order: its type and options."""
    found = {}
    for group in ("required", "optional"):
        for name, (kind, *options) in info["input"].get(group, {}).items():
            listed = {"options": kind} if isinstance(kind, list) else {}
            found[name] = ("COMBO" if listed else kind, {**listed, **(options[0] if options else {})})
    return found


def is_widget(kind: str, options: dict[str, Any]) -> bool:
    return kind in WIDGET_TYPES and not options.get("forceInput")


def default_of(options: dict[str, Any]) -> Any:
    return options["default"] if "default" in options else (options.get("options") or [None])[0]


def complete(node: Node, info: dict[str, Any]) -> None:
    """Fills in the widgets that the description leaves at their defaults."""
    inputs = declared(info)
    if unknown := set(node.inputs) - set(inputs):
        raise SystemExit(f"{node.kind} has no input {', '.join(sorted(unknown))}")
    node.title = node.title or info["display_name"] or node.kind
    widgets = {name: options for name, (kind, options) in inputs.items() if is_widget(kind, options)}
    node.inputs = {**{name: default_of(options) for name, options in widgets.items()}, **node.inputs}


def editor_node(node: Node, info: dict[str, Any], links: list[list[Any]]) -> dict[str, Any]:
    sockets, values = [], []
    for name, (kind, options) in declared(info).items():
        value = node.inputs.get(name)
        if is_widget(kind, options):
            values.append(value)
            if options.get("control_after_generate"):
                values.append("fixed")
            continue
        socket = {"name": name, "type": kind, "link": None}
        if isinstance(value, Link):
            socket["link"] = len(links) + 1
            links.append([len(links) + 1, value.node.id, value.output, node.id, len(sockets), kind])
        sockets.append(socket)
    width, height = node.size or (290, 0)
    x, y = node.place
    return {
        "id": node.id,
        "type": node.kind,
        "title": node.title,
        "pos": [x * COLUMN, y * ROW],
        "size": [width, max(height, 60 + 24 * (len(sockets) + len(values)))],
        "flags": {},
        "order": node.id - 1,
        "mode": 0,
        "inputs": sockets,
        "outputs": [
            {"name": name, "type": kind, "links": []}
            for kind, name in zip(info["output"], info["output_name"], strict=True)
        ],
        "properties": {"Node name for S&R": node.kind},
        "widgets_values": values,
    }


def editor_json(workflow: Workflow, infos: dict[str, dict[str, Any]]) -> dict[str, Any]:
    links: list[list[Any]] = []
    nodes = [editor_node(node, infos[node.kind], links) for node in workflow.nodes]
    for link, source, output, *_ in links:
        nodes[source - 1]["outputs"][output]["links"].append(link)
    nodes.append(note_node(workflow, len(nodes) + 1))
    return {
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": [],
        "config": {},
        "extra": {"ds": {"scale": 0.75, "offset": [110, 300]}},
        "version": 0.4,
    }


def note_node(workflow: Workflow, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "MarkdownNote",
        "pos": [0, -190],
        "size": [600, 120],
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [workflow.note],
    }
