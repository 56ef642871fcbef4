"""A node that makes a SAMPLER: what it needs of the node that uses it, and the "... Sampler" of its solver, which it
becomes where it is not taken into a step node."""

from collections.abc import Collection, Iterator, Mapping

from .graph import OUTSIDE, PASSING, Graph, Node
from .join import origin
from .levels import check_levels
from .report import LAW, PICTURE
from .solvers import Left, Solver, checked, sampler_nodes, solver_of
from .table import table

# They run a SAMPLER on the noise levels that are wired to them.
RUNNING = ("SamplerCustom", "SamplerCustomAdvanced", "StepwiseSample")
# It asks a SAMPLER for its steps alone.
ASKING = ("StepwiseGuider",)
TWO_PROMPTS = ("CFGGuider", "StepwiseCFGGuider")
DRAWN = "It adds noise, which is drawn otherwise: the law is the same."
MASKED = "It draws noise of its own where the latent has a mask."
ON_THE_CPU = "Its noise is drawn on the CPU."


def makers_of_samplers() -> Collection[str]:
    return ("KSamplerSelect", *table()["sampler_twins"])


def check_use(graph: Graph, user: Node, maker: Node, solver: Solver) -> None:
    """Raises Left where the solver is not known to be ComfyUI's sampler under the node that runs it."""
    if maker.kind in sampler_nodes():
        return
    check_levels(graph, user.wire("sigmas"), solver.sampler, solver.to_zero)
    found = graph.source(user.wire("guider"))
    if solver.guided and user.kind != "SamplerCustom" and (found is None or found[0].kind not in TWO_PROMPTS):
        raise Left(f"{solver.sampler} needs a guider of two prompts, and this may be none")
    if takes_a_model(maker):
        holder = user if user.kind == "SamplerCustom" else found[0] if found else None
        of_the_run = holder and holder.wire("model")
        if of_the_run is None or origin(graph, of_the_run) != origin(graph, maker.wire("model")):
            raise Left(f"{maker.title} may have another MODEL than the run, and so other noise levels")


def takes_a_model(maker: Node) -> bool:
    return bool(table()["sampler_twins"].get(maker.kind, {}).get("model"))


def check_any_use(maker: Node, solver: Solver, user: str) -> None:
    """Raises Left where what a node makes of a SAMPLER is not known, and matters."""
    unknown = f", and what {user} gives it is not known"
    if solver.to_zero:
        raise Left(f"{solver.sampler} is that of ComfyUI on schedules of two steps or more that end at 0{unknown}")
    if solver.guided:
        raise Left(f"{solver.sampler} needs a guider of two prompts{unknown}")
    if takes_a_model(maker):
        raise Left(f"its noise is added at levels of its own MODEL{unknown}")
    if scheduler := next((on for name, on in table()["amplified"] if name == solver.sampler), ""):
        raise Left(f"{solver.sampler} amplifies rounding on {scheduler}{unknown}")


def users_of(graph: Graph, node: Node) -> Iterator[Node | None]:
    """Who an output goes to, behind reroutes; None for what is outside the graph."""
    seen, todo = {node.id}, [node]
    while todo:
        for number, _ in graph.users(todo.pop()):
            if number == OUTSIDE:
                yield None
            elif number not in seen:
                seen.add(number)
                user = graph.nodes[number]
                if user.kind in PASSING:
                    todo.append(user)
                else:
                    yield user


def sampler(graph: Graph, maker: Node, sampling: Collection[str], asked: bool) -> tuple[str | None, list[str]]:
    """The node that makes a SAMPLER as ours, for whatever it still goes to.

    sampling: nodes whose own entries say why they and their SAMPLER are left. asked: it is converted by itself.
    """
    users = list(users_of(graph, maker))
    if not users:
        return None, []
    try:
        solver = solver_of(graph, maker)
        for user in users:
            if user is not None and user.kind in RUNNING:
                check_use(graph, user, maker, solver)
            elif user is None or user.kind not in ASKING:
                check_any_use(maker, solver, user.title if user else "what is outside the subgraph")
        kind = f"Stepwise{solver.id}Sampler"
        inputs = {name: value for name, value in solver.params.items() if name != "noise_device"}
        checked(kind, inputs)
    except Left:
        if not asked and all(user is not None and user.kind in sampling for user in users):
            return None, []
        raise
    names: Mapping[str, str] = table()["sampler_twins"].get(maker.kind, {}).get("inputs", {})
    graph.become(maker, kind, inputs, {0: 0}, {theirs: ours for theirs, ours in names.items() if ours in inputs})
    notes = [MASKED] if solver.masked_noise else []
    notes += [DRAWN] if solver.noise else []
    notes += [ON_THE_CPU] if solver.params.get("noise_device", "cpu") != "cpu" else []
    return (LAW if solver.noise else PICTURE), notes
