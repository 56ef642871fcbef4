"""A run of a multistep solver taken apart: one model call, what is made of predictions, and the step.

x travels as a held run that stands at a step of its schedule, as Euler leaves it: with nothing but x.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...samplers import State
from ...samplers.linear_combination import combine
from ...samplers.parameters import InputError
from ...samplers.path import Path
from ...samplers.registry import SOLVERS
from ..host.latents import unpacked
from ..host.levels import snapped
from ..host.models import path_of, sampling_of
from ..host.sampler import PlanSampler
from . import run
from .face import Face
from .held import HeldRun
from .resume import resumed

EULER = next(solver for solver in SOLVERS if solver.id == "Euler")
BEGINS_ANEW = "wire the state of Predict or Step"


@dataclass(frozen=True)
class Clean:
    """STEPWISE_X0: an estimate of the clean latent in the model's own units, and the noise level it was made at."""

    samples: Tensor
    sigma: float
    path: Path


def predicted(
    guider: Any,
    noise: Any,
    latent_image: Mapping[str, Any] | None,
    sigmas: tuple[float, ...] | None,
    state: HeldRun | None,
) -> tuple[HeldRun, Clean, dict[str, Any]]:
    """One model call where `state` stands, or where a run begins: the state before it, and the prediction, twice: as
    it is, and as a LATENT."""
    euler, face = PlanSampler(EULER, {}), Face()
    if state is None:
        held, plan = run.fresh(guider, euler, noise, latent_image, sigmas, 0, face)
        if held.steps > 0:
            held = run.go(guider, euler, held, plan, 0)[2]
    else:
        held, plan = resumed(state, euler, None, None, 0, "error", face)
    if held.step >= held.steps:
        raise InputError("state", "stands at the end of its schedule, where nothing is left to predict", BEGINS_ANEW)
    _, denoised, after = run.go(guider, euler, held, plan, held.step + 1)
    # What guidance and patches remember moves on with the call; x does not.
    held = replace(after, state=held.state, step=held.step, denoised=held.denoised)
    return held, Clean(after.state.denoised, levels(held)[0], held.path), denoised


def levels(held: HeldRun) -> tuple[float, float]:
    """The noise levels of the step that begins where `held` stands; raises InputError at the end."""
    if held.state is None or held.step >= held.steps:
        raise InputError("state", "stands at no beginning of a step", BEGINS_ANEW)
    s, t = snapped(held.path, held.sigmas)[held.step : held.step + 2]
    return s, t


def extrapolated(held: HeldRun, now: Clean, before: Clean) -> Clean:
    """D = x0 + (x0 - previous x0) h / (2 h_last), in half log-SNR   (Lu et al. 2022b, algorithm 2).

    Raises InputError for the step to 0, where h is infinite, and for predictions in the wrong order.
    """
    s, t = levels(held)
    if t == 0.0:
        cure = "wire x0 of Predict into Step there, as DPM++ 2M does"
        raise InputError("state", "stands before the step to 0, which is infinitely long in log-SNR", cure)
    if now.samples.shape != before.samples.shape:
        problem = f"has the shape {tuple(before.samples.shape)}, and x0 has {tuple(now.samples.shape)}"
        raise InputError("previous_x0", problem, "wire predictions of one run")
    path = held.path.towards(s, t)
    h, last = path.lam(t) - path.lam(s), path.lam(now.sigma) - path.lam(before.sigma)
    if not last > 0.0:
        problem = f"was made at noise level {before.sigma:g}, and x0 at {now.sigma:g}"
        raise InputError("previous_x0", problem, "wire the prediction of the step before")
    more = h / (2.0 * last) if math.isfinite(last) else 0.0
    made = combine([(now.samples, 1.0 + more), (before.samples, -more)]) if more else now.samples
    return Clean(made, now.sigma, now.path)


def stepped(guider: Any, held: HeldRun, clean: Clean) -> tuple[HeldRun, dict[str, Any]]:
    """x_t = (t / s) x + alpha_t (1 - e^-h) x0   (Lu et al. 2022b, eq. 9 with k = 1; DDIM with eta = 0).

    The state there, and x as a LATENT.
    """
    s, t = levels(held)
    if clean.samples.shape != held.state.x.shape:
        problem = f"has the shape {tuple(clean.samples.shape)}, and x has {tuple(held.state.x.shape)}"
        raise InputError("x0", problem, "wire the prediction of this run")
    x = combine([(clean.samples, held.path.gain(s, t)), (held.state.x, t / s)])
    like, model = held.latent["samples"], guider.model_patcher
    sampling = sampling_of(model)
    shown = x if path_of(sampling).alpha(t) == 0.0 else sampling.inverse_noise_scaling(torch.tensor(t), x)
    output = model.model.process_latent_out(unpacked(shown, like))
    denoised = model.model.process_latent_out(unpacked(clean.samples, like))
    state = State({"x": x}, held.state.index + 1, clean.samples)
    after = replace(held, state=state, step=held.step + 1, denoised=denoised)
    return after, {**held.latent, "samples": output}
