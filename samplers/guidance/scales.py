"""The guidance scale at a noise level."""

import math
from typing import Annotated, Literal

from ..parameters import Param
from ..path import Path

Measure = Annotated[
    Literal["sigma / alpha", "sigma"],
    Param(
        "sigma / alpha means the same on every model, and is sigma / (1 - sigma) on flow models; sigma is the model's "
        "own, as in SIGMAS. On all but flow models they are equal."
    ),
]


def measured(measure: str, sigma: float, path: Path) -> float:
    """The noise level in the chosen measure."""
    return sigma if measure == "sigma" else math.exp(-path.lam(sigma))


def interval(
    scale: float,
    sigma: float,
    path: Path,
    *,
    sigma_low: Annotated[float, Param("Guidance acts above this noise level.", 0.0, 100000.0, 0.01)] = 0.28,
    sigma_high: Annotated[float, Param("Guidance acts up to this noise level.", 0.0, 100000.0, 0.01)] = 5.42,
    measure: Measure = "sigma / alpha",
) -> float:
    """Limited interval: scale where sigma_low < sigma <= sigma_high, else 1   (Kynkäänniemi et al. 2024, eq. 6).

    Outside the interval the conditional prediction is the result and the unconditional one is not evaluated. The
    default is the paper's interval for Stable Diffusion XL (their section 4); for small class-conditional models they
    used 0.19 to 1.61. On flow models the default is 0.219 to 0.844 in the model's own sigma.
    """
    return scale if sigma_low < measured(measure, sigma, path) <= sigma_high else 1.0
