"""Fitted plans and recipes in ComfyUI: fitted, sampled, cut, saved, refused."""

import gc
from dataclasses import replace

import comfy.model_management
import folder_paths
import pytest
import safetensors
import torch
from comfy.nested_tensor import NestedTensor
from comfy_extras import nodes_custom_sampler as core
from stepwise.nodes.host.fitting import GuiderSubject
from stepwise.nodes.runs import fit as fitting
from stepwise.nodes.runs.files import from_bytes, to_bytes
from stepwise.samplers import FLOW, VE, State, checkpoint
from stepwise.samplers.fitting import begin_from
from stepwise.samplers.fitting.freedom import Number, made
from stepwise.samplers.parameters import InputError
from stepwise.samplers.recipe import KINDS, Recipe
from stepwise.samplers.recipe import from_bytes as recipe_from_bytes
from stepwise.samplers.recipe import to_bytes as recipe_to_bytes
from stepwise.samplers.schedules import karras
from toy_models import Latent5D, call, prompt, refused, toy_model

LEVELS = {VE: karras(5), FLOW: (1.0, 0.9, 0.7, 0.5, 0.25, 0.0)}
KIND = {VE: "EPS", FLOW: "FLOW"}
SIZE = {"samples": torch.zeros(2, 4, 8, 8)}


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Output and input folders of the host, empty for each test."""
    for kind in ("output", "input", "temp"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    return tmp_path


def recipe_of(path=VE, **more) -> Recipe:
    """Rows of three predictions that are no solver's."""
    begin = begin_from(path, LEVELS[path])
    form = made(begin, {Number("taken", n, 1): 0.1 * n for n in range(1, 5)} | {Number("taken", 3, 2): -0.2})
    return Recipe("Fitted Plan", {"rows": form.rows}, path, form.sigmas, **more)


def guider_of(path=VE, cfg=3.0, latent_format=None):
    model = toy_model(KIND[path], latent_format=latent_format)
    return call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=cfg)[0]


def inputs_of(path=VE, recipe=None, **more):
    sampler, sigmas = call("StepwisePlanSampler", plan=recipe or recipe_of(path))
    noise = core.RandomNoise.execute(7).args[0]
    given = {"guider": guider_of(path), "noise": noise, "latent_image": SIZE, "sampler": sampler, "sigmas": sigmas}
    return {**given, **more}


# Sampled


@pytest.mark.parametrize("path", [VE, FLOW])
def test_a_run_cut_saved_and_loaded_ends_as_the_run_in_one_piece(path):
    inputs = inputs_of(path)
    whole = call("StepwiseSample", **inputs)[0]["samples"]
    for step in range(1, 5):
        state = call("StepwiseSample", **inputs, end_step=step)[2]
        (name,) = call("StepwiseSaveState", state=state)
        (loaded,) = call("StepwiseLoadState", file=name)
        rest = call("StepwiseSample", guider=inputs["guider"], sampler=inputs["sampler"], state=loaded)[0]
        assert torch.equal(rest["samples"], whole), step


def test_the_report_on_samplers_refuses_a_plan_which_has_levels_of_its_own():
    sampler, _ = call("StepwisePlanSampler", plan=recipe_of())
    assert refused("StepwiseSamplerReport", sampler=sampler).startswith("Sampler Report: sampler is a fitted plan")


def test_the_steps_of_a_plan_are_kept_as_those_of_any_sampler():
    inputs = inputs_of()
    whole = call("StepwiseSample", **inputs)[0]["samples"]
    output, _, state, *_ = call("StepwiseTrajectory", **inputs)
    assert torch.equal(output["samples"], whole)
    assert state.step == 5


def test_under_the_hosts_own_node_it_is_the_same_picture():
    inputs = inputs_of()
    ours = call("StepwiseSample", **inputs)[0]["samples"]
    hosts = core.SamplerCustomAdvanced.execute(
        inputs["noise"], inputs["guider"], inputs["sampler"], inputs["sigmas"], inputs["latent_image"]
    )
    assert torch.equal(hosts.args[0]["samples"], ours)


def test_the_plan_is_in_the_state_which_has_a_version_of_its_own():
    """A state without a plan is written as before, so that older Stepwise reads it."""
    inputs = inputs_of()
    data = to_bytes(call("StepwiseSample", **inputs, end_step=2)[2], {})
    assert checkpoint.marks_of(data)["version"] == "2"
    assert from_bytes(data).params["rows"] == recipe_of().params["rows"]
    del inputs["sampler"]
    plain = to_bytes(call("StepwiseDPMpp2M", **inputs, end_step=2)[2], {})
    assert checkpoint.marks_of(plain)["version"] == "1"


def test_a_state_of_another_plan_is_not_gone_on_with():
    inputs = inputs_of()
    state = call("StepwiseSample", **inputs, end_step=2)[2]
    begin = begin_from(VE, LEVELS[VE])
    other = replace(recipe_of(), params={"rows": begin.rows})
    sampler, _ = call("StepwisePlanSampler", plan=other)
    said = refused("StepwiseSample", guider=inputs["guider"], sampler=sampler, state=state)
    assert said.startswith("Sample (Stepwise): state was made by Fitted Plan (rows = ")
    # The rows are told apart by a digest, not written out.
    assert len(said) < 300


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigmas": torch.tensor(karras(6))}, "sigmas have 6 steps, and the fitted plan has 5"),
        ({"sigmas": torch.tensor(karras(5, sigma_max=10.0))}, r"sigmas[0] is 10, and the plan was fitted with 14.6"),
        ({"sigmas": torch.tensor(karras(5))[2:]}, "sigmas have 3 steps, and the fitted plan has 5"),
        ({"start_step": 1}, "sigmas have 4 steps, and the fitted plan has 5"),
        ({"sigmas": torch.tensor(karras(5)).flip(0)}, "sigmas go up, and a fitted plan goes down"),
        ({"guider": FLOW, "sigmas": torch.tensor(LEVELS[FLOW])}, "sampler is a plan that was fitted on the VE path"),
    ],
    ids=["steps", "levels", "split", "start_step", "upwards", "path"],
)
def test_levels_and_paths_that_it_was_not_fitted_to_are_refused_by_name(change, message):
    if change.get("guider") is FLOW:
        change = {**change, "guider": guider_of(FLOW)}
    said = refused("StepwiseSample", **inputs_of(**change))
    assert said.startswith(f"Sample (Stepwise): {message}"), said


def test_another_model_or_guidance_is_said(caplog):
    family = {"model": "SDXL", "sampling": "EPS", "latent": "SDXL", "channels": 4}
    call("StepwiseSample", **inputs_of(recipe=recipe_of(cfg=5.0, model=family)))
    assert "the plan was made for another model (SDXL" in caplog.text
    assert "the plan was made for guidance 5, and the guider has 3" in caplog.text
    caplog.clear()
    call("StepwiseSample", **inputs_of(recipe=recipe_of(cfg=3.0)))
    assert "the plan was made for" not in caplog.text


# Fitted


@pytest.mark.parametrize("path", [VE, FLOW])
def test_a_fit_gives_a_plan_that_runs_and_a_report_that_names_the_others(path):
    guider = guider_of(path)
    given = {"guiders": {"guider_1": guider}, "latent_image": SIZE, "calls": 4, "starts": 4}
    plan, report, plot = call("StepwiseFitPlan", **given, budget="quick", seed=1)
    assert plan.cfg == 3.0
    assert len(plan.plan.stages) == 4
    for name in ("fitted, 4 calls", "DPM++ 2M, 4 calls", "DPM++ 2M, 8 calls", "UniPC, 8 calls"):
        assert f"  {name}: " in report
    assert plot.shape == (1, 512, 768, 3)
    sampler, sigmas = call("StepwisePlanSampler", plan=plan)
    picture = call("StepwiseSample", **inputs_of(path, guider=guider, sampler=sampler, sigmas=sigmas))[0]["samples"]
    assert torch.isfinite(picture).all()
    again, *_ = call("StepwiseFitPlan", **given, budget="quick", seed=1)
    assert again.params == plan.params


def test_more_guiders_video_and_packed_latents_are_fitted_too():
    two = {"guider_1": guider_of(), "guider_2": guider_of(cfg=1.0)}
    fits = {"calls": 2, "starts": 4, "budget": "quick"}
    plan, *_ = call("StepwiseFitPlan", guiders=two, latent_image=SIZE, **fits)
    assert plan.figures["fitted on"].startswith("4 starts, selected on 4")
    video = {"guider_1": guider_of(latent_format=Latent5D())}
    plan, *_ = call("StepwiseFitPlan", guiders=video, latent_image={"samples": torch.zeros(1, 4, 3, 8, 8)}, **fits)
    assert len(plan.sigmas) == 3


class Packed(torch.nn.Module):
    dtype = torch.float32

    def forward(self, x, timesteps, context=None, **kwargs):
        return 0.7 * x + 0.2 * torch.tanh(x) + 0.1 * context.mean()


def test_packed_latents_are_fitted_and_sampled_with_the_plan():
    model = toy_model("FLOW", module=Packed(), latent_format=Latent5D())
    given = {"model": model, "positive": prompt(0.4), "negative": prompt(-0.3), "cfg": 3.0}
    (guider,) = call("StepwiseCFGGuider", **given)
    latent = {"samples": NestedTensor([torch.zeros(1, 4, 2, 6, 6), torch.zeros(1, 4, 5, 3)])}
    fits = {"guiders": {"guider_1": guider}, "latent_image": latent, "calls": 3, "starts": 4}
    plan, *_ = call("StepwiseFitPlan", **fits, budget="full")
    before, after = (float(each) for each in plan.figures["select, before and after"].split())
    assert after < before
    sampler, sigmas = call("StepwisePlanSampler", plan=plan)
    noise = core.RandomNoise.execute(7).args[0]
    run = {"guider": guider, "noise": noise, "latent_image": latent, "sampler": sampler, "sigmas": sigmas}
    done = call("StepwiseSample", **run)[0]["samples"]
    assert [part.shape for part in done.unbind()] == [part.shape for part in latent["samples"].unbind()]
    assert all(torch.isfinite(part).all() for part in done.unbind())


@pytest.mark.parametrize(("part", "highest"), [(1.0, True), (1.0 - 1e-6, True), (0.9, False)])
def test_a_start_is_the_noise_as_the_host_begins_with_it(part, highest):
    """At the model's highest level ComfyUI scales noise by sqrt(1 + sigma^2), and below by sigma."""
    guider, noise = guider_of(), torch.randn(3, 4, 8, 8, generator=torch.manual_seed(0))
    sampling = guider.model_patcher.get_model_object("model_sampling")
    sigma = part * float(sampling.sigma_max)
    starts = GuiderSubject([guider], noise, lambda n: torch.zeros(n, 4, 8, 8), sigma, 3).starts
    expected = sampling.noise_scaling(torch.tensor(sigma), noise, torch.zeros_like(noise), highest)
    torch.testing.assert_close(starts, expected, rtol=1e-6, atol=0.0)


def test_copies_of_a_batch_are_what_each_batch_is_alone():
    """With more guiders than one, and batches that the images do not fill: every copy goes to its own guider."""
    guiders, noise = [guider_of(), guider_of(cfg=1.0)], torch.randn(7, 4, 8, 8, generator=torch.manual_seed(0))
    plan, states = begin_from(VE, LEVELS[VE]).plan(), torch.randn(3, 7, 4, 8, 8, generator=torch.manual_seed(1))

    def denoised(copies, x, images=slice(0, 7)):
        of = GuiderSubject(guiders, noise, lambda n: torch.zeros(n, 4, 8, 8), LEVELS[VE][0], 2, copies)
        with torch.inference_mode():
            return of.run(plan, State({"x": x}, 0), images, stop=1).denoised

    alone = torch.stack([denoised(1, each) for each in states])
    for copies in (1, 2, 3, 5):
        together = denoised(copies, states.flatten(0, 1)).view_as(alone)
        assert torch.allclose(together, alone, rtol=1e-5, atol=1e-6), copies
    assert not torch.allclose(alone[0], alone[1], rtol=1e-2)


def test_cancel_keeps_the_best_so_far_and_before_there_is_one_stops(monkeypatch):
    given = {"guiders": {"guider_1": guider_of()}, "latent_image": SIZE, "calls": 3, "starts": 4, "budget": "full"}
    seen = []

    def after(calls):
        def look():
            seen.append(1)
            if len(seen) == calls:
                raise comfy.model_management.InterruptProcessingException

        seen.clear()
        monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", look)

    after(100)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        call("StepwiseFitPlan", **given)
    # The reference of 161 calls on three batches, DPM++ 2M to compare with, and a part of the fit.
    after(530)
    plan, report, _ = call("StepwiseFitPlan", **given)
    assert "stopped by: Cancel" in report
    assert "not measured" in report
    assert len(seen) < 600  # no reference again, of 161 calls on each batch
    assert len(plan.plan.stages) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"begin": torch.tensor(karras(5))}, "begin has 5 steps, and calls is 3"),
        ({"begin": torch.tensor((9.0, 5.0, 2.0, 1.0))}, "begin ends at 1"),
        ({"latent_image": {**SIZE, "noise_mask": torch.ones(1, 1, 8, 8)}}, "latent_image has a noise_mask"),
    ],
)
def test_what_cannot_be_fitted_to_is_refused_by_name(change, message):
    given = {"guiders": {"guider_1": guider_of()}, "latent_image": SIZE, "calls": 3, "starts": 4, **change}
    assert refused("StepwiseFitPlan", **given).startswith(f"Fit Plan: {message}")


def test_a_fit_keeps_the_levels_of_the_plan_and_not_all_of_the_reference(monkeypatch):
    """The reference has 160 steps: what of them lies in memory grows with `calls`, not with them."""
    size, held = (4, 11, 13), []

    def look():
        if len(held) % 60 == 0:
            latents = [each for each in gc.get_objects() if type(each) is torch.Tensor and each.shape[1:] == size]
            held.append(sum({each.data_ptr(): len(each) for each in latents}.values()))
        else:
            held.append(held[-1])

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", look)
    latent = {"samples": torch.zeros(8, *size)}
    call("StepwiseFitPlan", guiders={"guider_1": guider_of()}, latent_image=latent, calls=4, starts=8, budget="quick")
    # All of the reference, of the 16 starts that are fitted on and select, would be 16 * 160.
    assert 8 * 3 <= max(held) < 8 * 100


@pytest.mark.parametrize(("begin", "twice"), [(None, 8), (torch.tensor(karras(4, rho=3.0)), 7)])
def test_the_report_compares_with_others_at_as_many_calls_and_at_twice_as_many(begin, twice, monkeypatch):
    """Between wired levels, all of which are kept, there is one more each; none between the last and 0."""
    seen = []
    monkeypatch.setattr(fitting, "figures", lambda subject, found, schedules, test: seen.extend(schedules) or {})
    given = {"guiders": {"guider_1": guider_of()}, "latent_image": SIZE, "calls": 4, "starts": 4, "budget": "quick"}
    call("StepwiseFitPlan", **given, **({} if begin is None else {"begin": begin}))
    assert [len(levels) - 1 for levels in seen] == [4, twice]
    if begin is not None:
        assert [*seen[1][:-1:2], 0.0] == pytest.approx(begin.tolist(), rel=1e-6)


def test_guidance_by_the_number_of_the_step_is_refused_by_name():
    """The reference has other steps: the third of 160 is not the third of 3."""
    (rule,) = call("StepwiseStepsGuidance", first_steps=2)
    model, words = toy_model("EPS"), {"positive": prompt(0.4), "negative": prompt(-0.3), "cfg": 3.0}
    (guider,) = call("StepwiseCFGGuider", model=model, **words, rule=rule)
    given = {"guider_1": guider_of(), "guider_2": guider}
    said = refused("StepwiseFitPlan", guiders=given, latent_image=SIZE, calls=3, starts=4)
    assert said.startswith("Fit Plan: guider_2 is guided by the number of the step")


def test_a_guider_for_other_latents_than_the_first_is_refused_by_name():
    given = {"guider_1": guider_of(), "guider_2": guider_of(latent_format=Latent5D())}
    said = refused("StepwiseFitPlan", guiders=given, latent_image=SIZE, calls=3, starts=4)
    assert said.startswith("Fit Plan: guider_2 has a model for other latents (Latent5D) than guider_1 (Latent4)")


def test_guidance_with_a_memory_is_refused_by_name():
    (rule,) = call("StepwiseMomentumGuidance")
    model = toy_model("EPS")
    (guider,) = call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=3.0, rule=rule)
    said = refused("StepwiseFitPlan", guiders={"guider_1": guider}, latent_image=SIZE, calls=3, starts=4)
    assert said.startswith("Fit Plan: guider remembers ")


# Saved


def test_a_recipe_saved_and_loaded_makes_the_same_picture_and_says_what_it_is(folders):
    made_for = recipe_of(cfg=3.0, figures={"test, fitted": "0.1 / 0.2"})
    (name,) = call("StepwiseSavePlan", plan=made_for, note="for tests")
    assert name == "stepwise/recipe_00001_.safetensors [output]"
    plan, cfg, text = call("StepwiseLoadPlan", file=name)
    assert (cfg, plan) == (3.0, replace(made_for, note="for tests"))
    assert "test, fitted: 0.1 / 0.2" in text
    ours = call("StepwiseSample", **inputs_of(recipe=plan))[0]["samples"]
    assert torch.equal(ours, call("StepwiseSample", **inputs_of(recipe=made_for))[0]["samples"])
    with safetensors.safe_open(folders / "output" / "stepwise" / "recipe_00001_.safetensors", "pt") as opened:
        assert "levels: 14.6" in opened.metadata()["recipe"]
        assert list(opened.keys()) == []


def test_a_sampler_with_its_levels_is_a_recipe_too():
    """As they are published with turbo LoRAs: a list of levels, a solver, a guidance."""
    (sampler,) = call("StepwiseDPMpp2MSampler")
    sigmas = torch.tensor((14.6, 6.0, 2.0, 0.5, 0.0))
    model = toy_model("EPS")
    (name,) = call("StepwiseSavePlan", sampler=sampler, sigmas=sigmas, cfg=1.0, model=model)
    plan, cfg, _ = call("StepwiseLoadPlan", file=name)
    again, levels = call("StepwisePlanSampler", plan=plan)
    given = inputs_of(sigmas=sigmas, sampler=sampler)
    first = call("StepwiseSample", **given)[0]["samples"]
    second = call("StepwiseSample", **{**given, "sampler": again, "sigmas": levels})[0]["samples"]
    assert (cfg, plan.solver) == (1.0, "DPM++ 2M")
    assert torch.equal(first, second)


def test_states_and_recipes_are_not_taken_for_each_other(folders):
    inputs = inputs_of()
    state = call("StepwiseSample", **inputs, end_step=2)[2]
    (state_name,) = call("StepwiseSaveState", state=state)
    (recipe_name,) = call("StepwiseSavePlan", plan=recipe_of())
    assert "no recipe of Stepwise" in refused("StepwiseLoadPlan", file=state_name)
    assert "no state of Stepwise" in refused("StepwiseLoadState", file=recipe_name)


@pytest.mark.parametrize("name", ["x", "", None, 3, True, [], {}, "../x.safetensors", "no recipe saved yet"])
def test_a_name_that_no_recipe_has_is_refused(name):
    assert refused("StepwiseLoadPlan", file=name).startswith("Load Plan: file is ")


def test_what_is_missing_for_a_recipe_is_named():
    assert refused("StepwiseSavePlan").startswith("Save Plan: sampler is not wired, and neither is plan")
    (sampler,) = call("StepwiseEulerSampler")
    said = refused("StepwiseSavePlan", sampler=sampler, sigmas=torch.tensor((1.0, 0.5, 0.0)))
    assert said.startswith("Save Plan: model is not wired")


def test_a_note_that_is_too_long_says_how_long_it_may_be():
    said = refused("StepwiseSavePlan", plan=recipe_of(), note="x" * 10_001)
    assert said == "Save Plan: note has 10001 characters. Give at most 10000."


def test_a_recipe_of_a_solver_that_is_not_here_asks_for_a_newer_stepwise():
    data = checkpoint.dumps(replace(recipe_of(), solver="Next Year's"), KINDS, form=checkpoint.RECIPE)
    with pytest.raises(InputError, match=r"which this Stepwise does not have\. Update Stepwise\."):
        recipe_from_bytes(data)


def test_what_helps_with_a_damaged_recipe_speaks_of_recipes(folders):
    (name,) = call("StepwiseSavePlan", plan=recipe_of())
    file = folders / "output" / "stepwise" / "recipe_00001_.safetensors"
    file.write_bytes(file.read_bytes().replace(b"14.6", b"14.7"))
    assert refused("StepwiseLoadPlan", file=name).endswith("Load another copy, or make the recipe again.")


def damaged(text):
    """A recipe whose rows are another text, with a right digest."""
    return checkpoint.dumps(
        replace(recipe_of(), params={"rows": text}),
        KINDS,
        form=checkpoint.RECIPE,
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"path":"VE"}',
        recipe_of().params["rows"].replace("14.6", "14.7"),
        recipe_of().params["rows"].replace('"taken":[[', '"taken":[[1.0,1.0,'),
        recipe_of().params["rows"].replace('"told":[14', '"told":[1e999,14'),
        recipe_of().params["rows"].replace("VE", "FLOW"),
    ],
    ids=["empty", "list", "deep", "parts", "levels", "future", "infinite", "path"],
)
def test_a_recipe_with_a_right_digest_and_wrong_content_is_refused(text):
    with pytest.raises(InputError):
        recipe_from_bytes(damaged(text))


def test_a_recipe_cut_short_or_changed_anywhere_is_refused():
    data = recipe_to_bytes(recipe_of())
    assert recipe_from_bytes(data) == recipe_of()
    for length in range(0, len(data), 97):
        with pytest.raises(InputError):
            recipe_from_bytes(data[:length])
    place = data.index(b"sigmas") + 40
    with pytest.raises(InputError):
        recipe_from_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
