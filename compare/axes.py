"""What a comparison is made of: two axes, and what came of each cell."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Axis:
    """What varies along one side: its name, and a label for each row or column, in order. Labels may be equal."""

    name: str
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.labels, str) or not self.labels:
            raise ValueError(f"The axis {self.name!r} has no labels: it needs one for each row or column.")


@dataclass(frozen=True)
class Cell:
    """What came of one cell.

    picture      the bytes of a PNG, JPEG, WebP or GIF file, or the file; None where there is none
    calls        how often the sampler asked the model for a prediction, at least 0
    evaluations  predictions of the network for one image: with CFG two for each call; at least 0
    seconds      how long it took, at least 0
    error        why there is no picture, or what is wrong with it
    note         one line more, below the figures; in the place of a picture where there is neither it nor an error
    Whatever is not known stays None or empty.
    """

    picture: bytes | Path | None = None
    calls: int | None = None
    evaluations: int | None = None
    seconds: float | None = None
    error: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("calls", "evaluations", "seconds"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}, and it is a number from 0 up, or None.")

    def figures(self) -> str:
        """ "20 calls, 40 evaluations, 1.3 s", as far as they are known."""
        said = [counted(self.calls, "call"), counted(self.evaluations, "evaluation"), duration(self.seconds)]
        return ", ".join(each for each in said if each)


Cells = Mapping[tuple[int, int], Cell]


def counted(number: int | None, word: str) -> str:
    return "" if number is None else f"{number} {word}{'' if number == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Two digits of seconds: more is not the same the next time."""
    if seconds is None:
        return ""
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"


def check_places(rows: Axis, columns: Axis, cells: Cells) -> None:
    """Raises ValueError for a cell that is on none of the rows and columns."""
    for row, column in cells:
        if not (0 <= row < len(rows.labels) and 0 <= column < len(columns.labels)):
            raise ValueError(
                f"There is a cell at row {row}, column {column}, counted from 0, and the page has {len(rows.labels)} "
                f"rows and {len(columns.labels)} columns."
            )
