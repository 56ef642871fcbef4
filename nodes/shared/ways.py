"""The ways of a run: where each value stands step after step, carried by the latents of Trajectory to a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...samplers import Path
from ...samplers.exact import Mixture
from ...samplers.parameters import InputError, counted
from .density import in_scale

# Other nodes copy it along with the rest of the latent, and read nothing of it.
MARK = "stepwise_ways"
CURE = "wire x or denoised of Trajectory, with no node between"
ON_THIS = "run Trajectory on the model of a Mixture Model with these settings"


@dataclass(frozen=True)
class Ways:
    """What the images of a LATENT are: those of a batch after one step of a run, then after the next.

    samples: the images themselves, since a node that makes others of them may keep the mark.
    levels: the noise level that each step has reached.
    data: those of the model, where it is a Mixture Model's.
    start: where the run began, as `samples` has it, at the level `began`; None where that is not shown.
    """

    samples: Any
    levels: tuple[float, ...]
    path: Path
    data: Mixture | None = None
    start: Any = None
    began: float = 0.0


def marked(
    samples: Any,
    levels: Sequence[float],
    path: Path,
    data: Mixture | None,
    start: Any = None,
    began: float = 0.0,
) -> dict[str, Any]:
    """A LATENT that says what its images are."""
    return {"samples": samples, MARK: Ways(samples, tuple(levels), path, data, start, began)}


def ways_of_latent(name: str, latent: Any, data: Mixture, most: int) -> list[Tensor]:
    """`[P, D]` for the beginning and each step, of the first `most` values, in the scale of `in_scale`.

    Raises InputError for a latent that no Trajectory gave, and for a run on a model of other data.
    """
    ways = latent.get(MARK) if isinstance(latent, Mapping) else None
    if not isinstance(ways, Ways) or ways.samples is not latent.get("samples") or not ways.levels:
        raise InputError(name, "does not hold the steps of a run", CURE)
    samples = ways.samples
    if samples.is_nested or samples.shape[1] != data.dimensions:
        found = "of several kinds" if samples.is_nested else f"of {counted(samples.shape[1], 'number')}"
        raise InputError(name, f"has values {found}, and this mixture has {data.dimensions}", ON_THIS)
    if ways.data is None or not ways.data.equals(data):
        found = "another model" if ways.data is None else "a mixture of another seed or other components"
        raise InputError(name, f"is a run on {found}, and the picture would show this one", ON_THIS)
    steps = [*zip(samples.chunk(len(ways.levels)), ways.levels, strict=True)]
    if ways.start is not None:
        steps.insert(0, (ways.start, ways.began))
    return [values(x, level, ways.path)[:most] for x, level in steps]


def values(x: Tensor, sigma: float, path: Path) -> Tensor:
    """Each position of each image by itself: `[P, D]`. As an output x is divided by alpha, where there is any."""
    sigma = min(sigma, path.sigma_max)
    rows = x.float().movedim(1, -1).flatten(0, -2)
    return in_scale(path, rows * (path.alpha(sigma) or 1.0), sigma)
