"""The trajectory of a run: a look at it changes nothing, and what it shows is what a run stopped there has."""

import csv
import errno
import math
import sys
import weakref

import comfy.nested_tensor
import comfy.samplers
import folder_paths
import node_helpers
import numpy as np
import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from stepwise.nodes.runs.trajectory import Recorder, chosen_steps
from stepwise.samplers import checkpoint
from stepwise.samplers.registry import SOLVERS
from toy_models import Latent5D, SmoothNet, call, nodes_by_id, prompt, refused, toy_model

STEPS = 6
OUTPUTS = ("output", "denoised_output", "state", "x", "denoised", "figures", "file", "plot", "filmstrip")


def sigmas_of(kind="EPS"):
    return torch.linspace(1.0, 0.0, STEPS + 1) if kind == "FLOW" else call("StepwiseKarrasSchedule", steps=STEPS)[0]


def guider_of(model, cfg=3.0, **given):
    return call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=cfg, **given)[0]


def hosts_guider(cfg=3.0):
    guider = comfy.samplers.CFGGuider(toy_model())
    guider.set_conds(prompt(0.4), prompt(-0.3))
    guider.set_cfg(cfg)
    return guider


class Pointwise(torch.nn.Module):
    """A network that takes latents packed in a row as well."""

    dtype = torch.float32

    def forward(self, x, timesteps, context=None, **kwargs):
        return 0.7 * x + 0.2 * torch.tanh(x) + 0.1 * context.mean(dim=(1, 2)).view(-1, *[1] * (x.ndim - 1))


def inputs_of(kind="EPS", batch=2, guider=None, samples=None, **latent):
    model = toy_model(kind)
    if samples is not None and samples.is_nested:
        model = toy_model(kind, Pointwise(), Latent5D())
    elif samples is not None and samples.ndim == 5:
        model = toy_model(kind, SmoothNet(4, 3), Latent5D())
    samples = torch.zeros(batch, 4, 8, 8) if samples is None else samples
    return {
        "guider": guider or guider_of(model),
        "noise": core.RandomNoise.execute(7).args[0],
        "latent_image": {"samples": samples, **latent},
        "sigmas": sigmas_of(kind),
    }


def seen(**inputs):
    made = call("StepwiseTrajectory", **{"filename_prefix": "", **inputs})
    return dict(zip(OUTPUTS, made, strict=True))


@pytest.fixture(autouse=True)
def no_plot(request, monkeypatch):
    """matplotlib takes longer than all else here."""
    if "plot" not in request.node.name:
        monkeypatch.setattr(sys.modules[nodes_by_id()["StepwiseTrajectory"].__module__], "plotted", nothing)


def nothing(*_):
    return np.zeros((8, 8, 3))


def equal_states(a, b):
    assert a.step == b.step
    assert a.plan == b.plan
    assert a.state.index == b.state.index
    assert a.state.registers.keys() == b.state.registers.keys()
    assert all(torch.equal(a.state.registers[name], b.state.registers[name]) for name in a.state.registers)
    assert a.memory.keys() == b.memory.keys()
    assert all(torch.equal(a.memory[name], b.memory[name]) for name in a.memory)
    assert a.patches.keys() == b.patches.keys()
    assert a.batching == b.batching


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
@pytest.mark.parametrize("solver", [each.id for each in SOLVERS])
def test_a_look_changes_neither_picture_nor_state(solver, kind):
    (sampler,) = call(f"Stepwise{solver}Sampler")
    inputs = {**inputs_of(kind), "sampler": sampler}
    for window in ({}, {"end_step": 4}):
        plain, looked = call("StepwiseSample", **inputs, **window), seen(**inputs, **window)
        assert torch.equal(plain[0]["samples"], looked["output"]["samples"])
        assert torch.equal(plain[1]["samples"], looked["denoised_output"]["samples"])
        equal_states(plain[2], looked["state"])


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
@pytest.mark.parametrize("solver", ["DPMpp2M", "DPMpp2S", "DDPM"])
def test_every_kept_step_is_the_run_stopped_there(solver, kind):
    (sampler,) = call(f"Stepwise{solver}Sampler")
    inputs = {**inputs_of(kind), "sampler": sampler}
    looked = seen(**inputs, steps="2, 4-6")
    for place, step in enumerate((2, 4, 5, 6)):
        output, denoised, _ = call("StepwiseSample", **inputs, end_step=step)
        assert torch.equal(looked["x"]["samples"][2 * place : 2 * place + 2], output["samples"])
        assert torch.equal(looked["denoised"]["samples"][2 * place : 2 * place + 2], denoised["samples"])


def test_a_run_that_goes_on_is_seen_from_there_on():
    (sampler,) = call("StepwiseDPMpp2MSampler")
    inputs = {**inputs_of(), "sampler": sampler}
    whole = seen(**inputs)
    state = call("StepwiseSample", **inputs, end_step=3)[2]
    rest = seen(guider=inputs["guider"], sampler=sampler, state=state)
    assert torch.equal(rest["x"]["samples"], whole["x"]["samples"][6:])
    assert torch.equal(rest["denoised"]["samples"], whole["denoised"]["samples"][6:])
    equal_states(rest["state"], whole["state"])
    assert [line.split()[0] for line in rest["figures"].splitlines()[2::2]] == ["4", "5", "6"]


FOREIGN = [name for name in comfy.samplers.SAMPLER_NAMES if name != "ddim"]


HOSTS = ("euler", "heun", "euler_cfg_pp", "uni_pc", "dpmpp_sde")


@pytest.mark.parametrize(
    ("name", "guided"), [(each, "ours") for each in FOREIGN] + [(each, "host's") for each in HOSTS]
)
def test_a_look_at_a_sampler_of_comfyui_changes_nothing(name, guided):
    guider = hosts_guider() if guided == "host's" else None
    inputs = {**inputs_of(guider=guider), "sampler": comfy.samplers.sampler_object(name)}
    plain, looked = call("StepwiseSample", **inputs), seen(**inputs)
    assert torch.equal(plain[0]["samples"], looked["output"]["samples"])
    assert torch.equal(plain[1]["samples"], looked["denoised_output"]["samples"])
    assert torch.equal(looked["x"]["samples"][-2:], plain[0]["samples"])
    net = inputs["guider"].model_patcher.model.diffusion_model
    before = net.calls
    call("StepwiseSample", **inputs)
    assert f" {net.calls - before} model calls" in looked["figures"].splitlines()[0]


class OfAnotherPack(comfy.samplers.Sampler):
    """A SAMPLER that is none of the host's functions: it calls the guider itself."""

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, *_):
        x = noise * (1.0 + sigmas[0] ** 2) ** 0.5
        for i in range(len(sigmas) - 1):
            level = sigmas[i].repeat(len(x))
            denoised = model_wrap(x, level, model_options=extra_args["model_options"], seed=extra_args["seed"])
            callback(i, denoised, x, len(sigmas) - 1)
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        return x


def test_a_sampler_of_any_class_is_seen(tmp_path, monkeypatch):
    inputs = {**inputs_of(), "sampler": OfAnotherPack()}
    rows, looked = figures_of(tmp_path, monkeypatch, **inputs)
    assert torch.equal(looked["output"]["samples"], call("StepwiseSample", **inputs)[0]["samples"])
    assert [int(row["calls"]) for row in rows] == [1] * 2 * STEPS
    assert all(float(row["guidance"]) > 0.0 for row in rows)
    euler = seen(**{**inputs, "sampler": call("StepwiseEulerSampler")[0]})
    assert torch.allclose(looked["x"]["samples"], euler["x"]["samples"], atol=1e-4)


@pytest.mark.parametrize(("name", "solver"), [("euler", "Euler"), ("heun", "Heun"), ("dpmpp_2m", "DPMpp2M")])
def test_comfyuis_sampler_has_the_trajectory_of_its_twin(name, solver):
    inputs = inputs_of()
    theirs = seen(**inputs, sampler=comfy.samplers.sampler_object(name))
    ours = seen(**inputs, sampler=call(f"Stepwise{solver}Sampler")[0])
    assert torch.allclose(theirs["x"]["samples"], ours["x"]["samples"], atol=1e-5)

    def columns(figures):
        return [[*line.split()[:4], *line.split()[5:8]] for line in figures.splitlines()[2::2]]

    assert [row[:4] for row in columns(theirs["figures"])] == [row[:4] for row in columns(ours["figures"])]


def in_area(conditioning):
    """A prompt in an area as large as the picture, which is the host's to evaluate."""
    return node_helpers.conditioning_set_values(conditioning, {"area": (8, 8, 0, 0), "strength": 1.0})


def patched():
    model = toy_model()
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"])
    return model


EULER = comfy.samplers.sampler_object("euler")
WAYS = {
    "ours": lambda cfg: guider_of(toy_model(), cfg),
    "ours, of areas": lambda cfg: call(
        "StepwiseCFGGuider",
        model=toy_model(),
        positive=in_area(prompt(0.4)),
        negative=in_area(prompt(-0.3)),
        cfg=cfg,
    )[0],
    "ours, patched": lambda cfg: guider_of(patched(), cfg),
    "host's": hosts_guider,
}


def figures_of(tmp_path, monkeypatch, **inputs):
    """The CSV of a trajectory: its rows as dictionaries, and the outputs beside it."""
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    looked = seen(**inputs, filename_prefix="deep/run")
    folder = tmp_path / "deep"
    assert looked["file"] == f"deep/{max(path.name for path in folder.iterdir())} [output]"
    with max(folder.iterdir()).open() as file:
        return list(csv.DictReader(file)), looked


def test_a_prefix_that_is_a_folder_names_the_file_after_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    looked = seen(**inputs_of(), sampler=EULER, filename_prefix="deep/")
    assert looked["file"] == "deep/trajectory_00001_.csv [output]"


@pytest.mark.parametrize("sampler", ["ours", "host's"])
@pytest.mark.parametrize("way", WAYS)
def test_figures_of_guidance_follow_from_two_runs_at_other_scales(way, sampler, tmp_path, monkeypatch):
    """In the first step x is the same: scale 1 gives the positive prediction, 3 twice the difference more."""
    chosen = EULER if sampler == "host's" else call("StepwiseEulerSampler")[0]

    def first(cfg):
        made = call("StepwiseSample", **inputs_of(guider=WAYS[way](cfg)), sampler=chosen, end_step=1)
        return made[1]["samples"].double().flatten(1)

    positive, difference = first(1.0), (first(3.0) - first(1.0)) / 2.0
    inputs = {**inputs_of(guider=WAYS[way](3.0)), "sampler": chosen}
    rows, looked = figures_of(tmp_path, monkeypatch, **inputs)
    assert torch.equal(looked["output"]["samples"], call("StepwiseSample", **inputs)[0]["samples"])
    cosine = torch.cosine_similarity(positive, difference, dim=1)
    for image in range(2):
        assert float(rows[image]["guidance"]) == pytest.approx(
            difference[image].square().mean().sqrt().item(), rel=1e-4
        )
        assert float(rows[image]["guidance_angle_degrees"]) == pytest.approx(
            math.degrees(math.acos(cosine[image].item())), abs=1e-2
        )


@pytest.mark.parametrize("way", WAYS)
def test_without_guidance_there_is_no_figure_of_it(way, tmp_path, monkeypatch):
    inputs = {**inputs_of(guider=WAYS[way](1.0)), "sampler": EULER}
    rows, _ = figures_of(tmp_path, monkeypatch, **inputs)
    assert {row["guidance"] for row in rows} == {row["guidance_angle_degrees"] for row in rows} == {""}


@pytest.mark.parametrize("sampler", ["ours", "host's"])
def test_figures_of_steps_are_those_of_the_latents(sampler, tmp_path, monkeypatch):
    chosen = EULER if sampler == "host's" else call("StepwiseHeunSampler")[0]
    inputs = inputs_of()
    rows, looked = figures_of(tmp_path, monkeypatch, **inputs, sampler=chosen)
    x = looked["x"]["samples"].double().view(STEPS, 2, -1)
    levels = inputs["sigmas"].tolist()
    assert [int(row["step"]) for row in rows] == [step for step in range(1, STEPS + 1) for _ in range(2)]
    for row in rows:
        step, image = int(row["step"]), int(row["image"])
        assert float(row["sigma"]) == pytest.approx(levels[step - 1], rel=1e-6)
        assert float(row["sigma_reached"]) == pytest.approx(levels[step], rel=1e-6)
        assert float(row["log_snr"]) == pytest.approx(-2.0 * math.log(levels[step - 1]), abs=1e-5)
        assert int(row["calls"]) == (2 if sampler == "ours" and step < STEPS else 1)
        if step > 1:
            update = x[step - 1, image] - x[step - 2, image]
            assert float(row["update"]) == pytest.approx(update.square().mean().sqrt().item(), rel=1e-4)
        if step > 2:
            before = x[step - 2, image] - x[step - 3, image]
            cosine = torch.cosine_similarity(update, before, dim=0).item()
            assert float(row["turn_degrees"]) == pytest.approx(math.degrees(math.acos(min(cosine, 1.0))), abs=0.05)
    assert all(row["turn_degrees"] == "" for row in rows[:2])


@pytest.mark.parametrize("sampler", ["ours", "host's"])
def test_a_part_ends_at_its_own_level(sampler, tmp_path, monkeypatch):
    chosen = EULER if sampler == "host's" else call("StepwiseEulerSampler")[0]
    inputs = {**inputs_of("FLOW"), "sampler": chosen}
    rows, looked = figures_of(tmp_path, monkeypatch, **inputs, end_step=4)
    assert len(rows) == 4 * 2
    assert float(rows[-1]["sigma_reached"]) == pytest.approx(inputs["sigmas"][4].item(), rel=1e-6)
    assert torch.equal(looked["x"]["samples"][-2:], looked["output"]["samples"])


@pytest.mark.parametrize("name", ["dpm_fast", "dpm_adaptive"])
def test_each_step_of_a_sampler_with_levels_of_its_own_begins_where_the_last_one_ended(name, tmp_path, monkeypatch):
    """Of ComfyUI's samplers two take others than those of the schedule."""
    inputs = {**inputs_of(), "sampler": core.KSamplerSelect.execute(name).args[0]}
    rows, _ = figures_of(tmp_path, monkeypatch, **inputs)
    levels = [float(row["sigma"]) for row in rows[::2]]
    assert [float(row["sigma_reached"]) for row in rows[::2]] == [*levels[1:], 0.0]
    assert any(min(abs(level / s - 1.0) for s in inputs["sigmas"].tolist() if s) > 0.01 for level in levels)


def test_a_step_that_rests_calls_no_model(tmp_path, monkeypatch):
    (rule,) = call("StepwiseCFGZeroStarGuidance", zero_steps=2)
    inputs = {**inputs_of("FLOW", guider=guider_of(toy_model("FLOW"), rule=rule))}
    inputs["sampler"] = call("StepwiseEulerSampler")[0]
    rows, looked = figures_of(tmp_path, monkeypatch, **inputs)
    assert [int(row["calls"]) for row in rows[::2]] == [0, 0, 1, 1, 1, 1]
    equal_states(looked["state"], call("StepwiseSample", **inputs)[2])


@pytest.mark.parametrize("id", ["Momentum", "APG", "AnotherPrompt"])
def test_what_guidance_remembers_is_the_same(id):
    given = {"other": prompt(0.9)} if id == "AnotherPrompt" else {}
    (rule,) = call(f"Stepwise{id}Guidance", **given)
    inputs = {**inputs_of(guider=guider_of(toy_model(), rule=rule)), "sampler": call("StepwiseDPMpp2MSampler")[0]}
    plain, looked = call("StepwiseSample", **inputs, end_step=4), seen(**inputs, end_step=4)
    assert torch.equal(plain[0]["samples"], looked["output"]["samples"])
    equal_states(plain[2], looked["state"])


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def nested():
    return comfy.nested_tensor.NestedTensor([random(2, 4, 8, 8), random(2, 4, 4, 8)])


LATENTS = {
    "masked": lambda: {"samples": random(2, 4, 8, 8), "noise_mask": (random(1, 1, 8, 8) > 0.0).float()},
    "video": lambda: {"samples": random(2, 4, 3, 8, 8)},
    "nested": lambda: {"samples": nested()},
}


@pytest.mark.parametrize("sampler", ["ours", "host's"])
@pytest.mark.parametrize("form", LATENTS)
def test_masks_videos_and_nested_latents(form, sampler):
    chosen = EULER if sampler == "host's" else call("StepwiseDPMpp2MSampler")[0]
    inputs = {**inputs_of(**LATENTS[form]()), "sampler": chosen}
    plain, looked = call("StepwiseSample", **inputs), seen(**inputs, steps="every 3")
    for whole, kept, last in zip(
        plain[:2], (looked["x"], looked["denoised"]), ("output", "denoised_output"), strict=True
    ):
        for part, parts, same in zip(*(parts_of(each["samples"]) for each in (whole, kept, looked[last])), strict=True):
            assert torch.equal(part, same)
            assert parts.shape == (2 * len(part), *part.shape[1:])
            assert torch.equal(parts[len(part) :], part)


def parts_of(samples):
    return samples.unbind() if samples.is_nested else [samples]


@pytest.mark.parametrize("sampler", ["ours", "host's"])
def test_memory_is_bounded_by_the_steps_that_are_chosen(sampler, monkeypatch):
    """Of the latents that the recorder sees only those of chosen steps live on, and the last."""
    chosen = EULER if sampler == "host's" else call("StepwiseEulerSampler")[0]
    alive, most, real = [], [], Recorder.stepped

    def stepped(self, step):
        alive.extend((weakref.ref(step.x), weakref.ref(step.denoised)))
        real(self, step)
        most.append(sum(each() is not None for each in alive))

    monkeypatch.setattr(Recorder, "stepped", stepped)
    inputs = {**inputs_of(), "sampler": chosen, "sigmas": call("StepwiseKarrasSchedule", steps=40)[0]}
    seen(**inputs, steps="3, 5")
    assert max(most) <= 2 * 2 + 4
    most.clear()
    seen(**inputs, steps="all")
    assert max(most) >= 80


@pytest.mark.parametrize(
    ("text", "steps"),
    [("all", range(1, 7)), ("", range(1, 7)), ("every 4", [4]), ("6", [6]), ("1, 3 - 4,6", [1, 3, 4, 6])],
)
def test_steps_are_named_in_words(text, steps):
    assert list(filter(chosen_steps(text), range(1, 7))) == list(steps)


def test_wrong_inputs_are_refused():
    inputs = {**inputs_of(), "sampler": EULER, "filename_prefix": ""}
    message = refused("StepwiseTrajectory", **inputs, steps="1, two")
    assert message.startswith("Trajectory: steps has 'two', which is neither a step nor a range of steps. Write all")
    message = refused("StepwiseTrajectory", **inputs, steps="7-9")
    assert message.startswith("Trajectory: steps names none of the steps 1 to 6 that are taken. Write all")
    inputs["guider"].model_patcher.model.diffusion_model.calls = 0
    message = refused("StepwiseTrajectory", **{**inputs, "filename_prefix": "../out"})
    assert "leads out of ComfyUI's output folder" in message
    assert inputs["guider"].model_patcher.model.diffusion_model.calls == 0


def test_a_file_that_cannot_be_written_loses_no_run(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    monkeypatch.setattr(checkpoint, "write", full)
    inputs = {**inputs_of(), "sampler": EULER}
    looked = seen(**inputs, filename_prefix="run")
    assert torch.equal(looked["output"]["samples"], call("StepwiseSample", **inputs)[0]["samples"])
    assert looked["file"] == ""
    assert "No space left on device" in caplog.text


def test_plot_and_filmstrip_are_pictures():
    model, vae = call("StepwiseDigitsModel")
    given = {"positive": call("StepwiseDigit", labels="3,7")[0], "negative": call("StepwiseDigit", labels="")[0]}
    guider = call("StepwiseCFGGuider", model=model, **given, cfg=2.0)[0]
    inputs = {**inputs_of(guider=guider, samples=torch.zeros(2, 1, 8, 8)), "sampler": EULER}
    looked = seen(**inputs, vae=vae, steps="2, 4-6", columns=3)
    assert looked["plot"].shape == (1, 768, 768, 3)
    assert looked["plot"].std() > 0.05
    film = looked["filmstrip"]
    height, width = 64, 64
    assert film.shape[2] == 3 * (width + 4) + 4
    pictures = vae.decode(looked["denoised"]["samples"])
    head = film.shape[1] // 2 - 2 * (height + 4) - 2
    for step, (line, column) in enumerate(((0, 0), (0, 1), (0, 2), (1, 0))):
        for image in range(2):
            top = line * ((film.shape[1] - 4) // 2) + head + image * (height + 4)
            left = 4 + column * (width + 4)
            shown = film[0, top : top + height, left : left + width]
            assert torch.equal(shown, pictures[2 * step + image]), (step, image)


def test_a_part_of_no_steps_passes_through_and_has_no_plot():
    inputs = {**inputs_of(), "sampler": EULER}
    for window in ({"start_step": 6}, {"sigmas": torch.zeros(0)}):
        looked = seen(**{**inputs, **window})
        plain = call("StepwiseSample", **{**inputs, **window})
        assert torch.equal(looked["output"]["samples"], plain[0]["samples"])
        assert torch.equal(looked["x"]["samples"], plain[0]["samples"])
        assert looked["figures"].startswith("no steps were taken")
        assert looked["plot"].shape == (1, 1, 1, 3)
