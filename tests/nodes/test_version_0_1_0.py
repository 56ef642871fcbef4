"""What was saved with version 0.1.0 opens, loads and goes on bit for bit: tests/fixtures/v0_1_0."""

import asyncio
import shutil
from functools import partial

import execution
import folder_paths
import pytest
import safetensors.torch
import torch
from comfy_extras import nodes_custom_sampler as core
from comfy_extras.nodes_model_advanced import ModelSamplingSD3
from comfy_extras.nodes_preview_any import PreviewAny
from version_0_1_0 import FIXTURES, WIDGETS, guider_of, interface, kept, nodes_by_id, noise_of, run

import nodes as host_nodes

INTERFACE = kept("interface.json")
CASES = kept("cases.json")
FINALS = safetensors.torch.load_file(FIXTURES / "finals.safetensors")
PROMPTS = {path.stem: kept(path.relative_to(FIXTURES)) for path in sorted((FIXTURES / "api").glob("*.json"))}
CORE = {
    "RandomNoise": core.RandomNoise,
    "SamplerCustomAdvanced": core.SamplerCustomAdvanced,
    "ModelSamplingSD3": ModelSamplingSD3,
    "PreviewAny": PreviewAny,
}
WHOLE = {"start_step": 0, "end_step": 10000, "autosave_every": 0, "on_mismatch": "error"}
# Kernels without these round otherwise: there the numbers are only close to those of the files.
EXACT = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
# What is listed when the page is loaded, and not part of the interface.
LISTED = ("StepwiseLoadState", "file")


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Output and input folders of the host, empty for each test."""
    for kind in ("output", "input", "temp"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    return tmp_path


# Nodes


def is_widget(each):
    return each["type"] in WIDGETS


def widgets(inputs):
    """The places that the values of a saved workflow go to: a control after a seed has one of its own."""
    return [(name, bool(each.get("control_after_generate"))) for name, each in inputs.items() if is_widget(each)]


def default(each):
    return each["default"] if "default" in each else (each.get("options") or [None])[0]


@pytest.mark.parametrize("node_id", INTERFACE)
def test_every_input_and_output_is_still_there(node_id):
    then, now = INTERFACE[node_id], interface(nodes_by_id()[node_id])
    was, are = then["inputs"], now["inputs"]
    # The host puts what may be left open behind the rest. The page finds sockets by name, and widgets by place.
    opened = [name for name in was if are[name]["optional"] and not was[name]["optional"]]
    assert not any(is_widget(was[name]) for name in opened)
    order = [name for name in was if name not in opened]
    assert order == [name for name in are if name in order]
    assert widgets(are)[: len(widgets(was))] == widgets(was)
    assert all(each["optional"] for name, each in are.items() if name not in was)
    assert now["outputs"][: len(then["outputs"])] == then["outputs"]
    assert now["output_node"] == then["output_node"]


@pytest.mark.parametrize("node_id", INTERFACE)
def test_every_input_takes_what_it_took(node_id):
    now = interface(nodes_by_id()[node_id])["inputs"]
    for name, was in INTERFACE[node_id]["inputs"].items():
        assert narrower(was, now[name], listed=(node_id, name) == LISTED) == [], name


def narrower(was, now, listed):
    """What an input no longer is or takes."""
    found = [key for key in ("type", "template", "forceInput") if was.get(key) != now.get(key)]
    if was["optional"] and not now["optional"]:
        found.append("optional")
    if not listed:
        found += ["default"] if default(was) != default(now) else []
        found += [option for option in was.get("options", ()) if option not in now.get("options", ())]
    if "min" in was and now.get("min", was["min"]) > was["min"]:
        found.append("min")
    if "max" in was and now.get("max", was["max"]) < was["max"]:
        found.append("max")
    return found


# Workflows


def reached(prompt):
    """The nodes that the host looks at: those that an output node needs."""
    found = {number for number, node in prompt.items() if output_node(node["class_type"])}
    while (
        new := {value[0] for number in found for value in prompt[number]["inputs"].values() if isinstance(value, list)}
        - found
    ):
        found |= new
    return [prompt[number] for number in found]


def output_node(kind):
    node = nodes_by_id().get(kind) or CORE.get(kind) or host_nodes.NODE_CLASS_MAPPINGS[kind]
    return bool(getattr(node, "OUTPUT_NODE", False))


def test_every_node_with_every_input_is_in_a_workflow():
    given = {}
    for prompt in PROMPTS.values():
        for node in reached(prompt):
            names = {name.partition(".")[0] for name in node["inputs"]}
            given[node["class_type"]] = given.get(node["class_type"], set()) | names
    missing = {node_id: set(each["inputs"]) - given.get(node_id, set()) for node_id, each in INTERFACE.items()}
    assert {node_id: names for node_id, names in missing.items() if names or node_id not in given} == {}


@pytest.mark.parametrize("name", PROMPTS)
def test_the_host_accepts_the_prompt(name, folders, monkeypatch):
    shutil.copy(FIXTURES / "digits.safetensors", folders / "output")
    for node_id, node in {**nodes_by_id(), **CORE}.items():
        monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, node_id, node)
    valid, error, outputs, faults = asyncio.run(execution.validate_prompt("0", PROMPTS[name], None))
    assert (valid, error, faults) == (True, None, {})
    assert {number for number, node in PROMPTS[name].items() if output_node(node["class_type"])} == set(outputs)


# States


def loaded(name, folders):
    shutil.copy(FIXTURES / "states" / f"{name}.safetensors", folders / "output")
    return run("StepwiseLoadState", file=f"{name}.safetensors [output]")[0]


def same(made, name):
    parts = made.unbind() if made.is_nested else [made]
    keys = [f"{name}.{i}" for i in range(len(parts))] if made.is_nested else [name]
    alike = torch.equal if EXACT else partial(torch.allclose, rtol=1e-4, atol=1e-4)
    return all(alike(part, FINALS[key]) for part, key in zip(parts, keys, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_state_goes_on_to_the_latent_of_0_1_0(name, folders):
    case = CASES[name]
    state = loaded(name, folders)
    made = run(f"Stepwise{case['solver']}", guider=guider_of(case), state=state, **case["params"], **WHOLE)[0]
    assert same(made["samples"], name)


def is_made_so_today(name):
    """A fork is no uncut run of any solver, and churn raised the first level above the model's range."""
    return name != "forked" and not CASES[name]["params"].get("s_churn")


@pytest.mark.parametrize("name", [name for name in CASES if is_made_so_today(name)])
def test_an_uncut_run_of_today_ends_there_too(name, folders):
    case = CASES[name]
    state = loaded(name, folders)
    begins = {"noise": kept_noise(state, case), "latent_image": state.latent, "sigmas": torch.tensor(state.sigmas)}
    window = {**WHOLE, "start_step": case["start_step"]}
    made = run(f"Stepwise{case['solver']}", guider=guider_of(case), **begins, **case["params"], **window)[0]
    assert same(made["samples"], name)


def kept_noise(state, case):
    """The noise of a state, as a NOISE: its seeds from the node, its numbers from the file."""
    noise = noise_of(case)
    noise.generate_noise = lambda latent: state.noise
    return noise


def test_every_solver_and_every_kind_of_noise_has_a_state():
    solvers = {
        node_id for node_id, each in INTERFACE.items() if "state" in each["inputs"] and "end_step" in each["inputs"]
    }
    assert {f"Stepwise{case['solver']}" for case in CASES.values()} == solvers - {"StepwiseSample"}
    assert len(solvers) == 18
    assert {path.stem for path in (FIXTURES / "states").iterdir()} == set(CASES)
    noisy = {node_id for node_id in solvers if "noise_kind" in INTERFACE[node_id]["inputs"]}
    brownian = {
        f"Stepwise{case['solver']}" for case in CASES.values() if case["params"].get("noise_kind") == "brownian"
    }
    assert brownian == noisy


def test_a_state_with_its_workflow_loads_and_is_read(folders):
    """Saved by the server of 0.1.0 with the Digits model."""
    shutil.copy(FIXTURES / "digits.safetensors", folders / "output")
    (state,) = run("StepwiseLoadState", file="digits.safetensors [output]")
    text, denoised = run("StepwiseInspectState", state=state)
    assert "stands at: step 3 of 6" in text
    assert tuple(denoised["samples"].shape) == (2, 1, 8, 8)
    with safetensors.safe_open(FIXTURES / "digits.safetensors", "pt") as file:
        assert {"prompt", "workflow"} <= file.metadata().keys()
