"""The values of an axis: lists, ranges and seeds."""

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

# More values than this are a slip of the pen.
MOST = 10_000_000
SPAN = re.compile(r"\s*(-?\d+)\s*\.\.\s*(-?\d+)\s*")
FORMS = ("values", "range", "seeds")


class BadSweep(ValueError):
    """What is wrong with a sweep: every fault that was found, a line for each; `rest` is what of it can be looked at
    further."""

    def __init__(self, *problems: str, rest: Any = None) -> None:
        super().__init__("\n".join(problems))
        self.problems, self.rest = problems, rest


def values_of(axis: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values that an axis of a sweep file names by `values`, `range` or `seeds`. Raises BadSweep."""
    given = [name for name in FORMS if name in axis]
    if len(given) != 1:
        raise BadSweep(f"needs one of {', '.join(FORMS)}, and has {' and '.join(given) or 'none'}")
    form = given[0]
    made = {"values": listed, "range": ranged, "seeds": spanned}[form](axis[form])
    if not made:
        raise BadSweep(f"{form} is empty")
    return made


def listed(given: Any) -> tuple[Any, ...]:
    if not isinstance(given, list):
        raise BadSweep("values is no list")
    return tuple(given)


def spanned(given: Any) -> tuple[int, ...]:
    """`0..999`: whole numbers, both ends included."""
    found = SPAN.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        raise BadSweep(f"seeds is {given!r}; write the first and the last, as 0..999")
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < MOST:
        raise BadSweep(f"seeds is {given!r}, which is no list of at most {MOST} numbers upwards")
    return tuple(range(first, last + 1))


def ranged(given: Any) -> tuple[int | float, ...]:
    """Numbers from one end to the other, both included: `[1, 9, 2]` by a step, or `{from: 1, to: 9, count: 5}`.

    They are decimal fractions as written: 0 to 1 by 0.1 has 0.3 in it, not 0.30000000000000004.
    """
    parts: Any = given
    if isinstance(given, list) and len(given) == 3:
        parts = dict(zip(("from", "to", "step"), given, strict=True))
    if not isinstance(parts, dict) or set(parts) not in ({"from", "to", "step"}, {"from", "to", "count"}):
        raise BadSweep(f"range is {given!r}; write [from, to, step], or from, to and step or count")
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in parts.values()):
        raise BadSweep(f"range is {given!r}, and not all of it are numbers")
    try:
        begin, end = Decimal(str(parts["from"])), Decimal(str(parts["to"]))
        made = by_count(begin, end, parts["count"]) if "count" in parts else by_step(begin, end, parts["step"])
    except InvalidOperation:
        raise BadSweep(f"range is {given!r}, and not all of it are finite numbers") from None
    whole = all(isinstance(parts[name], int) for name in parts if name != "count")
    whole = whole and all(each == each.to_integral_value() for each in made)
    return tuple(int(each) if whole else float(each) for each in made)


def by_step(begin: Decimal, end: Decimal, by: int | float) -> list[Decimal]:
    step = Decimal(str(by))
    number = (end - begin) / step if step else Decimal(-1)
    if not 0 <= number < MOST:
        raise BadSweep(f"range goes from {begin} to {end} by {by}, and never arrives")
    return [begin + step * place for place in range(int(number) + 1)]


def by_count(begin: Decimal, end: Decimal, count: Any) -> list[Decimal]:
    if not isinstance(count, int) or not 2 <= count < MOST:
        raise BadSweep(f"range has the count {count!r}; it is a whole number from 2 on")
    return [begin + (end - begin) * place / (count - 1) for place in range(count)]
