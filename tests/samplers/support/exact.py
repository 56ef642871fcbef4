"""Data whose denoiser and whose probability-flow ODE are known exactly, in float64."""

import math

from stepwise.samplers.exact import Mixture, gaussian, mixture, relative_rms


def slope(errors, counts=(1, 2, 4)) -> float:
    """The order at which errors fall with the number of steps, from the first to the last."""
    return math.log(errors[0] / errors[-1]) / math.log(counts[len(errors) - 1] / counts[0])


__all__ = ["Mixture", "gaussian", "mixture", "relative_rms", "slope"]
