"""The driver: gives cells to the engine, dask.distributed, and keeps what comes back.

The engine has the queue, the heartbeats, the retries and the stealing; here a few cells for each worker are on their
way at any time, whatever their number in all.
"""

import asyncio
import base64
import json
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import dask.config
from dask.utils import key_split
from distributed import Client, Nanny, Queue, Scheduler, Security, Variable, as_completed

from . import task
from .host import Host, HostLost
from .store import Store

# How many cells are on their way for each worker: one that runs and one for the moment when that ends, or, where cells
# are over in less than `SHORT` seconds, enough to hand them out by the dozen.
AHEAD, MANY_AHEAD, SHORT = 2, 16, 0.25
# Dask remembers a hundred thousand names of tasks, 200 bytes each, and asks for none of them again.
NAMES = 1024
# After so many workers have ended under a cell, it is given up: it may be what ends them.
MOST_DEATHS = 10
SILENT = logging.CRITICAL + 1
# No limits on memory, which is ComfyUI's; and no history that grows for hours, nor a profile that nobody looks at.
QUIET = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.system-monitor.log-length": 60,
    "distributed.comm.timeouts.connect": "30s",
}


class Unwritable(Exception):
    """The result folder takes nothing more."""


class ClusterLost(Exception):
    """There is no engine any more."""


@dataclass(frozen=True)
class Options:
    """How cells are run.

    patience: how long a server may take to answer anything, in seconds. limit: how long a cell may take, 0 for any
    time. retries: how often a cell that ended with an error is tried again. look_every: seconds between two looks for
    an autosave.
    """

    patience: float = 60.0
    limit: float = 0.0
    retries: int = 1
    look_every: float = 1.0


@dataclass
class Progress:
    cells: int
    finished: int
    calls: int
    calls_done: int
    workers: int = 0
    failed: int = 0


Tell = Callable[[Progress], None]
# Dask's client and what it gives, asynchronous: its types do not tell that from the other way.
Engine = Any


@asynccontextmanager
async def embedded(hosts: Sequence[str]) -> AsyncIterator[Engine]:
    """A cluster in this process, on the loopback interface, with a worker process for each server."""
    # Dask says at length what the fault log says in a line.
    logging.getLogger("distributed").setLevel(SILENT)
    with dask.config.set(QUIET):
        # Its page is not there, and the address of one would be the same for two sweeps on one computer.
        page: dict[str, Any] = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
        scheduler = Scheduler(host="127.0.0.1", port=0, allowed_failures=MOST_DEATHS, **page)
        async with scheduler:
            given: dict[str, Any] = {"nthreads": 1, "resources": {task.GPU: 1}, "preload": [f"{__package__}.worker"]}
            given |= {"host": "127.0.0.1", "dashboard": False, "memory_limit": 0, "silence_logs": SILENT}
            nannies = [Nanny(scheduler.address, name=url, **given) for url in hosts]
            # A worker joins when its server answers, which nobody waits for here.
            starts = [asyncio.create_task(begun(nanny)) for nanny in nannies]
            try:
                async with Client(scheduler.address, asynchronous=True, set_as_default=False) as client:
                    yield client
            finally:
                for start in starts:
                    start.cancel()
                await asyncio.gather(*starts, return_exceptions=True)
                await asyncio.gather(*(nanny.close(timeout=2) for nanny in nannies), return_exceptions=True)


async def begun(nanny: Nanny) -> None:
    await nanny


@asynccontextmanager
async def joined(address: str, security: Security | None) -> AsyncIterator[Engine]:
    """A cluster that people have."""
    async with Client(address, security=security, asynchronous=True, set_as_default=False) as client:
        yield client


class Driver:
    """One run over the missing cells of a result folder."""

    def __init__(self, store: Store, client: Engine, width: int, options: Options, tell: Tell) -> None:
        self.store, self.client, self.options, self.tell = store, client, options, tell
        self.workers = max(width, 1)
        counts = store.counts()
        self.progress = Progress(counts["cells"], counts["finished"], counts["calls"], counts["calls_done"])
        self.keys: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.learning: asyncio.Task[None] | None = None
        self.carried: dict[str, dict[str, dict[str, Any]]] = {}
        self.took = SHORT
        self.run = f"{os.getpid()}-{time.time_ns():x}"

    @property
    def sweep(self) -> str:
        return client_id(self.store)

    async def drive(self) -> Progress:
        """Runs what is missing; returns when each cell is finished or has failed."""
        await self.learn()
        self.progress.workers = len(self.names)
        self.workers = max(self.workers, len(self.names))
        self.client.subscribe_topic("all", self.noticed)
        queue: Engine = await Queue(task.news(self.sweep), client=self.client, maxsize=64)
        news = asyncio.create_task(self.listen(queue))
        cells = self.store.missing()
        try:
            if first := self.submitted(list(islice(cells, self.width))):
                results = as_completed(first, loop=self.client.loop)
                async for future in results:
                    # With all that came in the meantime.
                    await self.came([future, *results.next_batch(block=False)])
                    if len(self.keys) <= self.width // 2 or self.width == AHEAD * self.workers:
                        results.update(self.submitted(list(islice(cells, max(self.width - len(self.keys), 0)))))
                    if news.done():
                        news.result()
        finally:
            self.client.unsubscribe_topic("all")
            news.cancel()
            with suppress(asyncio.CancelledError):
                await news
        return self.progress

    @property
    def width(self) -> int:
        """How many cells are on their way in all."""
        return self.workers * (AHEAD if self.took >= SHORT else MANY_AHEAD)

    def submitted(self, cells: Sequence[Any]) -> list[Any]:
        names = {f"cell-{cell['number']}-{self.run}": cell["key"] for cell in cells}
        self.keys |= names
        if key_split.cache_info().currsize > NAMES:
            key_split.cache_clear()
        messages = [json.dumps(self.message(cell["key"], cell["prompt"])) for cell in cells]
        given = {"resources": {task.GPU: 1}, "retries": self.options.retries, "pure": False}
        return self.client.map(task.run, messages, key=list(names), **given) if names else []

    def message(self, key: str, prompt: str) -> dict[str, Any]:
        options = self.options
        return {
            "key": key,
            "client": self.sweep,
            "prompt": prompt,
            "states": self.states(key),
            "patience": options.patience,
            "limit": options.limit,
            "look_every": options.look_every,
        }

    def states(self, key: str) -> list[dict[str, Any]]:
        """What the result folder has of a cell that was under way. A damaged one is left out: the cell begins anew."""
        found = []
        for state in self.store.states(key):
            with suppress(OSError, ValueError):
                content = base64.b64encode(self.store.read(state["file"])).decode()
                found.append({"node": state["node"], "step": state["step"], "state": content})
        return found

    async def came(self, futures: Sequence[Any]) -> None:
        if any(future.status not in ("finished", "error") for future in futures):
            raise ClusterLost("The cluster's scheduler is gone.")
        for text in await self.client.gather([each for each in futures if each.status == "finished"]):
            await self.kept(json.loads(text))
        for future in futures:
            if future.status == "error":
                error = await future.exception()
                told = str(error) or type(error).__name__
                await self.kept({"key": self.keys[future.key], "host": "", "error": told})
            self.keys.pop(future.key)
            future.release()
        self.tell(self.progress)

    async def kept(self, result: dict[str, Any]) -> None:
        key = result["key"]
        with self.writing():
            if "error" in result:
                self.failed(key, result["host"], result["error"])
            else:
                self.finished(result)
                self.took += 0.1 * (result["seconds"] - self.took)
        if self.carried.pop(key, None):
            Variable(task.last_state(key), client=self.client).delete()

    def finished(self, result: dict[str, Any]) -> None:
        outputs = [(told, base64.b64decode(told.pop("content"))) for told in result["outputs"]]
        if self.store.finish(result["key"], result["host"], result["seconds"], outputs, result["step"]):
            counts = self.store.base.execute("SELECT calls FROM cells WHERE key = ?", (result["key"],)).fetchone()
            self.progress.finished += 1
            self.progress.calls_done += counts["calls"]

    def failed(self, key: str, host: str, error: str) -> None:
        self.store.fail(key, host, error)
        self.progress.failed += 1

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Raises Unwritable where the result folder cannot be written to."""
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:
            told = getattr(error, "strerror", None) or error
            raise Unwritable(f"{self.store.folder} cannot be written to: {told}. Make room, and run again.") from error

    # What workers and the engine tell on the way.

    async def listen(self, queue: Engine) -> None:
        while True:
            message = json.loads(await queue.get())
            if "fault" in message:
                with self.writing():
                    self.store.note(message["host"], message["key"], message["fault"])
            elif message["key"] in self.keys.values():
                await self.carry(message)
            self.tell(self.progress)

    async def carry(self, message: dict[str, Any]) -> None:
        """A new autosave: for the next worker of the cell, and for the result folder."""
        key, node = message["key"], message["node"]
        states = self.carried.setdefault(key, {})
        states[node] = {"node": node, "step": message["step"], "state": message["state"]}
        last: Engine = Variable(task.last_state(key), client=self.client)
        await last.set(json.dumps(list(states.values())))
        if key not in self.carried:
            # The cell has ended in the meantime, and nobody takes it over any more.
            last.delete()
            return
        with self.writing():
            self.store.carry(key, node, message["step"], message["host"], base64.b64decode(message["state"]))

    def noticed(self, event: tuple[float, Any]) -> None:
        """The engine's word that a worker has come or gone."""
        _, told = event
        action = told.get("action") if isinstance(told, dict) else None
        if action == "add-worker":
            self.progress.workers += 1
            self.learning = asyncio.create_task(self.learn())
        elif action == "remove-worker":
            self.progress.workers -= 1
            if not told.get("expected"):
                under = next((self.keys[name] for name in told.get("processing-tasks", ()) if name in self.keys), "")
                # A disk without room is told of where a result does not fit.
                with suppress(sqlite3.OperationalError):
                    self.store.note(self.names.get(str(told["worker"]), str(told["worker"])), under, "its worker ended")
        else:
            return
        self.tell(self.progress)

    async def learn(self) -> None:
        """The servers of the workers; the engine forgets those that have gone."""
        known = await self.client.scheduler.identity(n_workers=-1)
        self.names |= {address: str(worker["name"]) for address, worker in known["workers"].items()}


def client_id(store: Store) -> str:
    """The name by which servers know the prompts of a result folder."""
    return f"stepwise-sweep-{store.about('id')[:12]}"


def let_go(hosts: Sequence[str], client: str) -> None:
    """Ends what still runs for this sweep on servers that answer."""
    for url in hosts:
        with suppress(HostLost):
            Host(url, 5.0).cancel_all(client)
