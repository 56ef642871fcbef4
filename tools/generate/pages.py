"""Writes a help page per node, and the list of all nodes.

    python -m tools.generate.pages            with .dev/env, from the root
    python -m tools.generate.pages --check    fails when a committed file differs

Inputs, outputs, ranges and meanings come from the nodes' schemas, formulas from the docstrings, papers, orders and
model calls from the registry. The rest is written by hand in docs/pages/<NodeId>.md, which a solver shares with its
Sampler.
"""

from collections.abc import Sequence
from typing import Any

from ..environment.folders import ROOT
from ..environment.inprocess import load_comfyui
from . import generated
from .generated import Files
from .markdown import table
from .sections import cost, in_parts, inputs, method, outputs, paper, stop_and_go_on, what
from .subjects import Subject, subject
from .wiring import narrow, wiring

PAGES = ROOT / "web" / "docs"
NODES = ROOT / "docs" / "nodes.md"
EXPLAINED = """\
Every sampler is two nodes: one takes the steps itself, and can stop, save and go on; `... Sampler` is the same solver
as a SAMPLER for other nodes. Each name below leads to a help page that is also in the editor: select the node and press
the info button."""


def page(subject: Subject) -> str:
    """The help page of one node: the sections that it has something to say in."""
    hand, entry = subject.hand, subject.entry
    advice = [entry.advice if entry else "", hand.sections.get("When to use it", "")]
    sections = {
        "When to use it": "\n\n".join(text for text in advice if text),
        "Stop and go on": stop_and_go_on(subject),
        "Inputs": inputs(subject),
        "Outputs": outputs(subject),
        "Wiring": wiring(subject),
        "States, in detail": in_parts(subject),
        **{title: text for title, text in hand.sections.items() if title not in ("When to use it", "Wiring")},
        "Accuracy and cost": cost(subject),
        "Method": method(subject),
        "Papers": "\n".join(paper(text) for text in entry.papers) if entry else "",
    }
    parts = [f"# {subject.name}", what(subject)]
    parts += [f"## {title}\n\n{narrow(text).rstrip()}" for title, text in sections.items() if text]
    return "\n\n".join(parts) + "\n"


def node_table(subjects: Sequence[Subject]) -> str:
    """One row per node; a solver and its Sampler share theirs."""
    rows: dict[str, list[str]] = {}
    for one in subjects:
        key = one.solver.name if one.solver else one.name
        text = one.entry.summary if one.entry else one.schema.description
        row = rows.setdefault(key, ["", "", text])
        break_ = "<br>" if row[1] else ""
        row[0] += f"{break_}[{one.name}](../web/docs/{one.schema.node_id}.md)"
        row[1] += f"{break_}`{one.schema.node_id}`"
    return table(("Node", "Id", "What for"), list(rows.values()))


def group(category: str) -> str:
    """The part of the menu that a node belongs to, as a title."""
    return category.split("/")[1].capitalize()


def overview(subjects: Sequence[Subject]) -> str:
    """The names of the nodes, by part of the menu; a solver and its Sampler are named once."""
    names: dict[str, dict[str, None]] = {}
    for one in subjects:
        names.setdefault(group(one.schema.category), {})[one.solver.name if one.solver else one.name] = None
    return table(("In the menu", "Nodes"), [(title, ", ".join(found)) for title, found in names.items()])


def node_list(subjects: Sequence[Subject]) -> str:
    parts = ["# Nodes", overview(subjects).rstrip(), EXPLAINED]
    for title in dict.fromkeys(group(one.schema.category) for one in subjects):
        parts += [f"## {title}", node_table([one for one in subjects if group(one.schema.category) == title]).rstrip()]
    return "\n\n".join(parts) + "\n"


def files(nodes: Sequence[Any]) -> Files:
    """Every generated file and what it must hold."""
    subjects = [subject(node) for node in nodes]
    made = {PAGES / f"{one.schema.node_id}.md": page(one) for one in subjects}
    made[NODES] = node_list(subjects)
    return made


def orphans(made: Files) -> list[str]:
    return [f"{path.relative_to(ROOT)} is the page of no node" for path in PAGES.glob("*.md") if path not in made]


def main() -> None:
    folders = load_comfyui()
    from stepwise.nodes import all_nodes

    made = files(all_nodes())
    folders.cleanup()
    generated.main(made, orphans(made))


if __name__ == "__main__":
    main()
