"""What a step costs around the network in ComfyUI, under our guider and under the host's, counted."""

import comfyui_version
import pytest
from stepwise.benchmarks._run_waits import INTRODUCTION, ROWS, counts_of, waits_table
from stepwise.benchmarks.guiders import FAMILIES, PAGE, count, count_table, files
from stepwise.samplers.guidance import Rule
from stepwise.samplers.registry import SOLVERS
from stepwise.tools.environment.comfyui import COMFYUI_VERSION
from stepwise.tools.generate.generated import faults
from toy_models import call

# Larger than all else that a call has, so that what is counted as a latent is one.
SHAPE = (1, 16, 96, 96)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_under_our_guider_costs_less_than_under_the_hosts(family):
    counts, theirs = count("ours", family, SHAPE), count("host", family, SHAPE)
    assert counts.moved < theirs.moved
    assert counts.syncs == counts.uploads == counts.draws == 0
    assert counts.peak < theirs.peak
    assert theirs.kernels_all >= 4 * counts.kernels_all


@pytest.mark.skipif(comfyui_version.__version__ != COMFYUI_VERSION, reason="the tables are of the pinned ComfyUI")
def test_the_tables_are_what_is_counted():
    """Every cell, of either guider; times are not tested. Of the whole runs three are counted here, and of ours every
    solver below."""
    waits = PAGE.read_text(encoding="utf-8").partition(INTRODUCTION)[2].partition("\n\n")[0] + "\n"
    assert faults(files(count_table(), waits)) == [], "run: python3 dev.py bench guiders"
    assert [line.split(" | ")[0] for line in waits.splitlines()[2:]] == [f"| {label}" for label, _ in ROWS]
    assert set(waits_table(ROWS[:3]).splitlines()) <= set(waits.splitlines())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_finite_check_costs_one_kernel_and_one_latent_more(family):
    """And on a device that is never idle nothing else: what it reads, it reads at the end."""
    counts, checked = count("ours", family, SHAPE), count("ours", family, SHAPE, check=True)
    assert (checked.kernels_all, checked.moved) == (counts.kernels_all + 1, counts.moved + 1)
    assert checked.syncs == checked.uploads == 0


def rules(*ids):
    return tuple(rule for id in ids for rule in call(f"Stepwise{id}Guidance")[0])


@pytest.mark.parametrize("ids", [("Curve",), ("Interval", "Curve")], ids="+".join)
def test_a_scale_that_follows_the_noise_level_costs_nothing_under_our_samplers(ids):
    plain, ruled = count("ours", "EPS", SHAPE), count("ours", "EPS", SHAPE, rule=rules(*ids))
    assert (ruled.names, ruled.kernels_all, ruled.syncs, ruled.uploads) == (plain.names, plain.kernels_all, 0, 0)


def test_outside_the_interval_one_prediction_is_paid_for():
    """Half the traffic of the model's wrapper, and no combination."""
    never = ({**vars(rule), "params": {**rule.params, "sigma_high": 0.0}} for rule in rules("Interval"))
    both, one = count("ours", "EPS", SHAPE), count("ours", "EPS", SHAPE, rule=tuple(Rule(**rule) for rule in never))
    assert "lerp" in both.names
    assert both.kernels - one.kernels == 1
    # Two fewer each of: the input scaled, the output scaled and taken from x; and the lerp.
    assert one.moved <= both.moved - 3 - 4


def test_under_a_foreign_sampler_the_noise_level_is_read_once_a_call_and_only_where_a_rule_asks():
    own = count("host", "EPS", SHAPE).syncs
    assert count("ours", "EPS", SHAPE, sampler="host").syncs == own
    assert count("ours", "EPS", SHAPE, sampler="host", rule=rules("Curve")).syncs == own + 1
    assert count("host", "EPS", SHAPE, sampler="ours").syncs == 0


@pytest.mark.parametrize("solver", [solver.id for solver in SOLVERS if solver.controller is None])
def test_a_whole_run_waits_for_the_device_seven_times_however_long_it_is(solver):
    """On a device that is never idle: 0 waits a step, and one less in a run where it is always idle."""
    short, long = (counts_of(solver, steps, idle=False) for steps in (3, 5))
    assert short.waits == long.waits <= 7
    assert long.staged == 0


@pytest.mark.parametrize("idle", [True, False])
def test_a_resumed_run_waits_no_more_often_than_a_whole_one(idle):
    whole, rest = (counts_of("DPMpp2MSDE", 5, idle, parts) for parts in ((), (2,)))
    assert rest.waits <= whole.waits == (6 if idle else 7)
