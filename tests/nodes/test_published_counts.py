"""Model calls, evaluations, draws and memory in tables whose other columns are measured: counted here again."""

import importlib
from dataclasses import replace

import pytest
import torch
from stepwise.nodes.host.exact import HostSampler
from stepwise.samplers import VE
from stepwise.samplers.exact import findings
from stepwise.samplers.registry import SOLVERS
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate.markdown import marked

quality, guidance, noise, report = (
    importlib.import_module(f"stepwise.benchmarks.{name}") for name in ("quality", "guidance", "noise", "report")
)


def table(file, mark):
    """The rows of a marked table, each by the names of its columns; of one name the later ones numbered."""
    found = marked(mark).search((ROOT / "docs" / file).read_text(encoding="utf-8"))[0]
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines() if line.startswith("|")
    ]
    names = [f"{name}{head[:i].count(name) + 1}" if name in head[:i] else name for i, name in enumerate(head)]
    return [dict(zip(names, row, strict=True)) for row in rows]


@pytest.fixture(scope="module")
def calls():
    """Evaluations of the network for one image at guidance 1, which are the model calls, by the label of a method; of
    the longest, those of a tenth of its steps, ten times."""

    def counted(method):
        shorter = 10 if method.steps >= 1000 else 1
        return shorter * replace(JOB, method=replace(method, steps=method.steps // shorter)).run()[1]

    return {each.label: counted(each) for each in quality.METHODS}


JOB = quality.Job(quality.METHODS[0], 1.0, 0, 1)


def test_the_calls_of_every_method_are_those_of_the_network(calls):
    rows = [row for row in table("quality.md", "quality") if row[""] in calls]
    assert {row[""] for row in rows} == set(calls)
    for row in rows:
        assert float(row["calls"]) == calls[row[""]]
        assert float(row["evaluations"]) == calls[row[""]] * (1 if row["guidance"] == "1" else 2)


def test_the_short_table_has_the_same_calls(calls):
    rows = {row[""]: row["model calls"] for row in table("claims.md", "quality")}
    assert {name: float(count) for name, count in rows.items() if count} == calls


@pytest.mark.parametrize("mark", ["guidance", "newer"])
def test_the_evaluations_of_every_way_to_guide_are_those_of_the_network(mark):
    ways = {each.name: each for each in (*guidance.WAYS, *guidance.NEWER)}
    rows = [row for row in table("guidance.md", mark) if row[""] in ways]
    counted = {}
    for row in rows:
        # What stands behind it is the scale that the way itself is set to.
        way, scale = ways[row[""]], float(row["guidance"].split()[0])
        key = way.name, scale == 1.0
        if key not in counted:
            counted[key] = guidance.run(way, scale, 1).evaluations
        assert (int(row["steps"]), float(row["evaluations"])) == (way.steps, pytest.approx(counted[key], abs=0.5)), row
    assert len({name for name, _ in counted}) >= 5


def test_what_an_interval_saves_is_of_counted_evaluations():
    whole, within = (guidance.run(way, 7.5, 1).evaluations for way in (guidance.CFG, guidance.SAVING))
    for row in table("guidance.md", "saved"):
        assert (float(row["evaluations"]), float(row["evaluations2"])) == (whole, within)
        assert row["saved"] == f"{1.0 - within / whole:.0%}"


def test_the_draws_and_the_memory_of_noise_are_what_is_counted():
    rows = table("noise.md", "cost")
    assert [row[""] for row in rows] == list(noise.RUNNERS)
    for row in rows:
        runner, shape = noise.RUNNERS[row[""]], noise.SIZES["SD1.5"]
        counts = f"{noise.draws(runner, shape):.1f}", f"{noise.memory(runner, shape):.1f}"
        assert (row["draws a step"], row["latents of memory"]) == counts, row[""]


def test_the_calls_a_step_of_our_samplers_are_those_of_their_plans():
    """The table is of the defaults. How many an adaptive one makes, no plan knows."""
    solvers = {each.name: each for each in SOLVERS}
    sigmas = tuple(14.6 * (1.0 - i / 20) ** 3 for i in range(21))
    for row in table("report.md", "ours"):
        if solvers[row["sampler"]].controller is not None:
            assert row["calls"] == "-"
            continue
        plan = solvers[row["sampler"]].plan(VE, sigmas)
        assert float(row["calls"]) == plan.first_stage(11) - plan.first_stage(10), row["sampler"]


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
