"""Which solver takes the steps of a sampler of ComfyUI's, and with what settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from .graph import Graph, Node, Wire
from .table import defaults, inputs_of, table

UNKNOWN = "is of another pack, or of another version of ComfyUI"
OUTSIDE = "is chosen on the subgraph's face, or known only in a run"


class Left(Exception):
    """A node that is left as it is, and why."""


@dataclass(frozen=True)
class Solver:
    """A row of the table with its settings.

    sampler: its name in ComfyUI. params: typed values and wires. noise: it adds noise, so only the law is the same.
    """

    sampler: str
    id: str
    name: str
    params: Mapping[str, Any]
    noise: bool
    to_zero: bool
    masked_noise: bool

    @property
    def guided(self) -> bool:
        """It needs the prediction without the prompt."""
        return bool(self.params.get("cfg_pp"))


def solver_named(name: Any) -> Solver:
    row = table()["samplers"].get(name) if isinstance(name, str) else None
    if row is None:
        raise Left(f"the sampler {name!r} {UNKNOWN}")
    if "left" in row:
        raise Left(f"{name}: {row['left']}")
    flags = (row.get("to_zero", False), row.get("masked_noise", False))
    return Solver(name, row["id"], row["name"], row["params"], row["noise"], *flags)


def sampler_with(solver: str, params: Mapping[str, Any]) -> Solver:
    """The name of ComfyUI's that has these settings: all of them, since the defaults differ."""
    usual = defaults(f"Stepwise{solver}")
    for name, row in table()["samplers"].items():
        if row.get("id") != solver:
            continue
        expected = {key: value for key, value in {**usual, **row["params"]}.items() if key in params}
        if expected == {**params} and set(row["params"]) <= set(params):
            return solver_named(name)
    raise Left("no sampler of ComfyUI's has these settings")


def checked(kind: str, inputs: Mapping[str, Any]) -> None:
    """Raises Left for a typed value that a node does not take."""
    typed = {name: value for name, value in inputs.items() if not isinstance(value, Wire)}
    for one in inputs_of(kind, typed):
        if one.name in typed and (refusal := one.refusal(typed[one.name])):
            raise Left(f"{one.name}: {refusal}")


def check_numbers(node: Node) -> None:
    """Raises Left for a typed value of a node that is not the number it has to be."""
    for one in inputs_of(node.kind, node.inputs):
        value = node.typed(one.name)
        if value is not None and not one.options and (refusal := one.refusal(value)):
            raise Left(f"{one.name}: {refusal}")


def name_in(graph: Graph, node: Node, name: str, of: str) -> Any:
    """What is chosen in an input, here or in a node that holds it. Raises Left where that is not known; `of` says whose
    it is."""
    if node.inputs.get(name) is None:
        raise Left(f"{of} is missing")
    if (found := graph.constant(node.inputs[name])) is None:
        raise Left(f"{of} {OUTSIDE}")
    return found


def solver_of(graph: Graph, maker: Node) -> Solver:
    """What a node that makes a SAMPLER stands for. Raises Left for one without a twin."""
    if maker.kind == "KSamplerSelect":
        return solver_named(name_in(graph, maker, "sampler_name", f"the sampler_name of {maker.title}"))
    if maker.kind in sampler_nodes():
        return solver_of_ours(maker)
    twin = table()["sampler_twins"].get(maker.kind)
    if twin is None:
        raise Left(f"its SAMPLER comes from {maker.kind}, which has no twin")
    for name, value in twin.get("only", {}).items():
        if graph.constant(maker.inputs.get(name)) != value:
            raise Left(f"{name} of {maker.title} is not {value!r}")
    solver = solver_named(twin["name"])
    given = {twin["inputs"][name]: value for name, value in maker.inputs.items() if name in twin.get("inputs", {})}
    declared = {each.name: each for each in inputs_of(f"Stepwise{solver.id}")}
    for name, value in given.items():
        if not isinstance(value, Wire) and (refusal := declared[name].refusal(value)):
            raise Left(f"{name} of {maker.title}: {refusal}")
    return Solver(**{**vars(solver), "params": {**solver.params, **given}})


@cache
def sampler_nodes() -> Mapping[str, str]:
    """The nodes of ours that make a SAMPLER, and their solvers."""
    solvers = {row["id"] for row in table()["samplers"].values() if "id" in row}
    return {f"Stepwise{solver}Sampler": solver for solver in solvers}


def solver_of_ours(maker: Node) -> Solver:
    """As a step node it is the same on all noise levels, since it is ours before and after."""
    params = {**defaults(maker.kind), **maker.inputs}
    if any(isinstance(value, Wire) for value in params.values()):
        raise Left(f"the settings of {maker.title} are wired")
    found = sampler_with(sampler_nodes()[maker.kind], params)
    return Solver(**{**vars(found), "to_zero": False})
