"""Model calls, draws and memory in tables whose other columns are measured: counted here again."""

import importlib

import pytest
import torch
from stepwise.nodes.host.exact import HostSampler
from stepwise.samplers import VE
from stepwise.samplers.exact import findings
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate.markdown import marked

noise, report = (importlib.import_module(f"stepwise.benchmarks.{name}") for name in ("noise", "report"))
pytestmark = pytest.mark.usefixtures("one_thread")


def table(file, mark):
    """The rows of a marked table, each by the names of its columns; of one name the later ones numbered."""
    found = marked(mark).search((ROOT / "docs" / file).read_text(encoding="utf-8"))[0]
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines() if line.startswith("|")
    ]
    names = [f"{name}{head[:i].count(name) + 1}" if name in head[:i] else name for i, name in enumerate(head)]
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_the_draws_and_the_memory_of_noise_are_what_is_counted():
    rows = table("noise.md", "cost")
    assert [row[""] for row in rows] == list(noise.RUNNERS)
    for row in rows:
        runner, shape = noise.RUNNERS[row[""]], noise.SIZES["SD1.5"]
        counts = f"{noise.draws(runner, shape):.1f}", f"{noise.memory(runner, shape):.1f}"
        assert (row["draws a step"], row["latents of memory"]) == counts, row[""]


@torch.no_grad()
def test_the_calls_a_step_of_the_hosts_samplers_are_what_is_counted():
    samplers = dict(report.cores())
    for row in table("report.md", "core"):
        # It chooses them.
        if row["sampler"] == "dpm_adaptive":
            continue
        points = [findings.error_of(HostSampler(samplers[row["sampler"]]), VE, steps) for steps in (6, 9)]
        counted = findings.calls_a_step(points)
        assert row["calls"].split(" / ")[0] == f"{counted:g}", row["sampler"]
