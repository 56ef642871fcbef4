"""Which schedule gives the noise levels of a scheduler of ComfyUI's, in KSampler (Stepwise)."""

import math
from typing import Any

from .graph import Graph, Node, Wire, is_number
from .solvers import UNKNOWN, Left, name_in
from .table import table

TO_ZERO = ("BasicScheduler", "KarrasScheduler", "ExponentialScheduler", "PolyexponentialScheduler", "VPScheduler")
TO_ZERO += ("BetaSamplingScheduler", "AlignYourStepsScheduler", "OptimalStepsScheduler", "Flux2Scheduler")
TO_ZERO += ("LTXVScheduler", "LaplaceScheduler", "SDTurboScheduler")


def schedule_of(graph: Graph, node: Node, sampler: str) -> dict[str, Any]:
    """The inputs `schedule` and its settings: the schedule of that name where one row has it on every family and takes
    denoise as ComfyUI does, else By Name."""
    name = name_in(graph, node, "scheduler", "its scheduler")
    check_amplified(sampler, name)
    dropped = sampler in table()["without_penultimate"]
    row = table()["schedulers"].get(name) if isinstance(name, str) else None
    if row is not None and not dropped and same_tail(graph, node):
        return {"schedule": row["name"], **{f"schedule.{key}": value for key, value in row["params"].items()}}
    if name not in table()["names"]:
        raise Left(f"the scheduler {name!r} {UNKNOWN}")
    by_name = {"scheduler": name, "for_sampler": sampler if dropped else "other"}
    return {"schedule": table()["by_name"], **{f"schedule.{key}": value for key, value in by_name.items()}}


def same_tail(graph: Graph, node: Node) -> bool:
    """Whether `denoise` takes as many steps as ComfyUI does: there int(steps / denoise) in floating point."""
    denoise, steps = (graph.shown(node, name) for name in ("denoise", "steps"))
    if "denoise" not in node.inputs or denoise == 1.0:
        return True
    if not is_number(denoise) or not is_number(steps) or not denoise or denoise > 0.9999:
        return False
    return int(steps / denoise) == math.floor(steps / denoise * (1.0 + 1e-12))


def check_to_zero(graph: Graph, wire: Wire | None, sampler: str) -> None:
    """For a solver whose end is ComfyUI's only on schedules of two steps or more that end at 0."""
    found = graph.source(wire)
    if found is not None and found[0].kind in TO_ZERO:
        steps = graph.number(found[0].inputs.get("steps"))
        if steps is None or steps >= 2:
            return
    elif found is not None and found[0].kind == "ManualSigmas":
        levels = str(found[0].typed("sigmas")).replace(",", " ").split()
        if len(levels) > 2 and levels[-1].strip("0") in ("", "."):
            return
    raise Left(f"{sampler} is that of ComfyUI on schedules of two steps or more that end at 0, and this may be none")


def check_amplified(sampler: str, scheduler: Any) -> None:
    if [sampler, scheduler] in table()["amplified"]:
        raise Left(f"{sampler} on {scheduler} amplifies rounding: the two pictures would be 1e-4 apart")


def check_levels(graph: Graph, wire: Wire | None, sampler: str, to_zero: bool) -> None:
    """Raises Left for noise levels on which a sampler is not known to be that of ComfyUI."""
    found = graph.source(wire)
    if found is not None and found[0].kind == "BasicScheduler":
        check_amplified(sampler, graph.constant(found[0].inputs.get("scheduler")))
    if found is not None and found[0].kind == "FlipSigmas":
        raise Left("it goes upwards from 0.0001, where rounding is amplified: the two pictures would be 1e-4 apart")
    if to_zero:
        check_to_zero(graph, wire, sampler)
