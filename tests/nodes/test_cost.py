"""A step of ours costs no more than the same step of ComfyUI's own function, nor than diffusers'; all are counted."""

import comfyui_version
import pytest
from stepwise.benchmarks.cost import METHODS, count_theirs, extra_peak, files, measure, run_comfyui
from stepwise.tools.environment.comfyui import COMFYUI_VERSION
from stepwise.tools.generate.generated import faults

SHAPE = (1, 4, 16, 16)


@pytest.fixture(scope="module")
def results():
    return [measure(method, SHAPE) for method in METHODS]


@pytest.mark.filterwarnings("ignore")
def test_ours_costs_no_more(results):
    pairs = [(one.method, one.ours, theirs) for one in results for theirs in (one.comfyui, one.diffusers) if theirs]
    assert len(pairs) > len(results)
    for method, ours, theirs in pairs:
        for cost in ("kernels", "kernels_all", "moved", "syncs", "uploads", "waited"):
            assert getattr(ours, cost) <= getattr(theirs, cost), (method.label, cost)
        assert extra_peak(ours) <= extra_peak(theirs), method.label


@pytest.mark.skipif(comfyui_version.__version__ != COMFYUI_VERSION, reason="the tables are of the pinned ComfyUI")
def test_the_tables_are_what_is_counted(results):
    """Every cell, of whatever library; times are not tested."""
    assert faults(files(results)) == [], "run: python3 dev.py bench cost"


@pytest.mark.parametrize(
    ("solver", "kernels", "moved", "syncs"),
    [("Euler", 6, 10, 0), ("EulerAncestral", 25, 18, 2), ("DPMpp2M", 31, 14, 1)],
)
def test_comfyuis_functions_cost_what_their_source_says(solver, kernels, moved, syncs):
    """By hand from the text of its functions: what the comparison stands on."""
    method = next(method for method in METHODS if method.solver == solver)
    counts = count_theirs(run_comfyui, method, SHAPE)
    assert (counts.kernels_all, counts.moved, counts.syncs) == (kernels, moved, syncs)
