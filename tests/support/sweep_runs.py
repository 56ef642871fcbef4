"""Sweeps on real servers, and what befalls them: shared by the tests and the benchmark."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial

import psutil
import safetensors.torch
import yaml
from stepwise.sweep.store import Store
from stepwise.tools.environment.process import signal_group

STEPS, NODE = 16, "5"
SOLVERS = ["DPM++ 2M", "DPM++ 3M SDE", "RES Multistep"]
WORKFLOW = {
    "1": {"class_type": "StepwiseDigitsModel", "inputs": {"variant": "standard"}},
    "2": {"class_type": "StepwiseDigit", "inputs": {"labels": "7"}},
    "3": {"class_type": "StepwiseDigit", "inputs": {"labels": ""}},
    "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    NODE: {
        "class_type": "StepwiseKSampler",
        "inputs": {
            "model": ["1", 0],
            "positive": ["2", 0],
            "negative": ["3", 0],
            "latent_image": ["4", 0],
            "seed": 0,
            "steps": STEPS,
            "cfg": 3.0,
            "denoise": 1.0,
            "start_step": 0,
            "end_step": 10000,
            "add_noise": "enable",
            "return_with_leftover_noise": "enable",
            "on_mismatch": "error",
            "autosave_every": 0,
            "solver": "Euler",
            "solver.cfg_pp": False,
            "schedule": "Karras",
            "schedule.rho": 7.0,
            "schedule.last_sigma": "zero",
            "schedule.denoise_mode": "tail",
        },
    },
    "6": {"class_type": "SaveLatent", "inputs": {"samples": [NODE, 0], "filename_prefix": "sweep"}},
    "7": {"class_type": "VAEDecode", "inputs": {"samples": [NODE, 0], "vae": ["1", 1]}},
    "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "sweep"}},
}


def axes(seeds):
    """`seeds` by three solvers, one of which draws noise on the way, by four guidances."""
    return {
        "solver": {"input": f"{NODE}.solver", "values": SOLVERS},
        "cfg": {"input": f"{NODE}.cfg", "range": [1.5, 6, 1.5]},
        "seed": {"input": f"{NODE}.seed", "seeds": f"0..{seeds - 1}"},
    }


def written(folder, name="sweep", workflow=WORKFLOW, **sweep):
    """A sweep file in a folder, beside its workflow."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "workflow.json").write_text(json.dumps(workflow))
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"workflow": "workflow.json", **sweep}, sort_keys=False))
    return file


class Run:
    """`stepwise-sweep run` as a process, and its result folder as it fills."""

    def __init__(self, file, urls, *options):
        self.file, self.folder = file, file.with_suffix(".results")
        hosts = [part for url in urls for part in ("--host", url)]
        self.command = [sys.executable, "-m", "stepwise.sweep", "run", str(file), *hosts, *options]
        self.log = file.with_suffix(".log")
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.file.parent)

    def kill(self):
        """Kill -9, and no time for anything."""
        self.process.kill()
        self.process.wait()

    def workers(self):
        """The processes of the engine's workers, by when they were started."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return sorted(found, key=lambda child: child.pid)

    def asked(self, question, *arguments):
        """What the database says now; nothing while it is not there yet."""
        try:
            with Store(self.folder) as store:
                return store.base.execute(question, arguments).fetchall()
        except (OSError, sqlite3.Error):
            return []

    def finished(self):
        return {row["key"] for row in self.asked("SELECT key FROM cells WHERE finished IS NOT NULL")}

    def saved(self):
        return self.asked("SELECT key, step, host FROM states")

    def until(self, condition, patience=300.0):
        """Waits for a condition of the result folder; what it gives."""
        deadline = time.monotonic() + patience
        while not (found := condition()):
            if time.monotonic() > deadline or self.process.poll() not in (None, 0):
                raise AssertionError(self.log.read_text())
            time.sleep(0.005)
        return found

    def ended(self, patience=300.0):
        assert self.process.wait(patience) == 0, self.log.read_text()


def killed_in_the_middle(run, servers, patience=300.0):
    """Kills the server of a run that has an autosave and much to do, until one was killed before its end; that cell and
    the step of the autosave. The servers are started again."""
    while True:
        state = run.until(lambda: next((each for each in run.saved() if each["step"] <= STEPS // 2), None), patience)
        server = next(each for each in servers if each.url == state["host"])
        signal_group(server.process, signal.SIGKILL)
        server.process.wait()
        server.start()
        (row,) = run.until(partial(run.asked, FINISHED, state["key"]), patience)
        if row["went_on_from"]:
            return {"key": state["key"], "step": state["step"], "from": state["host"], "to": row["host"], **dict(row)}


FINISHED = "SELECT host, went_on_from FROM cells WHERE key = ? AND finished IS NOT NULL"


def latents(folder):
    """The final latent of each finished cell, by its point."""
    found = {}
    with Store(folder) as store:
        for row in store.rows():
            (file,) = [each["file"] for each in row["outputs"] if each["kind"] == "latents"]
            point = tuple(row["point"].items())
            found[point] = safetensors.torch.load(store.read(file))["latent_tensor"]
    return found


def faults(folder):
    with Store(folder) as store:
        return [dict(row) for row in store.base.execute("SELECT host, what FROM faults ORDER BY at")]
