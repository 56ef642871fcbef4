"""The driver beside its engine: what it keeps of a cell that is under way, and what of one that is over."""

import asyncio
import base64
import json

import pytest
from dask.utils import key_split
from stepwise.sweep import drive, task
from stepwise.sweep.cells import Cell
from stepwise.sweep.store import STATES, Store

HOST = "http://127.0.0.1:8188"
CELL = Cell(0, {"a": 0}, {"1": {"class_type": "A", "inputs": {}}})


class Variables(dict):
    """The engine's variables, as the driver calls them; `meanwhile` happens while one is set."""

    meanwhile = None

    def __call__(self, name, client):
        return Variable(self, name)


class Variable:
    def __init__(self, all_of_them, name):
        self.all, self.name = all_of_them, name

    async def set(self, value):
        if self.all.meanwhile:
            await self.all.meanwhile()
        self.all[self.name] = value

    def delete(self):
        self.all.pop(self.name, None)


@pytest.fixture
def variables(monkeypatch):
    monkeypatch.setattr(drive, "Variable", made := Variables())
    return made


@pytest.fixture
def driver(tmp_path):
    with Store(tmp_path / "results", write=True) as store:
        store.take([(CELL, 10)], {})
        yield drive.Driver(store, None, 1, drive.Options(), lambda progress: None)


def autosave(step):
    state = base64.b64encode(b"state %d" % step).decode()
    return {"host": HOST, "key": CELL.key, "node": "1", "step": step, "state": state}


RESULT = {"key": CELL.key, "host": HOST, "seconds": 1.0, "step": 0, "outputs": []}


def kept(driver):
    return [path for path in (driver.store.folder / STATES).rglob("*") if path.is_file()]


def test_an_autosave_is_there_for_the_next_worker_until_the_cell_is_over(driver, variables):
    asyncio.run(driver.carry(autosave(2)))
    asyncio.run(driver.carry(autosave(4)))
    (told,) = json.loads(variables[task.last_state(CELL.key)])
    assert told["step"] == 4
    assert [row["step"] for row in driver.store.states(CELL.key)] == [4]
    assert len(kept(driver)) == 1
    asyncio.run(driver.kept(dict(RESULT)))
    assert not variables
    assert not kept(driver)


def test_an_autosave_that_comes_while_its_cell_ends_leaves_nothing(driver, variables):
    variables.meanwhile = lambda: driver.kept(dict(RESULT))
    asyncio.run(driver.carry(autosave(2)))
    assert driver.store.counts()["finished"] == 1
    assert not variables
    assert not driver.store.states(CELL.key)
    assert not kept(driver)


class Client:
    """An engine that takes the names of tasks apart, as Dask's does, and nothing else."""

    def map(self, function, messages, key, **_):
        return [key_split(name) for name in key]


def test_names_of_cells_that_are_over_are_not_remembered(driver, monkeypatch):
    monkeypatch.setattr(driver, "client", Client())
    most = 0
    for page in range(100):
        cells = [{"number": 100 * page + n, "key": f"{page}.{n}", "prompt": "{}"} for n in range(100)]
        assert set(driver.submitted(cells)) == {"cell"}
        most = max(most, key_split.cache_info().currsize)
    assert drive.NAMES < most <= drive.NAMES + 100
