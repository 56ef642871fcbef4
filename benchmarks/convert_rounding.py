"""Where the largest differences of converted graphs come from: a table of docs/convert.md.

    python benchmarks/convert_rounding.py      about a minute

ComfyUI's `uni_pc` computes the log-SNR and its weights in float32, and its `deis` sums its integrals over 10000 points.
Each graph is run by ComfyUI, by its own sampler with that arithmetic in float64 (for `deis` with ten times the points),
and converted; the model is in float32 in all three. Differences are rms over rms, the largest of the graphs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from stepwise.benchmarks import _conversions as graphs
from stepwise.benchmarks._exact_core import exact
from stepwise.benchmarks.convert import given_to, run, write
from stepwise.convert import converted
from stepwise.tools.generate.markdown import table
from stepwise.tools.measure.host import load_host

POINTS = 100_000
SCHEDULERS = ("simple", "karras", "normal", "sgm_uniform", "linear_quadratic")
FAMILIES = {"EPS and V": ("EPS", "V_PREDICTION"), "FLOW and FLUX": ("FLOW", "FLUX")}
ROWS = (("uni_pc", 8), ("uni_pc_bh2", 8), ("deis", 8))


@dataclass(frozen=True)
class Differences:
    """Of one graph: ours from ComfyUI's, ComfyUI's from its own made exact, and ours from that."""

    ours: float
    theirs: float
    ours_exact: float

    def largest(self, other: "Differences") -> "Differences":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Differences(*(max(pair) for pair in pairs))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).square().mean().sqrt() / b.square().mean().sqrt()).item()


def differences(case: graphs.Case) -> Differences:
    made, _ = converted(case.graph)
    given = given_to(case)
    theirs, ours = run(case.graph, given), run(made, given)
    with exact(case.sampler, POINTS):
        better = run(case.graph, given)
    return Differences(relative(ours, theirs), relative(theirs, better), relative(ours, better))


def cases(sampler: str, steps: int, families: tuple[str, ...]) -> Iterator[graphs.Case]:
    """As KSampler runs it on these schedulers, and in a part of a schedule, without guidance."""
    for family in families:
        made = {f"KSampler {name}": graphs.ksampler(sampler, name, 1.0, steps=steps) for name in SCHEDULERS}
        part = graphs.advanced(sampler, "simple", 1.0, (2, 5), return_with_leftover_noise="disable", steps=steps)
        for name, graph in {**made, "KSamplerAdvanced": part}.items():
            yield graphs.Case(f"{sampler}, {name}, {family}", family, graph, 1.0, sampler)


def worst(sampler: str, steps: int, families: tuple[str, ...]) -> tuple[int, Differences]:
    found = [differences(case) for case in cases(sampler, steps, families)]
    largest = found[0]
    for each in found[1:]:
        largest = largest.largest(each)
    return len(found), largest


def rounding_table() -> str:
    rows = []
    for sampler, steps in ROWS:
        for said, families in FAMILIES.items():
            count, off = worst(sampler, steps, families)
            rows.append((f"`{sampler}`", f"{steps}", said, f"{count}", *(f"{each:.1e}" for each in vars(off).values())))
    head = ("Sampler", "Steps", "Models", "Graphs", "ours from ComfyUI's", "ComfyUI's from its own made exact")
    return table((*head, "ours from that"), rows)


def main() -> None:
    load_host()
    write("rounding", rounding_table())


if __name__ == "__main__":
    main()
