"""What a step costs around the network in ComfyUI, under our guider and under the host's, counted."""

import pytest
from stepwise.benchmarks.guiders import FAMILIES, SHAPE, count

# All kernels and latents moved, with DPM++ 2M at guidance 7.
CEILINGS = {"EPS": (14, 21), "FLUX": (6, 18), "FLOW": (6, 18)}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_under_our_guider_costs_at_most_its_ceiling(family):
    counts, theirs = count("ours", family, SHAPE), count("host", family, SHAPE)
    kernels, moved = CEILINGS[family]
    assert counts.kernels_all <= kernels
    assert counts.moved <= moved, counts.names
    assert counts.syncs == counts.uploads == counts.draws == 0
    assert counts.peak < theirs.peak
    assert theirs.kernels_all >= 4 * counts.kernels_all


@pytest.mark.parametrize("family", FAMILIES)
def test_the_finite_check_costs_one_kernel_and_one_latent_more(family):
    """And on a device that is never idle nothing else: what it reads, it reads at the end."""
    counts, checked = count("ours", family, SHAPE), count("ours", family, SHAPE, check=True)
    assert (checked.kernels_all, checked.moved) == (counts.kernels_all + 1, counts.moved + 1)
    assert checked.syncs == checked.uploads == 0
