"""The links of a graph in the editor's form, which are lists in one version and objects in another."""

from typing import Any

FIELDS = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
PLACES = {name: place for place, name in enumerate(FIELDS)}


class Link:
    """One link, read and written where it stands."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def __getitem__(self, name: str) -> Any:
        return self.raw[PLACES[name] if isinstance(self.raw, list) else name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.raw[PLACES[name] if isinstance(self.raw, list) else name] = value

    @property
    def sound(self) -> bool:
        """It has a number, two ends, and a place at each."""
        whole = isinstance(self.raw, dict) and all(name in self.raw for name in FIELDS[:-1])
        if not whole and not (isinstance(self.raw, list) and len(self.raw) >= len(FIELDS)):
            return False
        ends, places = ("id", "origin_id", "target_id"), ("origin_slot", "target_slot")
        return all(isinstance(self[name], int | str) for name in ends) and all(
            isinstance(self[name], int) for name in places
        )


def made(number: int, origin: Any, slot: int, target: Any, place: int, kind: str, as_object: bool) -> Link:
    values = (number, origin, slot, target, place, kind)
    return Link(dict(zip(FIELDS, values, strict=True)) if as_object else list(values))
