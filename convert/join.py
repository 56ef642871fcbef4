"""Two KSampler (Stepwise) that hand a latent over, as one run that goes on from its state.

ComfyUI begins anew in the second of two KSampler (Advanced). A solver without a memory takes the same steps either way;
one that remembers does not, and is joined only when asked for.
"""

import re
from collections.abc import Collection
from typing import Any

from .forms import unmasked
from .graph import Graph, Node, Wire
from .report import LEFT, PICTURE, Entry, Report
from .table import defaults, title_of

NODE = "StepwiseKSampler"
OUTPUT, STATE = 0, 2
# Each step depends on x alone.
FORGETFUL = ("Euler", "DDIM")
SAMPLING = re.compile(r"ModelSampling\w*")
CHANGES = "The second part goes on from the first one's state: the picture is another one, that of a run in one piece."


def joined(graph: Graph, report: Report, join: bool, only: Collection[str] | None) -> None:
    for second in list(graph.nodes.values()):
        if second.kind != NODE or (only is not None and second.id not in only):
            continue
        first = first_of(graph, second)
        if first is None:
            continue
        exact = is_exact(graph, first, second)
        if not exact and not join:
            continue
        inputs = {name: value for name, value in second.inputs.items() if name not in ("latent_image", "add_noise")}
        inputs["state"] = Wire(first.id, STATE)
        if not exact:
            inputs["on_mismatch"] = "fork"
        graph.become(second, NODE, inputs, {0: 0, 1: 1, 2: 2}, {name: name for name in second.inputs})
        said = f"Goes on from the state of node {first.id}." if exact else CHANGES
        tell(report, graph, second, said)


def tell(report: Report, graph: Graph, node: Node, said: str) -> None:
    """Adds to what is reported of the node, or says it anew where it was ours before."""
    for place, entry in enumerate(report.entries):
        if (entry.id, entry.where) == (node.id, graph.name) and entry.kind != LEFT:
            report.entries[place] = Entry(**{**vars(entry), "notes": (*entry.notes, said)})
            return
    report.add(Entry(node.id, graph.name, node.title, title_of(NODE), title_of(NODE), True, PICTURE, "", (said,)))


def first_of(graph: Graph, second: Node) -> Node | None:
    """The node whose unfinished latent the second goes on from, where the cut and the settings are known to agree."""
    found = graph.source(second.wire("latent_image"))
    if found is None or found[0].kind != NODE or found[1] != OUTPUT or second.wire("state"):
        return None
    first = found[0]
    cut = first.typed("end_step")
    if cut is None or cut != second.typed("start_step") or not first.active or not second.active:
        return None
    hands_over = (first.typed("return_with_leftover_noise"), second.typed("add_noise")) == ("enable", "disable")
    alone = [each for each, _ in graph.users(first)] == [second.id]
    return first if hands_over and alone and settings(graph, first) == settings(graph, second) else None


def settings(graph: Graph, node: Node) -> dict[str, Any]:
    """Solver, schedule and steps with everything that belongs to them; what is wired by where it comes from."""
    typed = {name: value for name, value in node.inputs.items() if not isinstance(value, Wire)}
    found = {**defaults(NODE, typed), **node.inputs}
    kept = ("solver", "schedule", "steps", "denoise")
    return {name: origin(graph, value) for name, value in found.items() if name.split(".")[0] in kept}


def origin(graph: Graph, value: Any) -> Any:
    if not isinstance(value, Wire):
        return value
    if (known := graph.constant(value)) is not None:
        return known
    found = graph.source(value)
    return (found[0].id, found[1]) if found else (value.node, value.slot)


def is_exact(graph: Graph, first: Node, second: Node) -> bool:
    if first.typed("solver") not in FORGETFUL:
        return False
    if not unmasked(graph, first.wire("latent_image")):
        return False
    patches = [sampling_of(graph, node) for node in (first, second)]
    return patches[0] is not None and patches[0] == patches[1]


def sampling_of(graph: Graph, node: Node) -> tuple[Any, ...] | None:
    """What gives the model its noise levels, where a node says it; None where only the model knows."""
    wire = node.wire("model")
    for _ in range(len(graph.nodes)):
        found = graph.source(wire)
        if found is None or not found[0].active:
            return None
        if SAMPLING.fullmatch(found[0].kind):
            values = {name: graph.constant(value) for name, value in found[0].under.items()} or {
                name: value for name, value in found[0].inputs.items() if not isinstance(value, Wire)
            }
            return found[0].kind, tuple(sorted(values.items(), key=str))
        wire = found[0].wire("model")
    return None
