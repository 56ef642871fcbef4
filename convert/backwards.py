"""Stepwise's nodes made into ComfyUI's, where these can do the same."""

from collections.abc import Collection
from typing import Any

from .apart import taken_apart
from .forwards import SAMPLER_SLOTS, attempt
from .graph import Graph, Node, Wire
from .report import LAW, PICTURE, Report
from .solvers import Left, Solver, checked, sampler_nodes, sampler_with, solver_named
from .table import defaults, table

KSAMPLER = "StepwiseKSampler"
WINDOW = ("start_step", "end_step", "autosave_every", "on_mismatch")
# What KSampler (Advanced) has for the inputs of ours that say which part is run.
PARTS = {"start_step": "start_at_step", "end_step": "end_at_step", "seed": "noise_seed"}
PARTS |= {each: each for each in ("add_noise", "return_with_leftover_noise")}


def convert(graph: Graph, report: Report, join: bool, only: Collection[str] | None) -> None:
    """Converts the nodes of one graph, or those in `only`, and writes what was done into the report."""
    solvers = {f"Stepwise{row['id']}" for row in table()["samplers"].values() if "id" in row}
    twins = {row["ours"]: (kind, row) for kind, row in table()["node_twins"].items()}
    taken_apart(graph, only, lambda node: fits(graph, node))
    for node in list(graph.nodes.values()):
        if only is not None and node.id not in only:
            continue
        if node.kind == KSAMPLER:
            attempt(graph, report, node, lambda node: whole(graph, node), sampling=True)
        elif node.kind in solvers:
            attempt(graph, report, node, lambda node: stepped(graph, node), sampling=True)
        elif node.kind in sampler_nodes():
            attempt(graph, report, node, lambda node: sampler(graph, node), sampling=False)
        elif node.kind in twins:
            attempt(graph, report, node, lambda node: twin(graph, node, *twins[node.kind]), sampling=False)


def every(node: Node) -> dict[str, Any]:
    """All inputs of a node, those that are not there at their defaults."""
    typed = {name: value for name, value in node.inputs.items() if not isinstance(value, Wire)}
    return {**defaults(node.kind, typed), **node.inputs}


def check_outputs(graph: Graph, node: Node, kept: Collection[int]) -> None:
    for slot in range(3):
        if slot not in kept and any(True for _ in graph.users(node, slot)):
            what = {1: "denoised_output", 2: "state"}[slot]
            raise Left(f"its {what} is used, which the node of ComfyUI has not")


def check_alone(values: dict[str, Any]) -> None:
    if isinstance(values.get("state"), Wire):
        raise Left("it goes on from a state, which no node of ComfyUI does")
    if values.get("autosave_every"):
        raise Left("it saves states on the way, which no node of ComfyUI does")


def whole(graph: Graph, node: Node) -> tuple[str, list[str]]:
    """KSampler (Stepwise) as KSampler, or as KSampler (Advanced) where it takes a part or hands a latent over."""
    solver, inputs = ksampler_inputs(graph, node)
    renamed = {each: each for each in ("seed", "steps", "cfg", "denoise", "control_after_generate")}
    if "noise_seed" in inputs:
        graph.become(node, "KSamplerAdvanced", inputs, {0: 0}, renamed | PARTS)
    else:
        graph.become(node, "KSampler", inputs, {0: 0}, renamed)
    return (LAW if solver.noise else PICTURE), []


def ksampler_inputs(graph: Graph, node: Node) -> tuple[Solver, dict[str, Any]]:
    """What the node of ComfyUI is given, with `noise_seed` where it is KSampler (Advanced). Raises Left where neither
    can do it."""
    values = every(node)
    check_alone(values)
    check_outputs(graph, node, (0,))
    chosen = {name.removeprefix("solver."): value for name, value in values.items() if name.startswith("solver.")}
    named = [each for each in table()["samplers"].values() if "id" in each]
    row = next((each for each in named if each["name"] == values["solver"]), None)
    if row is None or any(isinstance(value, Wire) for value in chosen.values()):
        raise Left("no sampler of ComfyUI's has this solver, or its settings are wired")
    solver = sampler_with(row["id"], chosen)
    inputs = {each: values[each] for each in ("model", "positive", "negative", "latent_image") if each in values}
    inputs |= {each: values[each] for each in ("steps", "cfg")}
    inputs |= {"sampler_name": solver.sampler, "scheduler": scheduler_of(values, solver.sampler)}
    if "negative" not in inputs:
        raise Left("its negative is not wired, which KSampler needs")
    steps, end = values["steps"], values["end_step"]
    ends = end == 10000 or (isinstance(steps, int) and isinstance(end, int) and end >= steps)
    if (values["start_step"], values["add_noise"]) == (0, "enable") and ends:
        return solver, inputs | {each: values[each] for each in ("seed", "denoise")}
    if values["denoise"] != 1.0:
        raise Left("it takes a part of a schedule with denoise, and KSampler (Advanced) has no denoise")
    return solver, inputs | {new: values[old] for old, new in PARTS.items()}


def fits(graph: Graph, node: Node) -> bool:
    try:
        return bool(ksampler_inputs(graph, node))
    except Left:
        return False


def scheduler_of(values: dict[str, Any], sampler: str) -> str:
    chosen = {name.removeprefix("schedule."): value for name, value in values.items() if name.startswith("schedule.")}
    dropped = sampler in table()["without_penultimate"]
    if values["schedule"] == table()["by_name"]:
        fitting = [sampler] if dropped else ["other", *(["none"] if chosen["scheduler"] != "ddim_uniform" else [])]
        if chosen["for_sampler"] in fitting:
            return chosen["scheduler"]
        raise Left("KSampler has not the levels that for_sampler asks for")
    for name, row in table()["schedulers"].items():
        named = {"schedule": row["name"]}
        usual = {
            key.removeprefix("schedule."): value
            for key, value in defaults(KSAMPLER, named).items()
            if key.startswith("schedule.")
        }
        if row["name"] == values["schedule"] and chosen == {**usual, **row["params"]} and not dropped:
            return name
    raise Left("no scheduler of ComfyUI's has this schedule with these settings")


def stepped(graph: Graph, node: Node) -> tuple[str, list[str]]:
    """A step node as Sampler Custom Advanced with a sampler."""
    values = every(node)
    check_alone(values)
    check_outputs(graph, node, (0, 1))
    end = values["end_step"]
    if values["start_step"] != 0 or end != 10000:
        raise Left("it takes a part of its schedule: Split Sigmas does that for the nodes of ComfyUI")
    wires = {each: values[each] for each in ("guider", "noise", "latent_image", "sigmas") if each in values}
    params = {name: value for name, value in values.items() if name not in (*WINDOW, *wires, "state")}
    guider = graph.source(node.wire("guider"))
    model = guider[0].wire("model") if guider else None
    solver, kind, given = maker_of(node.kind.removeprefix("Stepwise"), node.kind, params, model)
    maker = graph.add(kind, given, node)
    graph.become(node, "SamplerCustomAdvanced", {**wires, "sampler": Wire(maker.id, 0)}, SAMPLER_SLOTS, {})
    return (LAW if solver.noise else PICTURE), []


def sampler(graph: Graph, node: Node) -> tuple[str, list[str]]:
    """One of our nodes that make a SAMPLER as ComfyUI's."""
    solver, kind, given = maker_of(sampler_nodes()[node.kind], node.kind, every(node), None)
    names = table()["sampler_twins"].get(kind, {}).get("inputs", {})
    graph.become(node, kind, given, {0: 0}, {ours: theirs for theirs, ours in names.items()})
    return (LAW if solver.noise else PICTURE), []


def maker_of(
    solver_id: str, ours: str, params: dict[str, Any], model: Wire | None
) -> tuple[Solver, str, dict[str, Any]]:
    """The node that makes the SAMPLER with its inputs: Sampler Select where a name has all the settings, else one with
    settings. `ours` is the node that has the `params`, `model` the MODEL of the run."""
    if not any(isinstance(value, Wire) for value in params.values()):
        try:
            solver = sampler_with(solver_id, params)
        except Left:
            pass
        else:
            return solver, "KSamplerSelect", {"sampler_name": solver.sampler}
    for kind, row in table()["sampler_twins"].items():
        solver = solver_named(row["name"])
        free = {ours: theirs for theirs, ours in row.get("inputs", {}).items()}
        expected = {**defaults(ours), **solver.params}
        fixed = {name: value for name, value in params.items() if name not in free}
        if solver.id != solver_id or any(expected.get(name) != value for name, value in fixed.items()):
            continue
        if row.get("model") and model is None:
            raise Left(f"{kind} needs the MODEL of the run, and it is not known here")
        given = {theirs: params[ours] for ours, theirs in free.items() if ours in params}
        checked(kind, given)
        return solver, kind, {**given, **row.get("only", {}), **({"model": model} if row.get("model") else {})}
    raise Left("no sampler of ComfyUI's has these settings")


def twin(graph: Graph, node: Node, kind: str, row: dict[str, Any]) -> tuple[str, list[str]]:
    """A schedule, a guider or a noise whose settings the node of ComfyUI has too."""
    values, back = every(node), {ours: theirs for theirs, ours in row.get("inputs", {}).items()}
    expected = {**defaults(node.kind), **row.get("params", {})}
    for name, value in values.items():
        if name not in back and value != expected.get(name):
            raise Left(f"its {name} is {'wired' if isinstance(value, Wire) else repr(value)}, which {kind} has not")
    if kind == "CFGGuider" and not isinstance(values.get("negative"), Wire):
        raise Left("its negative is not wired, which CFGGuider needs")
    slots = len(table()["nodes"][kind]["outputs"])
    for slot in range(slots, len(table()["nodes"][node.kind]["outputs"])):
        if any(True for _ in graph.users(node, slot)):
            raise Left(f"its output {slot + 1} is used, which {kind} has not")
    inputs = {back[name]: value for name, value in values.items() if name in back} | row.get("only", {})
    graph.become(node, kind, inputs, {slot: slot for slot in range(slots)}, dict(back))
    return PICTURE, []
