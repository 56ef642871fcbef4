"""Guidance: how predictions become one."""

import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance
from exact import relative_rms
from stepwise.samplers.guidance import cfg

GENERATOR = torch.Generator().manual_seed(0)
X, COND, UNCOND = torch.randn(3, 2, 4, 8, 8, generator=GENERATOR, dtype=torch.float64)


def test_one_is_the_conditional_prediction_and_zero_the_unconditional():
    """Bit for bit, so that guidance 1 may leave the unconditional call out."""
    assert torch.equal(cfg(COND, UNCOND, cfg=1.0), COND)
    assert torch.equal(cfg(COND, UNCOND, cfg=0.0), UNCOND)
    assert torch.equal(cfg(COND.float(), UNCOND.float(), cfg=1.0), COND.float())


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.5, 7.5, 30.0])
def test_cfg_is_that_of_diffusers(scale, differences):
    """On noise predictions, as diffusers guides, and on denoised ones: x - sigma noise, an affine map of them."""
    expected = ClassifierFreeGuidance(guidance_scale=scale).forward(COND, UNCOND).pred
    differences("diffusers ClassifierFreeGuidance", difference := relative_rms(cfg(COND, UNCOND, cfg=scale), expected))
    assert difference < 1e-13
    denoised = cfg(X - 0.7 * COND, X - 0.7 * UNCOND, cfg=scale)
    assert relative_rms(denoised, X - 0.7 * expected) < 1e-13


def test_guidance_writes_to_neither_prediction():
    cond, uncond = COND.clone(), UNCOND.clone()
    cfg(cond, uncond, cfg=7.5)
    assert torch.equal(cond, COND)
    assert torch.equal(uncond, UNCOND)
