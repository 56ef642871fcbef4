"""What an example is, before it is a file: nodes by name, their wires, and the groups that they stand in."""

from dataclasses import dataclass, field
from typing import Any

from .demo_model import EMOJI, DemoModel


@dataclass
class Link:
    node: "Node"
    output: int


@dataclass
class Node:
    """A node of the description: its class, its place, and its inputs, values or links.

    `place` is the title of its group, and which column of the group it stands in, counted from 0. `size` is the least
    that it has on the page. A `compact` node is collapsed to its title. A `muted` one is left out of a run.
    """

    kind: str
    place: tuple[str, int]
    inputs: dict[str, Any]
    title: str | None = None
    size: tuple[int, int] | None = None
    compact: bool = False
    muted: bool = False
    id: int = 0

    def __getitem__(self, output: int) -> Link:
        return Link(self, output)


@dataclass
class Workflow:
    """`name` is the title in the template browser; `api` is the file for headless runs.

    `columns` has the titles of the groups, from left to right, and in each column from top to bottom. One that does not
    run needs something that does not come with the pack.
    """

    name: str
    api: str
    note: str
    columns: tuple[tuple[str, ...], ...]
    demo: DemoModel = EMOJI
    runs: bool = True
    nodes: list[Node] = field(default_factory=list)

    def add(
        self,
        kind: str,
        group: str,
        title: str | None = None,
        *,
        column: int = 0,
        size: tuple[int, int] | None = None,
        compact: bool = False,
        muted: bool = False,
        **inputs: Any,
    ) -> Node:
        node = Node(kind, (group, column), inputs, title, size, compact, muted, len(self.nodes) + 1)
        self.nodes.append(node)
        return node
