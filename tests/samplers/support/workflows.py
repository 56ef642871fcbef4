"""What is checked of a workflow of the editor, whoever made it."""

from importlib.resources import files
from itertools import combinations
from json import loads

from stepwise.convert.layout import box, meet

FOLDER = files("comfyui_workflow_templates_json") / "templates"


def templates():
    """The graphs that ComfyUI's own packages bring, read where they are installed: (name, graph)."""
    named = sorted((each.name, each) for each in FOLDER.iterdir() if each.name.endswith(".json"))
    read = ((name, loads(each.read_text(encoding="utf-8"))) for name, each in named)
    return [(name, graph) for name, graph in read if isinstance(graph, dict) and "nodes" in graph]


def graphs_of(data):
    """The root and the insides of the subgraphs, by name."""
    inner = data.get("definitions", {}).get("subgraphs", [])
    return {"": data, **{each["id"]: each for each in inner}}


def links_of(graph):
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return [
        link if isinstance(link, dict) else dict(zip(names, link, strict=False)) for link in graph.get("links") or []
    ]


def faults(data):
    """What does not fit together: links and their ends, and what subgraphs show of their nodes."""
    found = set()
    for name, graph in graphs_of(data).items():
        nodes = {str(each["id"]): each for each in graph["nodes"]}
        links = {link["id"]: link for link in links_of(graph)}
        for link in links.values():
            found |= {(name, link["id"], fault) for fault in ends(graph, nodes, link)}
        for number, node in nodes.items():
            for place, socket in enumerate(node.get("inputs") or []):
                if socket.get("link") is not None and socket["link"] not in links:
                    found.add((name, number, f"input {place} has no link"))
            for socket in node.get("outputs") or []:
                found |= {
                    (name, number, f"output without link {each}")
                    for each in socket.get("links") or []
                    if each not in links
                }
        found |= {(name, str(node["id"]), fault) for node in graph["nodes"] for fault in shown(data, node)}
    return found


def ends(graph, nodes, link):
    origin, target = str(link["origin_id"]), str(link["target_id"])
    outputs = graph.get("inputs") if origin == "-10" else nodes.get(origin, {}).get("outputs")
    inputs = graph.get("outputs") if target == "-20" else nodes.get(target, {}).get("inputs")
    try:
        socket = (outputs or [])[link["origin_slot"]]
        if link["id"] not in (socket.get("linkIds") or socket.get("links") or []):
            yield "its origin does not know it"
    except (IndexError, TypeError):
        yield "no origin"
    try:
        socket = (inputs or [])[link["target_slot"]]
        if link["id"] != socket.get("link") and link["id"] not in (socket.get("linkIds") or []):
            yield "its target does not know it"
    except (IndexError, TypeError):
        yield "no target"


def shown(data, node):
    """The widgets that a subgraph shows of nodes that are not in it."""
    inner = graphs_of(data).get(node["type"])
    if inner is None:
        return
    inside = {str(each["id"]) for each in inner["nodes"]}
    for number, widget, *_ in node.get("properties", {}).get("proxyWidgets") or []:
        if str(number) not in (*inside, "-1"):
            yield f"shows {widget} of no node"


def overlaps(data):
    """Pairs of nodes that lie over each other, a number of pixels apart from rounding."""
    found = set()
    for name, graph in graphs_of(data).items():
        boxes = [(str(each["id"]), box(each)) for each in graph["nodes"]]
        small = [(number, [a + 1, b + 1, c - 1, d - 1]) for number, (a, b, c, d) in boxes]
        found |= {(name, frozenset((one, two))) for (one, a), (two, b) in combinations(small, 2) if meet(a, b)}
    return found
