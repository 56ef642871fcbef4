"""How far a picture ends from the reference, and how much the error of each counts."""

from torch import Tensor

# Between 0, where the logarithm of an error counts, and 1, the error itself: a few runs that branch off do not decide.
POWER = 0.5


def lengths(x: Tensor) -> Tensor:
    """|x| of each image, `[N]`."""
    return x.flatten(1).double().square().sum(1).sqrt()


def distances(x: Tensor, reference: Tensor) -> Tensor:
    """|x - reference| / |reference| of each image, `[N]`."""
    return lengths(x - reference) / lengths(reference).clamp_min(1e-12)


def score(errors: Tensor, power: float = POWER) -> float:
    """The power mean (mean e^p)^(1/p): what a fit makes smaller, and selects by."""
    if not bool(errors.isfinite().all()):
        return float("inf")
    return errors.clamp_min(1e-12).pow(power).mean().pow(1.0 / power).item()


def importance(errors: Tensor, power: float = POWER) -> Tensor:
    """The weights that make least squares of the relative errors descend the score: e^(p - 2).

    An image that is as good as reached counts no more than one at a fifth of the median.
    """
    weights = errors.clamp_min(max(0.2 * errors.median().item(), 1e-9)).pow(power - 2.0)
    return weights / weights.mean()
