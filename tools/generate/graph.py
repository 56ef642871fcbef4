"""A workflow described once, as the JSON of the editor and as the API's.

The nodes' own schemas give the order of sockets and widgets, so a workflow cannot disagree with its nodes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from .description import Link, Node, Workflow
from .layout import NOTE, Box, Place, Sizes, laid_out, view

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "CURVE", "COMFY_DYNAMICCOMBO_V3"}
DYNAMIC, GROWING = "COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3"
ACTIVE, MUTED = 0, 2
OPTIONAL = 7
GROUP_COLOUR = "#88aacc"

Declared = dict[str, tuple[str, dict[str, Any]]]


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
        if not node.muted
    }


def declared(inputs: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> Declared:
    """Every input of a node in the editor's order: its type and options.

    A dynamic choice is followed by the inputs of what is chosen. Of sockets that grow there is one more than is wired.
    """
    found: Declared = {}
    for group in ("required", "optional"):
        for name, (kind, *rest) in inputs.get(group, {}).items():
            options = {"options": kind} if isinstance(kind, list) else dict(rest[0] if rest else {})
            options["optional"] = group == "optional"
            kind, name = "COMBO" if isinstance(kind, list) else kind, prefix + name
            if kind == GROWING:
                found |= dict(sockets(name, options["template"], given))
                continue
            found[name] = (kind, options)
            if kind == DYNAMIC:
                chosen = given.get(name, options["options"][0]["key"])
                found |= declared(of_choice(options, chosen), given, f"{name}.")
    return found


def of_choice(options: dict[str, Any], key: str) -> dict[str, Any]:
    return next(option["inputs"] for option in options["options"] if option["key"] == key)


def sockets(name: str, template: dict[str, Any], given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    ((kind, *_),) = template["input"]["required"].values()
    names = template.get("names") or [f"{template['prefix']}{i}" for i in range(template["max"])]
    wired = sum(each.startswith(f"{name}.") for each in given)
    for i, each in enumerate(names[: wired + 1]):
        yield f"{name}.{each}", (kind, {"optional": i >= template["min"], "label": each})


def is_widget(kind: str, options: dict[str, Any]) -> bool:
    return kind in WIDGET_TYPES and not options.get("forceInput")


def default_of(options: dict[str, Any]) -> Any:
    first = (options.get("options") or [None])[0]
    return options["default"] if "default" in options else first["key"] if isinstance(first, dict) else first


def complete(node: Node, info: dict[str, Any]) -> None:
    """Fills in the widgets that the description leaves at their defaults."""
    inputs = declared(info["input"], node.inputs)
    if unknown := set(node.inputs) - set(inputs):
        raise SystemExit(f"{node.kind} has no input {', '.join(sorted(unknown))}")
    node.title = node.title or info["display_name"] or node.kind
    widgets = {name: options for name, (kind, options) in inputs.items() if is_widget(kind, options)}
    node.inputs = {**{name: default_of(options) for name, options in widgets.items()}, **node.inputs}


def editor_node(node: Node, info: dict[str, Any], box: Box, place: Place, links: list[list[Any]]) -> dict[str, Any]:
    made, values = [], []
    for name, (kind, options) in declared(info["input"], node.inputs).items():
        value = node.inputs.get(name)
        if is_widget(kind, options):
            values.append(value)
            if options.get("control_after_generate"):
                values.append("fixed")
            continue
        socket = {"name": name, "type": kind, "link": None}
        if "label" in options:
            socket |= {"label": options["label"]} | ({"shape": OPTIONAL} if options["optional"] else {})
        if isinstance(value, Link):
            socket["link"] = len(links) + 1
            links.append([len(links) + 1, value.node.id, value.output, node.id, len(made), kind])
        made.append(socket)
    return {
        "id": node.id,
        "type": node.kind,
        "title": node.title,
        "pos": list(place),
        "size": list(box.size),
        "flags": {"collapsed": True} if node.compact else {},
        "order": node.id - 1,
        "mode": MUTED if node.muted else ACTIVE,
        "inputs": made,
        "outputs": [
            {"name": name, "type": kind, "links": []}
            for kind, name in zip(info["output"], info["output_name"], strict=True)
        ],
        "properties": {"Node name for S&R": node.kind},
        "widgets_values": values,
    }


def editor_json(workflow: Workflow, infos: dict[str, dict[str, Any]], sizes: Sizes) -> dict[str, Any]:
    links: list[list[Any]] = []
    layout = laid_out(workflow, sizes)
    nodes = [
        editor_node(node, infos[node.kind], layout.boxes[node.id], layout.places[node.id], links)
        for node in workflow.nodes
    ]
    for link, source, output, *_ in links:
        nodes[source - 1]["outputs"][output]["links"].append(link)
    number = len(nodes) + 1
    nodes.append(note_node(workflow, number, layout.places[NOTE], layout.boxes[NOTE]))
    return {
        "last_node_id": number,
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": [
            {"id": i, "title": title, "bounding": list(bounds), "color": GROUP_COLOUR, "font_size": 24, "flags": {}}
            for i, (title, bounds) in enumerate(layout.groups.items(), 1)
        ],
        "config": {},
        "extra": {"ds": view(layout)},
        "version": 0.4,
    }


def large(note: str) -> str:
    """The note in the letters of headings: those of paragraphs are too small where a whole graph fits the window.

    Without marks of code, which Nodes 2.0 draws in a colour that cannot be read on a note.
    """
    title, *text = note.replace("`", "").splitlines()
    return "\n\n".join([title.removeprefix("#"), *(f"## {line}" for line in text)])


def note_node(workflow: Workflow, number: int, place: Place, box: Box) -> dict[str, Any]:
    return {
        "id": number,
        "type": "MarkdownNote",
        "title": "About this workflow",
        "pos": list(place),
        "size": list(box.size),
        "flags": {},
        "order": number - 1,
        "mode": ACTIVE,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [large(workflow.note)],
    }
