"""The model is told another noise level than that of the step."""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from .parameters import InputError, Param
from .path import Path


def told_level(
    sigma: Tensor,
    path: Path,
    *,
    amount: Annotated[
        float,
        Param(
            "Share of its noise level that the model is not told: above 0 for more detail, below 0 for less.",
            -0.5,
            0.5,
            0.01,
        ),
    ] = 0.1,
    shape: Annotated[
        Literal["hump", "constant"],
        Param("hump rises from nothing and falls back to it; constant is the same between its ends."),
    ] = "hump",
    sigma_start: Annotated[
        float, Param("Noise level, as sigma / alpha, where it begins.", 0.0001, 100000.0, 0.01)
    ] = 14.6146,
    sigma_end: Annotated[
        float, Param("Noise level, as sigma / alpha, where it ends.", 0.0001, 100000.0, 0.01)
    ] = 0.0292,
) -> Tensor:
    """Told noise level: sigma' = sigma (1 - amount y(u)), u = 0 at sigma_start and 1 at sigma_end.

    u runs evenly in log-SNR, so that no number of steps and no split of a run changes it; hump is y = sin^2(pi u), and
    constant is y = 1. Beyond the ends y is 0. The prediction is that for sigma', D(x; sigma'), and the step is made as
    if it were that for sigma: x has more noise than the model believes, and what it takes for detail stays.

    If y is 1 throughout a run on VE, with k = 1 - amount, the run is exactly the plain one on the levels k sigma from
    the same x, whose noise is 1 / k times too strong there: of Gaussian data the deviation comes out near 1 / k times
    what it is. The law of the result is not that of the data.

    Args:
        sigma: of any shape, one value for each image of a batch.

    Raises:
        InputError: if sigma_end is not below sigma_start.
    """
    if sigma_end >= sigma_start:
        problem = f"is {sigma_end:g}, not below sigma_start = {sigma_start:g}"
        raise InputError("sigma_end", problem, "the curve runs from high noise to low noise")
    level = sigma / (1.0 - sigma) if path is Path.FLOW else sigma
    u = (math.log(sigma_start) - level.log()) / math.log(sigma_start / sigma_end)
    if shape == "constant":
        y = ((u >= -1e-6) & (u <= 1.0 + 1e-6)).to(sigma.dtype)
    else:
        y = torch.sin(math.pi * u.clamp(0.0, 1.0)).square() * ((u > 0.0) & (u < 1.0))
    return sigma * (1.0 - amount * y)
