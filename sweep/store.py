"""The result folder: an SQLite database with a row for each cell, and outputs named by their content."""

import hashlib
import json
import os
import re
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from .cells import Cell, written
from .lock import Lock

DATABASE, OUTPUTS, STATES = "sweep.db", "outputs", "states"
TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cells (
    key TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    wanted INTEGER NOT NULL,
    point TEXT NOT NULL,
    prompt TEXT NOT NULL,
    calls INTEGER NOT NULL,
    finished REAL,
    seconds REAL,
    host TEXT,
    went_on_from INTEGER,
    error TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS missing ON cells (number) WHERE wanted = 1 AND finished IS NULL;
CREATE TABLE IF NOT EXISTS outputs (
    key TEXT NOT NULL,
    place INTEGER NOT NULL,
    node TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    file TEXT NOT NULL,
    PRIMARY KEY (key, place)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS states (
    key TEXT NOT NULL,
    node TEXT NOT NULL,
    step INTEGER NOT NULL,
    host TEXT NOT NULL,
    file TEXT NOT NULL,
    PRIMARY KEY (key, node)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS faults (at REAL NOT NULL, host TEXT NOT NULL, key TEXT NOT NULL, what TEXT NOT NULL);
"""

# An ending that any disk takes.
SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")
# How many autosaves were kept, and their bytes: two numbers among what is told of the folder.
CARRIED = ("autosaves", "autosaved_bytes")
ADD = "INSERT INTO about VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"

# What is said of each output, node, kind and name, and its content.
Outputs = list[tuple[dict[str, str], bytes]]


class Store:
    """A result folder. One that writes holds the folder's lock; any number may read.

    A cell is finished in one transaction, after its outputs are whole on the disk: whatever is killed, a row says
    what is there. Raises Busy where another one writes, and OSError for what cannot be read or written.
    """

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        self.folder = folder
        self.lock: Lock | None = None
        if write:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OSError(f"{folder} cannot be the result folder: {error.strerror}.") from None
            self.lock = Lock(folder / ".lock")
        elif not (folder / DATABASE).is_file():
            raise FileNotFoundError(f"{folder} is no result folder of a sweep: it has no {DATABASE}.")
        mode = "rwc" if write else "ro"
        self.base = sqlite3.connect(f"{(folder / DATABASE).absolute().as_uri()}?mode={mode}", uri=True, timeout=60.0)
        self.base.row_factory = sqlite3.Row
        try:
            if write:
                self.begin()
            else:
                self.about("id")
        except sqlite3.Error as error:
            self.close()
            raise OSError(f"{folder / DATABASE} cannot be {'written' if write else 'read'}: {error}.") from None

    def begin(self) -> None:
        self.base.execute("PRAGMA journal_mode = WAL")
        self.base.execute("PRAGMA synchronous = NORMAL")
        self.base.executescript(TABLES)
        with self.base:
            self.base.execute("INSERT OR IGNORE INTO about VALUES ('id', ?)", (uuid.uuid4().hex,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.base.close()
        if self.lock is not None:
            self.lock.release()

    def about(self, name: str) -> str:
        found = self.base.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return found[0] if found else ""

    # What is to be done.

    def take(self, cells: Iterable[tuple[Cell, int]], about: Mapping[str, str]) -> None:
        """Makes these cells, each with its number of model calls, the ones that are wanted. What is finished stays
        finished, and cells that are no longer wanted stay in the folder."""
        rows = ((cell.key, cell.number, written(cell.point), written(cell.prompt), calls) for cell, calls in cells)
        with self.base:
            self.base.execute("UPDATE cells SET wanted = 0")
            self.base.executemany(
                "INSERT INTO cells (key, number, wanted, point, prompt, calls) VALUES (?, ?, 1, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET wanted = 1, number = excluded.number, calls = excluded.calls",
                rows,
            )
            self.base.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", about.items())

    def look_for_lost(self) -> int:
        """Makes cells missing again whose outputs are no longer all on the disk; how many."""
        found = self.base.execute("SELECT key, file FROM outputs")
        lost = {key for key, file in found if not self.path(file).is_file()}
        with self.base:
            for key in lost:
                self.base.execute("UPDATE cells SET finished = NULL WHERE key = ?", (key,))
                self.base.execute("DELETE FROM outputs WHERE key = ?", (key,))
        return len(lost)

    def missing(self, page: int = 256) -> Iterator[sqlite3.Row]:
        """The cells that are wanted and not finished, in their order, as they were when each page was read."""
        last = -1
        while True:
            rows = self.base.execute(
                "SELECT key, number, prompt FROM cells WHERE wanted = 1 AND finished IS NULL AND number > ? "
                "ORDER BY number LIMIT ?",
                (last, page),
            ).fetchall()
            if not rows:
                return
            yield from rows
            last = rows[-1]["number"]

    def counts(self) -> dict[str, int]:
        """Of the wanted cells: how many, finished, failed, and the model calls of all and of the finished."""
        row = self.base.execute(
            "SELECT count(*), count(finished), count(CASE WHEN finished IS NULL THEN error END), "
            "coalesce(sum(calls), 0), coalesce(sum(CASE WHEN finished IS NOT NULL THEN calls END), 0) "
            "FROM cells WHERE wanted = 1"
        ).fetchone()
        return dict(zip(("cells", "finished", "failed", "calls", "calls_done"), row, strict=True))

    # What has been done.

    def finish(self, key: str, host: str, seconds: float, outputs: Outputs, step: int) -> bool:
        """Keeps what came of a cell, all of it or nothing; False where it was finished before, and that stays. `step`
        is where its run went on from a state, 0 for one from the beginning."""
        files = [self.keep(content, Path(told["name"]).suffix) for told, content in outputs]
        with self.base:
            done = self.base.execute(
                "UPDATE cells SET finished = ?, host = ?, seconds = ?, went_on_from = ?, error = NULL "
                "WHERE key = ? AND finished IS NULL",
                (time.time(), host, seconds, step or None, key),
            )
            if done.rowcount != 1:
                return False
            self.base.executemany(
                "INSERT INTO outputs VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (key, place, told["node"], told["kind"], told["name"], file)
                    for place, ((told, _), file) in enumerate(zip(outputs, files, strict=True))
                ],
            )
            states = self.base.execute("SELECT file FROM states WHERE key = ?", (key,)).fetchall()
            if states:
                self.base.execute("DELETE FROM states WHERE key = ?", (key,))
        for (file,) in states:
            self.drop(file)
        return True

    def fail(self, key: str, host: str, error: str) -> None:
        """Says why a cell came to nothing; it is missing still."""
        with self.base:
            self.base.execute(
                "UPDATE cells SET error = ?, host = ? WHERE key = ? AND finished IS NULL", (error, host, key)
            )
        self.note(host, key, error)

    def note(self, host: str, key: str, what: str) -> None:
        with self.base:
            self.base.execute("INSERT INTO faults VALUES (?, ?, ?, ?)", (time.time(), host, key, what))

    def carry(self, key: str, node: str, step: int, host: str, content: bytes) -> None:
        """Keeps an autosave of a cell that is under way, in the place of an earlier one."""
        file = self.keep(content, ".safetensors", STATES)
        with self.base:
            before = self.base.execute("SELECT file FROM states WHERE key = ? AND node = ?", (key, node)).fetchone()
            self.base.execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?)", (key, node, step, host, file))
            for name, more in zip(CARRIED, (1, len(content)), strict=True):
                self.base.execute(ADD, (name, more))
        if before is not None and before[0] != file:
            self.drop(before[0])

    def carried(self) -> tuple[int, int]:
        """How many autosaves were kept so far, and how many bytes they had."""
        number, size = (int(self.about(name) or 0) for name in CARRIED)
        return number, size

    def states(self, key: str) -> list[sqlite3.Row]:
        return self.base.execute("SELECT node, step, host, file FROM states WHERE key = ?", (key,)).fetchall()

    # Files by content.

    def keep(self, content: bytes, suffix: str, folder: str = OUTPUTS) -> str:
        """Writes a file under the digest of its content, whole or not at all; its name in the folder."""
        digest = hashlib.sha256(content).hexdigest()
        name = f"{folder}/{digest[:2]}/{digest}{suffix if SUFFIX.fullmatch(suffix) else ''}"
        path = self.path(name)
        if path.exists():
            return name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{digest[:16]}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with beside.open("xb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        return name

    def path(self, name: str) -> Path:
        return self.folder / name

    def read(self, name: str) -> bytes:
        """A file's content. Raises ValueError where it is not what was written."""
        content = self.path(name).read_bytes()
        if hashlib.sha256(content).hexdigest() != Path(name).stem:
            raise ValueError(f"{self.path(name)} is damaged: its content is not what its name says.")
        return content

    def drop(self, name: str) -> None:
        with suppress(OSError):
            self.path(name).unlink()

    # What others read.

    def rows(self, wanted: bool = True) -> Iterator[dict[str, Any]]:
        """Every cell in its order, with its point and outputs as values."""
        cells = self.base.execute(f"SELECT * FROM cells {'WHERE wanted = 1' if wanted else ''} ORDER BY number")
        for cell in cells:
            outputs = self.base.execute(
                "SELECT node, kind, name, file FROM outputs WHERE key = ? ORDER BY place", (cell["key"],)
            ).fetchall()
            yield {**dict(cell), "point": json.loads(cell["point"]), "outputs": [dict(each) for each in outputs]}

    def hosts(self) -> list[sqlite3.Row]:
        """For each host: cells finished, their seconds, those that went on there from elsewhere, and faults."""
        return self.base.execute(
            "SELECT host, sum(cells) AS cells, sum(seconds) AS seconds, sum(went_on) AS went_on, sum(faults) AS faults "
            "FROM (SELECT host, 1 AS cells, seconds, went_on_from IS NOT NULL AS went_on, 0 AS faults "
            "FROM cells WHERE finished IS NOT NULL UNION ALL SELECT host, 0, 0, 0, 1 FROM faults) "
            "GROUP BY host ORDER BY host"
        ).fetchall()
