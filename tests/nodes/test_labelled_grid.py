"""The table of a comparison as an image: every picture whole in its place, and no text over one."""

import io

import numpy as np
import pytest
from PIL import Image
from stepwise.compare import Axis, Cell
from stepwise.nodes.shared.drawing import GROUNDS
from stepwise.nodes.shared.labelled_grid import Sheet, labelled_grid, letters, opened, size_of

LONG = "A sampler with a long name, averyverylongwordwithoutanyplacetobreakit and settings"


def png(width, height, seed):
    made = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(made).save(file, "PNG")
    return file.getvalue()


def table(rows, columns, width=64, height=64):
    """All labels are longer than their room; one cell has an error, one nothing."""
    axes = Axis("sampler", (LONG,) * rows), Axis("guidance", (f"7.5, {LONG}",) * columns)
    cells = {
        (i, j): Cell(png(width, height, i * columns + j), 20, 40, 1.5, note="a remark about this run " * 3)
        for i in range(rows)
        for j in range(columns)
    }
    cells[0, 1] = Cell(error="RuntimeError: " + "it did not work, and this is why. " * 20)
    del cells[1, 0]
    return *axes, cells


def pixels(image):
    return np.rint(255.0 * image[0].numpy()).astype(np.uint8)


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (6, 8)])
def test_every_picture_is_whole_and_stands_alone(rows, columns, theme):
    """Enlarged by one whole factor. Beside and above each is the plain ground."""
    given = table(rows, columns)
    sheet = pixels(labelled_grid(*given, 512, theme)[0])
    placed = Sheet(*given, (256, 256), theme)
    ground = np.array([int(GROUNDS[theme][0][i : i + 2], 16) for i in (1, 3, 5)])
    shown = 0
    for (i, j), cell in given[2].items():
        x, y = placed.place(i, j)
        if cell.picture:
            expected = np.asarray(opened(cell)).repeat(4, 0).repeat(4, 1)
            assert (sheet[y : y + 256, x : x + 256] == expected).all()
            shown += 1
        assert (sheet[y : y + 256, x - 2 : x] == ground).all()
        assert (sheet[y : y + 256, x + 256 : x + 258] == ground).all()
        assert (sheet[y - 2 : y, x : x + 256] == ground).all()
    assert shown == rows * columns - 2
    assert (sheet[-2:] == ground).all()
    assert (sheet[:, -2:] == ground).all()


@pytest.mark.parametrize(
    ("size", "largest", "expected"),
    [
        ((64, 64), 512, (256, 256)),
        ((64, 64), 128, (128, 128)),
        ((300, 200), 512, (300, 200)),
        ((1024, 512), 512, (512, 256)),
        ((1024, 1024), 4096, (1024, 1024)),
    ],
)
def test_pictures_are_enlarged_by_whole_factors_and_made_smaller_where_they_are_larger(size, largest, expected):
    assert size_of([size], largest, 4) == expected


def test_a_table_of_large_pictures_stays_below_50_million_pixels():
    width, height = size_of([(1024, 1024)], 1024, 2000)
    assert width * height * 2000 <= 51_000_000


def test_lines_are_no_wider_than_their_room_and_hold_every_letter():
    font = letters(14)
    for width in (20, 60, 200):
        lines = font.wrapped(LONG, width)
        assert all(font.length(line) <= width for line in lines)
        assert "".join(lines).replace(" ", "") == LONG.replace(" ", "")


def test_a_table_without_any_picture_is_drawn():
    rows, columns, _ = table(2, 2)
    image, _ = labelled_grid(rows, columns, {(0, 0): Cell(error="no")}, 512)
    assert image.shape[0] == 1
    assert len(np.unique(pixels(image).reshape(-1, 3), axis=0)) > 3
