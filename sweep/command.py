"""The command: its arguments, and what `plan` and `run` do. What reads a result folder is in results.py."""

import argparse
import asyncio
import os
import shlex
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..compare.axes import counted
from . import export
from .calls import calls_of
from .cells import Cell, Cells, written
from .file import read
from .host import Host, HostLost
from .lock import Busy
from .results import DONE, exported, hosts_table, paged, prompted, status
from .servers import started
from .store import DATABASE, Store
from .trust import check_addresses, check_trust, security_of
from .values import BadSweep

SOME_FAILED, BAD_INPUT, STOPPED = 1, 2, 130
# A week: sockets count no further than some.
LONGEST = 7 * 24 * 3600.0
HOST = "http://127.0.0.1:8188"
EPILOG = """exit status: 0 every cell is finished, 1 some have failed or the run could not go on, 2 bad input (nothing
was run), 130 stopped; what is finished is kept in each case, and the same command goes on"""


def main(argv: list[str] | None = None) -> int:
    if argv is None:
        signal.signal(signal.SIGTERM, as_ctrl_c)
    known = arguments(sys.argv[1:] if argv is None else argv)
    try:
        return known.act(known)
    except BadSweep as error:
        for problem in error.problems:
            print(f"stepwise-sweep: {problem}", file=sys.stderr)
        return BAD_INPUT
    except Busy as error:
        print(f"stepwise-sweep: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        told = error if error.filename is None else f"{error.filename} cannot be opened: {error.strerror}."
        print(f"stepwise-sweep: {told}", file=sys.stderr)
        return BAD_INPUT
    except sqlite3.Error as error:
        # Of the commands that read and write one, `run` alone may have its folder from the sweep's name.
        folder = getattr(known, "folder", None) or known.output or known.sweep.with_suffix(".results")
        print(f"stepwise-sweep: {folder / DATABASE} cannot be used: {error}.", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("stepwise-sweep: stopped; what is finished is kept.", file=sys.stderr)
        return STOPPED


def as_ctrl_c(*_: object) -> None:
    """What ends a service ends a sweep as Ctrl-C does, also where a shell has started it to ignore that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)


def arguments(argv: list[str]) -> argparse.Namespace:
    text = "One workflow over many values, on any number of ComfyUI servers."
    parser = argparse.ArgumentParser(prog="stepwise-sweep", description=text, epilog=EPILOG, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, act: Any, about: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        made.set_defaults(act=act)
        return made

    for name, act, about in (("plan", plan, "check a sweep and count it"), ("run", run, "run what is missing")):
        one = add(name, act, about)
        one.add_argument("sweep", type=Path, metavar="SWEEP.yaml")
        one.add_argument("--host", action="append", metavar="URL", help=f"a ComfyUI server, any number ({HOST})")
    one.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="the result folder (SWEEP.results)")
    one.add_argument("--start", metavar="DEVICES", help="start a ComfyUI for each of these GPUs (0,1), or on the cpu")
    one.add_argument("--comfyui", type=Path, metavar="FOLDER", help="the ComfyUI to start ($COMFYUI_PATH)")
    one.add_argument("--python", default=sys.executable, help="the Python that it runs with (this one)")
    one.add_argument("--with-options", default="", metavar="TEXT", help="options for it, as in a shell")
    one.add_argument("--scheduler", metavar="tls://..", help="a Dask cluster of yours, in the place of one in here")
    for name in ("ca", "cert", "key"):
        one.add_argument(f"--tls-{name}", metavar="FILE", help=f"of that cluster: the {name} file")
    one.add_argument("--insecure", action="store_true", help="let a cluster on other machines be without TLS")
    one.add_argument("--patience", type=seconds, default=60.0, help="seconds that a server may take to answer (60)")
    one.add_argument("--limit", type=seconds, default=0.0, help="seconds that a cell may take, 0 for any time (0)")
    one.add_argument("--retries", type=times, default=1, help="how often a cell with an error is tried again (1)")
    one.add_argument("--look-every", type=seconds, default=1.0, help="seconds between two looks for an autosave (1)")
    one.add_argument("--quiet", action="store_true", help="print no progress")
    for name, act, about in (
        ("status", status, "what is in a result folder"),
        ("export", exported, "a result folder as CSV"),
        ("page", paged, "a result folder as an HTML page over one axis or two"),
        ("prompt", prompted, "the prompt of one cell, from its row"),
    ):
        one = add(name, act, about)
        one.add_argument("folder", type=Path, metavar="FOLDER")
        if name in ("export", "page"):
            one.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
        if name == "page":
            one.add_argument("--down", required=True, metavar="AXIS", help="the axis of the rows")
            one.add_argument("--across", metavar="AXIS", help="the axis of the columns (one column)")
            one.add_argument("--at", action="append", default=[], metavar="AXIS=VALUE", help="where another axis is")
        if name == "prompt":
            one.add_argument("cell", type=int, metavar="CELL", help="its number, as in the CSV")
    return parser.parse_args(argv)


def seconds(text: str) -> float:
    try:
        if 0 <= (made := float(text)) < LONGEST:
            return made
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, from 0 to {LONGEST:.0f}")


def times(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of times, from 0 on")
    return int(text)


def cells_on(known: argparse.Namespace) -> tuple[Cells, list[str]]:
    """The cells of a sweep file, checked against the servers. Raises BadSweep, also where none of these answers."""
    hosts = list(dict.fromkeys(each.rstrip("/") for each in known.host or [HOST]))
    check_addresses(hosts)
    said: list[str] = []
    try:
        sweep = read(known.sweep)
    except BadSweep as error:
        if (sweep := error.rest) is None:
            raise
        said += error.problems
    infos, silent = {}, []
    for url in hosts:
        try:
            infos[url] = Host(url, getattr(known, "patience", 60.0)).nodes()
        except HostLost as error:
            silent.append(str(error))
    if not infos:
        raise BadSweep(*said, "none of the servers answers, and a sweep is checked against their nodes.", *silent)
    for each in silent:
        print(f"stepwise-sweep: {each}; it is waited for.", file=sys.stderr)
    try:
        cells = Cells(sweep, infos)
    except BadSweep as error:
        raise BadSweep(*said, *error.problems) from None
    if said:
        raise BadSweep(*said)
    return cells, hosts


def plan(known: argparse.Namespace) -> int:
    cells, hosts = cells_on(known)
    calls = sum(calls_of(cell.prompt) for cell in cells)
    for axis in cells.sweep.axes:
        shown = ", ".join(map(export.label, axis.values[:6])) + (", .." if len(axis.values) > 6 else "")
        print(f"{axis.name:16} {len(axis.values):6}  {shown}  -> {', '.join(axis.inputs)}")
    if cells.sweep.split is not None:
        print(f"{'part':16} {len(cells.parts):6}  of {cells.parts[-1][1]} pictures, {cells.sweep.split.by} in each")
    on = counted(len(hosts), "host")
    print(f"{counted(len(cells), 'cell')}, {counted(calls, 'model call')}, on {on}")
    return DONE


def run(known: argparse.Namespace) -> int:
    check_trust(known.scheduler, known.insecure)
    known.security = security_of(known)
    if known.patience <= 0:
        raise BadSweep("--patience is 0, and a server takes some time to answer anything.")
    if known.start is None:
        return run_on(known)
    # ComfyUI's path for the time of a run: what is given, or what the environment names.
    folder = known.comfyui or Path(os.environ.get("COMFYUI_PATH", "."))
    try:
        options = shlex.split(known.with_options)
    except ValueError as error:
        raise BadSweep(f"--with-options is {known.with_options!r}: {str(error).lower()}.") from None
    # What is wrong with the file is said before anything is started.
    read(known.sweep)
    devices = [each.strip() for each in known.start.split(",")]
    if not known.quiet:
        print(f"starting ComfyUI on {', '.join(devices)}", file=sys.stderr)
    with started(devices, folder.absolute(), known.python, options) as urls:
        known.host = [*(known.host or []), *urls]
        return run_on(known)


def run_on(known: argparse.Namespace) -> int:
    cells, hosts = cells_on(known)
    with Store(known.output or known.sweep.with_suffix(".results"), write=True) as store:
        if lost := store.look_for_lost():
            told = "1 finished cell is" if lost == 1 else f"{lost} finished cells are"
            print(f"stepwise-sweep: files of {told} gone from {store.folder}; made again.", file=sys.stderr)
        store.take(with_calls(cells), {"sweep": cells.sweep.text, "workflow": written(cells.sweep.workflow)})
        return asyncio_run(store, hosts, known)


def with_calls(cells: Cells) -> Iterator[tuple[Cell, int]]:
    return ((cell, calls_of(cell.prompt)) for cell in cells)


def asyncio_run(store: Store, hosts: Sequence[str], known: argparse.Namespace) -> int:
    # Dask takes a second to load, and the other commands do without it.
    from .drive import ClusterLost, Driver, Options, Unwritable, client_id, embedded, joined, let_go

    options = Options(known.patience, known.limit, known.retries, known.look_every)
    line = Line(known.quiet)

    async def driven() -> Any:
        task = asyncio.current_task()
        assert task is not None
        # An exception out of a signal would strike whatever runs. Windows has no SIGTERM to handle.
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        cluster = joined(known.scheduler, known.security) if known.scheduler else embedded(hosts)
        async with cluster as client:
            return await Driver(store, client, 1 if known.scheduler else len(hosts), options, line.tell).drive()

    try:
        done = asyncio.run(driven())
    except (Unwritable, ClusterLost) as error:
        let_go(hosts, client_id(store))
        print(f"stepwise-sweep: {error} What is finished is kept.", file=sys.stderr)
        return SOME_FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        let_go(hosts, client_id(store))
        raise KeyboardInterrupt from None
    line.end(done)
    print(hosts_table(store))
    counts = store.counts()
    if counts["failed"]:
        have = "cell has" if counts["failed"] == 1 else "cells have"
        told = f"{counts['failed']} {have} failed; `stepwise-sweep status {store.folder}` says why"
        print(f"{told}.", file=sys.stderr)
    return DONE if counts["finished"] == counts["cells"] else SOME_FAILED


class Line:
    """Progress: one line that is written over in a terminal, else a line every ten seconds."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.began, self.next = quiet, time.monotonic(), 0.0
        self.terminal = sys.stderr.isatty()

    def tell(self, progress: Any) -> None:
        if self.quiet or time.monotonic() < self.next:
            return
        self.next = time.monotonic() + (0.2 if self.terminal else 10.0)
        self.write(progress, "\r" if self.terminal else "")

    def write(self, now: Any, before: str) -> None:
        hosts = f"{now.workers} host{'' if now.workers == 1 else 's'}"
        text = f"{now.finished}/{now.cells} cells, {now.calls_done}/{now.calls} model calls, {hosts}"
        text += f", {now.failed} failed" if now.failed else ""
        print(f"{before}{text}", end="" if before else "\n", file=sys.stderr, flush=True)

    def end(self, progress: Any) -> None:
        if not self.quiet:
            self.write(progress, "\r" if self.terminal else "")
            print(f"{' ' if self.terminal else ''}in {time.monotonic() - self.began:.1f} s", file=sys.stderr)
