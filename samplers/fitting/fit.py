"""A fit from begin to end: reference, least squares, Gauss-Newton, and what is kept."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from ..plan import Plan, start
from .errors import distances, score
from .freedom import Freedom, Values, made
from .gauss_newton import GaussNewton
from .gradient import Descent, descend
from .least_squares import row_by_row
from .linear_form import LinearForm
from .meter import FULL, Budget, Meter
from .reference import reference
from .subject import Split, Stopped, Subject

# Every so many steps of a descent are shown to the starts that select.
SHOWN = 10
# A round that brings less, of the score, brings nothing.
LEAST = 0.01
KEEPING, LOOSE = Freedom(), Freedom(free=True)


@dataclass
class Fitted:
    """What a fit found: the best form on the starts that select, among those it began with and came to.

    began, selected: the score there of the beginning and of the form.
    rounds: after each stage its name, the calls of a start so far, and the score on the starts fitted on and selecting.
    stopped: why it ended before its budget, or nothing.
    """

    form: LinearForm
    began: float
    selected: float
    calls: int = 0
    seconds: float = 0.0
    stopped: str = ""
    rounds: list[tuple[str, int, float, float]] = field(default_factory=list[tuple[str, int, float, float]])

    @property
    def plan(self) -> Plan:
        return self.form.plan()


def fit(
    subject: Subject,
    begin: LinearForm,
    split: Split,
    budget: Budget = FULL,
    freedom: Freedom = KEEPING,
    report: Callable[[float, str], None] | None = None,
    descent: Descent | None = None,
) -> Fitted:
    """Fits a plan of `begin.calls` calls to the subject's own ODE.

    First row by row (`least_squares`), then all numbers together (`gauss_newton`) until the budget is spent or two
    rounds bring nothing to the starts that select; last, where a `descent` is given, by the gradient of its denoiser,
    whatever the budget. Whatever stops it, the result is the best so far on the starts that select, at the least
    `begin` itself.

    Raises:
        InputError: the split has too few starts.
        Stopped: before there is a reference to compare with.
    """
    split.check(len(subject.starts))
    meter = Meter(budget, report, doing="reference")
    targets, _ = reference(
        subject, begin.sigmas, split.seen, budget.reference, lambda calls: meter.spend(calls, split.fitted)
    )
    fitted = [each[: split.fit] for each in targets]
    choice = Choice(subject, split, targets[-1][split.fit :], meter)
    found = Fitted(begin, began := choice.score(begin), began)
    try:
        meter.may_stop = True
        meter.doing = "least squares"
        values = row_by_row(subject, begin, freedom, fitted, split.fitted, meter)
        choice.note(found, "least squares", made(begin, values))
        if budget.rounds:
            values = newton(subject, begin, freedom, values, fitted[-1], split, choice, found, meter)
        if descent is not None:
            meter.doing = "gradient"
            starts = subject.starts[split.fitted]
            for number, form in enumerate(descend(descent, begin, freedom, values, starts, fitted[-1]), 1):
                meter.spend(form.calls, split.fitted)
                if number % SHOWN == 0 or number == descent.steps:
                    choice.note(found, f"gradient, step {number}", form)
    except Stopped as stop:
        found.stopped = str(stop) or "stopped"
    found.calls, found.seconds = meter.calls, meter.seconds
    return found


def newton(
    subject: Subject,
    begin: LinearForm,
    freedom: Freedom,
    values: Values,
    target: Tensor,
    split: Split,
    choice: "Choice",
    found: Fitted,
    meter: Meter,
) -> Values:
    """Rounds of Gauss-Newton, each best form shown to the starts that select; the values they led to."""
    meter.doing = "Gauss-Newton"
    search = GaussNewton(subject, begin, freedom.numbers(begin), values, target, split.fitted, meter)
    failures = 0
    for number in range(1, meter.budget.rounds + 1):
        if failures == 2 or not meter.allows(search.cost):
            break
        meter.doing = f"Gauss-Newton, round {number}"
        if not search.round():
            break
        failures = 0 if choice.note(found, f"round {number}", search.track.form, search.score) else failures + 1
    return search.values


@dataclass
class Choice:
    """The starts that select."""

    subject: Subject
    split: Split
    target: Tensor
    meter: Meter

    def score(self, form: LinearForm) -> float:
        self.meter.spend(form.calls, self.split.selected)
        end = self.subject.run(form.plan(), start(self.subject.starts[self.split.selected]), self.split.selected).x
        return score(distances(end, self.target))

    def note(self, found: Fitted, name: str, form: LinearForm | None, fitted: float = float("nan")) -> bool:
        """Keeps the form where it is better here than what is kept; whether it is by LEAST."""
        if form is None:
            return False
        selected = self.score(form)
        found.rounds.append((name, self.meter.calls, fitted, selected))
        gained = selected < (1.0 - LEAST) * found.selected
        if selected < found.selected:
            found.form, found.selected = form, selected
        return gained
