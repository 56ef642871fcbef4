"""What a result folder is made into: a table, and a page over two axes."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from ..compare import Axis, Cell, page
from ..compare.page import KINDS
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


def html(store: Store, down: str, across: str | None, fixed: dict[str, str], title: str) -> str:
    """The page of pictures over two axes, or over one in a single column; `fixed` says what the others are, the first
    value where it does not."""
    rows = list(store.rows())
    names = axes_in(rows)
    shown = (down,) if across is None else (down, across)
    unknown = [name for name in (*shown, *fixed) if name not in names]
    problems = [f"there is no axis {name!r}; there are {', '.join(names)}" for name in unknown]
    problems += [f"{name} has a place on the page, and --at says one value of it" for name in fixed if name in shown]
    if down == across:
        problems.append("a page has two axes, and both are the same")
    if problems:
        raise BadSweep(*problems)
    points = [{name: label(value) for name, value in row["point"].items()} for row in rows]
    values = {name: list(dict.fromkeys(point[name] for point in points)) for name in names}
    along = {name: one for name in names for one in shown if name not in (*shown, *fixed) and goes(points, name, one)}
    others = {name: fixed.get(name, values[name][0]) for name in names if name not in (*shown, *along)}
    for name, value in others.items():
        if value not in values[name]:
            raise BadSweep(f"{name} is {value!r} at no cell; it is {', '.join(values[name])}")
    cells = {}
    for row, point in zip(rows, points, strict=True):
        if all(point[name] == value for name, value in others.items()):
            place = values[down].index(point[down]), 0 if across is None else values[across].index(point[across])
            if (made := cell_of(store, row)) is not None:
                cells[place] = made
    said = [f"{name} {value}" for name, value in others.items()]
    text = ", ".join(said + [f"{name} goes with {one}" for name, one in along.items()])
    columns = Axis("sweep", (title,)) if across is None else Axis(across, tuple(values[across]))
    return page(title, Axis(down, tuple(values[down])), columns, cells, text)


def goes(points: Sequence[dict[str, str]], name: str, other: str) -> bool:
    """Whether an axis moves with another one, as zipped axes do: at each value of that it has but one, and not always
    the same."""
    pairs = {(point[other], point[name]) for point in points}
    return len(pairs) == len({at for at, _ in pairs}) and len({value for _, value in pairs}) > 1


def cell_of(store: Store, row: dict[str, Any]) -> Cell | None:
    """What stands at a place of the page: the cell's first picture; nothing where it was not run."""
    if row["finished"] is None:
        return Cell(error=row["error"]) if row["error"] else None
    pictures = [each for each in row["outputs"] if Path(each["name"]).suffix.lower() in PICTURES]
    note = f"went on from step {row['went_on_from']}" if row["went_on_from"] else ""
    known = {"calls": row["calls"] or None, "seconds": row["seconds"], "note": note}
    if not pictures:
        return Cell(**known)
    file = pictures[0]["file"]
    try:
        picture = store.read(file)
    except FileNotFoundError:
        return Cell(error=f"{file} is gone; run the sweep again")
    except (OSError, ValueError):
        return Cell(error=f"{file} is damaged; delete it and run the sweep again")
    shown = any(begins.match(picture) for begins, _ in KINDS)
    return Cell(picture, **known) if shown else Cell(error=f"{file} is no PNG, JPEG, WebP or GIF")
