"""Every twin of ComfyUI's in tools/generate/twins.py: the sampler and our node make one latent from one noise."""

import comfy.samplers
import parity
import pytest
from stepwise.tools.generate import twins
from toy_models import toy_model

PATHS = {"VE": "EPS", "FLOW": "FLOW"}
ROWS = [(twin, path) for twin in twins.COMFYUI if not twin.test for path in twin.paths]


@pytest.mark.parametrize("cfg", [1.0, 5.0])
@pytest.mark.parametrize(("twin", "path"), ROWS, ids=lambda v: getattr(v, "name", v))
def test_twin(twin, path, cfg, monkeypatch, differences):
    model = toy_model(PATHS[path])
    sigmas = parity.schedule(model)
    core = parity.core_run(twin.name, model, sigmas.clone(), twin.options, cfg, parity.core_noise)
    mine = parity.our_run(twin.ours, model, sigmas, twin.params, cfg, monkeypatch)
    off = parity.relative(mine, core)
    differences(f"ComfyUI {twin.name} {dict(twin.options) or ''}= {twin.ours}, {path}, guidance {cfg:g}", off)
    assert off < max(1e-5, twin.bound)


def test_every_sampler_of_the_host_is_in_the_table_once():
    """Either as a twin or among those without one, so that a new one is noticed."""
    paired = {twin.name for twin in twins.COMFYUI}
    singles = [name for one in twins.NOT_COMFYUI for name in one.names]
    assert len(singles) == len(set(singles))
    assert not paired & set(singles)
    assert paired | set(singles) == set(comfy.samplers.SAMPLER_NAMES)
