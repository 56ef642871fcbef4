"""Whoever looks at a run while it goes: told of its steps by our samplers, and by a watch on those of others."""

import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol

import comfy.samplers
import torch
from torch import Tensor

from .guider import PredictionGuider
from .models import path_of
from .progress import WITNESS, Progress, seen_by, watched

# A moment: of the CPU's clock in seconds, or an event on a GPU of CUDA, which nobody waits for.
Moment = Any


def moment(device: torch.device) -> Moment:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def seconds(begin: Moment, end: Moment) -> float:
    """From one moment to another; on a GPU it waits for the second."""
    if isinstance(begin, float):
        return end - begin
    end.synchronize()
    return begin.elapsed_time(end) / 1000.0


@dataclass(frozen=True)
class Step:
    """A step that a run has taken: x after it, the prediction that it reports, the noise levels that it went from and
    to, where they are not those of the schedule, the number of its model calls, and when the next one began."""

    x: Tensor
    denoised: Tensor
    calls: int
    ended: Moment
    level: Tensor | None = None
    reached: Tensor | None = None


class Onlooker(Protocol):
    """It is told of x where the run begins, of the predictions with which each step begins, and of each step. It
    changes nothing, and copies what it keeps of the run of a SAMPLER that is not ours."""

    def begins(self, x: Tensor, at: Moment) -> None: ...
    def predicted(self, name: str, value: Tensor) -> None: ...
    def opened(self) -> None: ...
    def stepped(self, step: Step) -> None: ...


def shown(onlooker: Onlooker, progress: Progress, guider: Any, extra_args: Mapping[str, Any]) -> dict[str, Any]:
    """`extra_args` of a run of ours, whose guider shows the predictions of each first call of a step."""

    def witness(name: str, value: Tensor) -> None:
        if progress.first:
            onlooker.predicted(name, value)

    if isinstance(guider, PredictionGuider):
        progress.witness = witness
        return dict(extra_args)
    return {**extra_args, "model_options": watched(extra_args["model_options"], seen_by(witness), False)}


class Watched(comfy.samplers.Sampler):
    """A SAMPLER of others, whose model calls and callback `onlooker` is told of; it does what it would do without."""

    def __init__(self, sampler: Any, onlooker: Onlooker):
        self.sampler, self.watch = sampler, Watch(onlooker)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["sampler"], name)

    def sample(self, model_wrap: Any, sigmas: Tensor, extra_args: Any, callback: Any, *args: Any, **kwargs: Any):
        options, witness = extra_args["model_options"], self.watch.onlooker.predicted
        if isinstance(model_wrap, PredictionGuider):
            options = {**options, WITNESS: witness}
        else:
            options = watched(options, seen_by(witness), False)
        extra_args = {**extra_args, "model_options": options}
        sampler = copy(self.sampler)
        if isinstance(sampler, comfy.samplers.KSAMPLER):
            sampler.sampler_function = self.function(sampler.sampler_function)
            return sampler.sample(model_wrap, sigmas, extra_args, callback, *args, **kwargs)

        def told(step: int, denoised: Tensor, x: Tensor, total: int) -> None:
            self.watch.reports(x, denoised)
            callback(step, denoised, x, total)

        result = sampler.sample(WatchedModel(model_wrap, self.watch), sigmas, extra_args, told, *args, **kwargs)
        # By the host's contract it is divided by alpha already.
        path = path_of(model_wrap.inner_model.model_sampling)
        self.watch.ends(result * path.alpha(float(sigmas[-1])))
        return result

    def function(self, inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A sampler function of the host that is watched: closer to the sampler than its noise and its mask."""

        def sampled(model: Any, x: Tensor, sigmas: Tensor, callback: Any = None, **kwargs: Any) -> Tensor:
            def told(info: dict[str, Any]) -> None:
                self.watch.reports(info["x"], info["denoised"])
                callback(info)

            self.watch.begins(x, moment(x.device))
            result = inner(WatchedModel(model, self.watch), x, sigmas, callback=told, **kwargs)
            self.watch.ends(result)
            return result

        return sampled


class WatchedModel:
    """The model of a sampler, whose calls are noted; everything else is the model's."""

    def __init__(self, model: Any, watch: "Watch"):
        self.__dict__["_held"] = (model, watch)

    def __call__(self, x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        model, watch = self.__dict__["_held"]
        watch.calls(x, sigma)
        return model(x, sigma, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_held"][0], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_held"][0], name, value)


@dataclass(frozen=True)
class Call:
    number: int
    x: Tensor
    level: Tensor
    begins: Moment


@dataclass(frozen=True)
class Open:
    """A step that has been reported, and is told of once it is known where it ends: the call that it began with, its
    prediction, and what is known of its end where the report was made there."""

    call: Call
    denoised: Tensor
    x: Tensor | None = None
    calls: int = 0
    ended: Moment = None


class Watch:
    """Makes steps of model calls and callbacks.

    Most samplers report x as they gave it to the model, before they move it: such a step ends where the next one
    begins. Others (uni_pc, dpm_adaptive) report x after the step, and some of the host's (ipndm, deis) at every step
    the x that the run began with: of those x is taken from the model call. The last step ends with the run.
    """

    def __init__(self, onlooker: Onlooker):
        self.onlooker, self.made = onlooker, 0
        self.first: Call | None = None
        self.last: Call | None = None
        self.start: Tensor | None = None
        self.open: Open | None = None

    def begins(self, x: Tensor, at: Moment) -> None:
        if self.start is None:
            self.start = x.clone()
            self.onlooker.begins(self.start, at)

    def calls(self, x: Tensor, sigma: Tensor) -> None:
        self.last = Call(self.made, x, sigma.flatten()[:1].clone(), moment(x.device))
        self.first = self.first or self.last
        self.begins(x, self.last.begins)
        self.made += 1

    def reports(self, x: Tensor, denoised: Tensor) -> None:
        if self.last is None or self.first is None:
            return
        if x is self.last.x or torch.equal(x, self.start):
            self.closes(self.last.x, self.last)
            self.open = Open(self.last, denoised.clone())
        else:
            self.closes(x, self.first)
            self.open = Open(self.first, denoised.clone(), x.clone(), self.made - self.first.number, moment(x.device))
        self.first = None
        self.onlooker.opened()

    def closes(self, x: Tensor, by: Call | None) -> None:
        """The open step has ended: where the call `by` began the next one, in x if that is not known; or in x with the
        run."""
        step, self.open = self.open, None
        if step is None:
            return
        begun = (step.call.level, None if by is None else by.level)
        if step.x is not None and by is not None:
            self.onlooker.stepped(Step(step.x, step.denoised, step.calls, step.ended, *begun))
            return
        calls = (self.made if by is None else by.number) - step.call.number
        ended = moment(x.device) if by is None else by.begins
        self.onlooker.stepped(Step(x.clone(), step.denoised, calls, ended, *begun))

    def ends(self, x: Tensor) -> None:
        self.closes(x, None)
