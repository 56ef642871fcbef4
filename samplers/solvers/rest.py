"""Runs whose first steps leave x as it is."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..plan import Plan, Stage, State


def rested(plan: Plan, steps: int, make: Callable[[Sequence[float]], Plan]) -> Plan:
    """`plan`, but that its first `steps` steps leave x as it is, each with one stage that has no rows.

    What follows is the plan that `make` gives of the rest of the schedule: whatever the solver, it adds no noise
    before, and remembers nothing of steps that it has not made.
    """
    if steps == 0:
        return plan
    still = tuple(Stage(sigma, (), step) for step, sigma in enumerate(plan.sigmas[:steps]))
    if steps >= plan.steps:
        return Plan(plan.path, plan.sigmas, still)
    later = make(plan.sigmas[steps:])
    moved = tuple(stage._replace(step=stage.step + steps) for stage in later.stages)
    return Plan(plan.path, plan.sigmas, (*still, *moved), later.leaves)


def placed(state: State, plan: Plan, step: int) -> State:
    """`state`, which stands after `step` steps under another plan of the same solver and schedule, as one of `plan`.

    What `plan` would remember and the state does not have takes the newest of its kind; before there is any, a
    prediction is x, and a slope 0, which is what a step that rests amounts to.
    """
    index = plan.first_stage(step)
    weights = {row.target: row.weight for stage in plan.stages for row in (*stage.opening, *stage.rows)}
    registers = dict(state.registers)
    for name in plan.stages[index - 1].keeps if index else ():
        if name not in state.registers:
            kind = sorted(known for known in state.registers if known[:-1] == name[:-1])
            other = state.x if weights[name] == 1.0 else state.x.new_zeros(state.x.shape)
            registers[name] = state.registers[kind[-1]] if kind else other
    return replace(state, registers=registers, index=index)
