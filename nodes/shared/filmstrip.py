"""Pictures of a run from left to right, with the step and the noise level over each."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .drawing import GROUNDS

GAP = 4
# The smallest letters that are legible, and a line of them.
LETTERS, LINE = 11, 15


def filmstrip(pictures: Sequence[Tensor], labels: Sequence[Sequence[str]], columns: int, theme: str) -> Tensor:
    """`[1, H, W, 3]` of one `[B, h, w, 3]` for each step, all of one shape: a column for each step, a row for each
    image, `columns` steps in a line before the next line begins below; over each column the lines of its label."""
    ground, ink, _ = GROUNDS[theme]
    images, height, width, _ = pictures[0].shape
    lines = [range(at, min(at + columns, len(pictures))) for at in range(0, len(pictures), columns)]
    size = max(LETTERS, min(width, height) // 20)
    head = max(map(len, labels), default=0) * (size * LINE // LETTERS) + GAP
    across = len(lines[0]) * (width + GAP) + GAP
    tall = head + images * (height + GAP)
    sheet = Image.new("RGB", (across, len(lines) * tall + GAP), ground)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size)
    for number, line in enumerate(lines):
        for column, step in enumerate(line):
            left, top = GAP + column * (width + GAP), number * tall + GAP
            for i, text in enumerate(labels[step]):
                place = (left + width // 2, top + i * (size * LINE // LETTERS))
                draw.text(place, fitted(text, font, width), fill=ink, font=font, anchor="ma")
    made = torch.from_numpy(np.asarray(sheet).copy()).float()[None] / 255.0
    for number, line in enumerate(lines):
        for column, step in enumerate(line):
            for image, picture in enumerate(pictures[step]):
                left, top = GAP + column * (width + GAP), number * tall + head + image * (height + GAP)
                made[0, top : top + height, left : left + width] = picture[..., :3]
    return made


def fitted(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """As much of `text` as fits over a picture."""
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text
