"""The example of library use in docs/library.md runs, and its own asserts hold."""

import re
import runpy
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def example():
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "library.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    return blocks[0]


@pytest.fixture
def ran(tmp_path, monkeypatch, capsys):
    """What the example leaves behind, and what it prints."""
    monkeypatch.chdir(tmp_path)
    Path("example.py").write_text(example())
    return runpy.run_path("example.py"), capsys.readouterr().out.splitlines()


def test_the_example_runs(ran):
    made, (first, *steps) = ran
    assert first == "20 model calls"
    assert len(steps) == 12
    assert steps[0] == "call 1: from noise level 14.615"
    assert (made["state"].index, made["resumed"].index) == (12, 20)


def test_its_denoiser_is_exact_for_black_and_white_pixels(ran):
    """E[x0 | x] for x0 = -1 or 1 with equal odds, by Bayes' rule."""
    made, _ = ran
    x = torch.linspace(-3.0, 3.0, 61, dtype=torch.float64)
    white, black = (torch.exp(-((x - x0) ** 2) / (2.0 * 0.7**2)) for x0 in (1.0, -1.0))
    torch.testing.assert_close(made["denoiser"](x, 0.7), (white - black) / (white + black))
