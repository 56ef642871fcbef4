"""ComfyUI's sampling nodes made into Stepwise's."""

from collections.abc import Callable, Collection
from typing import Any

from .forms import NUMBERS, unmasked
from .graph import OUTSIDE as OUT
from .graph import Graph, Node, Wire
from .join import joined
from .levels import schedule_of
from .makers import check_use, makers_of_samplers, sampler
from .report import LAW, LEFT, PICTURE, Entry, Report
from .solvers import OUTSIDE, Left, Solver, check_numbers, checked, name_in, solver_named, solver_of
from .table import outputs_of, table, title_of

SAMPLER_SLOTS = {0: 0, 1: 1}
WINDOW = (("start_at_step", 0), ("end_at_step", 10000))


def convert(graph: Graph, report: Report, join: bool, only: Collection[str] | None) -> None:
    """Converts the nodes of one graph, or those in `only`, and writes what was done into the report."""
    makers: dict[str, Node] = {}
    for node in list(graph.nodes.values()):
        if node.kind in SAMPLING and (only is None or node.id in only):
            attempt(graph, report, node, lambda node: SAMPLING[node.kind](graph, node, makers), sampling=True)
    for maker in makers.values():
        if maker.id in graph.nodes and not any(True for _ in graph.users(maker)):
            graph.drop(maker)
            report.add(Entry(maker.id, graph.name, maker.title, maker.kind, "", False, "taken into the step node"))
    for node in list(graph.nodes.values()):
        if node.kind in makers_of_samplers() and (only is None or node.id in only):
            attempt(graph, report, node, lambda node: sampler(graph, node, SAMPLING, only is not None), sampling=False)
    for node in list(graph.nodes.values()):
        if node.kind in table()["node_twins"] and (only is None or node.id in only):
            attempt(graph, report, node, lambda node: twin(graph, node), sampling=False)
        if (rule := table()["advice"].get(node.kind)) and only is None:
            report.advise(f"{node.title} acts as before. For the same within a guider of Stepwise there is {rule}.")
    joined(graph, report, join, only)


def attempt(graph: Graph, report: Report, node: Node, rule: Callable[[Node], Any], sampling: bool) -> None:
    """One node by one rule; a node that is left stays as it is."""
    was = title_of(node.kind) if node.kind.startswith("Stepwise") else node.kind
    title = was if node.title == node.kind else node.title
    try:
        check_numbers(node)
        kind, notes = rule(node)
    except Left as left:
        report.add(Entry(node.id, graph.name, title, was, "", sampling, LEFT, str(left)))
        return
    if kind is not None:
        now = title_of(graph.nodes[node.id].kind)
        report.add(Entry(node.id, graph.name, title, was, now, sampling, kind, "", tuple(notes)))


def class_of(graph: Graph, solver: Solver, latent: Wire | None) -> tuple[str, list[str]]:
    """Of a converted node, and what there is to say."""
    if solver.noise:
        return LAW, []
    if solver.masked_noise and not unmasked(graph, latent):
        return LAW, [f"{solver.sampler} draws noise of its own where the latent has a mask."]
    return PICTURE, []


def compact(graph: Graph, node: Node, _: dict[str, Node]) -> tuple[str, list[str]]:
    """KSampler and KSampler (Advanced) as KSampler (Stepwise)."""
    solver = solver_named(name_in(graph, node, "sampler_name", "its sampler_name"))
    inputs: dict[str, Any] = {
        each: node.inputs[each]
        for each in ("model", "positive", "negative", "latent_image", "steps", "cfg", "denoise")
        if each in node.inputs
    }
    renamed = {each: each for each in ("seed", "steps", "cfg", "denoise", "control_after_generate")}
    inputs["seed"] = node.inputs.get("seed", node.inputs.get("noise_seed", 0))
    if node.kind == "KSamplerAdvanced":
        names = {"start_at_step": "start_step", "end_at_step": "end_step", "noise_seed": "seed"}
        names |= {each: each for each in ("add_noise", "return_with_leftover_noise")}
        inputs |= {new: node.inputs[old] for old, new in names.items() if old in node.inputs}
        renamed |= names
    notes = check_window(node, solver)
    inputs |= {"solver": solver.name, **{f"solver.{key}": value for key, value in solver.params.items()}}
    inputs |= schedule_of(graph, node, solver.sampler)
    checked("StepwiseKSampler", inputs)
    kind, said = class_of(graph, solver, node.wire("latent_image"))
    graph.become(node, "StepwiseKSampler", inputs, {0: 0}, renamed)
    return kind, [*notes, *said]


def check_window(node: Node, solver: Solver) -> list[str]:
    """Raises Left for a run of no step, and for a part of a schedule that the solver is not ComfyUI's on; else what
    there is to say."""
    denoise, steps = node.typed("denoise"), node.typed("steps")
    if isinstance(denoise, int | float) and denoise < 0.01:
        raise Left(f"denoise is {denoise:g}: it takes no step")
    advanced = node.kind == "KSamplerAdvanced"
    start, end = (node.inputs.get(name, usual) if advanced else usual for name, usual in WINDOW)
    last = min((each for each in (end, steps) if isinstance(each, int)), default=10000)
    if isinstance(start, int) and start >= last:
        raise Left(f"it takes no step: start_at_step is {start}, and the run ends at step {last}")
    if not solver.to_zero:
        return []
    whole = end == 10000 or (isinstance(end, int) and isinstance(steps, int) and end >= steps)
    if not whole and node.inputs.get("return_with_leftover_noise") != "disable":
        raise Left(f"{solver.sampler} is not that of ComfyUI where the run stops above noise level 0")
    if not isinstance(start, int) or last - start < 2:
        raise Left(f"{solver.sampler} of one step is not that of ComfyUI")
    return [] if isinstance(steps, int) else [f"{solver.sampler} is that of ComfyUI for two steps or more."]


def step_inputs(graph: Graph, node: Node, makers: dict[str, Node]) -> tuple[Solver, dict[str, Any]]:
    """The solver of a node that has a SAMPLER, and what its step node gets but for guider and noise."""
    found = graph.source(node.wire("sampler"))
    if found is None:
        wired = node.wire("sampler") is not None
        raise Left("its SAMPLER comes from outside the subgraph" if wired else "no SAMPLER is wired")
    maker, _ = found
    solver = solver_of(graph, maker)
    if node.active and not maker.active:
        raise Left(f"{maker.title} is bypassed or muted")
    check_use(graph, node, maker, solver)
    inputs = {each: node.inputs[each] for each in ("latent_image", "sigmas") if node.wire(each)}
    inputs |= solver.params
    checked(f"Stepwise{solver.id}", inputs)
    makers[maker.id] = maker
    return solver, inputs


def stepped(graph: Graph, node: Node, makers: dict[str, Node]) -> tuple[str, list[str]]:
    """Sampler Custom Advanced as the step node of its solver."""
    solver, inputs = step_inputs(graph, node, makers)
    inputs |= {each: node.inputs[each] for each in ("guider", "noise") if node.wire(each)}
    kind = class_of(graph, solver, node.wire("latent_image"))
    graph.become(node, f"Stepwise{solver.id}", inputs, SAMPLER_SLOTS, {})
    return kind


def guided(graph: Graph, node: Node, makers: dict[str, Node]) -> tuple[str, list[str]]:
    """Sampler Custom as a guider, a noise and a step node."""
    solver, inputs = step_inputs(graph, node, makers)
    adds = graph.constant(node.inputs.get("add_noise", True))
    if adds is None:
        raise Left(f"its add_noise {OUTSIDE}")
    kind = class_of(graph, solver, node.wire("latent_image"))
    wires = {each: node.inputs[each] for each in ("model", "positive", "negative", "cfg") if each in node.inputs}
    guider = graph.add("CFGGuider", wires, node, node)
    seed = {"noise_seed": node.inputs.get("noise_seed", 0)}
    if adds:
        noise = graph.add("RandomNoise", seed, node, node)
        graph.promoted(node, noise, {each: each for each in ("noise_seed", "control_after_generate")})
    else:
        given = {"seed": seed["noise_seed"], "start": "none"}
        noise = graph.add("StepwiseNoise", given, node, node.renamed({"noise_seed": "seed"}))
        graph.promoted(node, noise, {"noise_seed": "seed", "control_after_generate": "control_after_generate"})
    graph.promoted(node, guider, {"cfg": "cfg"})
    inputs |= {"guider": Wire(guider.id, 0), "noise": Wire(noise.id, 0)}
    graph.become(node, f"Stepwise{solver.id}", inputs, SAMPLER_SLOTS, {})
    return kind


SAMPLING: dict[str, Callable[[Graph, Node, dict[str, Node]], tuple[str, list[str]]]] = {
    "KSampler": compact,
    "KSamplerAdvanced": compact,
    "SamplerCustomAdvanced": stepped,
    "SamplerCustom": guided,
}


def twin(graph: Graph, node: Node) -> tuple[str | None, list[str]]:
    """A schedule, a guider or a noise that has one of ours for its like."""
    row = table()["node_twins"][node.kind]
    users = list(graph.users(node))
    if any(each == OUT or not ours(graph, each) for each, _ in users) or not users:
        # What other nodes make of it is not known, and a step node of ComfyUI's that is left keeps what it has.
        return None, []
    for name, value in row.get("only", {}).items():
        if graph.constant(node.inputs.get(name, value)) != value:
            raise Left(f"{name} is not {value!r}, and its twin takes the end of a schedule otherwise")
    for name, value in row.get("least", {}).items():
        found = graph.number(node.inputs.get(name))
        if found is None or found < value:
            raise Left(f"{name} is below {value}, or known only in a run")
    if "below" in row:
        check_below(graph, node, *row["below"])
    if node.kind == "ManualSigmas" and not NUMBERS.fullmatch(str(node.typed("sigmas"))):
        raise Left("its text is more than a list of numbers")
    names = row.get("inputs", {})
    inputs = {names[name]: value for name, value in node.inputs.items() if name in names} | row.get("params", {})
    checked(row["ours"], inputs)
    slots = {slot: slot for slot in range(len(outputs_of(node.kind)))}
    graph.become(node, row["ours"], inputs, slots, dict(names))
    return PICTURE, []


def ours(graph: Graph, number: str) -> bool:
    kind = graph.nodes[number].kind
    return kind.startswith("Stepwise") or kind in (*table()["node_twins"], "Reroute")


def check_below(graph: Graph, node: Node, name: str, of: str) -> None:
    """Raises Left unless a cut is known to leave steps on both sides."""
    found = graph.source(node.wire(of))
    steps = graph.number(found[0].inputs.get("steps")) if found else None
    cut = graph.number(node.inputs.get(name))
    if cut is None or steps is None or cut >= steps:
        raise Left(f"{name} may be behind the last step, which its twin refuses")
