"""How many rooms a part of the tree has, on how many floors, and what leads from where to where.

    python -m tools.measure.rooms                       nodes, samplers, convert, compare and tools as they are
    python -m tools.measure.rooms nodes --by-file       and how many files import each
    python -m tools.measure.rooms --revision REV        as they were at a revision
    python -m tools.measure.rooms --before REV          both, side by side

A room is a module at the top of a folder, or all of a folder in it. An arrow goes from the one that imports to the
one that is imported, wherever in the file the import stands. Floors are the modules of the longest chain of imports,
where a circle is one floor. A module whose docstring begins with "Moved" only leads to another, and is left out.
"""

import argparse
import ast
import io
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("nodes", "samplers", "convert", "compare", "tools")
PACK = "stepwise"

Name = tuple[str, ...]
Graph = Mapping[str, set[str]]


@dataclass(frozen=True)
class Folder:
    """The modules of one folder: `imports` from file to file, `lines` of each, by path below the folder."""

    imports: Graph
    lines: Mapping[str, int]

    @cached_property
    def rooms(self) -> Graph:
        """The imports between rooms."""
        found: dict[str, set[str]] = {room_of(file): set() for file in self.imports}
        for file, others in self.imports.items():
            found[room_of(file)] |= {room_of(other) for other in others} - {room_of(file)}
        return found

    @property
    def importers(self) -> Counter[str]:
        """How many files import each."""
        return Counter(other for others in self.imports.values() for other in others)

    def figures(self) -> dict[str, str]:
        longest = max(self.lines, key=lambda file: self.lines[file])
        return {
            "files": str(len(self.imports)),
            "rooms": str(len(self.rooms)),
            "floors, of files": str(floors(self.imports)),
            "floors, of rooms": str(floors(self.rooms)),
            "arrows, between files": str(arrows(self.imports)),
            "arrows, between rooms": str(arrows(self.rooms)),
            "circles, of files": said(circles(self.imports)),
            "circles, of rooms": said(circles(self.rooms)),
            "longest file": f"{longest}, {self.lines[longest]} lines",
        }


def room_of(file: str) -> str:
    return file.partition("/")[0].removesuffix(".py")


def said(circles: list[list[str]]) -> str:
    return "; ".join(" - ".join(circle) for circle in circles) or "none"


def read(root: Path, folder: str) -> Folder:
    """What the files of a folder of the tree at `root` import from one another."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((root / folder).rglob("*.py"))}
    kept = {path: tree for path, tree in trees.items() if not (ast.get_docstring(tree) or "").startswith("Moved")}
    # `__init__` has the name of its folder.
    files = {module_name(root, path): path.relative_to(root / folder).as_posix() for path in kept}
    imports, lines = dict[str, set[str]](), dict[str, int]()
    for path, tree in kept.items():
        file = path.relative_to(root / folder).as_posix()
        named = (closest(name, files) for name in imported(tree, package_of(root, path)))
        imports[file] = {other for other in named if other is not None and other != file}
        lines[file] = len(path.read_text(encoding="utf-8").splitlines())
    return Folder(imports, lines)


def module_name(root: Path, path: Path) -> Name:
    return tuple(part for part in path.relative_to(root).with_suffix("").parts if part != "__init__")


def package_of(root: Path, path: Path) -> Name:
    """What a relative import in the file starts from: the folder, for an `__init__` its own."""
    return path.relative_to(root).parent.parts


def imported(tree: ast.Module, package: Name) -> Iterator[Name]:
    """The names that the file imports from the pack, from its root on: `nodes` alone is the host's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = (PACK, *package[: len(package) + 1 - node.level]) if node.level else ()
            base = (*above, *node.module.split(".")) if node.module else above
            names = [(*base, alias.name) for alias in node.names]
        else:
            continue
        yield from (tuple(name[1:]) for name in names if name[0] == PACK)


def closest(name: Name, files: Mapping[Name, str]) -> str | None:
    """The file that a name is in: the module of that name, or the one that has a thing of that name."""
    return files.get(name) or files.get(name[:-1])


def arrows(graph: Graph) -> int:
    return sum(map(len, graph.values()))


def reached(graph: Graph) -> dict[str, set[str]]:
    """All that each leads to, by however many steps."""
    found = {}
    for start in graph:
        seen, todo = set[str](), list(graph[start])
        while todo:
            if (at := todo.pop()) not in seen:
                seen.add(at)
                todo += graph[at]
        found[start] = seen
    return found


def circles(graph: Graph) -> list[list[str]]:
    """The groups in which each leads to every other and back."""
    ways = reached(graph)
    groups = {frozenset(other for other in ways[one] if one in ways[other]) for one in graph if one in ways[one]}
    return sorted(sorted(group) for group in groups)


def floors(graph: Graph) -> int:
    """The length of the longest chain, a circle counted as one."""
    ways = reached(graph)
    together = {one: frozenset({one, *(other for other in ways[one] if one in ways[other])}) for one in graph}
    below: dict[frozenset[str], set[frozenset[str]]] = {group: set() for group in together.values()}
    for one, others in graph.items():
        below[together[one]] |= {together[other] for other in others} - {together[one]}
    height: dict[frozenset[str], int] = {}
    for group in sorted(below, key=lambda group: len({*group, *ways[min(group)]})):
        height[group] = 1 + max((height[other] for other in below[group]), default=0)
    return max(height.values(), default=0)


def at_revision(revision: str, target: Path) -> None:
    """The tree as it was, without a checkout."""
    made = subprocess.run(["git", "archive", "--format=zip", revision], cwd=ROOT, capture_output=True)
    if made.returncode:
        raise SystemExit(made.stderr.decode().strip())
    with zipfile.ZipFile(io.BytesIO(made.stdout)) as archive:
        archive.extractall(target)


def show(columns: Mapping[str, Folder], folder: str, by_file: bool) -> None:
    """The figures of one folder, a column for each state of the tree."""
    figures = {title: read.figures() for title, read in columns.items()}
    rows = [[folder, *figures]]
    rows += [[what, *(column[what] for column in figures.values())] for what in next(iter(figures.values()))]
    if by_file:
        counts = [read.importers for read in columns.values()]
        names = sorted({file for read in columns.values() for file in read.imports})
        given = [["", *("" for _ in columns)], ["imported by", *("" for _ in columns)]]
        rows += given + [[f"  {name}", *(str(count[name] or "-") for count in counts)] for name in names]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print()


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="rooms", description=__doc__, formatter_class=raw)
    parser.add_argument("folders", nargs="*", default=FOLDERS, help="of the root: " + ", ".join(FOLDERS))
    parser.add_argument("--revision", metavar="REV", help="of git, in place of the files as they are")
    parser.add_argument("--before", metavar="REV", help="a revision to set beside")
    parser.add_argument("--by-file", action="store_true", help="how many files import each")
    known = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stepwise-rooms-") as scratch:
        states: dict[str, Path] = {}
        for revision in filter(None, (known.before, known.revision)):
            states[revision] = Path(scratch) / revision.replace("/", "-")
            at_revision(revision, states[revision])
        if not known.revision:
            states["now"] = ROOT
        for folder in known.folders:
            found = {title: read(root, folder) for title, root in states.items() if (root / folder).is_dir()}
            if not found:
                sys.exit(f"There is no folder {folder}.")
            show(found, folder, known.by_file)


if __name__ == "__main__":
    main()
