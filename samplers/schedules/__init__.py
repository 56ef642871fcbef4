"""Noise schedules: pure functions from a number of steps to steps + 1 noise levels, strictly descending.

Each takes `denoise`, the part of the schedule that is run, and `last_sigma`, how it ends; see `finished`.
"""

from .flow import flow, flux_shift, linear_quadratic
from .ranges import curve, exponential, karras, kl_optimal, laplace, polyexponential, vp
from .tables import align_your_steps, beta, lcm, lcm_timesteps, timestep, timesteps, trained_sigmas

__all__ = [
    "align_your_steps",
    "beta",
    "curve",
    "exponential",
    "flow",
    "flux_shift",
    "karras",
    "kl_optimal",
    "laplace",
    "lcm",
    "lcm_timesteps",
    "linear_quadratic",
    "polyexponential",
    "timestep",
    "timesteps",
    "trained_sigmas",
    "vp",
]
