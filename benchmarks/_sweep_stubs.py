"""Sweeps on servers that compute nothing: what the engine, the client and the result folder cost, and how much of the
time that servers have is used."""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from stepwise.sweep.store import Store
from stepwise.tests.support.stub_comfyui import PROMPT
from stepwise.tests.support.sweep_runs import Run, written
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate.markdown import table

SERVERS, MIB, MS = 2, 2**20, 1e3
# For the use of servers' time: how long a cell takes there, how many cells, and on how many servers.
SECONDS, CELLS, COUNTS = 2.0, 32, (1, 2, 4)


@contextlib.contextmanager
def stubs(number: int, seconds: float = 0.0) -> Iterator[list[str]]:
    """The addresses of so many servers, on which a cell takes so long."""
    command = [sys.executable, str(ROOT / "tests" / "support" / "stub_comfyui.py"), "0", str(seconds)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(number)]
    try:
        yield [process.stdout.readline().strip() for process in processes if process.stdout]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def sweep_of(folder: Path, cells: int) -> Path:
    return written(folder, workflow=PROMPT, axes={"seed": {"input": "1.seed", "seeds": f"0..{cells - 1}"}})


@dataclass(frozen=True)
class Sample:
    """After so many cells: memory in MiB and processor time in seconds, of the driver and of its workers together."""

    cells: int
    driver: float
    worker: float
    driver_time: float
    worker_time: float


def sampled(run: Run, cells: int) -> Sample | None:
    """None where a process is just ending."""
    try:
        driver, workers = psutil.Process(run.process.pid), run.workers()
        held = [each.memory_info().rss / MIB for each in workers]
        spent = [sum(each.cpu_times()[:2]) for each in (driver, *workers)]
        return Sample(cells, driver.memory_info().rss / MIB, max(held), spent[0], sum(spent[1:]))
    except (psutil.NoSuchProcess, ValueError):
        return None


def first_missing(run: Run) -> int | None:
    """About as many cells are finished; None before and after the run. It costs the database next to nothing."""
    found = run.asked("SELECT min(number) FROM cells WHERE wanted = 1 AND finished IS NULL")
    return found[0][0] if found else None


def scale(cells: int) -> str:
    """Memory and processor time over a sweep that computes nothing, to its end."""
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="stepwise-sweep-") as folder, stubs(SERVERS) as urls:
        with Run(sweep_of(Path(folder), cells), urls, "--quiet") as run:
            latest = None
            while run.process.poll() is None:
                done = first_missing(run)
                if done and (latest := sampled(run, done)) and done >= (len(samples) + 1) * cells // 10:
                    samples.append(latest)
                    print(f"after {done} cells: driver {latest.driver:.1f} MiB, {latest.driver_time:.1f} s", flush=True)
                time.sleep(0.2)
            run.ended()
            if latest is not None and latest.cells > samples[-1].cells:
                samples.append(latest)
        with Store(run.folder) as store:
            counts = store.counts()
        assert counts["finished"] == cells, counts
        size = sum(path.stat().st_size for path in run.folder.iterdir() if path.is_file())
    first, last = samples[0], samples[-1]
    number = last.cells - first.cells
    driver = MS * (last.driver_time - first.driver_time) / number
    worker = MS * (last.worker_time - first.worker_time) / number
    lines = [
        ("cells finished", f"{counts['finished']} of {cells}"),
        (f"driver and scheduler, MiB after {first.cells} cells", f"{first.driver:.1f}"),
        (f"driver and scheduler, MiB after {last.cells} cells", f"{last.driver:.1f}"),
        (f"a worker, MiB after {first.cells} cells", f"{first.worker:.1f}"),
        (f"a worker, MiB after {last.cells} cells", f"{last.worker:.1f}"),
        ("driver and scheduler, ms of processor time a cell", f"{driver:.1f}"),
        ("worker, ms of processor time a cell", f"{worker:.1f}"),
        ("database, bytes a cell", f"{size / cells:.0f}"),
    ]
    return table(["Cells that compute nothing, two servers", ""], lines, figures=True)


def timed(number: int) -> float:
    """Seconds from the first cell's begin to the last one's end, on so many servers."""
    with tempfile.TemporaryDirectory(prefix="stepwise-sweep-") as folder, stubs(number, SECONDS) as urls:
        with Run(sweep_of(Path(folder), CELLS), urls, "--quiet") as run:
            run.ended()
        with Store(run.folder) as store:
            rows = list(store.rows())
    return max(row["finished"] for row in rows) - min(row["finished"] - row["seconds"] for row in rows)


def use() -> str:
    """How much of the time of servers with a processor of their own is used, whatever this machine has."""
    lines = []
    for number in COUNTS:
        took, least = timed(number), CELLS * SECONDS / number
        print(f"{number} servers: {CELLS} cells of {SECONDS:g} s in {took:.2f} s", flush=True)
        lines.append([number, f"{took:.1f}", f"{least:.1f}", f"{least / took:.0%}"])
    head = ["Servers", f"{CELLS} cells of {SECONDS:g} s, s", "least possible, s", "of the servers' time used"]
    return table(head, lines, figures=True)
