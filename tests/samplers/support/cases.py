"""What the tests iterate over: every registry entry with every setting, path and schedule."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product

import pytest
from stepwise.samplers import FLOW, VE, Path, Plan
from stepwise.samplers.parameters import InputError, parameters
from stepwise.samplers.registry import SCHEDULES, SOLVERS, Schedule, Setting, Solver
from stepwise.samplers.schedules import trained_sigmas
from stepwise.samplers.schedules.tables import Trained

TABLE = trained_sigmas()
STABLE_DIFFUSION = Trained(VE, TABLE)
Sigmas = tuple[float, ...]


@dataclass(frozen=True)
class Case:
    """One solver at one of its declared settings, on one path."""

    solver: Solver
    setting: Setting
    path: Path

    def plan(self, sigmas: Sequence[float]) -> Plan:
        return self.solver.plan(self.path, sigmas, **self.setting.params)

    def calls(self, sigmas: Sequence[float]) -> list[int]:
        """The model calls of each step that the setting declares, on a schedule that it does not run part of again."""
        steps, each = self.setting.opening
        steps += 1 if self.setting.log_snr and self.path.alpha(sigmas[0]) == 0.0 else 0
        return [
            (min(each, self.setting.calls_to_zero) if step < steps else self.setting.calls_to_zero)
            if t == 0.0
            else (each if step < steps else self.setting.calls)
            for step, t in enumerate(sigmas[1:])
        ]

    def __str__(self) -> str:
        values = ",".join(f"{name}={value}" for name, value in self.setting.params.items())
        return f"{self.solver.id}({values})-{self.path!r}"


CASES = [
    Case(solver, setting, Path[name]) for solver in SOLVERS for setting in solver.settings for name in setting.paths
]


def each_case(accepts: Callable[[Case], bool] = lambda case: True):
    """Parametrises a test by `case`."""
    return pytest.mark.parametrize("case", [case for case in CASES if accepts(case)], ids=str)


def solver(name: str) -> Callable[..., Plan]:
    return next(entry.plan for entry in SOLVERS if entry.id == name)


def variants(entry: Schedule, *chosen: str, wired: bool = False) -> Iterator[tuple[str, Callable[..., Sigmas]]]:
    """A schedule at every combination of its choices `chosen`, by default of its spacings alone: its name and the
    function from steps (and other parameters) to noise levels. `wired` to Stable Diffusion it has the model's range."""
    table = (TABLE,) if "table" in entry.takes else ()
    model = {name: getattr(STABLE_DIFFUSION, name) for name in entry.takes if name != "table"} if wired else {}
    wanted = chosen or ("spacing",)
    choices = {name: p.choices for name, p in parameters(entry.function).items() if p.choices and name in wanted}
    for values in product(*choices.values()):
        params = dict(zip(choices, values, strict=True))
        yield "-".join((entry.id, *values)), partial(entry.function, *table, **params, **model)


def flow_line(steps: int, shift: float = 1.0) -> Sigmas:
    """From 1 to 0 in equal steps, shifted: shift u / (1 + (shift - 1) u) as flow models are run."""
    line = [1.0 - i / steps for i in range(steps + 1)]
    return tuple(shift * u / (1.0 + (shift - 1.0) * u) for u in line)


@cache
def schedules(path: Path, steps: tuple[int, ...] = (1, 2, 3, 20), to_zero: bool = False) -> dict[str, Sigmas]:
    """Every schedule of the registry on `path`, to 0 and (unless `to_zero`) ending above 0, by name.

    A schedule that cannot give so many steps says so by InputError, and is left out at that number only. On FLOW the
    levels of a schedule that begins above 1 become sigma / (1 + sigma), which has their log-SNR, and lines from exactly
    1 come on top.
    """
    found: dict[str, Sigmas] = {}
    for n in steps:
        for entry in SCHEDULES:
            for name, function in variants(entry, wired=True):
                try:
                    found[f"{name}-{n}"] = function(n)
                except InputError:
                    assert n > 50, f"{name} refuses {n} steps"
    if path is FLOW:
        ratios = {name: tuple(s / (1.0 + s) for s in sigmas) for name, sigmas in found.items()}
        found = {name: found[name] if found[name][0] <= 1.0 else sigmas for name, sigmas in ratios.items()}
        found |= {f"line-{shift:g}-{n}": flow_line(n, shift) for n in steps for shift in (1.0, 3.0)}
    if not to_zero:
        found |= {f"{name}-cut": sigmas[:-1] for name, sigmas in found.items() if len(sigmas) > 2}
    return found


PLANS: dict[tuple[str, str], Plan] = {}
PLACES = {str(case): place for path in (VE, FLOW) for place, case in enumerate(c for c in CASES if c.path is path)}


def plans(case: Case, steps: tuple[int, ...] = (1, 2, 3, 9), to_zero: bool = False) -> Iterator[tuple[str, Plan]]:
    """The plans that `case` makes of every schedule, by the schedule's name.

    Unless `to_zero`, it has every other schedule without its last step, and the next case on this path has the others
    so.
    """
    for place, (name, sigmas) in enumerate(schedules(case.path, steps, to_zero=True).items(), PLACES[str(case)]):
        cut = not to_zero and place % 2 == 1 and len(sigmas) > 2
        key = str(case), f"{name}-cut" if cut else name
        plan = PLANS.get(key) or case.plan(sigmas[:-1] if cut else sigmas)
        if plan.steps < 20:
            PLANS[key] = plan
        yield key[1], plan


def assert_same(one: Plan, other: Plan, rel: float = 1e-12):
    """Equal stages and rows, coefficients to `rel`."""
    assert (one.path, one.sigmas, len(one.stages)) == (other.path, other.sigmas, len(other.stages))
    for a, b in zip(one.stages, other.stages, strict=True):
        assert (a.sigma, a.step, a.keeps) == (b.sigma, b.step, b.keeps)
        for rows, others in ((a.opening, b.opening), (a.rows, b.rows)):
            assert len(rows) == len(others)
            for r, q in zip(rows, others, strict=True):
                assert (r.target, r.weight) == (q.target, q.weight)
                assert dict(r.terms) == pytest.approx(dict(q.terms), rel=rel, abs=0.0)


def everywhere(*paths):
    return [
        pytest.param(path, sigmas, id=f"{path!r}-{name}") for path in paths for name, sigmas in schedules(path).items()
    ]


__all__ = [
    "CASES",
    "FLOW",
    "SCHEDULES",
    "SOLVERS",
    "TABLE",
    "VE",
    "Case",
    "assert_same",
    "each_case",
    "everywhere",
    "flow_line",
    "plans",
    "schedules",
    "solver",
]
