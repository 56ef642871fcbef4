"""What a conversion did, node by node: for people, and as JSON for the page."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

# The classes of a converted sampling node.
PICTURE, LAW, LEFT = "same picture", "same law", "left"
MEANING = {
    PICTURE: "the same picture, up to rounding",
    LAW: "the same law: noise is added on the way, and drawn otherwise",
    LEFT: "left as it was",
}


@dataclass(frozen=True)
class Entry:
    """A node: where it is, what it was and is now, of which class, and what there is to say.

    sampling: it takes steps, and counts; others are schedules, samplers, guiders.
    """

    id: str
    where: str
    title: str
    was: str
    now: str
    sampling: bool
    kind: str
    why: str = ""
    notes: tuple[str, ...] = ()

    def line(self, place: str = "") -> str:
        place = f" in {place}" if place else ""
        made = f"{self.was} -> {self.now}" if self.now else self.was
        said = [self.kind if not self.why else f"{self.kind}: {self.why}"] if self.sampling or self.why else []
        return f"{self.id}{place}  {made}" + "".join(f"\n    {text}" for text in (*said, *self.notes))


@dataclass
class Report:
    entries: list[Entry] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    back: bool = False
    # What a person calls each graph, by the names in `where`.
    places: dict[str, str] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)

    def advise(self, text: str) -> None:
        if text not in self.advice:
            self.advice.append(text)

    @property
    def left(self) -> list[Entry]:
        return [each for each in self.entries if each.kind == LEFT]

    @property
    def changed(self) -> list[Entry]:
        return [each for each in self.entries if each.kind != LEFT]

    @property
    def classes(self) -> Counter[str]:
        """How many sampling nodes are of each class."""
        return Counter(each.kind for each in self.entries if each.sampling)

    def summary(self) -> str:
        if not self.entries:
            return "Nothing to convert: no node here has a twin."
        counts = self.classes
        parts = [f"{counts[kind]} {kind}" for kind in (PICTURE, LAW, LEFT) if counts[kind]]
        others = sum(not each.sampling for each in self.changed)
        parts += [f"{others} beside them"] if others and parts else []
        said = f"{len(self.changed)} of {len(self.entries)} nodes converted"
        return f"{said}: {', '.join(parts)}." if parts else f"{said}."

    def place(self, entry: Entry) -> str:
        return self.places.get(entry.where, entry.where)

    def text(self) -> str:
        lines = [self.summary(), *(each.line(self.place(each)) for each in self.entries), *self.advice]
        return "\n".join(lines)

    def data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "summary": self.summary(),
            "entries": [{**vars(each), "place": self.place(each), "notes": list(each.notes)} for each in self.entries],
            "advice": list(self.advice),
            "classes": dict(self.classes),
        }
