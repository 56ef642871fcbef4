"""The Markdown that programs write: tables, and what stands between a page's marks."""

import re
from collections.abc import Iterable, Sequence


def cell(text: object) -> str:
    return " ".join(str(text).replace("|", "\\|").split())


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, figures: bool = False) -> str:
    """A line for each row, after head and rule. In a table of `figures` all columns but the first are set right."""
    rule = ["---", *["---:" if figures else "---"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(map(cell, line))} |\n" for line in (head, rule, *rows))


def marked(name: str) -> re.Pattern[str]:
    """What stands between a page's marks of this name."""
    return re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)


def filled(text: str, between: str, name: str) -> str:
    """`text` with `between` where its marks of this name are."""
    if not marked(name).search(text):
        raise SystemExit(f"There is no pair of marks <!-- {name} --> and <!-- /{name} --> to write between.")
    return marked(name).sub(lambda _: between, text)


def from_heading(text: str, title: str) -> str:
    """The end of a page, from this heading on; nothing if it has none."""
    return "".join(text.partition(f"\n## {title}\n")[1:])
