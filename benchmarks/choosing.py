"""Which sampler and schedule to take with so many model calls: docs/choosing.md, its picture and docs/choosing.json.

    python benchmarks/choosing.py            half an hour on two cores; writes all three
    python benchmarks/choosing.py --quick    a minute; prints a small table and writes nothing
    python benchmarks/choosing.py --page     the page and the picture anew from docs/choosing.json

Every solver runs on every schedule with 3 to 50 model calls and at three scales of guidance, from 64 starts, on the
Digits model and on a mixture of Gaussians, in ComfyUI, through this pack's own nodes. What counts is the distance to
the exact solution of the ODE from the same start. A solver with several calls a step takes as many steps as its calls
allow.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from _choosing_page import DATA, Result, advice, page_of, write_page
from stepwise.samplers import VE
from stepwise.samplers.registry import SOLVERS
from stepwise.samplers.schedules import karras
from stepwise.tools.measure.digits import sample_digits
from stepwise.tools.measure.host import Guided, load_host, node
from torch import Tensor

SEED = 20_000
# At the defaults of their nodes.
CHOSEN = ("DDIM", "DPMSolver", "DPMpp2M", "DPMpp3M", "UniPC", "DEIS", "LMS", "RESMultistep")
SCHEDULES = ("Karras", "Exponential", "Timestep", "Beta", "KLOptimal")
CALLS, GUIDANCES, STARTS = (3, 5, 8, 12, 20, 50), (1.0, 3.0, 7.5), 64
MODELS = ("Digits", "Mixture")
# The solution itself: this many steps of it, and half of them to tell how far it is from its limit.
EXACT = ("UniPC", "Karras", 128)
PLANS = {solver.id: solver.plan for solver in SOLVERS}


@dataclass(frozen=True)
class Size:
    solvers: tuple[str, ...] = CHOSEN
    schedules: tuple[str, ...] = SCHEDULES
    calls: tuple[int, ...] = CALLS
    guidances: tuple[float, ...] = GUIDANCES
    starts: int = STARTS
    exact_steps: int = EXACT[2]


QUICK = Size(CHOSEN[1:4], SCHEDULES[:2], (3, 8), (1.0, 7.5), 8, 32)


@cache
def calls_of(solver: str, steps: int) -> int:
    """Model calls of so many steps to 0."""
    return len(PLANS[solver](VE, karras(steps)).stages)


def steps_for(solver: str, calls: int) -> int:
    """The most steps that take at most so many calls; 0 where one step takes more."""
    return max((steps for steps in range(1, calls + 1) if calls_of(solver, steps) <= calls), default=0)


@dataclass(frozen=True)
class Job:
    model: str
    guidance: float
    solver: str
    schedule: str
    steps: int
    starts: int

    @property
    def cost(self) -> float:
        each = 20.0 if self.model == "Digits" else 1.0
        return calls_of(self.solver, self.steps) * self.starts * each * (1 + (self.guidance != 1.0))

    def run(self) -> Tensor:
        """The results, a row for each start."""
        run = (self.solver, self.schedule, self.steps)
        if self.model == "Digits":
            return sample_digits(*run, "standard", self.guidance, SEED, self.starts)[0].flatten(1)
        model, positive, negative, _ = mixture_of()
        guided = Guided(model, positive, negative, self.guidance)
        return guided.sample(*run, SEED, torch.zeros(self.starts, 16, 1, 1))[0].flatten(1)


@cache
def mixture_of() -> tuple[Any, ...]:
    return node("StepwiseMixtureModel", family="EPS", dimensions=16, prompt="0, 1", size=64)


def jobs_of(size: Size) -> list[Job]:
    """All runs, each once: different numbers of calls may allow the same number of steps."""
    steps = {(solver, n) for solver in size.solvers for calls in size.calls if (n := steps_for(solver, calls))}
    runs = [(solver, schedule, n) for solver, n in steps for schedule in size.schedules]
    runs += [(*EXACT[:2], size.exact_steps), (*EXACT[:2], size.exact_steps // 2)]
    return [Job(model, guidance, *run, size.starts) for model in MODELS for guidance in size.guidances for run in runs]


def done(jobs: Sequence[Job], pool: ProcessPoolExecutor) -> dict[Job, Tensor]:
    total, finished, started = sum(job.cost for job in jobs), 0.0, time.monotonic()
    results: dict[Job, Tensor] = {}
    futures = {pool.submit(job.run): job for job in sorted(jobs, key=lambda job: -job.cost)}
    for future in as_completed(futures):
        job = futures[future]
        results[job] = future.result()
        finished += job.cost
        if len(results) % 50 == 0 or len(results) == len(jobs):
            elapsed = time.monotonic() - started
            left = elapsed / finished * (total - finished)
            print(f"{len(results)}/{len(jobs)}  {elapsed:.0f} s, about {left:.0f} s left", file=sys.stderr, flush=True)
    return results


def errors(made: Tensor, exact: Tensor) -> Tensor:
    """Of each start: root mean square error, over that of all exact results."""
    made, exact = made.double(), exact.double()
    return (made - exact).square().mean(1).sqrt() / exact.square().mean().sqrt()


def results_of(size: Size, runs: dict[Job, Tensor]) -> list[Result]:
    found = []
    for model in MODELS:
        for guidance in size.guidances:
            solution, half = (
                runs[Job(model, guidance, *EXACT[:2], steps, size.starts)]
                for steps in (size.exact_steps, size.exact_steps // 2)
            )
            found.append(Result.of(model, guidance, "exact", "half the steps", 0, errors(half, solution).tolist()))
            for solver in size.solvers:
                for schedule in size.schedules:
                    for calls in size.calls:
                        if steps := steps_for(solver, calls):
                            made = runs[Job(model, guidance, solver, schedule, steps, size.starts)]
                            each = errors(made, solution).tolist()
                            found.append(Result.of(model, guidance, solver, schedule, calls, each))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run that writes nothing")
    parser.add_argument("--page", action="store_true", help="the page from what was measured before")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 8), help="processes, about 1 GB each")
    given = parser.parse_args()
    if given.page:
        write_page([Result.read(each) for each in json.loads(DATA.read_text(encoding="utf-8"))])
        return
    size, started = QUICK if given.quick else Size(), time.monotonic()
    with ProcessPoolExecutor(given.workers, multiprocessing.get_context("spawn"), load_host) as pool:
        found = results_of(size, done(jobs_of(size), pool))
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    if given.quick:
        print(advice(found), page_of(found), sep="\n")
        return
    lines = ",\n".join(json.dumps(each.data()) for each in found)
    DATA.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    write_page(found)


if __name__ == "__main__":
    main()
