"""Steps as long as an image allows: tried, judged by the difference of two orders, accepted or tried again shorter.

The controller is k-diffusion's   (sample_dpm_adaptive; Lu et al. 2022a, appendix C, with a PID controller in the place
of theirs). An attempt of length h, in log sigma, gives x of the order p and `low` of the order p - 1, and

    error = root mean square of (low - x) / max(atol, rtol max(|low|, |low of the step before|)),
    e_n = 1 / (error + 1e-8),    f = e_n^b1 e_(n-1)^b2 e_(n-2)^b3,    h <- h (1 + atan(f - 1)),

with b1 = (P + I + D) / p, b2 = -(P + 2 D) / p, b3 = D / p and the errors of accepted steps, p = 1.5 where noise is
added. The attempt is accepted where 1 + atan(f - 1) is at least `accept_safety`.

Every attempt is a plan of one step, and every image has a `Pace` of its own: nothing of one depends on another.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from .linear_combination import accumulate, combine
from .parameters import InputError, Value
from .path import Path
from .plan import Denoiser, Noise, NoiseSource, Pace, Plan, State, no_noise, run, start
from .solvers.dpm_adaptive import LOW, landing, pair_stages

# In log sigma: what is left of a way that counts as gone, as in k-diffusion, and the shortest step that is tried.
ARRIVED, SHORTEST = 1e-5, 1e-6
# Attempts at one step.
MOST = 100

# What undoes whatever a denoiser, or what stands behind it, has noted since.
Undo = Callable[[], None]


class NotFinite(ValueError):
    """A prediction of the model is not a number, in an attempt from the noise level `sigma`."""

    def __init__(self, sigma: float):
        self.sigma = sigma
        super().__init__(f"the model's output is not finite, in a step from sigma {sigma:.6g}")


@dataclass(frozen=True)
class Controller:
    """The parameters of a run with adaptive steps; `ends` where only the end of the schedule cuts a step short."""

    order: int
    rtol: float
    atol: float
    h_init: float
    pcoeff: float
    icoeff: float
    dcoeff: float
    accept_safety: float
    eta: float
    s_noise: float
    ends: bool

    @staticmethod
    def of(params: Mapping[str, Value]) -> "Controller":
        """That of the parameters of `dpm_adaptive`."""
        known = {name: float(value) for name, value in params.items() if name not in ("order", "levels")}
        return Controller(order=int(params["order"]), ends=params["levels"] == "core", **known)

    def begin(self, level: float) -> Pace:
        return Pace(level, self.h_init)

    def error(self, low: Tensor, high: Tensor, before: Tensor) -> Tensor:
        """Of one image, without dimensions; it is not read here."""
        allowed = torch.clamp(self.rtol * torch.maximum(low.abs(), before.abs()), min=self.atol)
        return ((low - high) / allowed).square().mean().sqrt()

    def judged(self, pace: Pace, error: float, length: float) -> tuple[bool, Pace]:
        """Whether an attempt of this length is accepted, and the pace after it, but for its level and calls.

        One that a level of the schedule has cut short says little of longer ones: its error is no part of the next
        judgements, and where it is accepted the next attempt is no shorter than this one was meant to be.

        Raises:
            InputError: the next attempt would be shorter than can be told apart.
        """
        inverse = 1.0 / (error + 1e-8) if math.isfinite(error) else 1e-8
        last, older = pace.errors or (inverse, inverse)
        order = 1.5 if self.eta else float(self.order)
        exponents = (
            (self.pcoeff + self.icoeff + self.dcoeff) / order,
            -(self.pcoeff + 2.0 * self.dcoeff) / order,
            self.dcoeff / order,
        )
        wanted = 1.0
        for value, exponent in zip((inverse, last, older), exponents, strict=True):
            wanted *= value**exponent
        factor = 1.0 + math.atan(wanted - 1.0)
        accepted, cut = factor >= self.accept_safety, length < pace.h and not self.ends
        h = (length if cut else pace.h) * factor
        h, errors = max(h, pace.h) if cut and accepted else h, (last, older)
        if accepted and not cut:
            errors = (inverse, last)
        if not h > SHORTEST:
            raise self.never(pace)
        counts = {"accepted": pace.accepted + accepted, "rejected": pace.rejected + (not accepted)}
        return accepted, replace(pace, h=h, errors=errors, **counts)

    def never(self, pace: Pace) -> InputError:
        tolerance = f"is {self.rtol:g}, with atol {self.atol:g}"
        problem = f"{tolerance}, and no step from noise level {pace.level:.4g} keeps to it"
        return InputError("rtol", problem, "raise rtol and atol, or lower accept_safety")


def advanced(
    controller: Controller,
    path: Path,
    denoiser: Denoiser,
    state: State,
    pace: Pace,
    until: float,
    end: float,
    noise: NoiseSource = no_noise,
    remember: Callable[[], Undo] = lambda: lambda: None,
) -> tuple[State, Pace]:
    """One image, taken from its pace's level to `until`, or beyond it where `end` lies beyond.

    Args:
        state: of one image, with the register `low` of its last accepted step, if there was one.
        until, end: levels above 0, in the direction of the run.
        remember: called before every attempt; what it gives is called after one that is rejected.

    Raises:
        NotFinite: a prediction is not.
        InputError: no step keeps to the tolerance.
    """
    way, attempts = 1.0 if end < pace.level else -1.0, 0
    while way * math.log(pace.level / until) > ARRIVED:
        s, left = pace.level, abs(math.log(pace.level / end))
        t = end if left - pace.h <= ARRIVED else s * math.exp(-way * pace.h)
        down, rescale, up = landing(path, s, t, controller.eta, end if controller.ends else 0.0)
        plan = Plan(path, (s, t), tuple(pair_stages(controller.order, s, down, 0)), ("x", LOW))
        undo = remember()
        tried = run(plan, denoiser, start(state.x))
        high, low = tried.x, tried.registers[LOW]
        error = float(controller.error(low, high, state.registers.get(LOW, state.x)))
        if not math.isfinite(error) and not bool(torch.isfinite(cast(Tensor, tried.denoised)).all()):
            raise NotFinite(s)
        pace = replace(pace, calls=pace.calls + len(plan.stages))
        accepted, pace = controller.judged(pace, error, min(left, pace.h))
        attempts += 1
        if not accepted:
            undo()
            if attempts == MOST:
                raise controller.never(pace)
            continue
        attempts = 0
        if up != 0.0:
            drawn = noise(Noise("step", s, t), high)
            high = accumulate(combine([(high, rescale)]), [(drawn, controller.s_noise * up)])
        state, pace = replace(state, registers={"x": high, LOW: low}, denoised=tried.denoised), replace(pace, level=t)
    return state, pace


def step_taken(
    controller: Controller,
    plan: Plan,
    step: int,
    denoiser: Denoiser,
    state: State,
    pace: Pace,
    noise: NoiseSource = no_noise,
    remember: Callable[[], Undo] = lambda: lambda: None,
) -> tuple[State, Pace]:
    """One image, taken through a step of the schedule of `plan`: `advanced`, but that a step from or to level 0 is the
    plan's own. A controller that `ends` at the last level above 0 leaves x there.
    """
    s, t = plan.sigmas[step : step + 2]
    end = next(level for level in reversed(plan.sigmas) if level > 0.0) if controller.ends else t
    if s > 0.0 and (t > 0.0 or controller.ends):
        return advanced(controller, plan.path, denoiser, state, pace, t or end, end, noise, remember)
    first, last = plan.first_stage(step), plan.first_stage(step + 1)
    remember()
    made = run(plan, denoiser, State({"x": state.x}, first), noise, stop=last)
    pace = replace(pace, level=t, accepted=pace.accepted + 1, calls=pace.calls + last - first)
    return replace(state, registers={**state.registers, "x": made.x}, denoised=made.denoised), pace
