"""All findings of a sampler on both families of models, with what they say."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from ..path import FLOW, VE, Path
from . import findings
from .findings import BY_CHANCE, LARGEST, NOT_MEASURED, ROUNDING, SMALLEST, Law, Point
from .problems import Sampler, checked

PATHS = (VE, FLOW)
RIGHT, WRONG, PLAIN, ERROR = "right", "wrong", "", "error"


@dataclass(frozen=True)
class Finding:
    """What was asked, on which path, the answer in words, the numbers behind it, and whether it is as it should be:
    right, wrong, error, or nothing where it is neither."""

    what: str
    path: str
    says: str
    verdict: str = PLAIN
    values: Any = None

    @property
    def line(self) -> str:
        mark = {WRONG: "!", ERROR: "x"}.get(self.verdict, " ")
        return f"{mark} {self.what:<26} {self.path:<5} {self.says}"


@dataclass(frozen=True)
class Report:
    """The findings of one sampler, in order; with the errors of its runs for the plot, by path."""

    name: str
    findings: tuple[Finding, ...]
    points: dict[str, tuple[Point, ...]]
    euler: dict[str, tuple[Point, ...]]

    def found(self, what: str, path: Path) -> Finding | None:
        return next((each for each in self.findings if (each.what, each.path) == (what, path.value)), None)

    def text(self) -> str:
        """One line for each finding; ! marks what is wrong, x what ended in an error."""
        wrong = sum(each.verdict in (WRONG, ERROR) for each in self.findings)
        head = f"{self.name}: {wrong or 'nothing'} of {len(self.findings)} findings to look at"
        return "\n".join([head, *(each.line for each in self.findings)]) + "\n"

    def data(self) -> dict[str, Any]:
        """For JSON: no number in it is infinite or NaN."""
        made: dict[str, Any] = {"name": self.name, "findings": [asdict(each) for each in self.findings]}
        for key, points in (("errors", self.points), ("euler", self.euler)):
            made[key] = {path: [asdict(point) for point in found] for path, found in points.items()}
        return plain(made)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in cast(dict[Any, Any], value).items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in cast(list[Any], value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Measurement:
    """One sampler on one path. Each question is asked by itself: what raises is a finding of its own."""

    def __init__(self, sampler: Sampler, euler: Sampler, path: Path):
        self.sampler, self.unchecked, self.euler, self.path = checked(sampler), sampler, euler, path
        self.noise: bool | None = None
        self.points: tuple[Point, ...] = ()
        self.step: float | None = None

    def questions(self) -> list[tuple[str, Callable[[], Finding]]]:
        return [
            ("adds noise", self.adds_noise),
            ("model calls a step", self.calls),
            ("order", self.order),
            ("error to Euler's", self.against),
            ("noise level at each call", self.level),
            ("law on Gaussian data", self.law),
            ("split is unsplit", self.split),
            ("alone is in a batch", self.alone),
            ("same seed, same picture", self.again),
            ("leaves SIGMAS alone", self.sigmas),
        ]

    def answered(self) -> Iterator[Finding]:
        for what, ask in self.questions():
            try:
                yield ask()
            except Exception as error:
                said = f"{type(error).__name__}: {' '.join(str(error).split())}"
                yield Finding(what, self.path.value, said if len(said) <= 160 else said[:157] + "...", ERROR)

    def of(self, what: str, says: str, verdict: str = PLAIN, values: Any = None) -> Finding:
        return Finding(what, self.path.value, says, verdict, values)

    def adds_noise(self) -> Finding:
        self.noise = findings.adds_noise(self.sampler, self.path)
        return self.of("adds noise", "yes" if self.noise else "no", values=self.noise)

    def calls(self) -> Finding:
        counts = findings.COUNTS[:2] if self.noise else findings.COUNTS
        self.points = tuple(findings.error_of(self.sampler, self.path, steps) for steps in counts)
        self.step = findings.calls_a_step(self.points)
        seen = ", ".join(f"{point.calls} in {point.steps} steps" for point in self.points[:2])
        says = f"{self.step:g}; {seen}" if self.step else f"not one number; {seen}"
        return self.of("model calls a step", says, values=self.step)

    def order(self) -> Finding:
        if self.noise or not self.points:
            return self.of("order", f"{NOT_MEASURED}: it adds noise" if self.noise else NOT_MEASURED)
        if self.step is None and len({point.calls for point in self.points}) == 1:
            return self.of("order", f"{NOT_MEASURED}: it chooses its own steps; error {self.points[0].error:.1e}")
        shown = ", ".join(f"{point.error:.1e}" for point in self.points)
        order = findings.order_of(self.points)
        if order is None:
            why = f"no three errors between {LARGEST:g} and {SMALLEST:g} that fall"
            return self.of("order", f"{NOT_MEASURED}: {why}; errors {shown}")
        return self.of("order", f"{order:.2f}; errors {shown} in {steps_of(self.points)} steps", values=order)

    def against(self) -> Finding:
        what = "error to Euler's"
        if not self.points:
            return self.of(what, NOT_MEASURED)
        if self.noise or not self.step:
            return self.of(what, f"{NOT_MEASURED}: {'it adds noise' if self.noise else 'calls do not follow steps'}")
        ours = findings.at_calls(self.sampler, self.path, self.step)
        pairs = [(point, findings.error_of(self.euler, self.path, point.calls)) for point in ours]
        ratios = {point.calls: point.error / euler.error for point, euler in pairs}
        says = ", ".join(f"{ratio:.2g} at {calls} calls" for calls, ratio in ratios.items())
        worse = list(ratios.values())[-1] > 1.0 + BY_CHANCE
        return self.of(what, says, WRONG if worse else PLAIN, {str(calls): ratio for calls, ratio in ratios.items()})

    def level(self) -> Finding:
        off = findings.level_off(self.unchecked, self.path)
        if off is None:
            return self.of("noise level at each call", f"{NOT_MEASURED}: it does not call the model")
        wrong = not abs(off) <= BY_CHANCE
        says = f"off by {off:+.0%} at the worst call" if wrong else f"right, to {abs(off):.0%}"
        return self.of("noise level at each call", says, WRONG if wrong else RIGHT, off)

    def law(self) -> Finding:
        laws = [findings.law_of(self.sampler, self.path, steps) for steps in findings.LAW_STEPS]
        says = ", ".join(f"{law.variance:.2f} of the variance in {law.steps} steps" for law in laws)
        worst = max((abs(law.mean_off) for law in laws), default=0.0)
        says += f"; mean off by {worst:.2f} deviations" if not worst <= BY_CHANCE else ""
        return self.of("law on Gaussian data", says, law_verdict(laws), [asdict(law) for law in laws])

    def split(self) -> Finding:
        return self.equal("split is unsplit", findings.split_apart(self.sampler, self.path), PLAIN)

    def alone(self) -> Finding:
        return self.equal("alone is in a batch", findings.alone_apart(self.sampler, self.path), WRONG)

    def again(self) -> Finding:
        return self.equal("same seed, same picture", findings.again_apart(self.sampler, self.path), WRONG)

    def equal(self, what: str, apart: float, otherwise: str) -> Finding:
        if apart == 0.0:
            return self.of(what, "bit for bit", RIGHT, apart)
        if apart <= ROUNDING:
            return self.of(what, f"to rounding, {apart:.0e}", RIGHT, apart)
        return self.of(what, f"no, {apart:.1e} apart", otherwise, apart)

    def sigmas(self) -> Finding:
        places = findings.writes(self.unchecked, self.path)
        says = f"no, it writes into its caller's at {', '.join(map(str, places[:4]))}" if places else "yes"
        return self.of("leaves SIGMAS alone", says, WRONG if places else RIGHT, places)


def law_verdict(laws: Sequence[Law]) -> str:
    """Right where the last law is within a tenth of the data's, and no further from it than the first."""
    offs = [max(abs(law.variance - 1.0), abs(law.mean_off)) for law in laws]
    return RIGHT if offs[-1] <= 0.1 and offs[-1] <= offs[0] + BY_CHANCE else WRONG


def steps_of(points: Sequence[Point]) -> str:
    return ", ".join(str(point.steps) for point in points)


def measured(
    name: str,
    sampler: Sampler,
    euler: Sampler,
    paths: Sequence[Path] = PATHS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Asks a sampler everything, on each path; `euler` is what it is held against at equal model calls."""
    made: list[Finding] = []
    points: dict[str, tuple[Point, ...]] = {}
    eulers: dict[str, tuple[Point, ...]] = {}
    total = len(paths) * len(Measurement(sampler, euler, VE).questions())
    for path in paths:
        asked = Measurement(sampler, euler, path)
        for finding in asked.answered():
            made.append(finding)
            progress(len(made), total)
        points[path.value] = () if asked.noise else asked.points
        eulers[path.value] = tuple(findings.error_of(euler, path, steps) for steps in findings.COUNTS[::2])
    return Report(name, tuple(made), points, eulers)
