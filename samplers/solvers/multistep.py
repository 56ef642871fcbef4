"""Solvers that remember earlier predictions: DPM++ 2M."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from ..parameters import Param
from ..path import VE, Path
from ..plan import Plan, Stage, row


def dpmpp_2m(
    path: Path,
    sigmas: Sequence[float],
    *,
    time: Annotated[
        Literal["half_log_snr", "log_sigma"],
        Param(
            "Variable of extrapolation. They differ on flow models only, where ComfyUI's own dpmpp_2m has log_sigma."
        ),
    ] = "half_log_snr",
) -> Plan:
    """DPM-Solver++(2M)   (Lu et al. 2022b, algorithm 2).

    x_t = (t / s) x + alpha_t (1 - e^-h) D,   D = (1 + 1 / 2r) denoised - (1 / 2r) previous denoised,   r = h_last / h.

    Order 2, one model call a step. The first step, and the last one when it goes to 0 (h infinite), are of order 1.
    On FLOW from sigma = 1 the first h is infinite, so the second step extrapolates nothing and is of order 1 too; over
    the whole run the order stays 2.

    `time` = log_sigma measures h as log(s / t) on FLOW too; on VE that is the half log-SNR itself.
    """
    lam = VE.lam if time == "log_sigma" else path.lam
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        gain, extra = path.gain(s, t), 0.0
        if step > 0 and t > 0.0:
            extra = gain * (lam(t) - lam(s)) / (2.0 * (lam(s) - lam(sigmas[step - 1])))
        terms = {"denoised": gain + extra, "previous": -extra, "x": t / s}
        stages.append(Stage(s, (row("x", terms), row("previous", {"denoised": 1.0})), step))
    return Plan(path, tuple(sigmas), tuple(stages))
