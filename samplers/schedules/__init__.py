"""Noise schedules: pure functions from a number of steps to steps + 1 noise levels, strictly descending.

Each takes `denoise`, the part of the schedule that is run, and `last_sigma`, how it ends; see `finished`.
"""

from .flow import flow, flux2, flux_shift, linear_quadratic, ltxv
from .published import align_your_steps, bong_tangent, optimal_steps
from .ranges import curve, exponential, karras, kl_optimal, laplace, polyexponential, vp
from .tables import beta, lcm, lcm_timesteps, timestep, timesteps, trained_sigmas

__all__ = [
    "align_your_steps",
    "beta",
    "bong_tangent",
    "curve",
    "exponential",
    "flow",
    "flux2",
    "flux_shift",
    "karras",
    "kl_optimal",
    "laplace",
    "lcm",
    "lcm_timesteps",
    "linear_quadratic",
    "ltxv",
    "optimal_steps",
    "polyexponential",
    "timestep",
    "timesteps",
    "trained_sigmas",
    "vp",
]
