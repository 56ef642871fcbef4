"""States in the host's folders: saved, listed, loaded, refused; autosave, Cancel and a disk without room."""

import errno
import logging
import os
import re
from contextlib import contextmanager
from pathlib import Path

import comfy.model_management
import comfy.nested_tensor
import folder_paths
import pytest
import safetensors.torch
import torch
from comfy_extras import nodes_custom_sampler as core
from stepwise.nodes.runs import folders as state_folders
from stepwise.nodes.runs.autosave import Autosave
from stepwise.nodes.runs.files import from_bytes, to_bytes
from stepwise.samplers import checkpoint
from toy_models import SmoothNet, call, nodes_by_id, prompt, refused, toy_model

STEPS = 6


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Output and input folders of the host, empty for each test."""
    for kind in ("output", "input", "temp"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    return tmp_path


def inputs_of(net=None, seed=7, **latent):
    (guider,) = call(
        "StepwiseCFGGuider", model=toy_model("EPS", net), positive=prompt(0.4), negative=prompt(-0.3), cfg=3.0
    )
    noise = core.RandomNoise.execute(seed).args[0]
    return {"guider": guider, "noise": noise, "latent_image": {"samples": torch.zeros(1, 4, 8, 8), **latent}}


def sigmas_of(steps=STEPS):
    return call("StepwiseKarrasSchedule", steps=steps)[0]


def cut(step=3, solver="DPMpp2M", **latent):
    inputs = inputs_of(**latent)
    return inputs["guider"], call(f"Stepwise{solver}", **inputs, sigmas=sigmas_of(), end_step=step)[2]


def loader():
    return nodes_by_id()["StepwiseLoadState"]


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# Saved and loaded


def test_a_state_saved_and_loaded_goes_on_as_the_uncut_run(folders):
    inputs = inputs_of()
    whole = call("StepwiseDPMpp2M", **inputs, sigmas=sigmas_of())[0]
    _, state = cut()
    (name,) = call("StepwiseSaveState", state=state)
    assert name == "stepwise/state_00001_.safetensors [output]"
    assert files(folders / "output") == ["stepwise/state_00001_.safetensors"]
    (loaded,) = call("StepwiseLoadState", file=name)
    rest = call("StepwiseDPMpp2M", guider=inputs["guider"], state=loaded)[0]
    assert torch.equal(rest["samples"], whole["samples"])


def test_each_save_has_a_number_of_its_own_and_a_prefix_may_name_a_folder(folders):
    _, state = cut()
    names = [call("StepwiseSaveState", state=state, filename_prefix="runs/lighthouse")[0] for _ in range(2)]
    assert names == [f"runs/lighthouse_0000{i}_.safetensors [output]" for i in (1, 2)]


def test_the_list_has_the_states_of_both_folders_and_nothing_else(folders):
    _, state = cut()
    call("StepwiseSaveState", state=state)
    (folders / "input" / "old.safetensors").write_bytes(to_bytes(state, {}))
    safetensors.torch.save_file({"x": torch.ones(3)}, folders / "output" / "model.safetensors")
    (folders / "output" / "broken.safetensors").write_bytes(b"\0" * 30)
    (folders / "output" / ".state.safetensors.1.tmp").write_bytes(to_bytes(state, {}))
    os.utime(folders / "input" / "old.safetensors", (0, 0))
    combo, *_ = loader().define_schema().inputs
    assert combo.options == ["stepwise/state_00001_.safetensors [output]", "old.safetensors [input]"]


def test_a_file_of_the_same_name_with_another_content_is_another_state(folders):
    _, first = cut(2)
    _, second = cut(4)
    file = folders / "output" / "run.safetensors"
    prints = []
    for state in (first, first, second):
        file.write_bytes(to_bytes(state, {}))
        prints.append(loader().fingerprint_inputs("run.safetensors [output]"))
    assert prints[0] == prints[1] != prints[2]


def test_what_a_latent_carries_survives():
    """The mask, the places in a batch, and what other nodes put there as numbers and text; nested latents as such."""
    mask, extra = torch.ones(1, 1, 8, 8), {"a": [1, 2.5, None], "b": (True, "text")}
    _, state = cut(noise_mask=mask, batch_index=[4], type="picture", extra=extra)
    back = from_bytes(to_bytes(state, {})).latent
    assert back.keys() == state.latent.keys()
    assert torch.equal(back["noise_mask"], mask)
    assert (back["batch_index"], back["type"], back["extra"]) == ([4], "picture", extra)


def test_what_cannot_be_written_is_left_out_and_named(caplog):
    _, state = cut(strange=object())
    with caplog.at_level(logging.WARNING):
        back = from_bytes(to_bytes(state, {})).latent
    assert set(back) == {"samples"}
    assert "the latent's strange is not saved with the state: value is of the type object" in caplog.text


def test_nested_latents_come_back_nested():
    parts = comfy.nested_tensor.NestedTensor([torch.ones(1, 4, 2, 4, 4), torch.zeros(1, 2, 10)])
    back = checkpoint.loads(checkpoint.dumps({"a": parts}, kinds()), kinds())["a"]
    assert back.is_nested
    assert all(torch.equal(a, b) for a, b in zip(back.unbind(), parts.unbind(), strict=True))


def kinds():
    from stepwise.nodes.runs.files import KINDS

    return KINDS


def test_the_graph_travels_with_the_state(folders):
    """As with the host's pictures, so that a state dropped on the editor brings its workflow back."""
    node = nodes_by_id()["StepwiseSaveState"]
    hidden = type("Hidden", (), {"prompt": {"1": {"class_type": "X"}}, "extra_pnginfo": {"workflow": {"nodes": []}}})
    made = type("Prepared", (node,), {"hidden": hidden})
    made.execute(state=cut()[1], filename_prefix="state")
    with safetensors.safe_open(folders / "output" / "state_00001_.safetensors", "pt") as file:
        marks = file.metadata()
    assert marks["prompt"] == '{"1": {"class_type": "X"}}'
    assert marks["workflow"] == '{"nodes": []}'


def test_inspect_says_what_a_state_holds_and_shows_its_picture():
    inputs = inputs_of()
    _, denoised, state = call("StepwiseDPMpp2M", **inputs, sigmas=sigmas_of(), end_step=4)
    text, latent = call("StepwiseInspectState", state=from_bytes(to_bytes(state, {})))
    assert torch.equal(latent["samples"], denoised["samples"])
    lines = dict(line.split(": ", 1) for line in text.splitlines())
    assert lines["solver"].startswith("DPM++ 2M (time = half_log_snr, final_order = falling")
    assert lines["stands at"] == f"step 4 of 6, noise level {sigmas_of()[4].item():.6g}"
    assert lines["seed"] == "7"
    assert lines["registers"].startswith("previous1, x (0.00 MiB), 4 model calls done")
    assert lines["prompts evaluated"] == "2 at a time"


# Refused


@pytest.mark.parametrize("prefix", ["../outside", "/outside/state", "a/../../outside"])
def test_a_prefix_that_leads_out_of_the_output_folder_is_refused(prefix, folders):
    message = refused("StepwiseSaveState", state=cut()[1], filename_prefix=prefix)
    assert message.startswith(f"Save State: filename_prefix is {prefix!r}, which leads out of ComfyUI's output folder.")
    assert files(folders) == []


@pytest.mark.parametrize(
    "name", ["../secret.safetensors [output]", "/secret.safetensors [input]", "../secret.safetensors", "x [temp]"]
)
def test_a_name_that_leads_out_of_the_folders_is_refused(name, folders):
    (folders / "secret.safetensors").write_bytes(to_bytes(cut()[1], {}))
    (folders / "temp" / "x").write_bytes(to_bytes(cut()[1], {}))
    assert "which is not in ComfyUI's output or input folder" in loader().validate_inputs(name)
    assert refused("StepwiseLoadState", file=name).startswith("Load State: file is")


def test_a_file_that_is_gone_is_named():
    message = "Load State: file is 'gone.safetensors [output]', and there is no such file. Choose one from the list."
    assert loader().validate_inputs("gone.safetensors [output]") == message
    assert refused("StepwiseLoadState", file="gone.safetensors [output]") == message


def changed(**fields):
    """The file of a state in which a field is another: as whole as any other, and wrong."""
    from dataclasses import replace

    return to_bytes(replace(cut()[1], **fields), {})


INCONSISTENT = {
    "another schedule": (lambda: changed(sigmas=(3.0, 1.0, 2.0, 0.0)), "sigmas is 2, not below the value before it"),
    "a shorter schedule": (lambda: changed(sigmas=(3.0, 1.0, 0.0)), "step is 3, of a run from 0 to 2"),
    "another place": (lambda: changed(step=4), "step is 4, and 3 model calls are done"),
    "an unknown solver": (lambda: changed(solver="Euler 9"), "solver is Euler 9, which this Stepwise does not have"),
    "another latent": (lambda: changed(latent={"samples": torch.zeros(1, 4, 9, 9)}), "noise has another shape"),
    "another noise": (lambda: changed(noise=torch.zeros(2, 4, 8, 8)), "noise has another shape"),
    "no noise": (lambda: changed(noise=None), "NoneType"),
    "text for a schedule": (lambda: changed(sigmas="abc"), ""),
    "no registers": (lambda: changed(state=checkpoint.State({}, 3)), "x"),
    "a register too few": (
        lambda: changed(state=checkpoint.State({"x": torch.zeros(1, 4, 8, 8)}, 3)),
        "state lacks the register previous1",
    ),
    "a register of integers": (
        lambda: changed(state=checkpoint.State({n: torch.zeros(1, 4, 8, 8).int() for n in ("x", "previous1")}, 3)),
        "a register x of 1x4x8x8 int32",
    ),
}


@pytest.mark.parametrize("what", INCONSISTENT)
def test_a_state_whose_parts_contradict_each_other_is_refused(what, folders):
    make, message = INCONSISTENT[what]
    (folders / "input" / "run.safetensors").write_bytes(make())
    found = refused("StepwiseLoadState", file="run.safetensors [input]")
    assert found.startswith("Load State: file 'run.safetensors [input]' is inconsistent")
    assert message in found
    assert found.endswith("Load another copy, or make the state again.")


@pytest.mark.parametrize("file", ["model", "library", "short", "empty"])
def test_another_file_is_refused(file, folders):
    data = {
        "model": safetensors.torch.save({"x": torch.ones(2)}),
        "library": checkpoint.dumps({"state": checkpoint.State({"x": torch.ones(2)}), "plan": ""}),
        "short": to_bytes(cut()[1], {})[:-1],
        "empty": b"",
    }[file]
    (folders / "input" / "run.safetensors").write_bytes(data)
    found = refused("StepwiseLoadState", file="run.safetensors [input]")
    assert {
        "model": "is a safetensors file, but no state",
        "library": "was saved by the library, not by a node",
        "short": "is damaged or cut short",
        "empty": "is not a safetensors file, or is cut short",
    }[file] in found
    assert found.startswith("Load State: file 'run.safetensors [input]' ")


def test_a_foreign_sampler_leaves_nothing_to_save():
    heun = core.KSamplerSelect.execute("heun").args[0]
    state = call("StepwiseSample", **inputs_of(), sampler=heun, sigmas=sigmas_of(), end_step=2)[2]
    for node in ("StepwiseSaveState", "StepwiseInspectState"):
        assert "state comes from a sampler that keeps nothing to resume (other)" in refused(node, state=state)
    message = refused("StepwiseSample", **inputs_of(), sampler=heun, sigmas=sigmas_of(), autosave_every=2)
    assert message.startswith("Sample (Stepwise): autosave_every is 2, and this SAMPLER is not one of Stepwise")


# Autosave

AUTOSAVED = re.compile(r"stepwise/autosave_node_[0-9a-f]{12}\.safetensors")


def loaded(place=0):
    """The state of an autosave, the newest one first."""
    return call("StepwiseLoadState", file=state_folders.listed()[place])[0]


def only_autosave(folder):
    (name,) = files(folder / "output")
    return AUTOSAVED.fullmatch(name) is not None


def test_autosave_writes_every_so_many_steps_to_one_file(folders, monkeypatch):
    steps, real = [], checkpoint.write
    monkeypatch.setattr(checkpoint, "write", lambda file, data: (steps.append(from_bytes(data).step), real(file, data)))
    inputs = inputs_of()
    whole = call("StepwiseDPMpp2M", **inputs, sigmas=sigmas_of(), autosave_every=2)[0]
    assert steps == [2, 4, 6]
    assert only_autosave(folders)
    plain = call("StepwiseDPMpp2M", **inputs, sigmas=sigmas_of())[0]
    assert torch.equal(whole["samples"], plain["samples"])


class Stopping(SmoothNet):
    """Does something during one of its calls."""

    def __init__(self, call, act):
        super().__init__(4)
        self.call, self.act = call, act

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        made = self.act() if self.calls == self.call else None
        return out if made is None else made


def raising(error):
    def act():
        raise error

    return act


CANCEL = comfy.model_management.InterruptProcessingException


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (comfy.model_management.interrupt_current_processing, CANCEL),
        (raising(CANCEL()), CANCEL),
        (raising(torch.OutOfMemoryError("no memory left")), torch.OutOfMemoryError),
    ],
    ids=["cancel between calls", "cancel within the model", "out of memory"],
)
@pytest.mark.parametrize("solver", ["DPMpp2M", "DPMpp3MSDE"])
def test_a_run_that_is_stopped_leaves_its_last_step_and_goes_on_from_it(solver, act, error):
    whole = call(f"Stepwise{solver}", **inputs_of(), sigmas=sigmas_of())[0]
    with pytest.raises(error):
        call(f"Stepwise{solver}", **inputs_of(Stopping(5, act)), sigmas=sigmas_of(), autosave_every=100)
    state = loaded()
    assert state.step >= 3
    rest = call(f"Stepwise{solver}", guider=inputs_of()["guider"], state=state)[0]
    assert torch.equal(rest["samples"], whole["samples"])


def test_without_autosave_nothing_is_written(folders):
    with pytest.raises(CANCEL):
        call("StepwiseDPMpp2M", **inputs_of(Stopping(3, raising(CANCEL()))), sigmas=sigmas_of())
    call("StepwiseDPMpp2M", **inputs_of(), sigmas=sigmas_of())
    assert files(folders / "output") == []


def test_a_state_with_nan_never_takes_the_place_of_a_good_one():
    """As on a GPU, where the check of the predictions is late: the run is told only at its end."""
    nan = Stopping(4, lambda: torch.full((2, 4, 8, 8), float("nan")))
    with pytest.raises(ValueError, match="not finite at step 4 of 6"):
        call("StepwiseDPMpp2M", **inputs_of(nan), sigmas=sigmas_of(), autosave_every=1)
    assert loaded().step == 3


@contextmanager
def no_room(size):
    resource = pytest.importorskip("resource", reason="limits on file sizes are Unix's")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_without_room_the_run_goes_on_and_the_last_good_state_stays(folders, caplog):
    inputs = inputs_of(samples=torch.zeros(1, 4, 64, 64))
    whole = call("StepwiseDPMpp2M", **inputs, sigmas=sigmas_of())[0]
    call("StepwiseDPMpp2M", **inputs, sigmas=sigmas_of(), end_step=2, autosave_every=2)
    with no_room(100_000), caplog.at_level(logging.WARNING):
        made = call("StepwiseDPMpp2M", **inputs, sigmas=sigmas_of(), autosave_every=2)[0]
    assert torch.equal(made["samples"], whole["samples"])
    for step in (2, 4, 6):
        assert f"the state at step {step} could not be saved" in caplog.text
    assert "(File too large). The run goes on without it." in caplog.text
    assert only_autosave(folders)
    assert loaded().step == 2


def test_without_room_save_state_says_so_and_leaves_nothing(folders):
    with no_room(1000):
        message = refused("StepwiseSaveState", state=cut()[1])
    assert message.startswith("Save State: filename_prefix leads to ")
    assert "where nothing can be written (File too large). Make room there, or choose another folder." in message
    assert files(folders / "output") == []


CURES = {
    errno.ENOSPC: "Make room there, or choose another folder.",
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.EACCES: "Choose a folder that ComfyUI may write to, or let it write there.",
    errno.EROFS: "Choose a folder that ComfyUI may write to, or let it write there.",
    errno.EIO: "Choose another folder.",
}


@pytest.mark.parametrize("number", CURES, ids=os.strerror)
@pytest.mark.parametrize("where", ["the folder", "the file"])
def test_what_stops_save_state_has_its_own_cure(number, where, folders, monkeypatch):
    def failing(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    if where == "the folder":
        monkeypatch.setattr(folder_paths.os, "makedirs", failing)
    else:
        monkeypatch.setattr(os, "fsync", failing)
    message = refused("StepwiseSaveState", state=cut()[1])
    assert message.endswith(f"({os.strerror(number)}). {CURES[number]}")
    monkeypatch.undo()


@pytest.mark.parametrize("prefix", ["x" * 300, f"{'x' * 300}/state"], ids=["the file", "the folder"])
def test_too_long_a_name_is_to_be_shorter(prefix, folders):
    message = refused("StepwiseSaveState", state=cut()[1], filename_prefix=prefix)
    assert message.endswith("(File name too long). Give a shorter name.")
    assert files(folders) == []


@pytest.mark.parametrize("prefix", ["a\0b", "\0", "a/\0/b", "a\ud800b"])
def test_a_name_that_no_file_can_have_is_refused(prefix, folders):
    message = refused("StepwiseSaveState", state=cut()[1], filename_prefix=prefix)
    assert message.startswith(f"Save State: filename_prefix is {prefix!r}, which holds a character that no file's name")
    assert files(folders) == []


def test_a_folder_that_must_not_be_written_to_is_told_once_and_nothing_else(folders, monkeypatch, caplog):
    def refusing(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    write = checkpoint.write

    def later(file, data):
        return refusing() if from_bytes(data).step < 3 else write(file, data)

    call("StepwiseDPMpp2M", **inputs_of(seed=1), sigmas=sigmas_of(), end_step=2, autosave_every=2)
    for writing, saved in ((refusing, [1]), (later, [2, 1])):
        monkeypatch.setattr(checkpoint, "write", writing)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            call("StepwiseDPMpp2M", **inputs_of(seed=2), sigmas=sigmas_of(), autosave_every=1)
        (said,) = [each for each in caplog.messages if each.startswith("Stepwise: the ")]
        assert said.startswith("Stepwise: the state at step 1 could not be saved in ")
        assert said.endswith("(Permission denied). The run goes on without it.")
        assert [loaded(place).seed for place in range(len(saved))] == saved
        assert len(files(folders / "output")) == len(saved)


def test_an_output_folder_that_cannot_be_written_to(folders, monkeypatch, caplog):
    """A file in the place of the folder: the one such failure that also stops an administrator."""
    (folders / "output" / "stepwise").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        call("StepwiseDPMpp2M", **inputs_of(), sigmas=sigmas_of(), autosave_every=3)
    assert "The run goes on without it." in caplog.text
    message = refused("StepwiseSaveState", state=cut()[1])
    assert "and its folder cannot be made" in message or "where nothing can be written" in message
    assert (folders / "output" / "stepwise").read_bytes() == b""


def test_every_run_of_a_node_has_a_file_of_its_own(folders):
    """A run that goes on from its own autosave replaces it, and no other."""
    call("StepwiseDPMpp2M", **inputs_of(seed=1), sigmas=sigmas_of(), end_step=4, autosave_every=2)
    call("StepwiseDPMpp2M", **inputs_of(seed=2), sigmas=sigmas_of(), end_step=4, autosave_every=2)
    assert all(AUTOSAVED.fullmatch(name) for name in files(folders / "output"))
    assert [loaded(place).seed for place in (0, 1)] == [2, 1]
    call("StepwiseDPMpp2M", guider=inputs_of()["guider"], state=loaded(), autosave_every=1)
    assert [(loaded(place).seed, loaded(place).step) for place in (0, 1)] == [(2, 6), (1, 4)]
    assert len(files(folders / "output")) == 2


def test_a_run_begun_anew_leaves_what_it_reached_before_until_it_is_as_far(folders):
    def begun(end_step):
        call("StepwiseDPMpp2M", **inputs_of(seed=1), sigmas=sigmas_of(), end_step=end_step, autosave_every=1)

    def steps():
        return [loaded(place).step for place in range(len(files(folders / "output")))]

    begun(5)
    (first,) = files(folders / "output")
    for end_step in (2, 3, 1):
        begun(end_step)
        assert steps() == [end_step, 5]
    assert files(folders / "output") == [first, first.replace(".safetensors", "_again.safetensors")]
    begun(5)
    assert (files(folders / "output"), steps()) == ([first], [5])
    begun(2)
    call("StepwiseDPMpp2M", guider=inputs_of()["guider"], state=loaded(1), autosave_every=1)
    assert (files(folders / "output"), steps()) == ([first], [6])


def test_a_damaged_file_in_the_place_of_an_autosave_is_replaced(folders):
    for content in (b"", b"no state"):
        call("StepwiseDPMpp2M", **inputs_of(), sigmas=sigmas_of(), end_step=2, autosave_every=2)
        (name,) = files(folders / "output")
        (folders / "output" / name).write_bytes(content)
        call("StepwiseDPMpp2M", **inputs_of(), sigmas=sigmas_of(), end_step=1, autosave_every=1)
        assert (files(folders / "output"), loaded().step) == ([name], 1)


def test_the_newest_three_runs_of_a_node_keep_their_files(folders):
    """Others' files and those of other nodes are no concern of it."""
    foreign = [f"autosave_node_{'0' * 11}g.safetensors", "autosave_node_x.safetensors", "autosave_node.safetensors"]
    (folders / "output" / "stepwise").mkdir()
    for name in foreign:
        (folders / "output" / "stepwise" / name).write_bytes(b"")
    for seed in range(5):
        call("StepwiseDPMpp2M", **inputs_of(seed=seed), sigmas=sigmas_of(), end_step=2, autosave_every=2)
    assert [loaded(place).seed for place in range(3)] == [4, 3, 2]
    assert len(files(folders / "output")) == 3 + len(foreign)


def hidden(title="DPM++ 2M", workflow="portrait", node="8", **others):
    """What the page sends along with a step node."""
    prompt = {node: {"class_type": "StepwiseDPMpp2M", "inputs": {}, "_meta": {"title": title}}, **others}
    info = {"workflow": {"nodes": [], "extra": {"stepwise": {"workflow": workflow}}}}
    return type("Hidden", (), {"prompt": prompt, "unique_id": node, "extra_pnginfo": info})


def saving(seed=7, **shown):
    """A run with an autosave as in a graph, up to its end."""
    made = inputs_of(seed=seed)
    autosave = Autosave.of(2, hidden(**shown), made["guider"])
    state = call("StepwiseDPMpp2M", **made, sigmas=sigmas_of(), end_step=2)[2]
    autosave.save(2, lambda: state)
    return autosave.file.name


def test_an_autosave_is_named_by_workflow_and_title(folders):
    """Two workflows with a sampler at node 8 have files of their own, and so have two nodes of one title."""
    first = saving()
    assert re.fullmatch(r"autosave_portrait_DPM\+\+-2M_8_[0-9a-f]{12}\.safetensors", first)
    others = [saving(workflow="landscape"), saving(title="second half"), saving(node="9"), saving(seed=8)]
    assert len({first, *others}) == 5
    assert saving() == first
    assert sorted(files(folders / "output")) == sorted(f"stepwise/{name}" for name in {first, *others})


@pytest.mark.parametrize("name", ["../../x", "a/b\\c:d", "그림", "초상화" * 40, "..", "", "\ud800", "nul\0"])
def test_no_name_of_a_workflow_or_node_leads_out_of_the_folder(name, folders):
    place = folders / "output" / "stepwise" / saving(title=name, workflow=name)
    assert place.is_file()
    assert len(place.name.encode()) < 220
    assert ("그림" in place.name) == (name == "그림")


def test_the_file_that_the_graph_goes_on_from_is_kept(folders):
    source = saving(seed=0)
    loads = {"30": {"class_type": "StepwiseLoadState", "inputs": {"file": f"stepwise/{source} [output]"}}}
    for seed in range(1, 6):
        saving(seed=seed, **loads)
    assert [loaded(place).seed for place in range(4)] == [5, 4, 3, 0]


def test_the_name_of_an_autosave_stays_in_its_folder(folders):
    """Whatever a client calls its nodes: an id may be any text."""
    for name in ("../../x", "12:3", "a/b", "..", "C:\\x"):
        assert Autosave(1, name).file.parent == Path(folders / "output" / "stepwise")
