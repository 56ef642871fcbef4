"""What a help page is about: a node, what the registry says of it, and what is written by hand."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..environment.folders import ROOT

HAND = ROOT / "docs" / "pages"
FACT = re.compile(r"^(schedule|solver|settings|formulas): (.+)\n", re.MULTILINE)


@dataclass
class Hand:
    """What is written by hand: facts (`key: value` lines at the top), an introduction, and sections by title."""

    facts: dict[str, str] = field(default_factory=dict)
    intro: str = ""
    sections: dict[str, str] = field(default_factory=dict)


def hand_written(node_id: str) -> Hand:
    path = HAND / f"{node_id}.md"
    if not path.exists():
        raise SystemExit(f"{node_id} has no hand-written text: write {path.relative_to(ROOT)}")
    intro, *parts = re.split(r"^## ", path.read_text(), flags=re.MULTILINE)
    facts = dict(FACT.findall(intro))
    intro = FACT.sub("", intro)
    titled = (part.split("\n", 1) for part in parts)
    return Hand(facts, intro.strip(), {title.strip(): text.strip() for title, text in titled})


@dataclass
class Subject:
    """A node, what the registry says of it, and what is written by hand."""

    node: Any
    schema: Any
    entry: Any
    hand: Hand

    @property
    def name(self) -> str:
        return self.schema.display_name or self.schema.node_id

    @property
    def solver(self) -> Any:
        return getattr(self.node, "SOLVER", None)

    @property
    def takes_steps(self) -> bool:
        return any(output.io_type == "STEPWISE_STATE" for output in self.schema.outputs)

    @property
    def function(self) -> Callable[..., Any] | None:
        found = getattr(self.entry, "plan", None) or getattr(self.entry, "function", None)
        return found or getattr(self.node, "FORMULA", None)


def subject(node: Any) -> Subject:
    from stepwise.samplers.registry import GUIDANCE

    schema = node.GET_SCHEMA()
    solver = getattr(node, "SOLVER", None)
    rule = next((rule for rule in GUIDANCE if schema.node_id == f"Stepwise{rule.id}Guider"), None)
    entry = solver or getattr(node, "SCHEDULE", None) or getattr(node, "RULE", None) or rule
    entry = entry or getattr(node, "OPERATION", None)
    return Subject(node, schema, entry, hand_written(f"Stepwise{solver.id}" if solver else schema.node_id))
