"""What may never happen to states: a run ended or an error hidden by saving, a file of another run lost, a file that
freezes or fills the server, a damaged state believed."""

import gc
import json
import logging
import os
import threading
import time
import tracemalloc
import weakref
from dataclasses import replace

import comfy.model_management
import folder_paths
import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from stepwise.nodes.demo import parse_labels
from stepwise.nodes.runs import autosave as autosaving
from stepwise.nodes.runs import folders as state_folders
from stepwise.nodes.runs.autosave import Autosave
from stepwise.nodes.runs.files import from_bytes, to_bytes
from stepwise.nodes.runs.identity import guidance_of
from stepwise.samplers import checkpoint
from stepwise.samplers.parameters import InputError, quoted
from toy_models import SmoothNet, call, nodes_by_id, prompt, refused, toy_model

STEPS = 4
CANCEL = comfy.model_management.InterruptProcessingException


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Output and input folders of the host, empty for each test."""
    for kind in ("output", "input", "temp"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    return tmp_path


def guider_of(net=None, positive=0.4, cfg=3.0, rule=()):
    prompts = {"positive": prompt(positive), "negative": prompt(-0.3)}
    return call("StepwiseCFGGuider", model=toy_model("EPS", net), **prompts, cfg=cfg, rule=rule)[0]


def run(guider=None, seed=7, beside=None, **params):
    latent = {"samples": torch.zeros(1, 4, 8, 8), **(beside or {})}
    inputs = {"noise": core.RandomNoise.execute(seed).args[0], "latent_image": latent}
    inputs["sigmas"] = call("StepwiseKarrasSchedule", steps=STEPS)[0]
    inputs = {} if "state" in params else inputs
    return call("StepwiseDPMpp2M", guider=guider or guider_of(), **inputs, **params)


@pytest.fixture
def state():
    return run(end_step=2)[2]


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def autosaved():
    """The names of the autosaves, newest first."""
    return [name.removesuffix(" [output]") for name in state_folders.listed() if "/autosave_" in name]


def loaded(place=0):
    """The state of an autosave, the newest one first."""
    return call("StepwiseLoadState", file=autosaved()[place])[0]


# Autosave never ends a run and never hides what ended it


class Stopping(SmoothNet):
    def __init__(self, error):
        super().__init__(4)
        self.error = error

    def forward(self, *args, **kwargs):
        if self.calls == 2:
            raise self.error
        return super().forward(*args, **kwargs)


def foreign_entries():
    """What packs put into a LATENT."""
    model = toy_model()
    return {
        "model": model,
        "sampler": core.KSamplerSelect.execute("euler").args[0],
        "generator": torch.Generator(),
        "positive": prompt(0.4),
        "note": {"by": "another pack", "at": [1, 2.5, None]},
    }


def test_a_latent_with_foreign_entries_runs_through_every_autosave(folders, caplog):
    """They pass to the outputs; the state and its file hold what the run reads, and small notes."""
    beside = foreign_entries()
    plain = run(autosave_every=2, seed=7)
    size = (folders / "output" / autosaved()[0]).stat().st_size
    with caplog.at_level(logging.WARNING):
        output, denoised, held = run(autosave_every=2, beside=beside)
    assert torch.equal(output["samples"], plain[0]["samples"])
    for latent in (output, denoised):
        assert all(latent[name] is value for name, value in beside.items())
    assert set(held.latent) == {"samples", "note"}
    assert loaded().latent["note"] == beside["note"]
    assert (folders / "output" / autosaved()[0]).stat().st_size < size + 500
    for name in ("model", "sampler", "generator", "positive"):
        assert sum(f"the latent's {name} is not saved" in each for each in warnings(caplog)) == 1


def test_of_the_notes_of_others_a_state_holds_the_small_ones(caplog):
    """64 KiB each, as JSON."""
    beside = {"small": "x" * (64 * 2**10 - 100), "large": "x" * (64 * 2**10)}
    with caplog.at_level(logging.WARNING):
        output, _, held = run(beside=beside, end_step=2)
    assert set(held.latent) == {"samples", "small"}
    assert output["large"] is beside["large"]
    assert [each for each in warnings(caplog) if "latent's" in each] == [
        "Stepwise: the latent's large is not saved with the state: it is large."
    ]


@pytest.mark.parametrize("error", [CANCEL(), torch.OutOfMemoryError("no memory left"), RuntimeError("of the model")])
@pytest.mark.parametrize("saving", ["foreign entries", "fails", "fails badly"])
def test_what_ended_a_run_is_what_is_told(error, saving, monkeypatch, folders):
    def failing(*args):
        raise KeyboardInterrupt if saving == "fails badly" else RuntimeError("of the saving")

    if saving != "foreign entries":
        monkeypatch.setattr(autosaving, "to_bytes", failing)
    with pytest.raises(type(error)) as caught:
        run(guider_of(Stopping(error)), autosave_every=100, beside=foreign_entries())
    assert caught.value is error
    assert len(files(folders / "output")) == (1 if saving == "foreign entries" else 0)


def test_any_error_of_saving_is_told_once_and_the_run_goes_on(monkeypatch, caplog):
    whole = run()[0]["samples"]

    def failing(*args):
        raise torch.OutOfMemoryError("no memory left for a copy")

    monkeypatch.setattr(autosaving, "to_bytes", failing)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(run(autosave_every=1)[0]["samples"], whole)
    said = [each for each in warnings(caplog) if "could not be saved" in each]
    assert len(said) == 1
    assert "the state at step 1" in said[0]
    assert "(no memory left for a copy). The run goes on without it." in said[0]


def test_a_held_state_keeps_nothing_of_others_alive():
    class Model:
        pass

    model = Model()
    alive, held = weakref.ref(model), run(beside={"model": model}, end_step=2)[2]
    del model
    gc.collect()
    assert held.latent.keys() == {"samples"}
    assert alive() is None


# A file of another run is never lost


@pytest.mark.parametrize(
    "other",
    [
        {"positive": 0.5},
        {"cfg": 4.0},
        {"rule": ("Rescale", {"phi": 0.3})},
        {"rule": ("Rescale", {"phi": 0.7})},
    ],
    ids=str,
)
def test_another_prompt_or_guidance_is_another_run(other, folders):
    """With the same seed, schedule and solver. Without a graph the guider's values tell."""
    if "rule" in other:
        name, params = other["rule"]
        other = {"rule": call(f"Stepwise{name}Guidance", rule=(), **params)[0]}
    first = {"rule": call("StepwiseRescaleGuidance", rule=(), phi=0.5)[0]} if "rule" in other else {}
    run(guider_of(**first), autosave_every=2, end_step=2)
    run(guider_of(**other), autosave_every=2)
    assert len(files(folders / "output")) == 2
    assert (loaded().step, loaded(1).step) == (STEPS, 2)
    run(guider_of(**other), state=replace(loaded(), step=loaded().step), autosave_every=1)
    assert loaded(1).step == 2
    assert len(files(folders / "output")) == 2


def test_a_guider_of_another_pack_is_told_by_its_values():
    class Foreign:
        def __init__(self, strength):
            self.model_patcher, self.strength, self.prompts = object(), strength, {"positive": prompt(0.4)}

    assert guidance_of(Foreign(1.0), None) == guidance_of(Foreign(1.0), None)
    assert guidance_of(Foreign(1.0), None) != guidance_of(Foreign(2.0), None)


def hidden(text="a lighthouse", number="8", **more):
    """The hidden inputs of a step node in a graph whose guider hangs on a model and a prompt."""
    graph = {
        f"{number}1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "one.safetensors"}},
        f"{number}2": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": [f"{number}1", 1]}},
        f"{number}3": {"class_type": "Guider", "inputs": {"model": [f"{number}1", 0], "p": [f"{number}2", 0]}},
        number: {"class_type": "StepwiseDPMpp2M", "inputs": {"guider": [f"{number}3", 0], **more}},
    }
    return type("Hidden", (), {"prompt": graph, "unique_id": number, "extra_pnginfo": None})


def test_a_graph_tells_runs_apart_by_all_that_leads_to_the_guider():
    """And by nothing else: what other ids the nodes have, and where the run begins, decides nothing."""
    one = guidance_of(None, hidden())
    assert one == guidance_of(None, hidden(number="9"))
    assert one == guidance_of(None, hidden(state=["30", 0], autosave_every=3))
    assert one != guidance_of(None, hidden(text="a harbour"))
    other = hidden()
    other.prompt["81"]["inputs"]["ckpt_name"] = "two.safetensors"
    assert one != guidance_of(None, other)


def test_a_node_that_makes_its_guider_is_told_by_what_it_makes_it_of():
    """KSampler (Stepwise) has a model and prompts where others have a guider. A LoRA changes no prompt."""
    wired = {"model": ["81", 0], "positive": ["82", 0], "cfg": 7.0}
    one = guidance_of(None, hidden(guider=None, **wired))
    assert one == guidance_of(None, hidden(guider=None, **wired, steps=30))
    assert one != guidance_of(None, hidden(guider=None, **wired | {"cfg": 8.0}))
    assert one != guidance_of(None, hidden(guider=None, **wired, negative=["82", 0]))
    other = hidden(guider=None, **wired)
    other.prompt["84"] = {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["81", 0], "strength_model": 0.5}}
    other.prompt["8"]["inputs"]["model"] = ["84", 0]
    assert one != guidance_of(None, other)


def test_a_graph_that_goes_round_ends():
    around = hidden()
    around.prompt["81"]["inputs"]["again"] = ["83", 0]
    assert guidance_of(None, around)


def test_what_lies_in_the_place_of_its_file_stays_and_the_run_goes_on(folders, caplog):
    run(seed=2, autosave_every=2)
    (name,) = files(folders / "output")
    (folders / "output" / name).unlink()
    (folders / "output" / name).mkdir()
    (folders / "output" / name / "full").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        run(seed=2, autosave_every=2)
    assert files(folders / "output") == [f"{name}/full"]
    assert [each for each in warnings(caplog) if f"in {folders / 'output' / name} (Is a directory)" in each]


def test_two_servers_on_one_folder_do_not_write_over_each_other(folders, state):
    one, two = (Autosave(1, "node", guidance=lambda text=text: text) for text in ("one", "two"))
    states = [replace(state, seed=seed) for seed in (1, 2)]
    for _ in range(3):
        one.save(2, lambda: states[0])
        two.save(2, lambda: states[1])
    assert len(files(folders / "output")) == 2
    assert [call("StepwiseLoadState", file=each.name)[0].seed for each in (one, two)] == [1, 2]


IDS = ["a/b", "a\\b", "a-b", "a:b", "a b", "A/b", "8", "8_previous", "8-previous", "..", "12:3", "12-3", "ä", "x" * 300]


def test_no_two_nodes_share_an_autosave(folders):
    names = {Autosave(1, node).file for node in [*IDS, "x" * 299, "\ud800", ""]}
    assert len(names) == len(IDS) + 3
    assert all(file.parent == folders / "output" / "stepwise" and len(file.name) < 150 for file in names)


def test_a_killed_run_s_leftovers_go_and_nobody_else_s(folders):
    place = folders / "output" / "stepwise"
    place.mkdir()
    for name in (".autosave_8.safetensors.0a1b2c3d.tmp", ".autosave_9.safetensors.ffffffff.tmp", ".other.tmp", "a.tmp"):
        (place / name).write_bytes(b"half")
        os.utime(place / name, (0, 0) if "9" not in name else None)
    run(autosave_every=2)
    assert files(place)[:3] == [".autosave_9.safetensors.ffffffff.tmp", ".other.tmp", "a.tmp"]
    assert len(files(place)) == 4


# Save State


@pytest.mark.parametrize("prefix", ["", ".", "runs/", "runs/.", "./", "stepwise/state", "a.b"])
def test_no_prefix_makes_one_save_replace_another(prefix, state, folders):
    names = [call("StepwiseSaveState", state=replace(state, seed=seed), filename_prefix=prefix)[0] for seed in range(3)]
    assert len(set(names)) == 3
    assert [call("StepwiseLoadState", file=name)[0].seed for name in names] == [0, 1, 2]
    assert sorted(state_folders.listed()) == sorted(names)


@pytest.mark.parametrize("prefix", [".hidden", "runs/.hidden", "..", "a/.."])
def test_a_name_that_would_not_be_listed_is_refused(prefix, state, folders):
    message = refused("StepwiseSaveState", state=state, filename_prefix=prefix)
    assert message.startswith(f"Save State: filename_prefix is {prefix!r}, ")
    assert files(folders) == []


@pytest.mark.parametrize("links", [True, False], ids=["links", "a disk without links"])
def test_saves_at_the_same_time_have_numbers_of_their_own(links, state, folders, monkeypatch):
    """As two servers on one folder: all have counted before the first one writes."""
    count, barrier, names = 6, threading.Barrier(6), []
    real = checkpoint.write

    def together(*args, **kwargs):
        if threading.current_thread() is not threading.main_thread() and not threading.current_thread().waited:
            threading.current_thread().waited = True
            barrier.wait(30)
        return real(*args, **kwargs)

    def unsupported(*args):
        raise PermissionError("no links here")

    if not links:
        monkeypatch.setattr(checkpoint.os, "link", unsupported)
    monkeypatch.setattr(checkpoint, "write", together)

    def save(seed):
        names.append((seed, state_folders.save_new(to_bytes(replace(state, seed=seed), {}), "run")[1]))

    threads = [threading.Thread(target=save, args=(seed,)) for seed in range(count)]
    for thread in threads:
        thread.waited = False
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(name for _, name in names) == [f"run_0000{i}_.safetensors [output]" for i in range(1, count + 1)]
    assert all(call("StepwiseLoadState", file=name)[0].seed == seed for seed, name in names)
    assert len(files(folders / "output")) == count


def test_a_hidden_file_is_not_listed(state, folders):
    for name in ("shown.safetensors", ".hidden.safetensors", "shown.txt"):
        (folders / "output" / name).write_bytes(to_bytes(state, {}))
    assert state_folders.listed() == ["shown.safetensors [output]"]


# One rule for folders; files that are no files


def test_a_linked_folder_is_out_of_the_output_folder_for_all_three(state, folders, caplog):
    outside = folders / "outside"
    outside.mkdir()
    (folders / "output" / "stepwise").symlink_to(outside, target_is_directory=True)
    with caplog.at_level(logging.WARNING):
        run(autosave_every=2)
    assert "is a link that leads out of ComfyUI's output folder" in caplog.text
    message = refused("StepwiseSaveState", state=state, filename_prefix="stepwise/state")
    assert "which leads out of ComfyUI's output folder" in message
    assert files(outside) == []
    (outside / "x.safetensors").write_bytes(to_bytes(state, {}))
    assert state_folders.listed() == []
    message = refused("StepwiseLoadState", file="stepwise/x.safetensors [output]")
    assert "which is not in ComfyUI's output or input folder" in message


def test_a_linked_output_folder_itself_is_as_good_as_any(state, folders, monkeypatch):
    (folders / "disk").mkdir()
    (folders / "linked").symlink_to(folders / "disk", target_is_directory=True)
    monkeypatch.setattr(folder_paths, "output_directory", str(folders / "linked"))
    run(autosave_every=2)
    (name,) = call("StepwiseSaveState", state=state, filename_prefix="stepwise/state")
    assert loaded().step == STEPS
    assert call("StepwiseLoadState", file=name)[0].step == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_never_opened(folders):
    """To open one waits for a writer: on the server's own thread."""
    os.mkfifo(folders / "output" / "x.safetensors")
    answers = []

    def look():
        answers.append(state_folders.listed())
        answers.append(nodes_by_id()["StepwiseLoadState"].validate_inputs("x.safetensors [output]"))
        try:
            checkpoint.peek(folders / "output" / "x.safetensors")
        except InputError as error:
            answers.append(str(error))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(30)
    assert answers[0] == []
    assert "and there is no such file" in answers[1]
    assert answers[2].startswith("file is no regular file")


def sized(file, data, size):
    """A file with holes up to `size`: no room on the disk."""
    file.write_bytes(data)
    os.truncate(file, size)


def cheaply(act):
    """What `act` gives, if it takes less than two seconds and 40 MiB of Python's memory."""
    tracemalloc.start()
    began = time.perf_counter()
    try:
        return act()
    finally:
        took, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert took < 2.0
        assert peak < 40 * 2**20


def test_huge_files_are_refused_before_they_are_read(state, folders, note):
    good = to_bytes(state, {})
    length = 99_000_000
    sized(folders / "output" / "header.safetensors", length.to_bytes(8, "little") + b'{"__metadata__":', 8 + length)
    sized(folders / "output" / "hole.safetensors", good, 2 * 2**30)
    huge = {"x": {"dtype": "F32", "shape": [2**29], "data_offsets": [0, 2**31]}}
    header = json.dumps({"__metadata__": {**checkpoint.marks_of(good)}, **huge}).encode()
    sized(folders / "output" / "other.safetensors", len(header).to_bytes(8, "little") + header, 8 + len(header) + 5)
    call("StepwiseSaveState", state=state, filename_prefix="good")
    began = time.perf_counter()
    assert cheaply(state_folders.listed) == ["good_00001_.safetensors [output]"]
    note(f"a folder with a header of 99 MB and a file of 2 GB listed in {1000 * (time.perf_counter() - began):.0f} ms")
    expected = {"header": "has a header of 94 MiB", "hole": "tells of another size", "other": "tells of another size"}
    for name, problem in expected.items():
        assert problem in cheaply(lambda name=name: refused("StepwiseLoadState", file=f"{name}.safetensors [output]"))


def test_a_graph_too_large_for_a_header_is_left_out(state):
    data = to_bytes(state, {"workflow": "x" * (checkpoint.HEADER_LIMIT + 1)})
    assert "workflow" not in checkpoint.marks_of(data)
    assert from_bytes(data).step == 2


# Load State


def test_a_name_without_its_folder_is_found_in_the_output_folder_first(state, folders):
    call("StepwiseSaveState", state=state, filename_prefix="run")
    loader = nodes_by_id()["StepwiseLoadState"]
    assert loader.validate_inputs("run_00001_.safetensors") is True
    assert call("StepwiseLoadState", file="run_00001_.safetensors")[0].step == 2
    (folders / "input" / "mine.safetensors").write_bytes(to_bytes(replace(state, seed=5), {}))
    assert call("StepwiseLoadState", file="mine.safetensors")[0].seed == 5


def test_a_file_may_be_wired_in():
    """The host hands None to the check of a link, and asks for its fingerprint in the same way."""
    loader = nodes_by_id()["StepwiseLoadState"]
    assert loader.validate_inputs(None) is True
    assert loader.fingerprint_inputs(None) == ""
    assert refused("StepwiseLoadState", file=None).startswith("Load State: file is None, which is no name.")


@pytest.mark.parametrize("file", [3, 1.5, True, {}, [], {"a": 1}, "", "\ud800", "x" * 5000, "a\0b"])
def test_whatever_stands_for_a_file_is_quoted_and_refused(file):
    answer = nodes_by_id()["StepwiseLoadState"].validate_inputs(file)
    assert answer.startswith("Load State: file is ")
    assert answer.encode()
    assert len(answer) < 250


# What a person typed


@pytest.mark.parametrize("typed", ["\ud800", "3,\udfff", "x" * 1000, "a\nb", "\x1b[31m"])
def test_what_was_typed_is_quoted(typed):
    with pytest.raises(ValueError, match="StepwiseDigit, labels: entry") as caught:
        parse_labels(typed)
    message = str(caught.value)
    assert message.encode()
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message) < 350


def test_half_a_character_never_leaves_in_a_message():
    """The server writes messages as UTF-8: one it cannot write ends its worker."""
    error = InputError("labels", "is \ud800", "type \udfff again")
    assert str(error).encode()
    assert "\\ud800" in str(error)
    assert quoted("\ud800") == "'\\ud800'"


# A run of no steps: no model is called, and the latent is left as it is


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
@pytest.mark.parametrize("levels", [(), (0.0,), (0.7,)], ids=str)
def test_a_state_of_no_steps_is_saved_loaded_inspected_and_gone_on_from(kind, levels, folders):
    net = SmoothNet(4)
    guider = call("StepwiseCFGGuider", model=toy_model(kind, net), positive=prompt(0.4), negative=prompt(0.1), cfg=2)[0]
    latent = {"samples": torch.randn(2, 4, 8, 8), "noise_mask": torch.ones(2, 8, 8)}
    inputs = {"guider": guider, "noise": core.RandomNoise.execute(7).args[0], "latent_image": latent}
    made, _, state = call("StepwiseDPMpp2M", **inputs, sigmas=torch.tensor(levels), autosave_every=1)
    (name,) = call("StepwiseSaveState", state=state, filename_prefix="none")
    held = call("StepwiseLoadState", file=name)[0]
    text, denoised = call("StepwiseInspectState", state=held)
    assert "stands at: step 0 of 0, " + (f"noise level {levels[0]:g}" if levels else "no noise level") in text
    assert torch.equal(denoised["samples"], latent["samples"])
    for sigmas in (None, torch.tensor(levels), torch.zeros(0)):
        again = call("StepwiseDPMpp2M", guider=guider, state=held, sigmas=sigmas)[0]
        assert torch.equal(again["samples"], made["samples"])
    if levels != (0.7,):
        torch.testing.assert_close(made["samples"], latent["samples"], rtol=1e-6, atol=1e-6)
    assert net.calls == 0
    more = torch.tensor([0.7, 0.3, 0.0])
    if levels == (0.7,):
        gone_on = call("StepwiseDPMpp2M", guider=guider, state=held, sigmas=more)[0]
        assert torch.equal(gone_on["samples"], call("StepwiseDPMpp2M", **inputs, sigmas=more)[0]["samples"])
    else:
        said = refused("StepwiseDPMpp2M", guider=guider, state=held, sigmas=more)
        assert said.startswith("DPM++ 2M: sigmas ")


def test_the_second_part_of_a_schedule_split_at_its_end_leaves_the_picture(state):
    """Split Sigmas of core gives the last level alone."""
    low = core.SplitSigmas.execute(call("StepwiseKarrasSchedule", steps=STEPS)[0], STEPS).args[1]
    assert low.tolist() == [0.0]
    made, _, held = run(guider := guider_of())
    again, _, stands = call("StepwiseDPMpp2M", guider=guider, state=held, sigmas=low)
    assert torch.equal(again["samples"], made["samples"])
    assert stands.step == STEPS
    with pytest.raises(ValueError, match="sigmas is not the schedule that the state was made on"):
        call("StepwiseDPMpp2M", guider=guider, state=state, sigmas=low)


# Wrong though the digest is right

BAD = {
    "solver": [None, 3, ["DPM++ 2M"]],
    "params": [None, [], {"time": 3}, {"time": "lunch"}, {"final_order": None}, {"noise_kind": "brown"}, {"new": 1}],
    "path": [None, "VE", 3],
    "sigmas": [
        None,
        "abc",
        (),
        (1.0,),
        (float("nan"),),
        (1.0, True),
        ("3", "2"),
        tuple(range(100_001, 0, -1)),
        (3.0, float("nan"), 0.0),
    ],
    "start_step": [None, -1, 1.0, True, 2**70, "0"],
    "solver_step": [None, -1, 3, 1.0, "0"],
    "step": [None, 99, -1, 2.0, False, 2**70],
    "noise": [None, 3, [], torch.zeros(()), torch.zeros(2, 4, 8, 8), {"samples": 1}],
    "latent": [None, [], {}, {"samples": None}, {"samples": torch.zeros(1, 4, 8, 8), "noise_mask": "all"}],
    "seed": [None, -1, 2**64, 2**70, 7.0, True, "7"],
    "state": [None, 3, {}, checkpoint.State({}, 2), checkpoint.State({"x": 3}, 2), checkpoint.State({"x": None}, "2")],
    "memory": [None, [], {"a": 1}, {"a": None}, {"a": torch.zeros(3)}, {"a": torch.zeros(1, 4, 8, 8).long()}],
    "plan": [None, 3, ["x"]],
    "model": [None, [], {"channels": None}, {"channels": True}, {"latent": 3}, {"latent": [1]}],
    "denoised": [None, 3, torch.zeros(1, 4, 9, 9)],
    "batching": [None, 3, [[0, 1]], ((0.5,),), (("a",),), (3,)],
    "patches": [
        None,
        [],
        {"a": {"now": 3, "gone": 4}},
        {"a": {"b": 1, "c": 2}},
        {"a": {"dict": [1]}},
        {"a": {"set": [[]]}},
    ],
    "seeds": [None, (), (1, 2), (-1,), (2**70,), (7.0,), ("7",), 7],
    "variation_seeds": [None, 3, (-1,), (2**70,)],
    "variation_strength": [None, "1", float("nan"), -1.0, 2.0, 1.0],
    "forgotten": [None, "abc", (3,)],
    "highest": [None, "1", -1.0, float("nan"), float("inf")],
    "below": [None, "1", -1.0, float("nan"), float("inf")],
    "core_from": [None, "1", -1.0, float("nan"), float("inf")],
    "core_to": [None, "1", -1.0, float("nan"), float("inf")],
    "warm_up": [None, 1, "yes", []],
}
BAD["latent"].append({"samples": torch.zeros(1, 4, 8, 8), "batch_index": [0, 1]})
BAD["latent"].append({"samples": torch.zeros(1, 4, 8, 8), "batch_index": ["x"]})
BAD["latent"].append({"samples": torch.zeros(2, 4, 8, 8), "batch_index": [0, "x"]})
BAD["latent"].append({"samples": torch.zeros(1, 4, 8, 8), "batch_index": "0"})


@pytest.mark.parametrize("field", BAD)
def test_every_field_of_a_state_is_checked(field, state, folders):
    """A file as whole as any other, with the right digest: refused when it is loaded, in an artist's words."""
    for value in BAD[field]:
        if (field, value) == ("state", None):
            continue
        written = field not in ("latent", "warm_up")
        data = to_bytes(replace(state, **{field: value}), {}) if written else forged(state, field, value)
        began = time.perf_counter()
        with pytest.raises(InputError) as caught:
            from_bytes(data)
        assert time.perf_counter() - began < 2.0
        assert str(caught.value).endswith("Load another copy, or make the state again.")


def forged(state, field, value):
    """`to_bytes` without its own look at the latent, and with a wish that no file has."""
    from stepwise.nodes.runs.files import KINDS

    return checkpoint.dumps(replace(state, **{field: value}), KINDS)


def test_every_field_has_a_check_and_a_good_state_passes_all(state):
    from stepwise.nodes.runs.checks import FIELDS

    assert set(FIELDS) == set(vars(state)) == set(BAD)
    assert from_bytes(to_bytes(state, {})).step == 2
