"""Plans of a part of a schedule, such as the first half that ComfyUI's SplitSigmas gives.

A solver that remembers earlier predictions drops them at the end of its schedule. At the end of a part they are kept,
so that a plan of the whole schedule can go on from there: exactly, where it would have begun in the same way.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from .plan import Plan, Stage, State

# Levels below the end, as fractions of it: as many as any solver here looks back.
BEYOND = (0.8, 0.6, 0.45, 0.3, 0.2)


def open_ended(made: Callable[[Sequence[float]], Plan], sigmas: Sequence[float]) -> Plan:
    """The plan of `sigmas`; where they end above 0, it leaves what a longer one would go on with.

    A solver that plans by the end or the length of its schedule would begin a longer one in another way; it leaves x.
    """
    plan = made(sigmas)
    if sigmas[-1] == 0.0:
        return plan
    longer = made((*sigmas, *(fraction * sigmas[-1] for fraction in BEYOND)))
    stages = longer.stages[: len(plan.stages)]
    if beginning(plan, stages) != plan:
        return plan
    return beginning(plan, stages, stages[-1].keeps)


def beginning(plan: Plan, stages: tuple[Stage, ...], leaves: tuple[str, ...] = ("x",)) -> Plan:
    """A plan of these `stages` alone, which are the first of `plan` or of another one on the same levels."""
    steps = stages[-1].step + 1 if stages else 0
    return Plan(plan.path, plan.sigmas[: steps + 1], stages, leaves)


def carried_over(state: State, old: Plan, new: Plan) -> State | None:
    """`state`, reached under `old`, as one of `new`; None unless `new` would have come to it in the same way."""
    done = state.index
    if done > len(new.stages):
        return None
    keeps = new.stages[done - 1].keeps if done else ("x",)
    if not set(keeps) <= set(state.registers):
        return None
    if beginning(old, old.stages[:done], keeps) != beginning(new, new.stages[:done], keeps):
        return None
    return replace(state, registers={name: state.registers[name] for name in keeps})
