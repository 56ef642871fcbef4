"""Small changes to the code, drawn by seed from the operators of Cosmic Ray."""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.measure.mutated import ROOMS

# What changes no result, or only what is printed, by the name of its operator.
LEFT_OUT = ("NoOp", "RemoveDecorator", "ExceptionReplacer")
# Operators on bits, in the place of arithmetic: most end at once in a TypeError, which says little for a test.
LEFT_OUT += tuple(f"_{name}" for name in ("BitAnd", "BitOr", "BitXor", "LShift", "RShift", "Mod", "FloorDiv"))
STATEMENTS = ("simple_stmt", "if_stmt", "for_stmt", "while_stmt", "return_stmt", "with_stmt", "funcdef")


@dataclass(frozen=True)
class Mutant:
    """A change to one file. `was` and `now` are the lines that differ."""

    file: str
    line: int
    was: str
    now: str
    text: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.file, self.was, self.now


def sources() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def places(file: str, text: str) -> Iterator[tuple[tuple[int, int], str, int]]:
    """Where in a file an operator can change something: the position, the operator, and which of its places it is."""
    tree = get_ast(text)
    nodes = list(ast_nodes(tree))
    for name in operator_names():
        if any(part in name for part in LEFT_OUT):
            continue
        operator = get_operator(name)
        if operator.arguments():
            continue
        number, finds = 0, operator().mutation_positions
        for node in nodes:
            for start, _ in finds(node):
                if not annotates(node):
                    yield start, name, number
                number += 1


def annotates(node: Any) -> bool:
    """Whether it stands in an annotation or a decorator, or gives a parameter's range and words."""
    while node is not None:
        if node.type in ("annassign", "decorator", "string", "fstring"):
            return True
        if node.type == "tfpdef" or (node.type == "operator" and node.value == "->"):
            return True
        parent = node.parent
        if parent is not None and parent.type == "funcdef" and parent.annotation is node:
            return True
        node = parent
    return False


def drawn(count: int, seed: int) -> list[Mutant]:
    """Mutants, each place as likely as any other, and at a place each change."""
    rng, at = random.Random(seed), defaultdict[tuple[str, tuple[int, int]], list[tuple[str, int]]](list)
    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file in sources()}
    for file, text in texts.items():
        for position, name, number in places(file, text):
            at[file, position].append((name, number))
    chosen = list[Mutant]()
    for file, position in rng.sample(sorted(at), len(at)):
        name, number = rng.choice(at[file, position])
        changed = mutate_code(texts[file], get_operator(name)(), number)
        if changed and is_python(changed) and changed != texts[file]:
            chosen.append(mutant_of(file, texts[file], changed))
        if len(chosen) == count:
            break
    return chosen


def is_python(text: str) -> bool:
    try:
        compile(text, "mutant", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def mutant_of(file: str, text: str, changed: str) -> Mutant:
    pairs = zip(text.splitlines(), changed.splitlines(), strict=False)
    line, was, now = next((i, a, b) for i, (a, b) in enumerate(pairs, 1) if a != b)
    return Mutant(file, line, was.strip(), now.strip(), changed)


def statement_of(mutant: Mutant) -> int:
    """The first line of the statement that holds the mutant's: it is the one that coverage has."""
    tree = parso.parse((ROOT / mutant.file).read_text(encoding="utf-8"))
    leaf = tree.get_leaf_for_position((mutant.line, 1), include_prefixes=True)
    while leaf.parent is not None and leaf.type not in STATEMENTS:
        leaf = leaf.parent
    return leaf.start_pos[0]
