"""Which tests run which lines: recorded once for each file of tests, and kept."""

import hashlib
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stepwise.benchmarks._mutants import sources
from stepwise.tools.environment.folders import DEV, ROOT

FOLDER = DEV / "mutation"
SUITES = {"samplers": ["--alone"], "nodes": []}

Covered = Mapping[str, Any]


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
