"""The docstrings of solvers, schedules and rules as Markdown, their formulas as lists."""

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from types import ModuleType
from typing import Any

FORMULA = re.compile(r"\w+ = .*(?<!\bal)[.,)]$")
CITED = re.compile(r"(.* [=+] (?!\d+/\d).*?) {3}(\(.*)")


def pieces(paragraph: str) -> Iterator[tuple[bool, str]]:
    """Its lines, and whether each is a formula: one that begins with a name and ends as a sentence or a clause does, or
    that a citation follows after a gap."""
    before = ":"
    for line in paragraph.splitlines():
        cited = CITED.match(line) if before[-1] in ".,:;" else None
        if before[-1] in ".,:;" and (FORMULA.match(line) or (cited and line[-1] in ".)")):
            yield True, re.sub(r" {2,}", "\n", line)
        elif cited:
            yield True, cited[1]
            yield False, cited[2]
        else:
            yield False, line
        before = line


def paragraphs(function: Callable[..., Any]) -> Iterator[str]:
    """The docstring of `function` as Markdown, up to its arguments.

    Each formula is a line of a list: one in a fence would not break, and the panel of the editor is narrow.
    """
    text = re.split(r"^(?:Args|Raises|Returns):", inspect.getdoc(function) or "", flags=re.MULTILINE)[0]
    for paragraph in text.strip().split("\n\n"):
        for formula, lines in groupby(pieces(paragraph), key=lambda piece: piece[0]):
            joined = "\n".join(line for _, line in lines)
            listed = "\n".join(f"- `{line.strip()}`" for line in joined.splitlines())
            yield listed if formula else " ".join(joined.split())


def explained(function: Callable[..., Any], named: Sequence[str]) -> list[Callable[..., Any]]:
    """The functions and classes that a docstring mentions in backticks, and those `named`, of the same module."""
    module: ModuleType = inspect.getmodule(function)
    mentioned = re.findall(r"`(\w+)`", inspect.getdoc(function) or "")
    found = (getattr(module, name, None) for name in dict.fromkeys([*mentioned, *named]))
    return [other for other in found if (inspect.isfunction(other) or inspect.isclass(other)) and other is not function]
