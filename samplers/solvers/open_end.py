"""Plans of a part of a schedule, such as the first half that ComfyUI's SplitSigmas gives.

A solver that remembers earlier predictions drops them at the end of its schedule. At the end of a part they are kept,
so that a plan of the whole schedule can go on from there: exactly, where it would have begun in the same way.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import unwrap

from ..parameters import Value
from ..path import Path
from ..plan import Plan, Stage, State, ascends, pruned, staged

# Levels beyond the end, as fractions of it or of what it is a fraction of: as many as any solver here looks back.
BEYOND = (0.8, 0.6, 0.45, 0.3, 0.2)


def open_ended(solver: Callable[..., Plan], path: Path, sigmas: Sequence[float], params: Mapping[str, Value]) -> Plan:
    """The plan of a `planned` solver; where `sigmas` end above 0, it leaves what a longer one would go on with.

    A solver that plans by the end or the length of its schedule would begin a longer one in another way; it leaves x.
    """
    stages_of: Callable[..., Sequence[Stage]] = partial(staged, unwrap(solver))
    stages, leaves = stages_of(path, sigmas, **params), ("x",)
    if beyond := levels_beyond(path, sigmas):
        longer = pruned(stages_of(path, (*sigmas, *beyond), **params), leaves)[: len(stages)]
        if pruned(longer, leaves) == pruned(stages, leaves):
            stages, leaves = longer, longer[-1].keeps
    return Plan(path, tuple(sigmas), tuple(stages), leaves)


def levels_beyond(path: Path, sigmas: Sequence[float]) -> tuple[float, ...]:
    """How a schedule may go on in its direction: nowhere from 0, nor from where there is no more noise to be had."""
    end = sigmas[-1]
    if not ascends(sigmas):
        return tuple(fraction * end for fraction in BEYOND) if end > 0.0 else ()
    if path.is_noise(end):
        return ()
    ratio = end / path.alpha(end)
    return tuple(path.sigma(-math.log(ratio / fraction)) for fraction in BEYOND)


def carried_over(state: State, old: Plan, new: Plan) -> State | None:
    """`state`, reached under `old`, as one of `new`; None unless `new` would have come to it in the same way."""
    done = state.index
    if done > len(new.stages):
        return None
    keeps = new.stages[done - 1].keeps if done else ("x",)
    if not set(keeps) <= set(state.registers):
        return None
    if beginning(old, done, keeps) != beginning(new, done, keeps):
        return None
    # Adaptive steps look at a register that their plan does not have.
    kept = {name: value for name, value in state.registers.items() if name in keeps or state.paces}
    return replace(state, registers=kept)


def beginning(plan: Plan, calls: int, leaves: Iterable[str]) -> tuple[Path, tuple[float, ...], tuple[Stage, ...]]:
    """What decides its first `calls` model calls, as far as `leaves` depend on them."""
    stages = pruned(plan.stages[:calls], leaves)
    steps = stages[-1].step + 1 if stages else 0
    return plan.path, plan.sigmas[: steps + 1], stages
