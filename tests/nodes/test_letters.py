"""Letters of any script: those of matplotlib's font, of a font of the computer, or a number in their place."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from matplotlib import get_data_path
from PIL import Image, ImageDraw
from stepwise.compare import Axis, Cell
from stepwise.nodes.shared import letters as room
from stepwise.nodes.shared.labelled_grid import labelled_grid

DEJAVU = Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
INK, GROUND = "#ffffff", "#000000"
WORD = "快速"


@pytest.fixture
def no_fonts(monkeypatch):
    monkeypatch.setattr(room, "font_folders", list)


@pytest.fixture
def one_font(monkeypatch, tmp_path):
    """A computer with a damaged font and one that has two characters: a whole square, and half of one."""
    (tmp_path / "SansDamaged.ttf").write_bytes(DEJAVU.read_bytes()[:300])
    sides = {".notdef": (0, 0), "whole": (1000, 800), "half": (1000, 400)}
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(list(sides))
    font.setupCharacterMap({ord(WORD[0]): "whole", ord(WORD[1]): "half"})
    font.setupGlyf({name: box(*side) for name, side in sides.items()})
    font.setupHorizontalMetrics(dict.fromkeys(sides, (1000, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Two Characters", "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800)
    font.setupPost()
    (tmp_path / "deeper").mkdir()
    font.save(tmp_path / "deeper" / "Two.ttf")
    monkeypatch.setattr(room, "font_folders", lambda: [tmp_path])


def box(width, height):
    pen = TTGlyphPen(None)
    if width:
        pen.moveTo((0, 0))
        for corner in ((0, height), (width, height), (width, 0)):
            pen.lineTo(corner)
        pen.closePath()
    return pen.glyph()


def drawn(letters, text):
    picture = Image.new("RGB", (200, 60), GROUND)
    letters.write(ImageDraw.Draw(picture), 10, 10, text, INK)
    return np.asarray(picture.convert("L")) > 127


def test_what_a_font_has_is_what_its_own_table_lists():
    """Every printable character of the first 12288 that is no mark and is not put together of two others."""
    listed = TTFont(DEJAVU).getBestCmap()
    font = room.letters(14).fonts[0]
    asked = [
        each
        for each in map(chr, range(0x20, 0x3000))
        if each.isprintable() and unicodedata.category(each)[0] != "M" and unicodedata.normalize("NFKD", each) == each
    ]
    assert len(asked) > 5000
    assert [each for each in asked if room.has(font, each) != (each.isspace() or ord(each) in listed)] == []


def test_characters_of_another_font_are_drawn_with_it(one_font):
    """Squares as high and wide as the size of the letters, on the line that the others stand on."""
    letters = room.letters(20, f"Euler {WORD}")
    assert [font.getname()[0] for font in letters.fonts] == ["DejaVu Sans", "Two Characters"]
    assert letters.lacking(f"Euler {WORD}") == set()
    seen = drawn(letters, f"E{WORD}")
    base = 10 + letters.fonts[0].getmetrics()[0]
    left = 10 + round(letters.length("E"))
    assert letters.length(f"E{WORD}") == letters.length("E") + 40
    assert seen[base - 16 : base, left + 1 : left + 19].all()
    assert seen[base - 8 : base, left + 21 : left + 39].all()
    assert not seen[: base - 16, left + 1 :].any()
    assert not seen[base - 15 : base - 9, left + 21 :].any()
    assert not seen[base:, left + 1 :].any()
    # E stands on the same line.
    assert seen[base - 1, 10:left].any()
    assert not seen[base:, 10:left].any()


def test_a_text_that_the_first_font_has_looks_for_no_other(monkeypatch):
    monkeypatch.setattr(room, "font_folders", lambda: pytest.fail("looked for fonts"))
    assert len(room.letters(14, "Euler, η 0.5 → СДУ").fonts) == 1


def test_labels_without_a_font_are_numbers_and_said_in_words(no_fonts):
    """And what of them can be read stays. The picture has no box in the place of a letter."""
    rows = Axis("sampler", ("Euler", f"DPM++ {WORD} 2M", f"{WORD}\n{WORD}"))
    columns = Axis("seed", ("1", f"{WORD}"))
    image, numbered = labelled_grid(rows, columns, {(0, 0): Cell(error="no")}, 256)
    assert numbered == [f"column 2: {WORD}", f"row 2: DPM++ {WORD} 2M", f"row 3: {WORD} {WORD}"]
    axes = (Axis("sampler", ("Euler", "row 2: DPM++ … 2M", "row 3")), Axis("seed", ("1", "column 2")))
    expected, told = labelled_grid(*axes, {(0, 0): Cell(error="no")}, 256)
    assert told == []
    assert np.array_equal(image, expected)


def test_labels_with_a_font_are_as_they_are(one_font):
    image, numbered = labelled_grid(Axis("sampler", (WORD,)), Axis("seed", ("1",)), {}, 256)
    assert numbered == []
    other, _ = labelled_grid(Axis("sampler", ("row 1",)), Axis("seed", ("1",)), {}, 256)
    assert image.shape != other.shape or not np.array_equal(image, other)


def test_the_fonts_of_every_system_are_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("WINDIR", str(tmp_path))
    for platform, folder in (("linux", tmp_path / "fonts"), ("win32", tmp_path / "Fonts")):
        monkeypatch.setattr(room.sys, "platform", platform)
        assert folder in room.font_folders()
    monkeypatch.setattr(room.sys, "platform", "darwin")
    assert Path("/System/Library/Fonts") in room.font_folders()


def test_whole_scripts_and_plain_faces_come_first():
    names = ["NotoSansCJK-Bold.ttc", "Other.ttf", "msyh.ttc", "NotoSansCJK-Regular.ttc", "NotoSansArabic.ttf"]
    expected = ["NotoSansCJK-Regular.ttc", "msyh.ttc", "NotoSansArabic.ttf", "Other.ttf", "NotoSansCJK-Bold.ttc"]
    assert [each.name for each in sorted(map(Path, names), key=room.preference)] == expected
