"""Whether a plan alone can tell that a run will go wrong, by how much its steps multiply errors of predictions.

    python benchmarks/amplified.py

A run is bad when its error is above .3 and 1.5 times that of Euler on the same schedule. All solvers without noise run
on all schedules in 2 to 20 steps and at four scales of guidance on a mixture of Gaussians whose predictions are exact,
and each plan is given a number by every criterion. For each limit of a criterion the table says how many of the runs
that it warns of are bad (precision), and how many of the bad ones it warns of (recall). None is right often enough to
be worth reading, so Check Sigmas does not warn.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise, product
from pathlib import Path as File

import torch
from stepwise.samplers import FLOW, VE, Path, Plan, run, start
from stepwise.samplers.exact import Mixture, mixture, relative_rms
from stepwise.samplers.registry import SOLVERS
from stepwise.samplers.schedules import (
    exponential,
    flow,
    karras,
    kl_optimal,
    laplace,
    linear_quadratic,
    polyexponential,
)

ROOT = File(__file__).resolve().parents[1]
SCALES = (1.0, 3.0, 7.5, 15.0)
COUNTS = (2, 3, 4, 5, 6, 8, 10, 15, 20)
STARTS, FINE = 16, 400
SIGMA_MIN, SIGMA_MAX = 0.03, 14.6
BAD, WORSE_THAN_EULER = 0.3, 1.5
LIMITS = (3.0, 6.0, 10.0, 20.0, 50.0, 100.0)
RANGE = {"sigma_min": SIGMA_MIN, "sigma_max": SIGMA_MAX}
SCHEDULES: dict[Path, dict[str, Callable[[int], tuple[float, ...]]]] = {
    VE: {
        "Karras": lambda n: karras(n, **RANGE),
        "Exponential": lambda n: exponential(n, **RANGE),
        "Polyexponential": lambda n: polyexponential(n, rho=2.0, **RANGE),
        "Laplace": lambda n: laplace(n, **RANGE),
        "KL-Optimal": lambda n: kl_optimal(n, **RANGE),
    },
    FLOW: {
        "Flow 1": lambda n: flow(n, shift=1.0),
        "Flow 3": lambda n: flow(n, shift=3.0),
        "Linear-Quadratic": linear_quadratic,
    },
}


@cache
def data() -> tuple[Mixture, Mixture]:
    """What the positive prompt asks for, two of the components, and all of them."""
    whole = mixture()
    part = Mixture(whole.means[:2], whole.variances[:2], whole.weights[:2] / whole.weights[:2].sum())
    return part, whole


def guided(path: Path, scale: float) -> Callable[[torch.Tensor, float], torch.Tensor]:
    part, whole = data()

    def denoiser(x: torch.Tensor, sigma: float) -> torch.Tensor:
        uncond = whole.denoised(path, x, sigma)
        return uncond if scale == 0.0 else uncond + scale * (part.denoised(path, x, sigma) - uncond)

    return denoiser


@cache
def problem(path: Path, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Starts, and where the probability-flow ODE leads from them, by many small steps of Heun."""
    top = SIGMA_MAX if path is VE else 1.0
    x = data()[1].sample(path, top, STARTS)
    fine = karras(FINE, **RANGE) if path is VE else flow(FINE, shift=3.0)
    heun = next(each.plan for each in SOLVERS if each.id == "Heun")
    return x, run(heun(path, fine), guided(path, scale), start(x)).x


def step_factors(plan: Plan) -> Iterator[float]:
    """For each step: sum |w| / |sum w| of the weights that x gets of predictions, those inside the step included."""
    registers: dict[str, dict[object, float]] = {"x": {"x": 1.0}}
    step = -1
    for call, stage in enumerate(plan.stages):
        if stage.step != step:
            if step >= 0:
                yield factor(registers["x"])
            step, registers["x"] = stage.step, {"x": 1.0}
        registers |= {"denoised": {call: 1.0}}
        for each in stage.rows:
            made: dict[object, float] = {}
            for operand, value in each.terms:
                for key, share in registers[operand].items() if isinstance(operand, str) else ():
                    made[key] = made.get(key, 0.0) + value * share
            registers[each.target] = made
    yield factor(registers["x"])


def factor(weights: dict[object, float]) -> float:
    of_predictions = [value for key, value in weights.items() if key != "x"]
    total = abs(sum(of_predictions))
    return sum(map(abs, of_predictions)) / total if total else 0.0


def one_call_factor(plan: Plan) -> float:
    """What Check Sigmas of 0.1.0 warned of above 6: only within one row, which two-call solvers do not show."""
    found = [0.0]
    for each in (each for stage in plan.stages for each in stage.rows if each.target == "x" and not each.draws):
        weights = [value for operand, value in each.terms if operand != "x"]
        if gain := abs(sum(weights)):
            found.append(sum(map(abs, weights)) / gain)
    return max(found)


def widest_ratio(plan: Plan) -> float:
    """How much longer a step is than the one before it, in half log-SNR; the step to 0 apart."""
    lams = [lam for lam in map(plan.path.lam, plan.sigmas) if math.isfinite(lam)]
    lengths = [b - a for a, b in pairwise(lams)]
    return max((b / a for a, b in pairwise(lengths)), default=0.0)


CRITERIA: dict[str, Callable[[Plan], float]] = {
    "within one row (0.1.0)": one_call_factor,
    "largest step": lambda plan: max(step_factors(plan)),
    "product of the steps": lambda plan: math.prod(max(each, 1.0) for each in step_factors(plan)),
    "longest step to the one before": widest_ratio,
    "longest step in half log-SNR": lambda plan: max(
        (b - a for a, b in pairwise([lam for lam in map(plan.path.lam, plan.sigmas) if math.isfinite(lam)])),
        default=0.0,
    ),
}


def runs() -> Iterator[tuple[bool, dict[str, float]]]:
    """Every run: whether it is bad, and what each criterion says of its plan."""
    for path, scale in product(SCHEDULES, SCALES):
        x, exact = problem(path, scale)
        for name, n in product(SCHEDULES[path], COUNTS):
            sigmas = SCHEDULES[path][name](n)
            errors = {}
            for solver, plan in plans(path, sigmas):
                errors[solver] = relative_rms(run(plan, guided(path, scale), start(x)).x, exact), plan
            euler = errors["Euler"][0]
            for solver, (error, plan) in errors.items():
                if solver != "Euler":
                    bad = not error <= max(BAD, WORSE_THAN_EULER * euler)
                    yield bad, {criterion: of(plan) for criterion, of in CRITERIA.items()}


def plans(path: Path, sigmas: Sequence[float]) -> Iterator[tuple[str, Plan]]:
    """The solvers without noise at their defaults."""
    for solver in SOLVERS:
        plan = solver.plan(path, sigmas, **({"eta": 0.0} if "eta" in solver.parameters else {}))
        if not any(each.draws for stage in plan.stages for each in (*stage.opening, *stage.rows)):
            yield solver.id, plan


def main() -> None:
    torch.set_num_threads(1)
    found = list(runs())
    bad = sum(each for each, _ in found)
    print(f"{len(found)} runs, {bad} of them bad\n")
    print(f"{'criterion':32} {'limit':>6} {'warned of':>10} {'of these bad':>13} {'precision':>10} {'recall':>7}")
    for criterion in CRITERIA:
        for limit in LIMITS:
            warned = [each for each, values in found if values[criterion] > limit]
            hits = sum(warned)
            precision = hits / len(warned) if warned else math.nan
            row = f"{len(warned):>10} {hits:>13} {precision:>10.2f} {hits / bad:>7.2f}"
            print(f"{criterion:32} {limit:>6g} {row}")


if __name__ == "__main__":
    sys.exit(main())
