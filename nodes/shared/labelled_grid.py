"""A comparison as one picture: a table of pictures with its labels, the figures below each, errors in their places."""

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from ...compare import Axis, Cell
from ...compare.axes import Cells
from .drawing import GROUNDS
from .letters import letters

# Pictures of the demo models are small: they are enlarged by whole factors until letters fit below them.
NARROWEST = 208
# A picture of more is scaled down: this is 600 MB of IMAGE.
MOST_PIXELS = 50_000_000
FAINT = {"dark": "#9b9ea6", "light": "#62656d"}
WRONG = {"dark": "#ff8f7a", "light": "#b3261e"}


def labelled_grid(
    rows: Axis, columns: Axis, cells: Cells, largest: int, theme: str = "dark"
) -> tuple[torch.Tensor, list[str]]:
    """IMAGE `[1, H, W, 3]`, and what its numbers stand for where a label has letters that no font here has.

    The longer side of each picture is at most `largest`.
    """
    found = {place: opened(cell) for place, cell in cells.items() if cell.picture is not None}
    across, down = size_of([each.size for each in found.values()], largest, len(rows.labels) * len(columns.labels))
    sheet = Sheet(rows, columns, cells, (across, down), theme)
    return sheet.drawn(found), sheet.numbered


def opened(cell: Cell) -> Image.Image:
    file = io.BytesIO(cell.picture) if isinstance(cell.picture, bytes) else cell.picture
    return Image.open(file).convert("RGB")


def size_of(sizes: list[tuple[int, int]], largest: int, count: int) -> tuple[int, int]:
    """How large the pictures are drawn: enlarged by a whole factor, as they are, or made smaller."""
    width, height = max(sizes, default=(NARROWEST, NARROWEST))
    factor = max(1, min(-(-NARROWEST // width), largest // max(width, height)))
    scale = min(factor, largest / max(width, height), (MOST_PIXELS / count / (width * height)) ** 0.5)
    return max(1, round(scale * width)), max(1, round(scale * height))


class Sheet:
    """The places of everything, and the picture that they are drawn on."""

    def __init__(self, rows: Axis, columns: Axis, cells: Cells, size: tuple[int, int], theme: str):
        self.rows, self.columns, self.cells, self.theme = rows, columns, cells, theme
        self.width, self.height = size
        said = (part for cell in cells.values() for part in (cell.error, cell.note))
        self.letters = letters(min(max(self.width // 17, 12), 30), "".join((*rows.labels, *columns.labels, *said)))
        self.gap = self.letters.size
        self.numbered: list[str] = []
        self.heads = [self.letters.wrapped(label, self.width) for label in self.legible("column", columns.labels)]
        self.corner = [f"{rows.name} ↓", f"{columns.name} →"]
        widest = min(14 * self.letters.size, max(self.width, 6 * self.letters.size))
        self.sides = [self.letters.wrapped(label, widest) for label in self.legible("row", rows.labels)]
        self.side = max(map(self.letters.width, [self.corner, *self.sides]))
        self.captions = {place: self.letters.wrapped(caption(cell), self.width) for place, cell in cells.items()}
        self.below = self.letters.line * max(map(len, self.captions.values()), default=0)
        tallest = max(map(len, self.sides)) * self.letters.line
        self.row = max(self.height + self.below, tallest) + self.gap
        self.top = max(len(self.corner), *map(len, self.heads)) * self.letters.line + 2 * self.gap

    def legible(self, word: str, labels: Sequence[str]) -> Iterator[str]:
        """The labels; one with letters that no font here has is its number, and what of it can be read."""
        for number, label in enumerate(labels, 1):
            lacking = self.letters.lacking(label)
            if not lacking:
                yield label
                continue
            self.numbered.append(f"{word} {number}: {' '.join(label.splitlines())}")
            rest = re.sub(r"…[…\s]*", "… ", "".join("…" if each in lacking else each for each in label))
            yield f"{word} {number}: {rest}".rstrip(" :…")

    def place(self, row: int, column: int) -> tuple[int, int]:
        """Left and upper edge of a picture."""
        return 2 * self.gap + self.side + column * (self.width + self.gap), self.top + row * self.row

    def drawn(self, pictures: dict[tuple[int, int], Image.Image]) -> torch.Tensor:
        ground, ink, line = GROUNDS[self.theme]
        sheet = Image.new("RGB", self.place(len(self.rows.labels), len(self.columns.labels)), ground)
        draw = ImageDraw.Draw(sheet)
        top = self.top
        self.write(draw, self.corner, self.gap, self.gap, FAINT[self.theme])
        for column, lines in enumerate(self.heads):
            bottom = top - self.gap - len(lines) * self.letters.line
            self.write(draw, lines, self.place(0, column)[0], bottom, ink)
        for row, lines in enumerate(self.sides):
            self.write(draw, lines, self.gap, self.place(row, 0)[1], ink)
        draw.line((self.gap, top - self.gap // 2, sheet.width - self.gap, top - self.gap // 2), fill=line)
        for row in range(len(self.rows.labels)):
            for column in range(len(self.columns.labels)):
                self.fill(sheet, draw, (row, column), pictures.get((row, column)))
        return torch.from_numpy(np.asarray(sheet).astype(np.float32) / 255.0)[None]

    def fill(self, sheet: Image.Image, draw: Any, at: tuple[int, int], picture: Image.Image | None) -> None:
        (x, y), cell = self.place(*at), self.cells.get(at)
        if picture is not None:
            larger = self.width >= picture.width
            method = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
            sheet.paste(fitted(picture, (self.width, self.height), method), (x, y))
        else:
            self.say(draw, cell, x, y)
        self.write(draw, self.captions.get(at, []), x, y + self.height + self.letters.size // 4, FAINT[self.theme])

    def say(self, draw: Any, cell: Cell | None, x: int, y: int) -> None:
        """In the place of a picture, why there is none."""
        failed = cell is not None and bool(cell.error)
        colour = WRONG[self.theme] if failed else FAINT[self.theme]
        draw.rectangle((x, y, x + self.width - 1, y + self.height - 1), outline=colour)
        inside = self.letters.size // 2
        text = "not run" if cell is None else cell.error or cell.note or "no picture"
        lines = self.letters.wrapped(text, self.width - 2 * inside)
        room = max(1, (self.height - 2 * inside) // self.letters.line)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"{lines[room - 1][:-1]}…"]
        self.write(draw, lines, x + inside, y + inside, colour)

    def write(self, draw: Any, lines: list[str], x: int, y: int, colour: str) -> None:
        for number, line in enumerate(lines):
            self.letters.write(draw, x, y + number * self.letters.line, line, colour)


def fitted(picture: Image.Image, size: tuple[int, int], method: Any) -> Image.Image:
    """The picture, or one of another shape whole within the same room."""
    scale = min(size[0] / picture.width, size[1] / picture.height)
    whole = (max(1, round(scale * picture.width)), max(1, round(scale * picture.height)))
    return picture if whole == picture.size else picture.resize(whole, method)


def caption(cell: Cell) -> str:
    """What stands below a picture."""
    note = cell.note if cell.picture is not None or cell.error else ""
    return "\n".join(each for each in (cell.figures(), note) if each)
