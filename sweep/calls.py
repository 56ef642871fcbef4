"""How many model calls a cell takes, as far as its prompt says."""

from collections.abc import Mapping
from functools import cache
from typing import Any

PREFIX = "Stepwise"
MOST = 10_000


def calls_of(prompt: Mapping[str, Any]) -> int:
    """The model calls of all nodes that sample. Of Stepwise's the plan counts them; of other nodes their steps, which
    is a call less than some solvers take."""
    return sum(of_node(prompt, node) for node in prompt.values())


def of_node(prompt: Mapping[str, Any], node: Mapping[str, Any]) -> int:
    inputs, kind = node.get("inputs", {}), node["class_type"]
    name = inputs.get("solver") if kind == "StepwiseKSampler" else kind.removeprefix(PREFIX)
    solver = solvers().get(str(name)) if kind.startswith(PREFIX) else None
    steps = number(inputs.get("steps")) if "steps" in inputs else steps_of(prompt, inputs.get("sigmas"))
    if solver is None:
        # What makes noise levels has steps too, and calls no model.
        return steps if "sampler_name" in inputs or "sampler" in inputs else 0
    first, last = number(inputs.get("start_step")), min(number(inputs.get("end_step", MOST)), steps)
    if last <= first:
        return 0
    before = "solver." if kind == "StepwiseKSampler" else ""
    given = {each: inputs[before + each] for each in solver.parameters if written(inputs.get(before + each))}
    return of_plan(str(name), steps, first, last, tuple(sorted(given.items())))


@cache
def of_plan(name: str, steps: int, first: int, last: int, given: tuple[tuple[str, Any], ...]) -> int:
    """The stages of a plan on any schedule of so many steps that ends at 0."""
    from ..samplers import VE

    sigmas = tuple(14.6 * (1 - place / steps) ** 3 for place in range(steps + 1))
    try:
        plan = solvers()[name].plan(VE, sigmas, **dict(given))
    except (TypeError, ValueError):
        return last - first
    return sum(first <= stage.step < last for stage in plan.stages)


@cache
def solvers() -> dict[str, Any]:
    """Stepwise's solvers by their names and by those of their nodes; none where there is no torch to load them with."""
    try:
        from ..samplers.registry import SOLVERS
    except ModuleNotFoundError:
        return {}
    return {name: each for each in SOLVERS for name in (each.name, each.id)}


def steps_of(prompt: Mapping[str, Any], wire: Any) -> int:
    """The steps of the schedule that a wire leads to."""
    for _ in range(len(prompt)):
        if not isinstance(wire, list) or len(wire) != 2 or wire[0] not in prompt:
            return 0
        inputs = prompt[wire[0]].get("inputs", {})
        if "steps" in inputs:
            return number(inputs["steps"])
        wire = next((inputs[name] for name in ("sigmas", "first", "model") if name in inputs), None)
    return 0


def written(value: Any) -> bool:
    """Whether a node has a value; not a wire, which says nothing of it."""
    return isinstance(value, str | int | float)


def number(value: Any) -> int:
    return value if isinstance(value, int) else 0
