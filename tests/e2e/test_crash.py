"""kill -9 in the middle of a run, a new server, and the run goes on: the picture is the one that was interrupted."""

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from stepwise.samplers.checkpoint import peek
from stepwise.tests.e2e.conftest import COMFYUI
from stepwise.tests.e2e.harness import fetch, picture, run_prompt
from stepwise.tools.environment.process import signal_group
from stepwise.tools.environment.server import Server

ROOT = Path(__file__).resolve().parents[2]
FIRST = ROOT / "example_workflows" / "api" / "dpmpp_2m_karras_cfg.json"
SOLVER, STEPS = "StepwiseDPMpp3MSDE", 200
AUTOSAVED = "autosave_*8_*.safetensors"


def graph(server, **changes):
    """200 steps of the solver that remembers most and draws noise, its final latent and its picture saved."""
    prompt = json.loads(FIRST.read_text())
    by_kind = {node["class_type"]: number for number, node in prompt.items()}
    schedule, run, decode = (by_kind[kind] for kind in ("StepwiseKarrasSchedule", "StepwiseDPMpp2M", "VAEDecode"))
    assert run == "8"
    prompt[schedule]["inputs"]["steps"] = STEPS
    prompt[by_kind["EmptyLatentImage"]]["inputs"]["batch_size"] = 2
    sockets = {name: value for name, value in prompt[run]["inputs"].items() if isinstance(value, list)}
    prompt[run] = {"class_type": SOLVER, "inputs": {**defaults(server), **sockets, **changes}}
    prompt["20"] = {"class_type": "SaveLatent", "inputs": {"samples": [run, 0], "filename_prefix": "final"}}
    assert prompt[decode]["inputs"]["samples"] == [run, 0]
    return prompt


def defaults(server):
    """What the editor would fill in."""
    declared = server.get(f"/object_info/{SOLVER}")[SOLVER]["input"]["required"]
    options = {name: rest[0] if rest else {} for name, (_, *rest) in declared.items()}
    first = {name: given["options"][0] for name, given in options.items() if "options" in given}
    return first | {name: given["default"] for name, given in options.items() if "default" in given}


def outcome(server, prompt):
    """The final latent and the pixels of a prompt."""
    result = run_prompt(server, prompt).check()
    (latent,), (image,) = result.files("latents"), result.files()
    tensors = safetensors.torch.load(fetch(server, latent))
    return tensors["latent_tensor"], np.asarray(picture(server, image).convert("RGB"))


def saved_step(folder):
    """The step at which the autosave in a folder stands, 0 where there is none: read while the server writes."""
    try:
        (file,) = folder.glob(AUTOSAVED)
        return json.loads(peek(file)["state"])["HeldRun"]["map"]["step"]
    except (FileNotFoundError, ValueError):
        return 0


def test_a_killed_run_goes_on_from_its_autosave_to_the_same_picture(server, tmp_path, note):
    latent, pixels = outcome(server, graph(server, autosave_every=0))
    folder = tmp_path / "output" / "stepwise"
    with Server(COMFYUI, Path(sys.executable), tmp_path) as first:
        assert first.post("/prompt", {"prompt": graph(server, autosave_every=1)})[0] == 200
        deadline = time.monotonic() + 120
        while saved_step(folder) < STEPS // 3:
            assert time.monotonic() < deadline, first.log_tail()
            time.sleep(0.001)
        signal_group(first.process, signal.SIGKILL)
        assert first.process.wait(30) == -signal.SIGKILL
    step = saved_step(folder)
    (file,) = folder.glob(AUTOSAVED)
    assert STEPS // 3 <= step < STEPS, "the run was not in the middle"
    leftovers = [path.name for path in file.parent.iterdir() if path != file]
    assert all(name.startswith(".") and name.endswith(".tmp") for name in leftovers)

    resumed = graph(server, autosave_every=50, state=["30", 0])
    for name in ("noise", "latent_image", "sigmas"):
        del resumed["8"]["inputs"][name]
    resumed["30"] = {"class_type": "StepwiseLoadState", "inputs": {"file": f"stepwise/{file.name} [output]"}}
    with Server(COMFYUI, Path(sys.executable), tmp_path) as second:
        began = time.monotonic()
        again_latent, again_pixels = outcome(second, resumed)
        took = time.monotonic() - began
    assert torch.equal(again_latent, latent)
    assert np.array_equal(again_pixels, pixels)
    note(
        f"SIGKILL after step {step} of {STEPS}; on a new server {STEPS - step} steps from {file.name} in {took:.1f} s: "
        f"final latent and pixels equal; unfinished files left beside it: {len(leftovers)}"
    )
