"""Where nodes stand: how high one of ours is, a place for a new one, and room for those that have grown.

Heights are those of the classic canvas, as the page draws its nodes: 20 pixels for each row of sockets, 24 for each
widget in sight, 14 around them.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

from .table import Input

ROW, WIDGET, AROUND, TITLE, GAP = 20, 24, 14, 30, 20
USUAL_WIDTH, COLLAPSED = 315.0, 120.0
# How many edges of others are tried in each direction, and beyond how many nodes or groups all stay where they are.
NEAREST, MOST = 16, 2000
Box = list[float]


def numbers(value: Any, count: int) -> list[float] | None:
    """A position, size or frame, which old versions save as an object; None for what is none."""
    if isinstance(value, dict):
        value = [value.get(str(i), value.get(i)) for i in range(count)]
    try:
        found = [float(each) for each in value][:count]
    except (TypeError, ValueError, OverflowError):
        return None
    return found if len(found) == count and all(map(isfinite, found)) else None


def size_of(inputs: Sequence[Input], outputs: int, before: Any, unfolded: bool) -> list[float]:
    """What its sockets and widgets take, and as wide as it was."""
    sockets = sum(not each.widget for each in inputs)
    seen = [each for each in inputs if each.widget and (unfolded or not each.advanced)]
    folded = any(each.widget and each.advanced for each in inputs)
    widgets = len(seen) + sum(each.control for each in seen) + folded
    width = (numbers(before, 2) or [USUAL_WIDTH])[0]
    # Many widgets are higher on Nodes 2.0.
    higher = 2 * widgets if unfolded else 0
    return [width, ROW * max(sockets, outputs) + WIDGET * widgets + AROUND + higher]


def box(node: Mapping[str, Any]) -> Box:
    """Left, top, right, bottom, with the title."""
    x, y = numbers(node.get("pos"), 2) or (0.0, 0.0)
    width, height = numbers(node.get("size"), 2) or (0.0, 0.0)
    if isinstance(node.get("flags"), dict) and node["flags"].get("collapsed"):
        return [x, y - TITLE, x + min(width, COLLAPSED), y]
    return [x, y - TITLE, x + width, y + height]


def over(one: Box, other: Box) -> bool:
    """Whether one stands above or below the other, or they meet."""
    return one[0] < other[2] and other[0] < one[2]


def meet(one: Box, other: Box) -> bool:
    return over(one, other) and one[1] < other[3] and other[1] < one[3]


def placed_beside(near: Mapping[str, Any], raw: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> list[float]:
    """The place nearest to a node where no other one stands: beside it, or at the edges of others."""
    width, height = numbers(raw["size"], 2) or (0.0, 0.0)
    height += TITLE + GAP
    left, top, right, bottom = box(near)
    if len(nodes) > MOST:
        return [left - width - GAP, top + TITLE]
    others = [box(each) for each in nodes if each is not raw]
    columns = {left, left - width - GAP, right + GAP, *(each[2] + GAP for each in others)}
    rows = {top, bottom + GAP, top - height - GAP, *(each[3] + GAP for each in others)}

    def aside(x: float) -> float:
        return max(left - x - width, x - right, 0.0) + 0.01 * abs(x - left)

    def below(y: float) -> float:
        return max(top - y - height, y - bottom, 0.0) + 0.01 * abs(y - top)

    xs, ys = sorted(columns, key=aside)[:NEAREST], sorted(rows, key=below)[:NEAREST]
    reach = [min(xs), min(ys), max(xs) + width, max(ys) + height]
    within = [each for each in others if meet(each, reach)]
    for _, x, y in sorted((aside(x) + below(y), x, y) for x in xs for y in ys):
        if not any(meet([x, y, x + width, y + height], each) for each in within):
            return [x, y + TITLE]
    # To the right of all others is always room.
    return [max(columns), top + TITLE]


class Item:
    """What moves as one: a node, or a group with all that stands in it."""

    def __init__(self, frame: Box, move: Callable[[float], None]) -> None:
        self.frame, self.move = frame, move

    def lower(self, by: float) -> None:
        self.frame[1] += by
        self.frame[3] += by
        self.move(by)


def lowered(items: Sequence[Item], grown: Sequence[tuple[Item, Box]]) -> None:
    """Moves items down, the upper ones first, until each stands below those that have grown or moved and that it stood
    below."""
    before = {id(each): list(each.frame) for each in items} | {id(item): was for item, was in grown}
    larger, moved = {id(item) for item, _ in grown}, list[Item]()
    for one in sorted(items, key=lambda each: before[id(each)][1]):
        above = [each for each in moved if before[id(each)][3] <= before[id(one)][1] and over(each.frame, one.frame)]
        lowest = max((each.frame[3] for each in above), default=one.frame[1])
        if moves := lowest > one.frame[1]:
            one.lower(lowest + GAP - one.frame[1])
        if moves or id(one) in larger:
            moved.append(one)


def shift(raw: dict[str, Any], by: float) -> None:
    x, y = numbers(raw.get("pos"), 2) or (0.0, 0.0)
    raw["pos"] = [x, y + by]


def make_room(data: dict[str, Any], before: Mapping[int, Box]) -> None:
    """Room for the nodes that are larger than in `before`, which has the boxes of all nodes as they were, by id().

    Groups keep around them what stood in them, and what stood below a group stays below it. In a graph of more than
    MOST nodes or groups all stay where they are.
    """
    nodes = [each for each in data["nodes"] if id(each) in before]
    given = data.get("groups")
    groups = [each for each in given if is_group(each)] if isinstance(given, list) else []
    if max(len(nodes), len(groups)) > MOST:
        return
    frames = {id(each): framed(each) for each in groups}
    homes = {id(node): [g for g in groups if inside(before[id(node)], frames[id(g)])] for node in nodes}
    outer = {id(node): max(homes[id(node)], key=lambda g: area(frames[id(g)]), default=None) for node in nodes}
    for home in [*groups, None]:
        members = [node for node in nodes if outer[id(node)] is home]
        items = {id(node): Item(box(node), lambda by, node=node: shift(node, by)) for node in members}
        grown = [(items[id(each)], before[id(each)]) for each in members if box(each)[3] > before[id(each)][3]]
        if home is not None:
            lowered(list(items.values()), grown)
    for group in groups:
        members = [node for node in nodes if group in homes[id(node)]]
        moved = [box(node) for node in members if box(node) != before[id(node)]]
        if moved:
            left, top, right, bottom = frames[id(group)]
            lowest = max(max(each[3] for each in moved) + GAP, bottom)
            group["bounding"] = bounding([left, top, max(right, *(each[2] for each in moved)), lowest])
    apart(nodes, groups, outer, frames, before)


def is_group(each: Any) -> bool:
    return isinstance(each, dict) and numbers(each.get("bounding"), 4) is not None


def apart(nodes: Any, groups: Any, outer: Any, frames: Any, before: Any) -> None:
    """The groups, and the nodes in none, moved from one another."""
    items: list[Item] = []
    grown: list[tuple[Item, Box]] = []
    whole = [g for g in groups if not any(o is not g and inside(frames[id(g)], frames[id(o)]) for o in groups)]
    for group in whole:
        members = [node for node in nodes if outer[id(node)] is group]
        inner = [g for g in groups if g is not group and inside(frames[id(g)], frames[id(group)])]

        def move(by: float, group: Any = group, members: Any = members, inner: Any = inner) -> None:
            for node in members:
                shift(node, by)
            for each in (group, *inner):
                x, y, width, height = numbers(each["bounding"], 4) or (0.0, 0.0, 0.0, 0.0)
                each["bounding"] = [x, y + by, width, height]

        items.append(Item(framed(group), move))
        if framed(group)[3] > frames[id(group)][3]:
            grown.append((items[-1], frames[id(group)]))
    for node in nodes:
        if outer[id(node)] is None:
            items.append(Item(box(node), lambda by, node=node: shift(node, by)))
            if box(node)[3] > before[id(node)][3]:
                grown.append((items[-1], before[id(node)]))
    lowered(items, grown)


def framed(group: Mapping[str, Any]) -> Box:
    x, y, width, height = numbers(group["bounding"], 4) or (0.0, 0.0, 0.0, 0.0)
    return [x, y, x + width, y + height]


def bounding(frame: Box) -> list[float]:
    return [frame[0], frame[1], frame[2] - frame[0], frame[3] - frame[1]]


def area(frame: Box) -> float:
    return (frame[2] - frame[0]) * (frame[3] - frame[1])


def inside(one: Box, other: Box) -> bool:
    return other[0] <= one[0] and other[1] <= one[1] and one[2] <= other[2] and one[3] <= other[3]
