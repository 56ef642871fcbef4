"""Shared by all tests: what was measured is printed at the end of the run."""

import pytest

MEASURED = pytest.StashKey[dict[str, float]]()
NOTED = pytest.StashKey[list[str]]()
PROVED = pytest.StashKey[list[int]]()


@pytest.fixture
def differences(request):
    """Records the largest difference to a reference, by name; the run ends with the table."""
    table = request.config.stash.setdefault(MEASURED, {})

    def record(reference: str, difference: float) -> None:
        table[reference] = max(difference, table.get(reference, 0.0))

    return record


@pytest.fixture
def proved(request):
    """Counts cuts of a run that changed nothing, by solver, place and condition; the run ends with their number."""
    counts = request.config.stash.setdefault(PROVED, [])
    return counts.append


@pytest.fixture
def note(request):
    """Keeps a line about what a test saw, for the end of the run."""
    return request.config.stash.setdefault(NOTED, []).append


def pytest_terminal_summary(terminalreporter, config):
    table = config.stash.get(MEASURED, {})
    if table:
        terminalreporter.section("largest relative difference to each reference")
        for reference, difference in sorted(table.items()):
            terminalreporter.write_line(f"{difference:9.2e}  {reference}")
    if counts := config.stash.get(PROVED, []):
        terminalreporter.section("cut and gone on, equal bit for bit")
        terminalreporter.write_line(f"{sum(counts)} combinations of solver, setting, model, condition, cut and storage")
    if lines := config.stash.get(NOTED, []):
        terminalreporter.section("seen")
        for line in lines:
            terminalreporter.write_line(line)
