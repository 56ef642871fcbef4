"""What a model was trained on: the noise levels that a schedule may take from it."""

from dataclasses import dataclass

from .path import Path


@dataclass(frozen=True)
class Trained:
    """The noise levels of a model, ascending, one for each trained timestep, and the path they belong to.

    `shift` is the one of a flow model's time, sigma = shift u / (1 + (shift - 1) u).
    """

    path: Path
    table: tuple[float, ...]
    shift: float = 1.0

    @property
    def sigma_min(self) -> float:
        return self.table[0]

    @property
    def sigma_max(self) -> float:
        return self.table[-1]
