"""pytest with one module of the pack changed, or with a record of which tests run which lines.

    python -m stepwise.tools.measure.mutated --file FILE --with CHANGED pytest-argument ...
    python -m stepwise.tools.measure.mutated --record FILE pytest-argument ...

With `--alone` ComfyUI cannot be imported. The files of the pack stay as they are: only this process reads CHANGED in
the place of FILE.
"""

import argparse
import json
import sys
from collections import defaultdict
from importlib import import_module
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest
from stepwise.tools.environment.folders import ROOT

# What is mutated: the samplers, and where they meet the host.
ROOMS = ("samplers", "nodes/host", "nodes/runs")


def change(file: Path, changed: Path) -> None:
    """Modules that are made from `file` get the text of `changed`; a cache of it is not looked at."""
    get_code = SourceFileLoader.get_code

    def code(self: SourceFileLoader, fullname: str) -> Any:
        if Path(self.get_filename(fullname)) == file:
            return self.source_to_code(changed.read_bytes(), str(file))
        return get_code(self, fullname)

    SourceFileLoader.get_code = code


class Recorder:
    """Writes, for every line of the rooms, the numbers of the tests that run it, and how long each test takes.

    {"tests": [name, ...], "seconds": [seconds, ...], "lines": {file: {line: [number, ...]}}}; lines that run at a
    module's import have the number -1.
    """

    def __init__(self, file: Path) -> None:
        from coverage import Coverage

        self.file, self.seconds = file, defaultdict[str, float](float)
        source = [str(ROOT / room) for room in ROOMS]
        self.coverage = Coverage(data_file=str(file.with_suffix(".coverage")), config_file=False, source=source)
        self.coverage.erase()
        self.coverage.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        self.coverage.save()
        data = self.coverage.get_data()
        numbers = {"": -1} | {name: number for number, name in enumerate(self.seconds)}
        lines = {
            str(Path(file).relative_to(ROOT)): {
                line: [numbers[name] for name in names] for line, names in data.contexts_by_lineno(file).items()
            }
            for file in data.measured_files()
        }
        found = {"tests": [*self.seconds], "seconds": [*self.seconds.values()], "lines": lines}
        self.file.write_text(json.dumps(found), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--with", type=Path, dest="changed")
    given, arguments = parser.parse_known_args()
    if given.alone:
        import_module("stepwise.tools.environment.alone")
    if given.changed:
        change(given.file.resolve(), given.changed)
    return pytest.main(arguments, plugins=[Recorder(given.record)] if given.record else [])


if __name__ == "__main__":
    sys.exit(main())
