"""Where the nodes of an example stand: groups in columns from left to right, nodes in them from top to bottom.

How large a node is on the page only the page knows: `on_page.py` measures it, in both canvases and with previews, and
`sizes.json` keeps it. A node that has not been measured yet gets a guess.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .description import Node, Workflow

FILE = Path(__file__).with_name("sizes.json")
NOTE = 0
TITLE = 30
GAP, PADDING, BETWEEN = 18, 12, 20
HEAD = 42
WIDTH = 290
# The window for which an example is made; the page opens one so that it fills three quarters of it.
WINDOW = (1600, 900)
SHOWN = 0.75
CORNER = (90, 110)
# Letters of the note in a line of its width, and the heights of its lines and of all else in it.
LETTER, LINE, FRAME = 8.6, 26, 96

Sizes = dict[str, dict[str, Any]]
Place = tuple[int, int]


@dataclass(frozen=True)
class Box:
    """`size` is a node's own, as workflows keep it; `room` what it takes up at most, its title included."""

    size: tuple[int, int]
    room: tuple[int, int]


@dataclass
class Layout:
    boxes: dict[int, Box]
    places: dict[int, Place]
    groups: dict[str, tuple[int, int, int, int]]

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """Left, top, width and height of everything."""
        x, y = self.places[NOTE]
        rectangles = [*self.groups.values(), (x, y - TITLE, *self.boxes[NOTE].room)]
        left, top = (min(each[i] for each in rectangles) for i in (0, 1))
        right, bottom = (max(each[i] + each[i + 2] for each in rectangles) for i in (0, 1))
        return left, top, right - left, bottom - top


def measured() -> dict[str, Sizes]:
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def box_of(node: Node, sizes: Sizes) -> Box:
    if known := sizes.get(str(node.id)):
        return Box(tuple(known["size"]), tuple(known["room"]))
    width, height = node.size or (WIDTH, 0)
    guess = max(height, 40 + 26 * len(node.inputs)) + TITLE
    return Box((width, height), (225, TITLE) if node.compact else (width, guess))


def laid_out(workflow: Workflow, sizes: Sizes) -> Layout:
    boxes = {node.id: box_of(node, sizes) for node in workflow.nodes}
    layout = Layout(boxes, {}, {})
    x = 0
    for titles in workflow.columns:
        y, width = 0, max(width_of(workflow, title, boxes) for title in titles)
        for title in titles:
            bottom = placed(workflow, title, layout, x, y)
            layout.groups[title] = (x, y, width, bottom - y)
            y = bottom + BETWEEN
        x += width + BETWEEN
    if lost := {node.place[0] for node in workflow.nodes} - layout.groups.keys():
        raise SystemExit(f"{workflow.name} has no group {', '.join(sorted(lost))}")
    width = min(x - BETWEEN, 1750)
    height = FRAME + LINE * sum(
        math.ceil(len(line) * LETTER / (width - 40)) for line in workflow.note.splitlines() if line[:1] != "#"
    )
    boxes[NOTE] = Box((width, height), (width, height + TITLE))
    layout.places[NOTE] = (0, -BETWEEN - height)
    return layout


def members(workflow: Workflow, title: str) -> dict[int, list[Node]]:
    """The nodes of a group, by its columns."""
    found: dict[int, list[Node]] = {}
    for node in workflow.nodes:
        if node.place[0] == title:
            found.setdefault(node.place[1], []).append(node)
    return dict(sorted(found.items()))


def width_of(workflow: Workflow, title: str, boxes: dict[int, Box]) -> int:
    columns = members(workflow, title).values()
    inner = sum(max(boxes[node.id].room[0] for node in column) + GAP for column in columns) - GAP
    return max(inner + 2 * PADDING, 15 * len(title))


def placed(workflow: Workflow, title: str, layout: Layout, x: int, y: int) -> int:
    """Puts the nodes of a group into it, and returns where it ends."""
    left, lowest = x + PADDING, y
    for column in members(workflow, title).values():
        top = y + HEAD
        for node in column:
            layout.places[node.id] = (left, top + TITLE)
            top += layout.boxes[node.id].room[1] + GAP
        left += max(layout.boxes[node.id].room[0] for node in column) + GAP
        lowest = max(lowest, top - GAP + PADDING)
    return lowest


def view(layout: Layout) -> dict[str, Any]:
    """The page's zoom and offset, for a workflow that is dropped: as a template opens, or larger."""
    left, top, width, height = layout.bounds
    scale = round(min(1.0, 1480 / width, 770 / height), 2)
    return {"scale": scale, "offset": [round(CORNER[0] / scale - left), round(CORNER[1] / scale - top)]}
