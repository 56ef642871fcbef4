"""Files that are made from something else: written, or compared with what is committed."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..environment.folders import ROOT

Files = Mapping[Path, str]


def stale(made: Files) -> list[Path]:
    """Which files are not there, or do not hold what was made."""
    return [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def faults(made: Files) -> list[str]:
    """What is not as generated, in words."""
    return [f"{path.relative_to(ROOT)} is not as generated" for path in stale(made)]


def write(made: Files) -> None:
    """Writes what differs, and names it."""
    for path in stale(made):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made[path], encoding="utf-8")
        print(f"written: {path.relative_to(ROOT)}")


def main(made: Files, also: Sequence[str] = ()) -> None:
    """Of every generator: it writes; called with --check it writes nothing, and fails where something differs.

    `also` are faults that writing does not mend.
    """
    if "--check" not in sys.argv[1:]:
        write(made)
    if found := [*faults(made), *also]:
        raise SystemExit("\n".join(found))
