"""What a fit has spent, and how far it is."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .subject import Stopped


@dataclass(frozen=True)
class Budget:
    """At most so many model calls a start and seconds.

    reference: calls of the reference, which count.
    rounds: of Gauss-Newton; with 0, least squares row by row alone.
    """

    calls: int
    rounds: int
    reference: int = 160
    seconds: float = float("inf")


QUICK = Budget(200, 0)
FULL = Budget(800, 12)


@dataclass
class Meter:
    """Counts the calls of one start, of those that are fitted on; `report` is told the part of the budget that is spent
    and what is being done."""

    budget: Budget
    report: Callable[[float, str], None] | None = None
    calls: int = 0
    doing: str = ""
    may_stop: bool = False
    began: float = field(default_factory=time.monotonic)

    def spend(self, calls: int, images: slice) -> None:
        """Raises Stopped once the time is over, where there is something to keep."""
        if images.start == 0:
            self.calls += calls
        if self.may_stop and self.seconds > self.budget.seconds:
            raise Stopped("time")
        if self.report is not None:
            part = self.seconds / self.budget.seconds if self.budget.seconds < float("inf") else 0.0
            self.report(min(max(part, self.calls / self.budget.calls), 1.0), self.doing)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def allows(self, calls: int) -> bool:
        return self.calls + calls <= self.budget.calls
