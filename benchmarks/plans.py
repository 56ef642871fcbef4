"""How long the plan of 10,000 steps takes, the most that a node offers, for every solver and setting of the registry.

    python benchmarks/plans.py      prints the slowest and fills them into docs/claims.md

Processor time, for the slowest the best of four, without Python's garbage collector, as `timeit` has it, and with it:
it goes through all that the process holds. That it grows with the steps and no faster is counted by
tests/samplers/test_plans.py.
"""

import gc
import time

from stepwise.samplers import FLOW, VE
from stepwise.samplers.registry import SOLVERS
from stepwise.samplers.schedules import karras
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate import generated
from stepwise.tools.generate.markdown import filled, table

PAGE = ROOT / "docs" / "claims.md"
STEPS, TRIES, AGAIN, SHOWN = 10_000, 3, 12, 5


def seconds(solver, setting, path, sigmas, collecting=False) -> float:
    gc.collect()
    try:
        if not collecting:
            gc.disable()
        begin = time.process_time()
        solver.plan(path, sigmas, **setting.params)
        return time.process_time() - begin
    finally:
        gc.enable()


def main() -> None:
    levels = karras(STEPS)
    schedules = {VE: levels, FLOW: tuple(sigma / (1.0 + sigma) for sigma in levels)}
    cases = [
        (solver, setting, path, schedules[path])
        for solver in SOLVERS
        for setting in solver.settings
        for path in schedules
        if path.name in setting.paths
    ]
    found = sorted(((seconds(*case), number) for number, case in enumerate(cases)), reverse=True)
    # The best of several tries, so that what else runs on the machine counts least.
    tried = [(min(first, *(seconds(*cases[number]) for _ in range(TRIES))), number) for first, number in found[:AGAIN]]
    rows = []
    for time_taken, number in sorted(tried, reverse=True)[:SHOWN]:
        solver, setting, path, _ = cases[number]
        settings = "".join(f", {key} {value}" for key, value in setting.params.items())
        collected = min(seconds(*cases[number], collecting=True) for _ in range(TRIES))
        rows.append((f"{solver.name}{settings} on {path!r}", f"{time_taken:.2f}", f"{collected:.2f}"))
    text = table((f"Slowest plans of {STEPS:,} steps", "Seconds", "With the collector"), rows, figures=True)
    print(text)
    generated.main({PAGE: filled(PAGE.read_text(encoding="utf-8"), text, "plans")})


if __name__ == "__main__":
    main()
