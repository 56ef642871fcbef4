"""The tests of `samplers/` run on plain torch, in an interpreter that has no ComfyUI."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "support"))
torch.set_num_threads(1)

ORDERS = pytest.StashKey[list[str]]()


@pytest.fixture
def orders(request):
    """Records measured orders; the run ends with the table."""
    table = request.config.stash.setdefault(ORDERS, [])

    def record(claim: str, case: object, beginning: str, **measured: float) -> None:
        values = "  ".join(f"{name} {order:5.2f}" for name, order in measured.items())
        table.append(f"claim {claim}  {values}  {case}, {beginning}")

    return record


def pytest_terminal_summary(terminalreporter, config):
    if table := config.stash.get(ORDERS, []):
        terminalreporter.section("measured order of convergence")
        for line in table:
            terminalreporter.write_line(line)
