"""A sweep before anything runs: its file, its cells, what is wrong with it, and how much there is to do."""

import itertools
import json
from pathlib import Path

import pytest
import yaml
from stepwise.sweep.apart import apart
from stepwise.sweep.calls import calls_of
from stepwise.sweep.cells import Cells
from stepwise.sweep.file import read
from stepwise.sweep.trust import check_trust
from stepwise.sweep.values import BadSweep, values_of
from stub_comfyui import INFO, PROMPT

ROOT = Path(__file__).resolve().parents[2]
HOST, OTHER = "http://127.0.0.1:8188", "http://127.0.0.1:8189"


@pytest.fixture
def made(tmp_path):
    """`made(sweep, prompt, hosts)`: the cells of a sweep that is written as a file."""

    def made(sweep, prompt=PROMPT, hosts=None):
        (tmp_path / "workflow.json").write_text(json.dumps(prompt))
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"workflow": "workflow.json", **sweep}, sort_keys=False))
        return Cells(read(tmp_path / "sweep.yaml"), hosts or {HOST: INFO})

    return made


def test_servers_that_share_a_folder_save_apart():
    """ComfyUI takes the next free number of a prefix when a node begins to save: two would take the same."""
    saving = {**PROMPT, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a/b"}}}
    one, other = (apart(saving, url) for url in (HOST, OTHER))
    prefixes = [each["2"]["inputs"].pop("filename_prefix") for each in (one, other)]
    assert one == other == {**PROMPT, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}
    assert len({prefix.removesuffix("/a/b") for prefix in prefixes}) == 2
    assert all(prefix.endswith("/a/b") for prefix in prefixes)
    assert saving["2"]["inputs"]["filename_prefix"] == "a/b"


def refused(made, *arguments):
    with pytest.raises(BadSweep) as caught:
        made(*arguments)
    return caught.value.problems


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        ({"values": ["a", 1, None]}, ("a", 1, None)),
        ({"seeds": "0..999"}, tuple(range(1000))),
        ({"seeds": "7 .. 7"}, (7,)),
        ({"range": [1, 9, 2]}, (1, 3, 5, 7, 9)),
        ({"range": [0, 1, 0.1]}, (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)),
        ({"range": [5, 1, -2]}, (5, 3, 1)),
        ({"range": {"from": 0, "to": 1, "count": 5}}, (0.0, 0.25, 0.5, 0.75, 1.0)),
    ],
)
def test_values_are_the_decimal_numbers_that_were_written(axis, expected):
    found = values_of(axis)
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


@pytest.mark.parametrize(
    "axis",
    [
        {},
        {"values": [1], "seeds": "0..1"},
        {"values": []},
        {"values": "abc"},
        {"seeds": "9..1"},
        {"seeds": 5},
        {"range": [1, 2]},
        {"range": [1, 2, 0]},
        {"range": [1, 2, -1]},
        {"range": [1, float("inf"), 1]},
        {"range": [1, float("nan"), 1]},
        {"range": [0, 1, True]},
        {"range": {"from": 0, "to": 1, "count": 1}},
        {"range": [0, 10**9, 1]},
    ],
)
def test_what_is_no_list_of_values_is_refused(axis):
    with pytest.raises(BadSweep):
        values_of(axis)


def test_cells_are_the_product_of_the_axes_and_zipped_ones_go_together(made):
    axes = {
        "cfg": {"input": "1.cfg", "values": [1, 2]},
        "kind": {"input": "Stub.kind", "values": ["plain", "other"]},
        "seed": {"input": "1.seed", "seeds": "3..5"},
    }
    cells = list(made({"axes": axes, "zip": [["cfg", "kind"]]}))
    assert [tuple(cell.point.values()) for cell in cells] == [
        (cfg, kind, seed) for (cfg, kind), seed in itertools.product([(1, "plain"), (2, "other")], (3, 4, 5))
    ]
    for cell in cells:
        inputs = cell.prompt["1"]["inputs"]
        assert {name: inputs[name] for name in ("cfg", "kind", "seed")} == cell.point
    assert len({cell.key for cell in cells}) == len(cells) == 6


def test_a_cell_has_the_same_key_whenever_it_is_made(made):
    sweep = {"axes": {"seed": {"input": "1.seed", "seeds": "0..3"}}}
    more = {"axes": {"seed": {"input": "1.seed", "seeds": "0..9"}}}
    first = [cell.key for cell in made(sweep)]
    assert first == [cell.key for cell in made(sweep)] == [cell.key for cell in made(more)][:4]


def test_a_choice_brings_its_own_inputs_and_takes_those_of_another_away(made):
    prompt = {"1": {"class_type": "Stub", "inputs": {**PROMPT["1"]["inputs"], "solver": "Heun", "solver.churn": 0.25}}}
    cells = list(made({"axes": {"solver": {"input": "1.solver", "values": ["Euler", "Heun"]}}}, prompt))
    assert [cell.prompt["1"]["inputs"].get("solver.churn") for cell in cells] == [None, 0.25]
    cells = list(made({"axes": {"solver": {"input": "1.solver", "values": ["Euler", "Heun"]}}}))
    assert [cell.prompt["1"]["inputs"].get("solver.churn") for cell in cells] == [None, 0.5]


def test_everything_that_is_wrong_is_named_at_once(made):
    axes = {
        "solver": {"input": "1.solver", "values": ["Euler", "Huen"]},
        "cfg": {"input": "1.cfg", "values": [1, 101, -1, "1", True]},
        "churn": {"input": "1.solver.churn", "values": [0.5, 2.0]},
        "seed": {"input": "1.seed", "values": [1.5]},
        "typo": {"input": "1.sed", "values": [1]},
        "node": {"input": "KSampler.seed", "values": [1]},
        "wire": {"input": "1.model", "values": [["9", 0]]},
        "socket": {"input": "1.model", "values": ["a"]},
        "again": {"input": "1.seed", "values": [1]},
    }
    problems = refused(made, {"axes": axes})
    expected = [
        "axes.typo: 1 has no input 'sed'; it has seed, cfg, kind, solver, model.",
        "axes.node: there is no node 'KSampler' in the workflow.",
        "axes.socket: sets 1.model, which axes.wire sets too.",
        "axes.again: sets 1.seed, which axes.seed sets too.",
        "axes.solver: 'Huen' for 1.solver is none of its choices: Euler, Heun.",
        "axes.cfg: 101 for 1.cfg is above its maximum, 100.0.",
        "axes.cfg: -1 for 1.cfg is below its minimum, 0.0.",
        "axes.cfg: '1' for 1.cfg is not a number.",
        "axes.cfg: True for 1.cfg is not a number.",
        "axes.churn: 2.0 for 1.solver.churn is above its maximum, 1.0.",
        "axes.seed: 1.5 for 1.seed is not a whole number.",
        "axes.wire: ['9', 0] for 1.model is wired to the node '9', which is not there.",
        "axes.socket: 'a' for 1.model is a socket (MODEL), which takes a wire, [node, output].",
    ]
    assert list(problems) == expected


def test_what_only_some_servers_lack_is_said_of_them(made):
    older = json.loads(json.dumps(INFO))
    older["Stub"]["input"]["required"]["kind"][0] = ["plain"]
    sweep = {"axes": {"kind": {"input": "1.kind", "values": ["plain", "other"]}}}
    problems = refused(made, sweep, PROMPT, {HOST: INFO, OTHER: older})
    assert problems == (f"axes.kind: 'other' for 1.kind is none of its choices: plain (on {OTHER}).",)
    problems = refused(made, sweep, PROMPT, {HOST: INFO, OTHER: {}})
    assert problems[0] == f"workflow: node 1 is a Stub, which is not installed on {OTHER}."


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ({}, "there are no axes"),
        ({"axes": {}, "axis": 1}, "'axis' is none of"),
        ({"axes": {"a": {"values": [1]}}}, "axes.a: says no input"),
        ({"axes": {"a": {"input": "1.seed", "inputs": ["1.cfg"], "values": [1]}}}, "axes.a: has input and inputs"),
        ({"axes": {"a": {"input": "1.seed", "values": [1, 1]}}}, "axes.a: 1 is there twice"),
        ({"axes": {"a": {"input": "1.seed", "values": [1]}}, "zip": [["a", "b"]]}, "zip: there is no axis 'b'"),
        ({"axes": {"a": {"input": "1.seed", "values": [1]}}, "autosave_every": 5}, "no node of the workflow can save"),
        ({"axes": {"part": {"input": "1.seed", "values": [1]}}}, "taken by the parts"),
        ({"split": {"batch": "1.cfg", "noise": "1", "by": 0}}, "by is 0"),
        ({"split": {"batch": "1.seed", "noise": "1", "by": 2}}, "split: 1.seed is 0, and no number of pictures"),
        ({"workflow": "none.json", "axes": {"a": {"input": "1.seed", "values": [1]}}}, "none.json cannot be read"),
    ],
)
def test_a_file_that_is_no_sweep_says_why(made, sweep, told):
    assert any(told in problem for problem in refused(made, sweep)), refused(made, sweep)


@pytest.mark.parametrize("text", ["[", "- 1", "!!python/object/apply:os.system [x]", "\x00", ""])
def test_any_text_is_answered(tmp_path, text):
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(BadSweep):
        read(tmp_path / "sweep.yaml")


def test_model_calls_are_those_of_the_plans():
    """By hand: 12 steps of Heun take two calls each, but the last; the second node begins at step 4."""
    schedule = {"class_type": "StepwiseKarrasSchedule", "inputs": {"steps": 12}}
    step = {"class_type": "StepwiseHeun", "inputs": {"sigmas": ["1", 0], "start_step": 0, "end_step": 10000}}
    assert calls_of({"1": schedule, "2": step}) == 23
    later = {**step, "inputs": {**step["inputs"], "start_step": 4}}
    assert calls_of({"1": schedule, "2": later}) == 15
    sampler = {"class_type": "StepwiseKSampler", "inputs": {"steps": 20, "solver": "Euler", "end_step": 15}}
    assert calls_of({"1": sampler}) == 15
    assert calls_of({"1": {"class_type": "KSampler", "inputs": {"steps": 20, "sampler_name": "euler"}}}) == 20


def test_a_cluster_on_other_machines_needs_tls_or_a_word():
    for scheduler in (None, "tls://rack:8786", "tcp://127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786"):
        check_trust(scheduler, insecure=False)
    check_trust("tcp://rack:8786", insecure=True)
    for scheduler in ("tcp://rack:8786", "tcp://10.0.0.5:8786", "http://127.0.0.1:1", "rack:8786"):
        with pytest.raises(BadSweep):
            check_trust(scheduler, insecure=False)


NOISE = {"seed": 7, "seed_step": 3, "seeds": "", "variation_seed": 40}


@pytest.mark.parametrize("given", [NOISE, {**NOISE, "seed_step": 0}, {**NOISE, "seeds": "5, 1\n9 2;8"}])
def test_pictures_of_a_split_batch_have_the_seeds_of_the_whole(made, given):
    """Image i has seed + i * seed_step or the i-th of the list, and variation_seed + i, as Noise (Stepwise) says."""
    numbers = {name: ["INT", {"default": 0, "min": 0}] for name in ("seed", "seed_step", "variation_seed")}
    noise = {
        "display_name": "Noise (Stepwise)",
        "input": {"required": {**numbers, "seeds": ["STRING", {"default": ""}]}},
    }
    sizes = {"input": {"required": {"batch_size": ["INT", {"default": 1, "min": 1}]}}}
    info = {**INFO, "StepwiseNoise": noise, "EmptyLatentImage": sizes}
    prompt = {
        **PROMPT,
        "2": {"class_type": "EmptyLatentImage", "inputs": {"batch_size": 5}},
        "3": {"class_type": "StepwiseNoise", "inputs": given},
    }

    def pictures(size, noise):
        listed = [int(word) for word in noise["seeds"].replace(",", " ").replace(";", " ").split()]
        seeds = listed or [noise["seed"] + place * noise["seed_step"] for place in range(size)]
        assert len(seeds) == size
        return [(seed, noise["variation_seed"] + place) for place, seed in enumerate(seeds)]

    split = {"batch": "2.batch_size", "noise": "Noise (Stepwise)", "by": 2}
    cells = list(made({"split": split}, prompt, {HOST: info}))
    assert [cell.prompt["2"]["inputs"]["batch_size"] for cell in cells] == [2, 2, 1]
    parts = [pictures(cell.prompt["2"]["inputs"]["batch_size"], cell.prompt["3"]["inputs"]) for cell in cells]
    assert [each for part in parts for each in part] == pictures(5, given)
