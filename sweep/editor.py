"""A workflow of the editor as the API takes it: by comfy-cli, and what that leaves out."""

from collections.abc import Mapping
from typing import Any

from ..convert.files import is_editor, is_prompt
from .schema import Nodes
from .values import BadSweep

Prompt = dict[str, Any]


def prompt_of(workflow: dict[str, Any], info: Mapping[str, Any]) -> Prompt:
    """Raises BadSweep for what cannot be read as it is meant."""
    if not is_editor(workflow):
        return whole(workflow)
    from comfy_cli.workflow_to_api import WorkflowConversionError, convert_ui_to_api

    try:
        made = convert_ui_to_api(workflow, dict(info))
    except WorkflowConversionError as error:
        raise BadSweep(f"workflow: {error}") from None
    if not is_prompt(made):
        raise BadSweep("workflow: it has no node that could run.")
    return {number: drawn(number, node, workflow, Nodes(info)) for number, node in made.items()}


def whole(workflow: Mapping[str, Any]) -> Prompt:
    """A prompt whose nodes all have inputs, as a server makes it."""
    bad = [number for number, node in workflow.items() if not isinstance(node.get("inputs", {}), dict)]
    if bad:
        raise BadSweep(*(f"workflow: the inputs of node {number} are no names with values." for number in bad))
    made = {number: {**node, "inputs": node.get("inputs", {})} for number, node in workflow.items()}
    for node in made.values():
        if not isinstance(node.get("_meta", {}), dict):
            del node["_meta"]
    return made


def drawn(number: str, node: Prompt, workflow: Mapping[str, Any], nodes: Nodes) -> Prompt:
    """A node with what was drawn on it, such as a curve: comfy-cli puts the default in its place."""
    values = in_editor(workflow, number).get("widgets_values")
    missed = [each for each in values if isinstance(each, dict)] if isinstance(values, list) else []
    if not missed:
        return node
    declared = nodes.inputs(node["class_type"], node["inputs"])
    names = [name for name, one in declared.items() if one.typed and not one.plain]
    if len(names) != len(missed):
        told = f"node {number} ({node['class_type']}) holds what only the page can read"
        raise BadSweep(f"workflow: {told}; save it with Export (API), and name that file.")
    wired = {name for name in names if isinstance(node["inputs"].get(name), list)}
    values = {name: value for name, value in zip(names, missed, strict=True) if name not in wired}
    return {**node, "inputs": {**node["inputs"], **values}}


def in_editor(workflow: Mapping[str, Any], number: str) -> Mapping[str, Any]:
    """The node that the API calls by this number: in subgraphs, the numbers on the way to it stand before its own."""
    inner = (workflow.get("definitions") or {}).get("subgraphs") or []
    graphs = {graph["id"]: graph for graph in inner}
    graph: Mapping[str, Any] = workflow
    found: Mapping[str, Any] = {}
    for part in number.split(":"):
        found = next((node for node in graph.get("nodes", []) if str(node.get("id")) == part), {})
        graph = graphs.get(found.get("type"), {})
    return found
