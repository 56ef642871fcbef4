"""Writes the example workflows from one description each: the editor's JSON and its API twin.

python -m tools.generate.workflows            with .dev/env, from the root
python -m tools.generate.workflows --check    fails when a committed file differs
python -m tools.generate.workflows --measure  lays them out anew: opens and runs each on the real page, in both
                                              canvases, and writes the sizes of its nodes and its thumbnail, too
"""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ..environment.folders import DEV, ROOT
from ..environment.inprocess import load_comfyui
from . import generated
from .description import Workflow
from .examples import WORKFLOWS
from .generated import Files
from .graph import api_json, complete, editor_json
from .layout import FILE, measured

FOLDER, SCREENSHOTS = ROOT / "example_workflows", DEV / "screenshots" / "measured"
# The example on the README's picture of the editor.
PORTRAIT = ("ksampler", ROOT / "docs" / "images" / "editor.jpg")


def described(infos: dict[str, dict[str, Any]]) -> Iterator[Workflow]:
    """Every example, its widgets filled in."""
    for describe in WORKFLOWS:
        workflow = describe()
        for node in workflow.nodes:
            complete(node, infos[node.kind])
        yield workflow


def files(infos: dict[str, dict[str, Any]]) -> Files:
    made, sizes = {}, measured()
    for workflow in described(infos):
        editor = editor_json(workflow, infos, sizes.get(workflow.api, {}))
        made[FOLDER / f"{workflow.name}.json"] = json.dumps(editor, indent=1) + "\n"
        made[FOLDER / "api" / f"{workflow.api}.json"] = json.dumps(api_json(workflow), indent=1) + "\n"
    return made


def measure(infos: dict[str, dict[str, Any]], names: Sequence[str]) -> None:
    """Writes sizes.json, the thumbnails and the README's picture anew; of the examples that are named, or of all."""
    from .on_page import measured_on_page, opened, portrait, served

    sizes = {each.api: kept for each in described(infos) if (kept := measured().get(each.api))}
    known = {each.api: each for each in described(infos)}
    chosen = [known[name] for name in names or known]
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with served() as (server, browser):
        pages = [opened(server, browser, nodes2) for nodes2 in (False, True)]
        for each in chosen:
            asked = editor_json(each, infos, {})
            found, picture = measured_on_page(server, pages, asked, each.runs, SCREENSHOTS / each.api)
            sizes[each.api] = {number: size for number, size in found.items() if int(number) <= len(each.nodes)}
            if picture:
                (FOLDER / f"{each.name}.jpg").write_bytes(picture)
            FILE.write_text(json.dumps(sizes, sort_keys=True).replace('}}, "', '}},\n"') + "\n", encoding="utf-8")
            print(f"measured: {each.name}", flush=True)
            if each.api == PORTRAIT[0]:
                PORTRAIT[1].write_bytes(portrait(server, browser, editor_json(each, infos, sizes[each.api])))


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


def main() -> None:
    infos = node_infos()
    if "--measure" in sys.argv[1:]:
        measure(infos, [name for name in sys.argv[1:] if not name.startswith("-")])
    generated.main(files(infos))


if __name__ == "__main__":
    main()
