"""Writes the example workflows from one description each: the editor's JSON and its API twin.

python -m tools.generate.workflows            with .dev/env, from the root
python -m tools.generate.workflows --check    fails when a committed file differs
"""

import asyncio
import json
from typing import Any

from ..environment.folders import ROOT
from ..environment.inprocess import load_comfyui
from . import generated
from .examples import WORKFLOWS
from .generated import Files
from .graph import api_json, complete, editor_json

FOLDER = ROOT / "example_workflows"


def files(infos: dict[str, dict[str, Any]]) -> Files:
    made = {}
    for describe in WORKFLOWS:
        workflow = describe()
        for node in workflow.nodes:
            complete(node, infos[node.kind])
        made[FOLDER / f"{workflow.name}.json"] = json.dumps(editor_json(workflow, infos), indent=1) + "\n"
        made[FOLDER / "api" / f"{workflow.api}.json"] = json.dumps(api_json(workflow), indent=1) + "\n"
    return made


def node_infos() -> dict[str, dict[str, Any]]:
    """What the host's /object_info says of every node that an example uses."""
    folders = load_comfyui()
    from stepwise.nodes import all_nodes

    import nodes as host_nodes

    classes = {node.define_schema().node_id: node for node in all_nodes()}
    asyncio.run(host_nodes.init_builtin_extra_nodes())
    infos = {kind: info_of(kind, classes.get(kind) or host_nodes.NODE_CLASS_MAPPINGS[kind]) for kind in kinds()}
    folders.cleanup()
    return infos


def kinds() -> set[str]:
    return {node.kind for describe in WORKFLOWS for node in describe().nodes}


def info_of(kind: str, node: Any) -> dict[str, Any]:
    import nodes as host_nodes

    if hasattr(node, "GET_NODE_INFO_V1"):
        node.GET_SCHEMA()
        return node.GET_NODE_INFO_V1()
    return {
        "input": node.INPUT_TYPES(),
        "display_name": host_nodes.NODE_DISPLAY_NAME_MAPPINGS.get(kind, kind),
        "output": list(node.RETURN_TYPES),
        "output_name": list(getattr(node, "RETURN_NAMES", node.RETURN_TYPES)),
    }


if __name__ == "__main__":
    generated.main(files(node_infos()))
