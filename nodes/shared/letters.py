"""Letters of one size for any text: of matplotlib's font, and of the system's for scripts that it has not."""

import os
import sys
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import ImageFont

# No character, and so drawn as a font draws those that it has not.
NOTHING = "\U0010ffff"
ENDINGS = (".ttf", ".ttc", ".otf", ".otc")
# Parts of the names of fonts that have whole scripts, looked at first, and of other faces, looked at last.
FIRST = ("sanscjk", "pingfang", "hiragino", "msyh", "yugoth", "malgun", "nirmala", "notosans", "arialuni", "sans")
LAST = ("bold", "italic", "oblique", "mono", "thin", "black", "light", "condensed", "serif")
MOST_FONTS = 2000


@dataclass(frozen=True)
class Letters:
    """Fonts of one size, the first one before the others, and how much room their text takes."""

    fonts: Sequence[Any]
    size: int

    @property
    def line(self) -> int:
        return round(1.3 * self.size)

    @cached_property
    def known(self) -> dict[str, int]:
        """Which font draws a character, of those that have been asked for."""
        return {}

    def font_of(self, character: str) -> int:
        """Its number; that of the first where none has the character."""
        if character not in self.known:
            having = (i for i, font in enumerate(self.fonts) if has(font, character))
            self.known[character] = next(having, 0)
        return self.known[character]

    def parts(self, text: str) -> Iterator[tuple[Any, str]]:
        """The text in parts of one font each."""
        for number, part in groupby(text, self.font_of):
            yield self.fonts[number], "".join(part)

    def length(self, text: str) -> float:
        return sum(font.getlength(part) for font, part in self.parts(text))

    def write(self, draw: Any, x: float, y: float, text: str, colour: str) -> None:
        """A line of text, its left upper corner at (x, y)."""
        below = y + self.fonts[0].getmetrics()[0]
        for font, part in self.parts(text):
            draw.text((x, below), part, font=font, fill=colour, anchor="ls")
            x += font.getlength(part)

    def lacking(self, text: str) -> set[str]:
        """The characters that none of the fonts has; signs that only join or mark others are not asked for."""
        asked = {each for each in text if each.isprintable() and unicodedata.category(each)[0] != "M"}
        return {each for each in asked if not any(has(font, each) for font in self.fonts)}

    def wrapped(self, text: str, width: int) -> list[str]:
        """The lines of a text, each of at most so many pixels: broken between words, and in words that are longer."""
        return [line for part in text.splitlines() for line in self.broken(part.split(), width)]

    def broken(self, words: list[str], width: int) -> Iterator[str]:
        line = ""
        for word in words:
            longer = f"{line} {word}" if line else word
            if self.length(longer) <= width:
                line = longer
                continue
            if line:
                yield line
            while len(word) > 1 and self.length(word) > width:
                fits = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or self.length(word[:n]) <= width)
                yield word[:fits]
                word = word[fits:]
            line = word
        yield line

    def width(self, lines: list[str]) -> int:
        return round(max((self.length(line) for line in lines), default=0)) + 1


def letters(size: int, text: str = "") -> Letters:
    """matplotlib's DejaVu Sans, which has Greek and Cyrillic letters and arrows, or what Pillow has of its own; and for
    what of `text` it has not, fonts of this computer."""
    try:
        from matplotlib import get_data_path

        first = ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
    except (ImportError, OSError):
        first = ImageFont.load_default(size)
    return Letters([first, *others(size, Letters([first], size).lacking(text))], size)


def others(size: int, wanted: Collection[str]) -> Iterator[Any]:
    """Fonts of this computer that together have what is wanted, as far as there are any."""
    missing = set(wanted)
    for file in font_files() if missing else ():
        try:
            font = ImageFont.truetype(file, size)
            found = {each for each in missing if has(font, each)}
        except OSError:
            # A damaged file, or one of pictures of other sizes.
            continue
        if found:
            yield font
        missing -= found
        if not missing:
            return


def has(font: Any, character: str) -> bool:
    """Whether a font has a character; every one has what draws nothing."""
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask(NOTHING))


def font_files() -> list[Path]:
    """Where the systems keep their fonts, those with whole scripts first."""
    found = [
        Path(folder, name)
        for where in font_folders()
        for folder, _, names in os.walk(where)
        for name in names
        if name.lower().endswith(ENDINGS)
    ]
    return sorted(found, key=preference)[:MOST_FONTS]


def preference(file: Path) -> tuple[bool, int, str]:
    name = file.name.lower()
    first = next((i for i, part in enumerate(FIRST) if part in name), len(FIRST))
    return any(part in name for part in LAST), first, name


def font_folders() -> list[Path]:
    if sys.platform == "win32":
        system, own = os.environ.get("WINDIR", r"C:\Windows"), os.environ.get("LOCALAPPDATA")
        return [Path(system, "Fonts"), *([Path(own, "Microsoft", "Windows", "Fonts")] if own else [])]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), Path.home() / "Library" / "Fonts"]
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    own = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return [Path(each, "fonts") for each in (own, *shared.split(":"))]
