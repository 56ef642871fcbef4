"""A copy of a GUIDER that counts what a run asks of it, and tells it how far the run is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP

from ...samplers.parameters import InputError
from .guided_run import Run
from .guider import PredictionGuider
from .progress import KEY

Callback = Callable[[int, Any, Any, int], None]


@dataclass
class Figures:
    """What a run has cost so far: model calls of the sampler, evaluations of the network for all images together, and
    seconds from its first call on, without what was loaded before; None where it cannot be seen."""

    calls: int | None = None
    evaluated: int | None = None
    begun: float | None = None
    seconds: float | None = None

    def evaluations(self, images: int) -> int | None:
        """Of the network for one image."""
        return None if self.evaluated is None else round(self.evaluated / images)


def copied(guider: Any) -> Any:
    """A guider that can be changed, and run, without the other one seeing it. It is the same model."""
    made = copy(guider)
    if hasattr(made, "model_options"):
        made.model_options = comfy.model_patcher.create_model_options_clone(made.model_options)
    if isinstance(made, PredictionGuider):
        made.run = Run()
    return made


def with_scale(guider: Any, scale: float) -> Any:
    """A copy of `guider` at another guidance scale. Raises InputError for one that has no such scale."""
    setter = getattr(guider, "set_cfg", None)
    known = setter is not None and "cfg" in signature(setter).parameters
    if not known or not has_negative(guider):
        problem = f"is a {type(guider).__name__}, which has no guidance scale of its own"
        raise InputError("guider", problem, "wire CFG Guider (Stepwise), or put seeds on the columns")
    made = copied(guider)
    made.cfg = scale
    return made


def has_negative(guider: Any) -> bool:
    """Whether there are two sides to guide between."""
    if isinstance(guider, PredictionGuider):
        return hasattr(guider.wired, "scale")
    return "negative" in getattr(guider, "original_conds", {})


@dataclass
class Watched:
    """Stands for a guider in a run: what is asked of `guider` is counted in `figures`, and each step is told to
    `callback` in the place of the caller's. The guider itself holds nothing of this, so that nobody takes it for what
    the guider remembers."""

    guider: Any
    callback: Callback | None = None
    figures: Figures = field(default_factory=Figures)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.guider, name)

    def sample(self, *given: Any, **named: Any) -> Any:
        if self.figures.calls is None:
            self.figures.begun = time.perf_counter()
        result = self.guider.sample(*given, **{**named, **({"callback": self.callback} if self.callback else {})})
        if torch.is_tensor(result) and result.is_cuda:
            torch.cuda.synchronize(result.device)
        if self.figures.begun is not None:
            self.figures.seconds = time.perf_counter() - self.figures.begun
        return result


@contextmanager
def watched(guider: Any, callback: Callback | None = None) -> Iterator[Watched]:
    """A copy of `guider` whose run is counted."""
    made = Watched(copied(guider), callback)
    figures = made.figures
    if isinstance(guider, comfy.samplers.CFGGuider):
        figures.calls = 0
        kind, counts = WrappersMP.PREDICT_NOISE, partial(counted, figures)
        comfy.patcher_extension.add_wrapper_with_key(kind, KEY, counts, made.guider.model_options, True)
    hooks = [each.register_forward_pre_hook(noting(figures)) for each in networks(guider)]
    if hooks:
        figures.evaluated = 0
    try:
        yield made
    finally:
        for hook in hooks:
            hook.remove()


def counted(figures: Figures, executor: Any, *given: Any, **named: Any) -> Any:
    if not figures.calls:
        figures.begun = time.perf_counter()
    figures.calls += 1
    return executor(*given, **named)


def noting(figures: Figures) -> Callable[..., None]:
    def note(network: Any, given: tuple[Any, ...]) -> None:
        if given and torch.is_tensor(given[0]):
            figures.evaluated += len(given[0])

    return note


def networks(guider: Any) -> list[torch.nn.Module]:
    """The networks of all models that a guider holds, each once."""
    held = [*vars(guider).values(), *getattr(guider, "models", ())]
    patchers = [each for each in held if isinstance(each, comfy.model_patcher.ModelPatcher)]
    found = [getattr(each.model, "diffusion_model", None) for each in patchers]
    return list(dict.fromkeys(each for each in found if isinstance(each, torch.nn.Module)))


def calls_of(guider: Any, sampler: Any, noise: Any, latent: Any, sigmas: torch.Tensor) -> int:
    """How often `sampler` calls the model on this schedule: it runs on predictions of nothing, which cost nothing."""
    calls = 0

    def nothing(x: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        # Where no model is called, nobody else looks for Cancel.
        comfy.model_management.throw_exception_if_processing_interrupted()
        return torch.zeros_like(x)

    made = copied(guider)
    made.predict_noise = nothing
    made.sample(noise, latent, sampler, sigmas, disable_pbar=True, seed=0)
    return calls
