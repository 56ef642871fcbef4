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
from stepwise.sweep.checks import workflow_problems
from stepwise.sweep.editor import prompt_of
from stepwise.sweep.file import read
from stepwise.sweep.host import Host
from stepwise.sweep.schema import Nodes
from stepwise.sweep.store import Store
from stepwise.tests.e2e.conftest import COMFYUI
from stepwise.tools.environment.server import Server
from sweep_runs import NODE, STEPS, Run, axes, faults, killed_in_the_middle, latents, written

CELLS, SEEDS = 60, 5
ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "example_workflows"
API = EXAMPLES / "api"


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two servers of their own, since they are killed; with one output folder, as two in one computer have."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        output, folders = tmp_path_factory.mktemp("output"), [tmp_path_factory.mktemp(f"host{n}") for n in range(2)]
        made = [Server(COMFYUI, Path(sys.executable), folder, output=output) for folder in folders]
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


def defaults(server, kind):
    """What the editor fills into a node's widgets."""
    declared = Nodes(Host(server.url).nodes()).inputs(kind, {})
    return {name: one.default for name, one in declared.items() if one.typed and one.required}


def test_a_batch_in_parts_over_two_servers_is_the_batch(two, tmp_path, note):
    """Five pictures at once, and one by one on whichever server is free; the solver draws noise on the way, and the
    model is exact, since a network's sums are grouped by the size of the batch."""
    wires = {
        "4": {},
        "9": {"model": ["1", 0], "positive": ["1", 1], "negative": ["1", 2]},
        "10": {"seed": 7, "seed_step": 3, "variation_seed": 4, "variation_strength": 0.2},
        "11": {"model": ["1", 0], "steps": 12},
        NODE: {"guider": ["9", 0], "noise": ["10", 0], "latent_image": ["4", 0], "sigmas": ["11", 0]},
        "1": {"prompt": "0, 2"},
        "6": {"samples": [NODE, 0]},
    }
    kinds = {
        "4": "EmptyLatentImage",
        "9": "StepwiseCFGGuider",
        "10": "StepwiseNoise",
        "11": "StepwiseKarrasSchedule",
        NODE: "StepwiseDPMpp2MSDE",
        "1": "StepwiseMixtureModel",
        "6": "SaveLatent",
    }
    batch = {
        number: {"class_type": kind, "inputs": {**defaults(two[0], kind), **wires[number]}}
        for number, kind in kinds.items()
    }
    batch["4"]["inputs"] |= {"width": 64, "height": 64, "batch_size": 5}
    guidance = {"cfg": {"input": "9.cfg", "values": [3.0]}}
    split = {"batch": "4.batch_size", "noise": "10", "by": 1}
    urls = [server.url for server in two]
    made = {}
    for name, hosts, more in (("whole", urls[:1], {}), ("parts", urls, {"split": split})):
        with Run(written(tmp_path, name, batch, axes=guidance, **more), hosts) as run:
            run.ended()
        made[name] = torch.cat(list(latents(run.folder).values()))
    assert made["whole"].shape[0] == 5
    assert len({tuple(image.flatten().tolist()) for image in made["whole"]}) == 5
    assert torch.equal(made["parts"], made["whole"])
    with Store(run.folder) as store:
        note(f"a batch of 5 in 5 parts, by server {[row['cells'] for row in store.hosts()]}: equal bit for bit")


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


def test_nothing_is_said_against_the_examples(two):
    """A server runs them all as they are: what is checked before a sweep refuses none of their values."""
    hosts = {two[0].url: Nodes(Host(two[0].url).nodes())}
    said = {file.name: list(workflow_problems(json.loads(file.read_text()), hosts, ())) for file in API.glob("*.json")}
    assert {name: problems for name, problems in said.items() if problems} == {}
