"""The guidance scale at a noise level."""

import math
from collections.abc import Callable
from typing import Annotated, Literal

from ..parameters import InputError, Param
from ..path import Path

Measure = Annotated[
    Literal["sigma / alpha", "sigma"],
    Param(
        "sigma / alpha means the same on every model, and is sigma / (1 - sigma) on flow models; sigma is the model's "
        "own, as in SIGMAS. On all but flow models they are equal.",
        rare=True,
    ),
]
Over = Annotated[
    Literal["log_snr", "sigma"],
    Param(
        "What runs evenly along the curve: the logarithm of the signal-to-noise ratio, or the model's sigma.", rare=True
    ),
]
SigmaStart = Annotated[
    float, Param("Noise level, as sigma / alpha, where the curve begins.", 0.0001, 100000.0, 0.01, rare=True)
]
SigmaEnd = Annotated[
    float, Param("Noise level, as sigma / alpha, where the curve ends.", 0.0001, 100000.0, 0.01, rare=True)
]
Low = Annotated[
    float, Param("Guidance scale where the curve is 0. Where it is 1, the scale is the guider's own.", 0.0, 100.0, 0.1)
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
    """Limited interval: scale where sigma_low < sigma <= sigma_high, else 1   (Kynkäänniemi et al. 2024).

    Outside the interval the conditional prediction is the result and the unconditional one is not evaluated. The
    default is the paper's interval for Stable Diffusion XL; for its small class-conditional model it is 0.19 to 1.61.
    On flow models the default is 0.219 to 0.844 in the model's own sigma.
    """
    return scale if sigma_low < measured(measure, sigma, path) <= sigma_high else 1.0


def position(over: str, sigma: float, path: Path, sigma_start: float, sigma_end: float) -> float:
    """Where `sigma` lies between `sigma_start` (0) and `sigma_end` (1), both of them sigma / alpha."""
    if sigma_end >= sigma_start:
        problem = f"is {sigma_end:g}, not below sigma_start = {sigma_start:g}"
        raise InputError("sigma_end", problem, "the curve runs from high noise to low noise")
    if over == "sigma":
        first, last = path.sigma(-math.log(sigma_start)), path.sigma(-math.log(sigma_end))
        u = (first - sigma) / (first - last)
    else:
        u = (path.lam(sigma) + math.log(sigma_start)) / math.log(sigma_start / sigma_end)
    # Rounding must not turn an end of the range into guidance that is nearly none and costs a prediction.
    return min(max(round(u, 12), 0.0), 1.0)


def curve(
    scale: float,
    sigma: float,
    path: Path,
    *,
    shape: Annotated[
        Literal["cosine", "linear", "constant"],
        Param("How the curve runs from `start` to `end`; constant stays at `start`."),
    ] = "cosine",
    start: Annotated[
        float, Param("Value of the curve at high noise: 1 is the guider's own scale.", 0.0, 2.0, 0.01)
    ] = 0.0,
    end: Annotated[float, Param("Value of the curve at low noise.", 0.0, 2.0, 0.01)] = 1.0,
    low: Low = 1.0,
    over: Over = "log_snr",
    sigma_start: SigmaStart = 14.6146,
    sigma_end: SigmaEnd = 0.0292,
) -> float:
    """Scale along a curve: low + (scale - low) y(u), with u = 0 at sigma_start and 1 at sigma_end.

    linear is y = start + (end - start) u, and cosine is y = start + (end - start) (1 - cos pi u) / 2. Guidance that
    grows as the noise falls is what Wang et al. 2024 find best among such curves, and what Chang et al. 2023 (Muse,
    section 2.7) use. Beyond its ends the curve stays at their values, so that no number of steps and no
    split of a run changes it. The default range is Stable Diffusion's; on flow models it is 0.936 to 0.028.
    """
    u = position(over, sigma, path, sigma_start, sigma_end)
    rise = {"cosine": 0.5 - 0.5 * math.cos(math.pi * u), "linear": u, "constant": 0.0}[shape]
    return along(scale, low, start + (end - start) * rise)


def drawn_curve(
    scale: float,
    sigma: float,
    path: Path,
    *,
    curve: Callable[[float], float],
    low: Low = 1.0,
    over: Over = "log_snr",
    sigma_start: SigmaStart = 14.6146,
    sigma_end: SigmaEnd = 0.0292,
) -> float:
    """Scale along a drawn curve: low + (scale - low) curve(u), with u = 0 at sigma_start and 1 at sigma_end.

    Beyond its ends the curve stays at their values. The default range is Stable Diffusion's; on flow models it is 0.936
    to 0.028.
    """
    return along(scale, low, curve(position(over, sigma, path, sigma_start, sigma_end)))


def along(scale: float, low: float, y: float) -> float:
    """low + (scale - low) y, exact at 0 and at 1."""
    return scale if y == 1.0 else low + (scale - low) * y


def by_steps(
    scale: float,
    sigma: float,
    path: Path,
    *,
    first_steps: Annotated[
        int, Param("So many steps at the beginning of the run have `first_scale`.", 0, 10000, 1)
    ] = 0,
    first_scale: Annotated[float, Param("Guidance scale of the first steps.", 0.0, 100.0, 0.1)] = 1.0,
    last_steps: Annotated[int, Param("So many steps at the end of the run have `last_scale`.", 0, 10000, 1)] = 3,
    last_scale: Annotated[float, Param("Guidance scale of the last steps.", 0.0, 100.0, 0.1)] = 3.0,
    step: int | None = None,
    steps: int = 0,
) -> float:
    """Scale by steps: first_scale in the first steps, last_scale in the last, and the guider's own between them.

    Steps are counted over the schedule of the whole run, wherever it is cut; all model calls of a step have its scale.
    Where first and last steps overlap, they are last ones. `step` is None where the number of the step is not known:
    then the scale stays as it is.
    """
    if step is None:
        return scale
    if step >= steps - last_steps:
        return last_scale
    return first_scale if step < first_steps else scale


def by_component(
    scale: float,
    sigma: float,
    path: Path,
    *,
    first_scale: Annotated[
        float,
        Param("Guidance scale of the first component, the picture; also where there is only one.", 0.0, 100.0, 0.1),
    ] = 3.0,
    others_scale: Annotated[
        float, Param("Guidance scale of the other components, such as the sound.", 0.0, 100.0, 0.1)
    ] = 7.0,
    component: int = 0,
) -> float:
    """Scale by component: first_scale for the first part of a packed latent, others_scale for all others.

    Video with sound is sampled as one packed latent of several components. Rules behind this one, such as an interval,
    act on both scales.
    """
    return first_scale if component == 0 else others_scale
