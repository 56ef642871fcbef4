"""Shared by all tests: what they measured is printed at the end of the run, whichever process ran them."""

import logging
from collections import Counter, defaultdict
from contextlib import contextmanager

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
    table = Counter()
    for number, what in said:
        table[what] += number
    return [f"{number:>7} {what}" for what, number in table.items()]


DIFFERENCES, PROVED = "largest relative difference to each reference", "cut and gone on, equal bit for bit"
CUTS = "combinations of solver, setting, model, condition, cut and storage"
COUNTED, ORDERS, SEEN = "counted cases", "measured order of convergence", "seen"
SECTIONS = {
    DIFFERENCES: largest,
    PROVED: total,
    COUNTED: total,
    ORDERS: lambda said: sorted(line for (line,) in said),
    SEEN: lambda said: [line for (line,) in said],
}


# Files of few tests that take long. A process for each core takes file after file: these come first, so that none is
# begun when the others are at their end.
LONG = {
    *("test_sweep_run.py", "test_packaging.py"),
    *("test_new_solver.py", "test_quality.py", "test_demo.py", "test_guidance_figures.py", "test_resume_table.py"),
    *("test_cost.py", "test_published_counts.py"),
    *("test_many_machines.py", "test_crash.py", "test_blueprints.py"),
}


def pytest_collection_modifyitems(items):
    """File after file: the long ones, then those with the most tests."""
    numbers = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.name not in LONG, -numbers[item.path], str(item.path)))
    # Six times a test, pytest hangs its handlers on every logger that keeps its words to itself. Dozens of torch's do,
    # and it took 3 ms a test.
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch"):
            logging.getLogger(name).propagate = True


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
    found = dict[str, float]()

    def record(reference: str, difference: float) -> None:
        found[reference] = max(float(difference), found.get(reference, 0.0))

    yield record
    for reference, difference in found.items():
        keep(DIFFERENCES, reference, difference)


@contextmanager
def tally(keep, kind):
    """Numbers by what was counted, said once at the end of the test."""
    found = Counter()
    yield found
    for what, number in found.items():
        keep(kind, number, what)


@pytest.fixture
def proved(keep):
    """`proved(n)` counts n cuts of a run that changed nothing; the run ends with their number."""
    with tally(keep, PROVED) as found:
        yield lambda number: found.update({CUTS: number})


@pytest.fixture
def counted(keep):
    """`counted("what")` counts one case of what; the run ends with the numbers."""
    with tally(keep, COUNTED) as found:
        yield lambda what: found.update({what: 1})


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
