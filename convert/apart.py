"""Two KSampler (Stepwise) of which the second goes on from the first one's state, as two that hand a latent over: what
join.py does, undone, where the solver remembers nothing and the picture stays the same."""

from collections.abc import Callable, Collection
from dataclasses import replace

from .graph import Graph, Node, Wire
from .join import NODE, OUTPUT, STATE, is_exact, settings

OUTPUTS = {slot: slot for slot in (0, 1, 2)}


def taken_apart(graph: Graph, only: Collection[str] | None, fits: Callable[[Node], bool]) -> None:
    """Gives the second of two a latent in the place of the state; `fits` says whether a node of ComfyUI can be put in
    the place of what it is then."""
    for second in list(graph.nodes.values()):
        if second.kind != NODE or (only is not None and second.id not in only):
            continue
        first = first_of(graph, second)
        if first is None or not is_exact(graph, first, second):
            continue
        kept = {name: value for name, value in second.inputs.items() if name not in ("state", "on_mismatch")}
        handed = {"latent_image": Wire(first.id, OUTPUT), "add_noise": "disable"}
        inputs = {**kept, **handed, "start_step": first.inputs["end_step"]}
        if fits(replace(second, inputs=inputs)):
            graph.become(second, NODE, inputs, OUTPUTS, {name: name for name in inputs})


def first_of(graph: Graph, second: Node) -> Node | None:
    """The node whose state the second goes on from, where both are known to be parts of one run."""
    found = graph.source(second.wire("state"))
    if found is None or found[0].kind != NODE or found[1] != STATE:
        return None
    first = found[0]
    cut = first.typed("end_step")
    if cut is None or second.typed("start_step") not in (0, None, cut) or not first.active or not second.active:
        return None
    unfinished = first.typed("return_with_leftover_noise") == "enable"
    return first if unfinished and settings(graph, first) == settings(graph, second) else None
