"""Every node of ComfyUI that takes a MODEL and gives one, under our guider as under its own: the grid of the benchmark,
thinned out to one combination a node and model."""

from itertools import product

import pytest
from stepwise.benchmarks import sweep

NODES = [id for id in sweep.nodes() if id not in sweep.LEFT_OUT]
GRID = list(product(sweep.SCALES, sweep.BATCHES))


def test_what_is_left_out_is_there():
    """And all else is run below, new nodes too: a node that cannot be run on any of the models fails."""
    assert set(sweep.LEFT_OUT) < set(sweep.nodes())
    assert len(NODES) > 70


@pytest.mark.parametrize("index", range(len(NODES)), ids=NODES)
def test_a_node_of_core_acts_under_our_guider_as_under_its_own(index, differences):
    """Merges with weights of a named model are one kind: each has one model, the others all that can be run."""
    id = NODES[index]
    models = list(sweep.MODELS)[index % 4 :] + list(sweep.MODELS)[: index % 4]
    found = []
    for turn, name in enumerate(models):
        scale, batch = GRID[(index // 4 + turn) % len(GRID)]
        off = sweep.difference(id, name, scale, batch)
        if off is not None:
            found.append(off)
            differences("ComfyUI's CFGGuider, under each of its MODEL nodes", off)
        if found and id.startswith("ModelMerge"):
            break
    assert found
    assert max(found) < 1e-6
