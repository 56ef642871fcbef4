"""A step of ours costs no more than the same step of ComfyUI's own function, nor than diffusers'; all are counted."""

import pytest
from stepwise.benchmarks.cost import METHODS, count_ours, count_theirs, extra_peak, run_comfyui, run_diffusers

SHAPE = (1, 4, 16, 16)
RUNNERS = {"comfyui": run_comfyui, "diffusers": run_diffusers}
PAIRS = [(method, other) for method in METHODS for other in RUNNERS if getattr(method, other)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("method", "other"), PAIRS, ids=lambda value: getattr(value, "label", value))
def test_ours_costs_no_more(method, other):
    ours, theirs = count_ours(method, shape=SHAPE), count_theirs(RUNNERS[other], method, SHAPE)
    for cost in ("kernels", "kernels_all", "moved", "syncs", "uploads", "waited"):
        assert getattr(ours, cost) <= getattr(theirs, cost), cost
    assert extra_peak(ours) <= extra_peak(theirs)


@pytest.mark.parametrize(
    ("solver", "kernels", "moved", "syncs"),
    [("Euler", 6, 10, 0), ("EulerAncestral", 25, 18, 2), ("DPMpp2M", 31, 14, 1)],
)
def test_comfyuis_functions_cost_what_their_source_says(solver, kernels, moved, syncs):
    """By hand from the text of its functions: what the comparison stands on."""
    method = next(method for method in METHODS if method.solver == solver)
    counts = count_theirs(run_comfyui, method, SHAPE)
    assert (counts.kernels_all, counts.moved, counts.syncs) == (kernels, moved, syncs)
