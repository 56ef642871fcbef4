"""What a result folder is made into: a table, and a page over two axes."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from ..compare import Axis, Cell, page
from .store import Store
from .values import BadSweep

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
FIGURES = ("calls", "seconds", "host", "finished", "went_on_from", "error")


def axes_in(rows: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["point"]))


def label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def table(store: Store, out: TextIO) -> int:
    """CSV: a line for each cell, with its axes, its figures and the files of its outputs; the number of lines."""
    names = axes_in(store.rows())
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["cell", *names, *FIGURES, "outputs"])
    lines = 0
    for row in store.rows():
        point = [label(row["point"][name]) if name in row["point"] else "" for name in names]
        files = " ".join(each["file"] for each in row["outputs"])
        figures = ["" if row[name] is None else row[name] for name in FIGURES]
        writer.writerow([row["number"], *point, *figures, files])
        lines += 1
    return lines


def html(store: Store, down: str, across: str, fixed: dict[str, str], title: str) -> str:
    """The page of pictures over two axes; `fixed` says what the others are, the first value where it does not."""
    rows = list(store.rows())
    names = axes_in(rows)
    unknown = [name for name in (down, across, *fixed) if name not in names]
    problems = [f"there is no axis {name!r}; there are {', '.join(names)}" for name in unknown]
    if down == across:
        problems.append("a page has two axes, and both are the same")
    if problems:
        raise BadSweep(*problems)
    values = {name: list(dict.fromkeys(label(row["point"][name]) for row in rows)) for name in names}
    others = {name: fixed.get(name, values[name][0]) for name in names if name not in (down, across)}
    for name, value in others.items():
        if value not in values[name]:
            raise BadSweep(f"{name} is {value!r} at no cell; it is {', '.join(values[name])}")
    cells = {}
    for row in rows:
        point = {name: label(value) for name, value in row["point"].items()}
        if all(point[name] == value for name, value in others.items()):
            place = values[down].index(point[down]), values[across].index(point[across])
            if (made := cell_of(store, row)) is not None:
                cells[place] = made
    text = ", ".join(f"{name} {value}" for name, value in others.items())
    return page(title, Axis(down, tuple(values[down])), Axis(across, tuple(values[across])), cells, text)


def cell_of(store: Store, row: dict[str, Any]) -> Cell | None:
    """What stands at a place of the page: the cell's first picture; nothing where it was not run."""
    if row["finished"] is None:
        return Cell(error=row["error"]) if row["error"] else None
    pictures = [each for each in row["outputs"] if Path(each["name"]).suffix.lower() in PICTURES]
    note = f"went on from step {row['went_on_from']}" if row["went_on_from"] else ""
    if not pictures:
        return Cell(calls=row["calls"], seconds=row["seconds"], note=note)
    return Cell(store.path(pictures[0]["file"]), row["calls"] or None, seconds=row["seconds"], note=note)
