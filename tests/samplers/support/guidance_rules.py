"""Rules of guidance, made and fed for tests."""

import pytest
import torch
from stepwise.samplers import FLOW, VE
from stepwise.samplers.guidance import extra_names
from stepwise.samplers.registry import GUIDANCE

RULES = {entry.id: entry for entry in GUIDANCE if entry.kind}
SHAPES = {"4-D": ((8, 4, 6, 5), ()), "5-D": ((8, 4, 3, 6, 5), ()), "packed": ((8, 1, 300), (240, 60))}
EACH = pytest.mark.parametrize("name", RULES)
LATENTS = pytest.mark.parametrize(("shape", "components"), SHAPES.values(), ids=SHAPES)
PATHS = pytest.mark.parametrize("path", [VE, FLOW])
SIGMA = 0.6


def tensors(shape, count, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, generator=generator, dtype=dtype).unbind()


def made(name, **params):
    """A rule with its defaults; conditionings are named, not given, and a drawn curve is the constant 1."""
    entry = RULES[name]
    defaults = {**dict.fromkeys(entry.others), **dict.fromkeys(entry.curves, lambda u: 1.0)}
    return entry.rule({**defaults, **params})


def named(rule, *others):
    return dict(zip(extra_names((rule,)), others, strict=True))


def split(components, *values):
    """The components of packed tensors, else the tensors themselves."""
    return zip(*(value.split(list(components), dim=-1) if components else (value,) for value in values), strict=True)
