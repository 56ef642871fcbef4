"""Diffusion solvers as plans of plain numbers, and the one machine that runs them.

    from . import VE, advance, run, start
    from stepwise.samplers.solvers.exponential_multistep import dpmpp_2m

    plan = dpmpp_2m(VE, sigmas)                # floats: print(plan) shows every coefficient
    state = run(plan, denoiser, start(x))      # tensors: denoiser(x, sigma) -> denoised

Nothing here imports ComfyUI.
"""

from .noise import AddressedNoise, varied
from .noise.brownian import BrownianNoise
from .path import FLOW, VE, Path
from .plan import Noise, Plan, PlanError, Predicted, Row, Stage, State, advance, row, run, start

__all__ = [
    "FLOW",
    "VE",
    "AddressedNoise",
    "BrownianNoise",
    "Noise",
    "Path",
    "Plan",
    "PlanError",
    "Predicted",
    "Row",
    "Stage",
    "State",
    "advance",
    "row",
    "run",
    "start",
    "varied",
]
