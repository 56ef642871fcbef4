"""What Detail does to the law of the result: the table of docs/guidance.md.

    python benchmarks/detail.py            about 2 minutes on one core; fills what stands between the marks of the page
    python benchmarks/detail.py --quick    a few seconds; prints a small table and writes nothing

On a mixture of Gaussians whose predictions are exact, and on the Digits model in the real ComfyUI through this pack's
nodes. docs/guidance.md says what the columns are.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from stepwise.demo.classifier import accuracy
from stepwise.samplers import VE, run, start
from stepwise.samplers.detail import told_level
from stepwise.samplers.exact import mixture
from stepwise.samplers.registry import SOLVERS
from stepwise.samplers.schedules import karras
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate import generated, markdown
from stepwise.tools.measure.digits import CHUNK, Samples, digits
from stepwise.tools.measure.host import Guided, load_host, node
from stepwise.tools.measure.judge import Referee, full_ink

PAGE = ROOT / "docs" / "guidance.md"
STEPS, GUIDANCE = 20, 1.5
AMOUNTS = (-0.2, -0.1, 0.0, 0.05, 0.1, 0.2, 0.3)
HEAD = ("amount", "", "mixture: deviation", "digits: read right", "spread", "Frechet", "full ink")


def deviation(params: Mapping[str, Any], count: int) -> float:
    """Of values of the mixture around the nearest mean, over that of its data."""
    data = mixture()
    solver = next(solver for solver in SOLVERS if solver.id == "DPMpp2M")
    plan = solver.plan(VE, karras(60, sigma_max=14.6146, sigma_min=0.0292))

    def told(x: torch.Tensor, sigma: float) -> torch.Tensor:
        level = told_level(torch.tensor([sigma], dtype=torch.float64), VE, **params)
        return data.denoised(VE, x, level.item())

    made = run(plan, told, start(data.sample(VE, plan.sigmas[0], count))).x
    distances = (made[:, None] - data.means).square().mean(-1)
    nearest = distances.argmin(-1)
    return float((distances.amin(-1) / data.variances[nearest]).mean().sqrt())


def drawn(params: Mapping[str, Any], count: int) -> Samples:
    """Digits from the same noise for every amount."""
    (model,) = node("StepwiseDetail", model=digits("standard"), **params)
    (positive,), (negative,) = node("StepwiseDigit", labels="0-9"), node("StepwiseDigit", labels="")
    guided = Guided(model, positive, negative, GUIDANCE)
    made = [
        guided.sample("DPMpp2M", "Karras", STEPS, at, torch.zeros(min(CHUNK, count - at), 1, 8, 8))[0]
        for at in range(0, count, CHUNK)
    ]
    return Samples(torch.cat(made), 0.0)


def table(per_class: int, values: int) -> str:
    referee, rows = Referee(per_class), list[tuple[str, ...]]()
    for amount in AMOUNTS:
        for shape in ("hump", "constant") if amount else ("",):
            params = {"amount": amount} | ({"shape": shape} if shape else {})
            made = drawn(params, 10 * per_class)
            judged = (
                f"{accuracy(referee.judge, made.images, made.labels):.1%}",
                f"{referee.spread(made.images, made.labels):.2f}",
                f"{referee.frechet(made.images, made.labels):.1f}",
                f"{full_ink(made.images):.1%}",
            )
            rows.append((f"{amount:g}", shape, f"{deviation(params, values):.2f}", *judged))
    return markdown.table(HEAD, rows, figures=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run that writes nothing")
    given = parser.parse_args()
    load_host()
    made = table(*((2, 50) if given.quick else (20, 2000)))
    print(made)
    if not given.quick:
        generated.write({PAGE: markdown.filled(PAGE.read_text(encoding="utf-8"), made, "detail")})


if __name__ == "__main__":
    main()
