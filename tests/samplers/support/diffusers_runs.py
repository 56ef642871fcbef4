"""Runs of diffusers, an independent implementation, beside ours, with the same noise.

The model is exact: the denoiser of the mixture, which diffusers gets as the noise (or velocity) prediction that it asks
for. Noises are the same: both take them from generators with one seed, in the order of use.

diffusers keeps tables in float32 and casts x to float32 in several schedulers. So each comparison is made twice: with
diffusers as it is, to a float32 bound; and with the same code of diffusers run in float64, to 1e-9, where nothing but
the method is left to differ.
"""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from exact import mixture
from stepwise.samplers import Noise, run, start

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import diffusers

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed:FutureWarning"),
]

DATA = mixture()
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
BOUNDS = {"float64": 1e-9, "as shipped": 1e-4}


class Wide:
    """A module whose float32 is float64."""

    def __init__(self, module):
        self.module, self.float32 = module, module.float64

    def __getattr__(self, name):
        return getattr(self.module, name)


@pytest.fixture(params=BOUNDS)
def make(request, monkeypatch):
    """Makes a scheduler of diffusers: as it is, or with every float32 in its source read as float64."""

    def construct(name: str, **config):
        cls = getattr(diffusers, name)
        if request.param == "float64":
            module = sys.modules[cls.__module__]
            monkeypatch.setattr(module, "torch", Wide(torch))
            monkeypatch.setattr(module, "np", Wide(np))
        return cls(**config)

    construct.precision = request.param
    return construct


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(77)


class InOrder:
    """A noise source that takes draws from a generator as they are asked for, as diffusers' schedulers do.

    `dtype` is that in which the scheduler draws.
    """

    def __init__(self, dtype: torch.dtype):
        self.generator, self.dtype = generator(), dtype

    def __call__(self, address: Noise, like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=self.dtype).to(like.dtype)


def variance_preserving(sigma: float) -> float:
    """x of diffusers over x of ours, where diffusers scales x so that alpha^2 + sigma^2 = 1."""
    return (1.0 + sigma * sigma) ** -0.5


def same_scale(sigma: float) -> float:
    return 1.0


@dataclass
class Theirs:
    """How to run a scheduler of diffusers: its scale of x, and whether its model predicts noise or velocity."""

    scheduler: object
    scale: Callable[[float], float] = same_scale
    velocity: bool = False
    arguments: dict = field(default_factory=dict)
    draws_float32: bool = False

    def trajectory(self, plan, x):
        """The values of x after every model call, in our scale."""
        levels, found = [*(stage.sigma for stage in plan.stages), plan.sigmas[-1]], []
        assert len(self.scheduler.timesteps) == len(plan.stages)
        x = x * self.scale(levels[0])
        for t, sigma, after in zip(self.scheduler.timesteps, levels, levels[1:], strict=False):
            prediction = self.predict(plan.path, x, sigma)
            t = t if t.is_floating_point() else int(t)
            x = self.scheduler.step(prediction, t, x, **self.arguments).prev_sample
            found.append(x / self.scale(after))
        return found

    def predict(self, path, x, sigma):
        """noise = (x - alpha x0) / sigma; on FLOW velocity = noise - x0 = (x - x0) / sigma."""
        ours = x / self.scale(sigma)
        alpha = 1.0 if self.velocity else path.alpha(sigma)
        return (ours - alpha * DATA.denoised(path, ours, sigma)) / sigma


@pytest.fixture
def compare(make, differences):
    """The largest difference over a run, relative to the largest value after that model call, under its bound."""

    def assert_equal(name: str, plan, theirs: Theirs, denoiser=None, calls: int | None = None):
        x, ours = DATA.sample(plan.path, plan.sigmas[0], 16), []
        noise = InOrder(torch.float32 if theirs.draws_float32 and make.precision == "as shipped" else torch.float64)
        run(plan, denoiser or DATA.denoiser(plan.path), start(x), noise, watch=lambda state: ours.append(state.x))
        pairs = list(zip(ours, theirs.trajectory(plan, x), strict=True))[:calls]
        difference = max(((mine - yours).abs().max() / yours.abs().max()).item() for mine, yours in pairs)
        differences(f"diffusers {name}, {make.precision}", difference)
        assert difference < BOUNDS[make.precision]

    return assert_equal


def set_sigmas(scheduler, sigmas) -> None:
    """Makes `sigmas` the scheduler's own, one per model call and the last, and counts calls instead of timesteps."""
    scheduler.sigmas = torch.tensor(sigmas, dtype=scheduler.sigmas.dtype)
    scheduler.timesteps = torch.arange(len(sigmas) - 1)
    scheduler.set_begin_index(0)


# Schedulers that index a table of timesteps, in variance-preserving scale
