"""Shared by all tests: what they measured is printed at the end of the run, whichever process ran them."""

from collections import Counter, defaultdict

import pytest


class Kept:
    """What tests have said, by kind. It travels with their reports, from whatever process they run in."""

    def __init__(self) -> None:
        self.said = defaultdict(list)

    def pytest_runtest_logreport(self, report):
        if report.when == "teardown":
            for kind, values in report.user_properties:
                self.said[kind].append(tuple(values))

    def pytest_terminal_summary(self, terminalreporter):
        for kind, lines in SECTIONS.items():
            if self.said[kind]:
                terminalreporter.section(kind)
                for line in lines(self.said[kind]):
                    terminalreporter.write_line(line)


def largest(said):
    table = {}
    for reference, difference in said:
        table[reference] = max(difference, table.get(reference, 0.0))
    return [f"{difference:9.2e}  {reference}" for reference, difference in sorted(table.items())]


def total(said):
    number = sum(count for (count,) in said)
    return [f"{number} combinations of solver, setting, model, condition, cut and storage"]


DIFFERENCES, PROVED = "largest relative difference to each reference", "cut and gone on, equal bit for bit"
COUNTED, ORDERS, SEEN = "counted cases", "measured order of convergence", "seen"
SECTIONS = {
    DIFFERENCES: largest,
    PROVED: total,
    COUNTED: lambda said: [f"{number:>7} {what}" for (what,), number in Counter(said).items()],
    ORDERS: lambda said: sorted(line for (line,) in said),
    SEEN: lambda said: [line for (line,) in said],
}


def pytest_configure(config):
    config.pluginmanager.register(Kept())


@pytest.fixture
def keep(request):
    """`keep(kind, *values)`: for the end of the run."""

    def keep(kind, *values):
        request.node.user_properties.append((kind, values))

    return keep


@pytest.fixture
def differences(keep):
    """Records the largest difference to a reference, by name; the run ends with the table."""

    def record(reference: str, difference: float) -> None:
        keep(DIFFERENCES, reference, float(difference))

    return record


@pytest.fixture
def proved(keep):
    """Counts cuts of a run that changed nothing, by solver, place and condition; the run ends with their number."""

    def count(number: int) -> None:
        keep(PROVED, number)

    return count


@pytest.fixture
def note(keep):
    """Keeps a line about what a test saw, for the end of the run."""

    def line(text: str) -> None:
        keep(SEEN, text)

    return line


@pytest.fixture
def orders(keep):
    """Records measured orders; the run ends with the table."""

    def record(claim: str, case: object, beginning: str, **measured: float) -> None:
        values = "  ".join(f"{name} {order:5.2f}" for name, order in measured.items())
        keep(ORDERS, f"claim {claim}  {values}  {case}, {beginning}")

    return record


@pytest.fixture
def counted(keep):
    """`counted("what")` counts one case of what; the run ends with the numbers."""

    def count(what: str) -> None:
        keep(COUNTED, what)

    return count
