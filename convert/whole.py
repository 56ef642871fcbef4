"""A workflow as a whole: its graphs, each converted, and the report of all."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from copy import deepcopy
from typing import Any

from . import backwards, forwards
from .editor import EditorGraph, Numbers
from .files import BadWorkflow, is_editor, is_prompt
from .graph import Graph
from .layout import box, make_room
from .prompt import PromptGraph
from .report import Report

# The nodes to convert: the graph, "" for the root or the id of a subgraph, and the node.
Only = Collection[tuple[str, str]]


def converted(
    data: dict[str, Any], *, back: bool = False, join: bool = False, only: Only | None = None
) -> tuple[dict[str, Any], Report]:
    """A workflow, in the editor's form or the API's, with Stepwise's nodes in the place of ComfyUI's sampling nodes, or
    with `back` the other way; `data` itself stays as it is.

    join: the second of two KSampler (Advanced) goes on from the state of the first, also where that changes the
    picture. only: convert these nodes and no others.

    Raises BadWorkflow for what is none.
    """
    try:
        return of_copy(deepcopy(data), back, join, only)
    except BadWorkflow:
        raise
    except RecursionError:
        raise BadWorkflow("The workflow cannot be read: a value in it is nested too deeply.") from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        # Any value may be of any type in a file of somebody else's.
        raise BadWorkflow(f"The workflow cannot be read: {type(error).__name__}: {error}.") from error


def of_copy(made: dict[str, Any], back: bool, join: bool, only: Only | None) -> tuple[dict[str, Any], Report]:
    report = Report(back=back)
    rules = backwards if back else forwards
    if is_editor(made):
        graphs = editor_graphs(made)
        report.places = {graph.name: graph.label for graph in graphs}
        before = [{id(node): box(node) for node in graph.data["nodes"]} for graph in graphs]
        for graph in graphs:
            rules.convert(graph, report, join, chosen(graph, only))
        for graph, boxes in zip(graphs, before, strict=True):
            if graph.grown:
                make_room(graph.data, boxes | graph.placed)
    elif is_prompt(made):
        check_prompt(made)
        graph = PromptGraph(made)
        rules.convert(graph, report, join, chosen(graph, only))
    else:
        raise BadWorkflow("This is no workflow.")
    return made, report


def chosen(graph: Graph, only: Only | None) -> Collection[str] | None:
    return None if only is None else {node for name, node in only if name == graph.name}


def editor_graphs(data: dict[str, Any]) -> list[EditorGraph]:
    """The root and what is in each subgraph; each knows the nodes that stand for it."""
    definitions = data.get("definitions")
    inner = definitions.get("subgraphs") if isinstance(definitions, dict) else None
    inner = inner if isinstance(inner, list) else []
    for index, each in enumerate(inner):
        if not isinstance(each, dict):
            raise BadWorkflow(f"The workflow: definitions.subgraphs[{index}] is no subgraph.")
    for name, one in [("", data), *((each.get("id"), each) for each in inner)]:
        check_editor(one, name)
    numbers = Numbers(data)
    graphs = [EditorGraph(data, "", numbers), *(EditorGraph(each, each["id"], numbers) for each in inner)]
    for graph in graphs:
        numbers.take(graph)
    named = {graph.name: graph for graph in graphs[1:]}
    for graph in graphs:
        for number, raw in graph.raw.items():
            if raw["type"] in named:
                named[raw["type"]].instances.append((graph, number))
    check_nesting(graphs)
    return graphs


def check_nesting(graphs: Collection[EditorGraph]) -> None:
    """Raises BadWorkflow where a subgraph is inside itself."""
    outside = {id(graph): {id(each): each for each, _ in graph.instances} for graph in graphs}
    clear = [graph for graph in graphs if not graph.instances]
    inner = defaultdict[int, list[EditorGraph]](list)
    for graph in graphs:
        for each in outside[id(graph)].values():
            inner[id(each)].append(graph)
    for graph in clear:
        for each in inner[id(graph)]:
            del outside[id(each)][id(graph)]
            clear += [] if outside[id(each)] else [each]
    # What is left is in a circle, or inside of one.
    seen, stuck = set[int](), next((graph for graph in graphs if outside[id(graph)]), None)
    while stuck is not None:
        if id(stuck) in seen:
            raise BadWorkflow(f"The subgraph {stuck.label!r} is inside itself.")
        seen.add(id(stuck))
        stuck = next(iter(outside[id(stuck)].values()))


def check_editor(data: dict[str, Any], name: Any) -> None:
    """Raises BadWorkflow where nodes or links are not what the editor saves."""
    where = f"The subgraph {name!r}" if name else "The workflow"
    if not isinstance(name, str) or not isinstance(data.get("nodes"), list):
        raise BadWorkflow(f"{where} has no id, or no list of nodes.")
    for index, fault in faults(data):
        raise BadWorkflow(f"{where}: nodes[{index}] {fault}.")
    links = data.get("links") or []
    if not isinstance(links, list):
        raise BadWorkflow(f"{where} has links that are no list.")
    for index, link in enumerate(links):
        if not isinstance(link, list | dict):
            raise BadWorkflow(f"{where}: links[{index}] is no link.")
    numbers = [str(each["id"]) for each in data["nodes"]]
    if len(set(numbers)) != len(numbers):
        raise BadWorkflow(f"{where} has two nodes with one id.")


def faults(data: dict[str, Any]) -> Iterator[tuple[int, str]]:
    for index, node in enumerate(data["nodes"]):
        if not isinstance(node, dict) or not isinstance(node.get("type"), str):
            yield index, "has no type"
            continue
        if not isinstance(node.get("id"), int | str):
            yield index, "has no id"
        for name in ("inputs", "outputs"):
            sockets = node.get(name)
            if sockets is None:
                continue
            if not isinstance(sockets, list) or not all(
                isinstance(each, dict) and isinstance(each.get("name"), str) for each in sockets
            ):
                yield index, f"has {name} that are none"


def check_prompt(data: dict[str, Any]) -> None:
    for number, node in data.items():
        if not isinstance(node.get("inputs", {}), dict):
            raise BadWorkflow(f"Node {number} has inputs that are none.")
