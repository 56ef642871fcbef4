"""Steps of the reverse SDE, and DPM++ SDE."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from ..parameters import Param
from ..path import Path
from ..plan import Noise, Stage, planned, row
from .ancestral import Eta, SNoise
from .cfg_pp import CfgPP, with_cfg_pp
from .first_level import BELOW_ONE, FirstLevel, begun
from .runge_kutta import KEEP_FIRST, KEEP_START, euler_row


def sde_step(path: Path, s: float, t: float, eta: float) -> tuple[float, float, float]:
    """(carry, gain, up) of the exponential step of the reverse SDE, with q = e^-h = t alpha_s / (s alpha_t).

    x_t = (t / s) q^eta x + alpha_t (1 - q^(1 + eta)) D + t sqrt(1 - q^(2 eta)) noise   (Lu et al. 2022b, eq. 13, for
    eta = 1; eta = 0 is the ODE). All are finite from alpha_s = 0 on, where q = 0.
    """
    if eta == 0.0:
        return t / s, path.gain(s, t), 0.0
    q = path.posterior(s, t)
    log_q = math.log(q) if q > 0.0 else -math.inf
    gain = -path.alpha(t) * math.expm1((1.0 + eta) * log_q)
    return t / s * q**eta, gain, t * math.sqrt(-math.expm1(2.0 * eta * log_q))


def noise_along(path: Path, s: float, levels: Sequence[float], eta: float) -> dict[float, dict[Noise, float]]:
    """The noise that `sde_step` adds from s down to each of `levels`, in the increments between them.

    The step to a lower level carries on what a higher one has: all of it is one path of noise, of the variance that a
    step straight there has.
    """
    found: dict[float, dict[Noise, float]] = {}
    parts: dict[Noise, float] = {}
    for t in sorted(set(levels), reverse=True):
        carry, _, up = sde_step(path, s, t, eta)
        parts = {**{noise: carry * value for noise, value in parts.items()}, Noise("step", s, t): up}
        found[t], s = parts, t
    return found


@dataclass(frozen=True)
class SDEStep:
    """An ancestral step from s to t in rho = sigma / alpha: carry x + gain prediction + up noise.

    up = eta t sqrt(1 - q^2), down = sqrt(t^2 - up^2), carry = down / s, gain = alpha_t (1 - q down / t), with
    q = sigma_t alpha_s / (sigma_s alpha_t). All are finite from alpha_s = 0 on. Upwards nothing is added.
    """

    carry: float
    gain: float
    up: float

    @staticmethod
    def of(path: Path, s: float, t: float, eta: float) -> "SDEStep":
        if t > s:
            return SDEStep(t / s, path.gain(s, t), 0.0)
        q = path.posterior(s, t)
        fresh = eta * math.sqrt((1.0 - q) * (1.0 + q))
        down = math.sqrt((1.0 - fresh) * (1.0 + fresh))
        return SDEStep(t / s * down, path.alpha(t) * (1.0 - q * down), t * fresh)


@planned
def dpmpp_sde(
    path: Path,
    sigmas: Sequence[float],
    *,
    eta: Eta = 1.0,
    s_noise: SNoise = 1.0,
    r: Annotated[
        float, Param("Where in the step, in half log-SNR, the second model call is made.", 0.1, 0.9, 0.01, rare=True)
    ] = 0.5,
    cfg_pp: CfgPP = False,
    first_level: FirstLevel = "as_given",
    below: float = BELOW_ONE,
) -> list[Stage]:
    """DPM-Solver++ SDE   (k-diffusion, sample_dpmpp_sde; Lu et al. 2022b, section 5 for the SDE).

    Two ancestral steps of `SDEStep` from x: u to the inner level m with denoised and noise[s, m], and x_t with
    (1 - 1/2r) denoised + 1/2r denoised(u, m) and noise[s, t].

    Two model calls a step, one in the step to 0. noise[s, t] contains noise[s, m]: it is that, shrunk as the step from
    m to t shrinks x, plus noise[m, t], together of the variance that the step needs. Independent draws would lose the
    correlation, and with it more than a quarter of the variance. From sigma = 1 on FLOW the inner point is a fraction
    of the step in sigma.
    """
    mix = 1.0 / (2.0 * r)
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(begun(path, sigmas, first_level, below))):
        if t == 0.0:
            stages.append(Stage(s, (euler_row(path, s, t),), step))
            continue
        m = path.between(s, t, r)
        to_m, to_t, rest = SDEStep.of(path, s, m, eta), SDEStep.of(path, s, t, eta), SDEStep.of(path, m, t, eta)
        shrunk = to_m.up * rest.carry
        share = s_noise * to_t.up / (math.hypot(shrunk, rest.up) or 1.0)
        inner, outer = Noise("step", s, m), Noise("step", m, t)
        first = row("x", {"denoised": to_m.gain, "x": to_m.carry, inner: s_noise * to_m.up})
        terms = {"denoised": to_t.gain * mix, "first": to_t.gain * (1.0 - mix), "start": to_t.carry}
        last = row("x", {**terms, inner: share * shrunk, outer: share * rest.up})
        stages += [Stage(s, (KEEP_START, KEEP_FIRST, first), step), Stage(m, (last,), step)]
    return with_cfg_pp(path, stages, cfg_pp)
