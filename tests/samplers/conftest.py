"""The tests of `samplers/` run on plain torch, in an interpreter that has no ComfyUI."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "support"))
torch.set_num_threads(1)

ORDERS = pytest.StashKey[list[str]]()
COUNTS = pytest.StashKey[Counter[str]]()


@pytest.fixture
def orders(request):
    """Records measured orders; the run ends with the table."""
    table = request.config.stash.setdefault(ORDERS, [])

    def record(claim: str, case: object, beginning: str, **measured: float) -> None:
        values = "  ".join(f"{name} {order:5.2f}" for name, order in measured.items())
        table.append(f"claim {claim}  {values}  {case}, {beginning}")

    return record


@pytest.fixture
def counted(request):
    """`counted("what")` counts one case of what; the run ends with the numbers."""
    table = request.config.stash.setdefault(COUNTS, Counter())

    def count(what: str) -> None:
        table[what] += 1

    return count


def pytest_terminal_summary(terminalreporter, config):
    if counts := config.stash.get(COUNTS, Counter()):
        terminalreporter.section("counted cases")
        for what, number in counts.items():
            terminalreporter.write_line(f"{number:>7} {what}")
    if table := config.stash.get(ORDERS, []):
        terminalreporter.section("measured order of convergence")
        for line in table:
            terminalreporter.write_line(line)
