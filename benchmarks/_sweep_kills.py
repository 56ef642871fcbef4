"""Sweeps on real servers of this machine, and what they survive."""

import contextlib
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from stepwise.sweep.store import Store
from stepwise.tests.support.sweep_runs import STEPS, Run, axes, faults, latents, written
from stepwise.tools.environment.folders import DEV
from stepwise.tools.environment.process import Failure, signal_group
from stepwise.tools.environment.server import Server
from stepwise.tools.generate.markdown import table

COMFYUI = Path(os.environ.get("COMFYUI_PATH") or DEV / "ComfyUI")
HOSTS, SEED = 4, 20
# Twelve cells for each seed of the sweep: three solvers by four guidances.
TWELVE, AUTOSAVE = 12, 2
# What is killed in turn; and after how many kills a server hangs, until the sweep has noticed.
KINDS, HANG_EVERY, PATIENCE = ("worker", "server", "driver"), 7, 20
NO_ANSWER = f"no answer in {PATIENCE} s"
# How long anything may take on a machine with much else to do.
PATIENT = 900.0


class Rack:
    """Real servers, which are killed and started again while the others go on."""

    def __init__(self, base: Path, pool: ThreadPoolExecutor) -> None:
        self.servers = [Server(COMFYUI, Path(sys.executable), base / f"host{number}") for number in range(HOSTS)]
        self.pool, self.starting = pool, dict[str, Future[None]]()

    def start(self) -> None:
        for server in self.servers:
            server.base.mkdir()
        list(self.pool.map(lambda server: server.start(PATIENT), self.servers))

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers]

    def up(self) -> list[Server]:
        return [each for each in self.servers if each.url not in self.starting or self.starting[each.url].done()]

    def kill(self, server: Server) -> None:
        """With -9; it is started again while the others go on."""
        assert server.process is not None
        signal_group(server.process, signal.SIGKILL)
        server.process.wait()
        self.starting[server.url] = self.pool.submit(server.start, PATIENT)

    def stop(self) -> None:
        for each in self.starting.values():
            with contextlib.suppress(Failure):
                each.result()
        for server in self.servers:
            server.stop()


@contextlib.contextmanager
def rack() -> Iterator[tuple[Rack, Path]]:
    # The threads outlive the servers that they start: on Linux a server ends with the thread that began it.
    with tempfile.TemporaryDirectory(prefix="stepwise-sweep-") as base, ThreadPoolExecutor(HOSTS) as pool:
        made = Rack(Path(base), pool)
        try:
            made.start()
            yield made, Path(base)
        finally:
            made.stop()


def kills(number: int, within: float = math.inf) -> str:
    """A worker, a server and the driver killed in turn at seeded points, and servers that hang and go on; then all
    latents beside those of one server in one go. After so many seconds nothing more is killed."""
    random.seed(SEED)
    seeds = max(number // 5, 2)
    cells = TWELVE * seeds
    points = sorted(random.sample(range(1, cells * 9 // 10), number))
    began, done = time.monotonic(), 0
    with rack() as (made, base):
        options = ["--look-every", "0.1", "--patience", str(PATIENCE)]
        file = written(base / "many", axes=axes(seeds), autosave_every=AUTOSAVE)
        with Run(file, made.urls, *options) as run:
            for place, point in enumerate(points):
                run.until(lambda point=point: len(run.finished()) >= point, PATIENT)
                if run.process.poll() is not None or time.monotonic() - began > within:
                    told(began, "no more kills: the sweep or the time for it is over")
                    break
                which = killed(KINDS[place % len(KINDS)], run, made)
                done += 1
                told(began, f"kill -9 of {which}, kill {place + 1}, {len(run.finished())} of {cells} cells finished")
                if place % HANG_EVERY == HANG_EVERY - 1:
                    hangs(run, made, began)
            run.ended(PATIENT)
        told(began, "all cells are finished; the same on one server in one go")
        with Run(written(base / "one", axes=axes(seeds)), made.urls[:1]) as one:
            one.ended(PATIENT)
        expected, found = latents(one.folder), latents(run.folder)
        with Store(run.folder) as store:
            counts, rows, carried = store.counts(), list(store.rows()), store.carried()
        log = faults(run.folder)
    told(began, "the fault log:")
    for each in log:
        print(f"  {each['host']}  {each['what']}", flush=True)
    equal = sum(torch.equal(found[point], latent) for point, latent in expected.items())
    twice = sum(len(row["outputs"]) != 2 for row in rows)
    lines = [
        ("kills of " + ", ".join(f"a {kind}" for kind in KINDS), done),
        ("servers that hung, were noticed and went on", sum(NO_ANSWER in each["what"] for each in log)),
        ("cells finished", f"{counts['finished']} of {cells}"),
        ("cells whose outputs are there twice or not at all", twice),
        (f"cells that went on from an autosave, of {STEPS} steps each", sum(bool(row["went_on_from"]) for row in rows)),
        ("faults in the log", len(log)),
        ("autosaves carried", f"{carried[0]}, {carried[1] / 2**20:.1f} MiB"),
        ("latents equal to those of one server in one go, bit for bit", f"{equal} of {len(expected)}"),
    ]
    return table(["Four real servers", ""], lines, figures=True)


def killed(kind: str, run: Run, made: Rack) -> str:
    """Kills one, as soon as there is one; which it was."""
    if kind == "worker":
        workers = run.until(run.workers)
        random.choice(workers).send_signal(signal.SIGKILL)
        return f"one of {len(workers)} workers"
    if kind == "server":
        server = random.choice(run.until(made.up))
        made.kill(server)
        return f"the server {server.url}"
    run.kill()
    run.start()
    return "the driver"


def hangs(run: Run, made: Rack, began: float) -> None:
    """Stops a server that has just made an autosave, until the sweep has noticed or is over, and lets it go on."""
    seen = {tuple(each) for each in run.saved()}

    def at_work() -> Server | None:
        hosts = {each["host"] for each in run.saved() if tuple(each) not in seen}
        return next((each for each in made.up() if each.url in hosts), None)

    server = run.until(lambda: at_work() or run.process.poll() is not None, PATIENT)
    if not isinstance(server, Server):
        return
    before = faults_of(run, server)
    assert server.process is not None
    signal_group(server.process, signal.SIGSTOP)
    try:
        run.until(lambda: faults_of(run, server) > before or run.process.poll() is not None, PATIENT)
    finally:
        signal_group(server.process, signal.SIGCONT)
    noticed = faults_of(run, server) > before
    told(began, f"{server.url} hung, and goes on{'' if noticed else '; the sweep was over'}")


def faults_of(run: Run, server: Server) -> int:
    """How often the log has that a server did not answer in time; its worker may end for other reasons."""
    found = run.asked("SELECT count(*) FROM faults WHERE host = ? AND what LIKE ?", server.url, f"%{NO_ANSWER}%")
    return found[0][0] if found else 0


def told(began: float, text: str) -> None:
    print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)
