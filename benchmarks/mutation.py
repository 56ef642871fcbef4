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
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from stepwise.benchmarks._mutants import Mutant, drawn, mutant_of, statement_of
from stepwise.benchmarks._test_records import SUITES, Covered, pytest_run, recorded
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate import generated
from stepwise.tools.generate.markdown import filled, table

PAGE, DATA = ROOT / "docs" / "mutation.md", ROOT / "docs" / "mutation.json"
SEED, MUTANTS = 0, 200
# Of one test function, and the seconds of all tests of one mutant, as they took when recorded: of the first, and of
# those that follow where none of the first fails.
CASES, SECONDS, MORE = 10, 40.0, 120.0
# A mutant that takes this many times as long goes round in circles.
PATIENCE, START = 5.0, 60.0


@dataclass(frozen=True)
class Fate:
    mutant: Mutant
    tests: int
    survived: bool


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
