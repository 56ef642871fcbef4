"""Do the tests bite? Small changes to the code, one at a time, and whether a test fails.

    python benchmarks/mutation.py                       about an hour on two cores; fills docs/mutation.md
    python benchmarks/mutation.py --mutants 20          fewer; prints and writes nothing
    python benchmarks/mutation.py --again               survivors of the last run: which still are
    python benchmarks/mutation.py --known               the changes that no test of 0.1.0 noticed, by name

First all tests of samplers/ and nodes/ run once, and which lines each of them runs is kept in .dev/mutation until its
file, what the tests share or the sources change. Then mutants are drawn by seed, each place in the code as likely as
any other, from the operators of Cosmic Ray; strings and annotations are left alone. A mutant is run against tests that
run its line, at most ten of each test function, one of each after another; if none of these fails, the quickest of the
others. One that all pass, or that no test runs, has survived.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from stepwise.tools.environment.folders import DEV, ROOT
from stepwise.tools.generate import generated
from stepwise.tools.generate.markdown import filled, table
from stepwise.tools.measure.mutated import ROOMS

PAGE, DATA = ROOT / "docs" / "mutation.md", ROOT / "docs" / "mutation.json"
FOLDER = DEV / "mutation"
SUITES = {"samplers": ["--alone"], "nodes": []}
SEED, MUTANTS = 0, 200
# Of one test function, and the seconds of all tests of one mutant, as they took when recorded: of the first, and of
# those that follow where none of the first fails.
CASES, SECONDS, MORE = 10, 40.0, 120.0
# A mutant that takes this many times as long goes round in circles.
PATIENCE, START = 5.0, 60.0
# What changes no result, or only what is printed, by the name of its operator.
LEFT_OUT = ("NoOp", "RemoveDecorator", "ExceptionReplacer")
# Operators on bits, in the place of arithmetic: most end at once in a TypeError, which says little for a test.
LEFT_OUT += tuple(f"_{name}" for name in ("BitAnd", "BitOr", "BitXor", "LShift", "RShift", "Mod", "FloorDiv"))
STATEMENTS = ("simple_stmt", "if_stmt", "for_stmt", "while_stmt", "return_stmt", "with_stmt", "funcdef")

Covered = Mapping[str, Any]


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


@dataclass(frozen=True)
class Fate:
    mutant: Mutant
    tests: int
    survived: bool


def sources() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*.py"))


# Which tests run which lines


def recorded() -> Covered:
    """What `mutated.Recorder` saw of both suites: of files of tests that are as they were, from .dev/mutation."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    kept = {suite: kept_files(suite) for suite in SUITES}
    with ThreadPoolExecutor(len(SUITES)) as pool:
        list(pool.map(lambda suite: record(suite, kept[suite]), SUITES))
    seconds = dict[str, float]()
    lines: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for file in (file for files in kept.values() for file in files.values()):
        part = json.loads(file.read_text(encoding="utf-8"))
        seconds |= zip(part["tests"], part["seconds"], strict=True)
        for name, found in part["lines"].items():
            for line, numbers in found.items():
                lines[name][int(line)].update(part["tests"][number] if number >= 0 else "" for number in numbers)
    return {"seconds": seconds, "lines": lines}


def kept_files(suite: str) -> dict[Path, Path]:
    """For each file of tests, where its record is kept: its name changes with the file, the sources, and what the tests
    have in common."""
    shared = [path for path in (ROOT / "tests").rglob("*.py") if not path.name.startswith("test_")]
    common = hashlib.sha256()
    for path in sorted([*shared, *(ROOT / name for name in sources())]):
        common.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    kept = dict[Path, Path]()
    for path in sorted((ROOT / "tests" / suite).glob("test_*.py")):
        digest = common.copy()
        digest.update(path.read_bytes())
        kept[path] = FOLDER / f"{suite}-{path.stem}-{digest.hexdigest()[:16]}.json"
    return kept


def record(suite: str, kept: Mapping[Path, Path]) -> None:
    """Runs the files of tests whose record is not there."""
    missing = {path: file for path, file in kept.items() if not file.exists()}
    if not missing:
        return
    print(f"recording {len(missing)} files of tests/{suite}", file=sys.stderr, flush=True)
    out = FOLDER / f"{suite}.json"
    names = [str(path.relative_to(ROOT)) for path in missing]
    if status := pytest_run(suite, ["--record", str(out), *names], None):
        raise SystemExit(f"tests/{suite} ended with status {status}: mutants need tests that pass.")
    whole = json.loads(out.read_text(encoding="utf-8"))
    for (_, file), name in zip(missing.items(), names, strict=True):
        file.write_text(json.dumps(part_of(whole, f"{name}::")), encoding="utf-8")


def part_of(whole: Covered, begins: str) -> Covered:
    """Of a record what is of the tests whose names begin so, and of the import, whose number is -1."""
    old = [number for number, name in enumerate(whole["tests"]) if name.startswith(begins)]
    new = {-1: -1} | {number: place for place, number in enumerate(old)}
    lines = {
        name: {line: own for line, numbers in found.items() if (own := [new[n] for n in numbers if n in new])}
        for name, found in whole["lines"].items()
    }
    tests, seconds = ([whole[kind][number] for number in old] for kind in ("tests", "seconds"))
    return {"tests": tests, "seconds": seconds, "lines": lines}


def pytest_run(suite: str, arguments: Sequence[str], timeout: float | None) -> int | None:
    """The status of pytest, None where it took too long."""
    module = ["-P", "-m", "stepwise.tools.measure.mutated", *SUITES[suite]]
    command = [sys.executable, *module, *arguments, "-q", "-x", "-p", "no:cacheprovider", "--no-header"]
    silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        return subprocess.run(command, cwd=ROOT, timeout=timeout, check=False, **silent).returncode
    except subprocess.TimeoutExpired:
        return None


# Mutants


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


# What becomes of them


def tests_for(mutant: Mutant, covered: Covered) -> tuple[list[str], list[str]]:
    """Of the tests that run the line few of each function, one of each after another, in SECONDS; and of the others the
    quickest, in MORE."""
    seconds, functions = covered["seconds"], defaultdict[str, list[str]](list)
    quickest = sorted(running(mutant, covered), key=lambda each: (seconds.get(each, 0.0), each))
    for name in quickest:
        functions[name.partition("[")[0]].append(name)
    spread = [each[round_] for round_ in range(CASES) for each in functions.values() if round_ < len(each)]
    first = within(spread, seconds, SECONDS)
    return first, within([name for name in quickest if name not in first], seconds, MORE)


def running(mutant: Mutant, covered: Covered) -> set[str]:
    """Tests that run the line, or any line of the file where it runs at import alone."""
    lines = covered["lines"].get(mutant.file, {})
    names = set(lines.get(mutant.line, ()))
    if not names - {""}:
        names |= set(lines.get(statement_of(mutant), ()))
    if names == {""}:
        names = {name for found in lines.values() for name in found}
    return names - {""}


def within(names: Sequence[str], seconds: Mapping[str, float], most: float) -> list[str]:
    """The first of them, as many as take no longer together; one at least."""
    totals = accumulate(seconds.get(name, 0.0) for name in names)
    return [name for place, (name, total) in enumerate(zip(names, totals, strict=True)) if not place or total <= most]


def statement_of(mutant: Mutant) -> int:
    """The first line of the statement that holds the mutant's: it is the one that coverage has."""
    tree = parso.parse((ROOT / mutant.file).read_text(encoding="utf-8"))
    leaf = tree.get_leaf_for_position((mutant.line, 1), include_prefixes=True)
    while leaf.parent is not None and leaf.type not in STATEMENTS:
        leaf = leaf.parent
    return leaf.start_pos[0]


def fate(mutant: Mutant, covered: Covered) -> Fate:
    seconds, tried = covered["seconds"], 0
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / "changed.py"
        changed.write_text(mutant.text, encoding="utf-8")
        for chosen in tests_for(mutant, covered):
            tried += len(chosen)
            for suite in SUITES:
                own = [name for name in chosen if name.startswith(f"tests/{suite}/")]
                if not own:
                    continue
                timeout = START + PATIENCE * sum(seconds.get(name, 0.0) for name in own)
                arguments = ["--file", mutant.file, "--with", str(changed), *own]
                if pytest_run(suite, arguments, timeout) != 0:
                    return Fate(mutant, tried, False)
    return Fate(mutant, tried, True)


def fates(mutants: Sequence[Mutant], covered: Covered, at_once: int) -> list[Fate]:
    started, found = time.monotonic(), list[Fate]()
    with ThreadPoolExecutor(at_once) as pool:
        for each in pool.map(lambda mutant: fate(mutant, covered), mutants):
            found.append(each)
            how = "SURVIVED" if each.survived else "killed"
            print(
                f"{len(found)}/{len(mutants)} {time.monotonic() - started:.0f} s {how} by {each.tests} tests: "
                f"{each.mutant.file}:{each.mutant.line}: {each.mutant.was}  ->  {each.mutant.now}",
                file=sys.stderr,
                flush=True,
            )
    return found


# The changes that no test of 0.1.0 noticed


@dataclass(frozen=True)
class Known:
    what: str
    file: str
    was: str
    now: str
    reason: str = ""


def known() -> list[Known]:
    return [Known(**each) for each in json.loads(DATA.read_text(encoding="utf-8"))["known"]]


def as_mutant(change: Known) -> Mutant:
    text = (ROOT / change.file).read_text(encoding="utf-8")
    if text.count(change.was) != 1:
        raise SystemExit(f"{change.file} has {text.count(change.was)} times, not once: {change.was}")
    return mutant_of(change.file, text, text.replace(change.was, change.now))


# The page


def written(found: Sequence[Fate], seed: int, minutes: float) -> None:
    """Keeps the reasons that were given for survivors of the same change."""
    data = json.loads(DATA.read_text(encoding="utf-8"))
    reasons = {(each["file"], each["was"], each["now"]): each["reason"] for each in data["survivors"]}
    survivors = [each.mutant for each in found if each.survived]
    data["survivors"] = [
        {key: value for key, value in asdict(each).items() if key != "text"} | {"reason": reasons.get(each.key, "")}
        for each in survivors
    ]
    data["run"] = {"mutants": len(found), "seed": seed, "minutes": round(minutes), "at_first": len(survivors)}
    write(data)


def write(data: Mapping[str, Any]) -> None:
    generated.write({DATA: json.dumps(data, indent=1) + "\n"})
    generated.write({PAGE: page(data)})


# Survivors of an earlier run, once more


def lasting(covered: Covered, at_once: int) -> None:
    """Leaves of the survivors in docs/mutation.json those that are equivalent or survive again."""
    data = json.loads(DATA.read_text(encoding="utf-8"))
    open_ones = [each for each in data["survivors"] if not is_equivalent(each)]
    found = fates([as_changed(each) for each in open_ones], covered, at_once)
    killed = [each for each, one in zip(open_ones, found, strict=True) if not one.survived]
    data["survivors"] = [each for each in data["survivors"] if each not in killed]
    write(data)


def as_changed(survivor: Mapping[str, Any]) -> Mutant:
    """The mutant in the file as it is today: at the line of that text that is nearest to where it was."""
    text = (ROOT / survivor["file"]).read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    places = [i for i, line in enumerate(lines) if line.strip() == survivor["was"]]
    if not places:
        raise SystemExit(f"{survivor['file']} no longer has the line: {survivor['was']}")
    place = min(places, key=lambda i: abs(i + 1 - survivor["line"]))
    lines[place] = lines[place].replace(survivor["was"], survivor["now"])
    return mutant_of(survivor["file"], text, "".join(lines))


def is_equivalent(survivor: Mapping[str, Any]) -> bool:
    return survivor["reason"].startswith("equivalent")


def page(data: Mapping[str, Any]) -> str:
    """docs/mutation.md with the figures and the survivors of docs/mutation.json."""
    run, survivors = data["run"], data["survivors"]
    equal = [each for each in survivors if is_equivalent(each)]
    real, count = len(survivors) - len(equal), run["mutants"] - len(equal)
    head = (
        f"{run['mutants']} mutants, seed {run['seed']}, {run['minutes']} minutes: {run['mutants'] - len(survivors)} "
        f"killed, {len(equal)} equivalent, {real} of {count} survived ({real / max(count, 1):.1%}). At first "
        f"{run['at_first']} had survived, before more tests were run and tests were written for these: of others more "
        "may survive.\n\n"
    )
    rows = [
        (f"{each['file']}:{each['line']}", f"`{each['was']}`", f"`{each['now']}`", each["reason"]) for each in survivors
    ]
    between = head + table(("Survivor", "was", "became", "why"), rows)
    return filled(PAGE.read_text(encoding="utf-8"), between, "mutation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=MUTANTS, help=f"how many ({MUTANTS})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"which ({SEED})")
    parser.add_argument("--at-once", type=int, default=2, help="how many processes side by side (2)")
    parser.add_argument("--again", action="store_true", help="the survivors of the last run")
    parser.add_argument("--known", action="store_true", help="the changes that no test of 0.1.0 noticed")
    given = parser.parse_args()
    covered = recorded()
    if given.known:
        found = fates([as_mutant(each) for each in known() if not each.reason], covered, given.at_once)
        sys.exit(any(each.survived for each in found))
    if given.again:
        lasting(covered, given.at_once)
        return
    started = time.monotonic()
    found = fates(drawn(given.mutants, given.seed), covered, given.at_once)
    survived = sum(each.survived for each in found)
    print(f"{survived} of {len(found)} survived")
    if given.mutants == MUTANTS:
        written(found, given.seed, (time.monotonic() - started) / 60.0)


if __name__ == "__main__":
    main()
