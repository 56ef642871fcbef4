"""What the page is told of states on disk: the list, what each holds, the last autosave of a node."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import folder_paths
import pytest
import safetensors.torch
import torch
from comfy_extras import nodes_custom_sampler as core
from stepwise.nodes.runs import folders as state_folders
from stepwise.nodes.runs import listing
from stepwise.nodes.runs.autosave import Autosave
from stepwise.nodes.runs.files import from_bytes
from stepwise.samplers import checkpoint
from toy_models import call, nodes_by_id, prompt, refused, toy_model

STEPS = 6
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "v0_1_0"


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Output and input folders of the host, empty for each test."""
    for kind in ("output", "input", "temp"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    return tmp_path


def cut(step=3, seed=7, images=1, kind="EPS"):
    model = toy_model(kind)
    (guider,) = call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=3.0)
    latent = {"samples": torch.zeros(images, 4, 8, 8)}
    sigmas = call("StepwiseKarrasSchedule" if kind == "EPS" else "StepwiseFlowSchedule", steps=STEPS)[0]
    noise = core.RandomNoise.execute(seed).args[0]
    return call("StepwiseDPMpp2M", guider=guider, noise=noise, latent_image=latent, sigmas=sigmas, end_step=step)[2]


def saved(**about):
    return call("StepwiseSaveState", state=cut(**about))[0]


def told(file):
    return listing.state({"file": file})


def test_with_nothing_saved_the_list_says_so_and_the_node_what_to_do():
    declared = nodes_by_id()["StepwiseLoadState"].define_schema().inputs[0]
    assert declared.options == [state_folders.NOTHING]
    assert listing.states({}) == {"files": []}
    message = refused("StepwiseLoadState", file=state_folders.NOTHING)
    assert message == (
        "Load State: file is 'no state saved yet', which names no state. "
        "Save one with Save State or autosave_every, or upload one, and choose it."
    )
    assert nodes_by_id()["StepwiseLoadState"].validate_inputs(state_folders.NOTHING) == message
    assert nodes_by_id()["StepwiseLoadState"].validate_inputs() is True, "the host names what is missing"


def test_the_newest_state_stands_first():
    names = [saved(seed=seed) for seed in range(3)]
    assert listing.states({})["files"] == names[::-1]


@pytest.mark.parametrize(
    ("about", "latent"), [({"images": 2}, "latent 2x4x8x8, seeds 7, 8"), ({"kind": "FLOW"}, "latent 1x4x8x8, seed 7")]
)
def test_a_state_is_told_as_the_state_itself_says(about, latent):
    state = cut(**about)
    lines = told(call("StepwiseSaveState", state=state)[0])["lines"]
    assert lines[:3] == [
        "DPM++ 2M, step 3 of 6",
        latent,
        f"model {state.model['model']} ({state.model['sampling']})",
    ]
    assert lines[3].startswith("saved 20")


def test_only_the_header_is_read(folders, monkeypatch):
    """What is told of a state of any size costs no more."""
    file = state_folders.found(saved())
    data = file.read_bytes()
    length = 8 + int.from_bytes(data[:8], "little")
    file.write_bytes(data[:length] + b"\xff" * (len(data) - length))
    monkeypatch.setattr(checkpoint, "loads", None)
    outline = checkpoint.outline(file, listing.KINDS)
    assert outline.state.x.device.type == "meta"
    assert outline.state.x.shape == outline.latent["samples"].shape == (1, 4, 8, 8)
    assert told(f"stepwise/{file.name} [output]")["lines"][0] == "DPM++ 2M, step 3 of 6"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "file is '', which names no state"),
        ("../x.safetensors", "which is not in ComfyUI's output or input folder"),
        ("gone.safetensors [output]", "and there is no such file"),
        ("a\0b", "which is not in ComfyUI's output or input folder"),
        ("\ud800", "which is not in ComfyUI's output or input folder"),
        ("model.safetensors", "is a safetensors file, but no state"),
        ("short.safetensors", "is damaged or cut short"),
        ("library.safetensors", "was saved by the library"),
        ("odd.safetensors", "file is inconsistent"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(name, said, folders):
    safetensors.torch.save_file({"x": torch.zeros(2)}, folders / "output" / "model.safetensors")
    file = state_folders.found(saved())
    (folders / "output" / "short.safetensors").write_bytes(file.read_bytes()[:-1])
    (folders / "output" / "library.safetensors").write_bytes(checkpoint.dumps({"a": 1}))
    state = from_bytes(file.read_bytes())
    odd = checkpoint.dumps(type(state)(**{**vars(state), "latent": {"samples": 3}}), listing.KINDS)
    (folders / "output" / "odd.safetensors").write_bytes(odd)
    assert said in told(name)["error"]


def autosaved(seed=7, **shown):
    state = cut(seed=seed)
    hidden = type("Hidden", (), hidden_of(**shown))
    autosave = Autosave.of(1, hidden, None)
    autosave.save(1, lambda: state)
    return autosave.name


def hidden_of(workflow="portrait", title="DPM++ 2M", node="8"):
    prompt = {node: {"class_type": "StepwiseDPMpp2M", "inputs": {"guider": ["9", 0]}, "_meta": {"title": title}}}
    info = {"workflow": {"extra": {"stepwise": {"workflow": workflow}}}}
    return {"prompt": prompt, "unique_id": node, "extra_pnginfo": info}


def test_the_last_autosave_of_a_node_is_found_by_its_names():
    asked = {"workflow": "portrait", "title": "DPM++ 2M", "node": "8"}
    assert listing.last_autosave(asked) == {"file": None}
    first = autosaved(1)
    others = [autosaved(2, workflow="landscape"), autosaved(3, title="other"), autosaved(4, node="9")]
    assert listing.last_autosave(asked) == {"file": first}
    assert listing.last_autosave(asked | {"node": "9"}) == {"file": others[2]}
    last = autosaved(5)
    assert listing.last_autosave(asked) == {"file": last}
    assert call("StepwiseLoadState", file=last)[0].seed == 5
    assert listing.last_autosave({}) == {"file": None}


def test_every_answer_is_json():
    saved()

    request = SimpleNamespace(query={"file": "\ud800"})
    for route, question in listing.ROUTES.items():
        response = asyncio.run(listing.answering(question)(request))
        assert response.status == 200, route
        assert isinstance(json.loads(response.text), dict)


def test_states_of_0_1_0_are_told_too(folders):
    (folders / "input" / "digits.safetensors").write_bytes((FIXTURES / "digits.safetensors").read_bytes())
    lines = told("digits.safetensors [input]")["lines"]
    assert lines[0].endswith("step 3 of 6")
    assert "seed" in lines[1]
