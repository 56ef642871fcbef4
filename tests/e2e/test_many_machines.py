"""A sweep on two real servers: a worker, a server and the driver are killed, and nothing is lost or doubled."""

import contextlib
import json
import random
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from stepwise.sweep import export
from stepwise.sweep.cells import Cells
from stepwise.sweep.editor import prompt_of
from stepwise.sweep.file import read
from stepwise.sweep.host import Host
from stepwise.sweep.store import Store
from stepwise.tests.e2e.conftest import COMFYUI
from stepwise.tools.environment.server import Server
from sweep_runs import STEPS, Run, axes, faults, killed_in_the_middle, latents, written

CELLS, SEEDS = 60, 5
ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "example_workflows"


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two servers of their own, since they are killed."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        made = [Server(COMFYUI, Path(sys.executable), tmp_path_factory.mktemp(f"host{n}")) for n in range(2)]
        for server in made:
            stack.callback(server.stop)
        list(pool.map(lambda server: server.start(), made))
        yield made


def test_sixty_cells_outlive_a_worker_a_server_and_the_driver(two, tmp_path, note):
    random.seed(20)
    first, second = sorted(random.sample(range(3, 30), 2))
    urls = [server.url for server in two]
    file = written(tmp_path, axes=axes(SEEDS), autosave_every=2)
    with Run(file, urls, "--look-every", "0.02") as run:
        run.until(lambda: len(run.finished()) >= first)
        run.workers()[random.randrange(2)].send_signal(signal.SIGKILL)
        moved = killed_in_the_middle(run, two)
        run.until(lambda: len(run.finished()) >= second)
        before = run.finished()
        run.kill()
        run.start()
        run.ended()
    with Store(run.folder) as store:
        counts, calls = store.counts(), STEPS * CELLS
        assert counts == {"cells": CELLS, "finished": CELLS, "failed": 0, "calls": calls, "calls_done": calls}
        assert before <= {row["key"] for row in store.rows()}
        # Each cell once, with one latent and one picture.
        assert [sorted(each["kind"] for each in row["outputs"]) for row in store.rows()] == [
            ["images", "latents"]
        ] * CELLS
        page = export.html(store, "solver", "cfg", {"seed": "2"}, "sweep")
    assert page.count("<figure") == page.count("data:image/png;base64,") == 12
    assert moved["to"] != moved["from"]
    assert moved["step"] <= moved["went_on_from"]
    whole = Run(written(tmp_path, "whole", axes=axes(SEEDS)), urls[:1])
    with whole:
        whole.ended()
    expected, found = latents(whole.folder), latents(run.folder)
    assert set(found) == set(expected)
    assert len(found) == CELLS
    for point, latent in expected.items():
        assert torch.equal(found[point], latent), point
    note(
        f"sweep of {CELLS} cells: worker killed after {first}, server {moved['from']} after step {moved['step']} of a "
        f"cell that went on from step {moved['went_on_from']} on {moved['to']}, driver after {len(before)}; "
        f"all latents equal those of one server in one go; faults: {[each['what'] for each in faults(run.folder)]}"
    )


def plain(prompt):
    return {number: (node["class_type"], node["inputs"]) for number, node in prompt.items()}


def test_workflows_of_the_editor_become_their_twins_of_the_api(server):
    """Each example is there in both forms."""
    info = Host(server.url).nodes()
    twins = [plain(json.loads(file.read_text())) for file in (EXAMPLES / "api").glob("*.json")]
    for file in EXAMPLES.glob("*.json"):
        made = plain(prompt_of(json.loads(file.read_text()), info))
        assert made in twins, file.name
        twins.remove(made)
    assert not twins


def test_the_example_sweep_is_right(server):
    (file,) = (ROOT / "example_sweeps").glob("*.yaml")
    assert len(Cells(read(file), {server.url: Host(server.url).nodes()})) == 60
