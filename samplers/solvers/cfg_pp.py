"""CFG++: any solver, on a guided image that keeps the noise of the unconditional prediction."""

from collections.abc import Sequence
from typing import Annotated

from ..parameters import Param
from ..path import Path
from ..plan import Operand, Row, Stage, row

CfgPP = Annotated[
    bool,
    Param(
        "CFG++: guide the clean image only and keep the noise of the negative prompt. For guidance scales from 0 to 1. "
        "It needs a GUIDER with a negative prompt.",
        rare=True,
    ),
]


def with_cfg_pp(path: Path, stages: list[Stage], wanted: bool) -> list[Stage]:
    """The stages of a solver, with CFG++ where it is wanted."""
    return guided_stages(path, stages) if wanted else stages


def guided_stages(path: Path, stages: Sequence[Stage]) -> list[Stage]:
    """CFG++ in each step: the solver goes on from x + alpha_s (denoised - uncond)   (Chung et al. 2024, algorithm 2).

    That state is alpha_s denoised + s (x - alpha_s uncond) / s: the guided image with the noise of the unconditional
    prediction. With DDIM and Euler x_t = alpha_t denoised + t (x - alpha_s uncond) / s, the paper's step, which is
    guidance of scale / (1 - e^-h) with h the step in half log-SNR: the same scale guides more in more steps.

    The state changes at the first call of a step, where it is first read after it is last set there; the solver's other
    calls in the step, and its memory of denoised predictions, are as they were.
    """
    result: list[Stage] = []
    for stage in stages:
        opens = not result or result[-1].step != stage.step
        rows = with_jump(stage.rows, path.alpha(stage.sigma)) if opens else stage.rows
        result.append(stage._replace(rows=rows))
    return result


def jump(alpha: float) -> Row:
    """x + alpha (denoised - uncond)."""
    return row("x", {"x": 1.0, "denoised": alpha, "uncond": -alpha})


def jumped_past(path: Path, sigmas: Sequence[float], step: int, names: Sequence[str]) -> tuple[Row, ...]:
    """`jump`, and what it does to the past of a trajectory: kept as x - denoised at the levels before, newest first.

    A state that jumps by d at s has come along another trajectory of the same denoised image, at every level sigma
    farther by d sigma / s. Without it a memory of slopes would take the jumps for a change of the slope.
    """
    s = sigmas[step]
    rows = [jump(path.alpha(s))]
    for name, sigma in zip(names, reversed(sigmas[:step]), strict=False):
        share = path.alpha(s) * sigma / s
        rows.append(row(name, {name: 1.0, "denoised": share, "uncond": -share}, weight=0.0))
    return tuple(rows)


def with_jump(rows: Sequence[Row], alpha: float) -> tuple[Row, ...]:
    """`rows` with `jump` before the first of them that reads x; put into it where it alone does."""
    readers = [i for i, r in enumerate(rows) if "x" in r.reads]
    if not readers:
        return tuple(rows)
    first = readers[0]
    if rows[first].target == "x":
        return (*rows[:first], jumped(rows[first], alpha), *rows[first + 1 :])
    return (*rows[:first], jump(alpha), *rows[first:])


def jumped(r: Row, alpha: float) -> Row:
    """A row that reads x, with `jump` in its place."""
    terms: dict[Operand, float] = dict(r.terms)
    terms["denoised"] = terms.get("denoised", 0.0) + alpha * terms["x"]
    terms["uncond"] = terms.get("uncond", 0.0) - alpha * terms["x"]
    return row(r.target, terms, r.weight)._replace(silenced=r.silenced)
