"""How long the plan of 10,000 steps takes, the most that a node offers, for every solver and setting of the registry.

    python benchmarks/plans.py      prints the slowest and fills them into docs/claims.md

Processor time, the best of three. tests/samplers/test_plans.py counts that it grows with the steps and no faster.
"""

import time

from stepwise.samplers import FLOW, VE
from stepwise.samplers.registry import SOLVERS
from stepwise.samplers.schedules import karras
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate import generated
from stepwise.tools.generate.markdown import filled, table

PAGE = ROOT / "docs" / "claims.md"
STEPS, TRIES, SHOWN = 10_000, 3, 5


def seconds(solver, params, path, sigmas) -> float:
    """The best of three, so that what else runs on the machine counts least."""
    found = []
    for _ in range(TRIES):
        begin = time.process_time()
        solver.plan(path, sigmas, **params)
        found.append(time.process_time() - begin)
    return min(found)


def main() -> None:
    levels = karras(STEPS)
    schedules = {VE: levels, FLOW: tuple(sigma / (1.0 + sigma) for sigma in levels)}
    rows = []
    for solver in SOLVERS:
        for setting in solver.settings:
            slowest = max(
                seconds(solver, setting.params, path, schedules[path])
                for path in (VE, FLOW)
                if path.name in setting.paths
            )
            name = ", ".join([solver.name, *(f"{key} {value}" for key, value in setting.params.items())])
            rows.append((name, f"{slowest:.2f}"))
            print(*rows[-1], flush=True)
    rows.sort(key=lambda row: -float(row[1]))
    text = table((f"Slowest plans of {STEPS:,} steps", "Seconds"), rows[:SHOWN], figures=True)
    generated.main({PAGE: filled(PAGE.read_text(encoding="utf-8"), text, "plans")})


if __name__ == "__main__":
    main()
