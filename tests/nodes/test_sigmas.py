"""The nodes for SIGMAS, on schedules of our own and of ComfyUI, in the host."""

import pytest
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_extras import nodes_custom_sampler as core
from toy_models import call, prompt, refused, toy_model


def karras(steps=12, **widgets):
    return call("StepwiseKarrasSchedule", steps=steps, **widgets)[0]


def split(sigmas, at, **inputs):
    return call("StepwiseSplitSigmas", sigmas=sigmas, at=at, **inputs)


def test_split_at_a_step_is_cores_split():
    high, low, step = split(karras(), "step", step=5)
    theirs = core.SplitSigmas.execute(karras(), 5).args
    assert step == 5
    assert torch.equal(high, theirs[0])
    assert torch.equal(low, theirs[1])
    (whole,) = call("StepwiseJoinSigmas", high_sigmas=high, low_sigmas=low)
    assert torch.equal(whole, karras())


@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "EDM", "FLOW", "FLUX", "FLOW_COSMOS"])
@pytest.mark.parametrize("percent", [0.2, 0.5, 0.8])
def test_split_at_a_percent_is_where_the_hosts_percent_lies(kind, percent):
    """All levels of the first part but the shared one are above the host's sigma of that percent."""
    model = toy_model(kind)
    sigmas = call("StepwiseExponentialSchedule", steps=30, model=model)[0]
    high, low, _ = split(sigmas, "percent", percent=percent, model=model)
    level = model.get_model_object("model_sampling").percent_to_sigma(percent)
    assert (high[:-1] > level).all()
    assert (low <= level).all()


def test_hand_over_in_a_run_calls_each_model_on_its_side():
    """Of Wan 2.2's two models the first gets every call at 0.875 or above, as its authors run them."""
    model = toy_model("FLOW")
    sigmas = call("StepwiseFlowSchedule", steps=20, model=model)[0]
    high, low, step = split(sigmas, "hand-over", boundary=0.875, model=model)
    assert 0 < step < 20
    assert (high[:-1] >= 0.875).all()
    assert (low < 0.875).all()


def test_split_by_model_calls():
    (sampler,) = call("StepwiseHeunSampler")
    _, _, step = split(karras(), "model calls", calls=9, sampler=sampler)
    assert step == 4


def test_the_step_of_the_cut_runs_the_first_part_of_the_full_schedule():
    """What the split says as `step`, a step node takes as end_step, and then stands at the cut's level."""
    model = toy_model("EPS")
    (guider,) = call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=2.0)
    noise = core.RandomNoise.execute(3).args[0]
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    sigmas = karras(8)
    high, _, step = split(sigmas, "sigma", sigma=1.0)
    inputs = {"guider": guider, "noise": noise, "latent_image": latent}
    whole = call("StepwiseEuler", **inputs, sigmas=sigmas, end_step=step)[0]["samples"]
    part = call("StepwiseEuler", **inputs, sigmas=high)[0]["samples"]
    assert torch.equal(whole, part)


@pytest.mark.parametrize(
    ("at", "inputs", "message"),
    [
        (
            "step",
            {"step": 12},
            "Split Sigmas (Stepwise): step cuts at step 12 of 12, which leaves the second part",
        ),
        ("sigma", {"sigma": 100.0}, "Split Sigmas (Stepwise): sigma cuts at step 0 of 12, which leaves the first part"),
        ("percent", {}, "Split Sigmas (Stepwise): model is not wired, and cutting at percent needs it. Wire the model"),
        ("hand-over", {}, "Split Sigmas (Stepwise): model is not wired, and cutting at hand-over needs it"),
        ("model calls", {}, "Split Sigmas (Stepwise): sampler is not wired, and cutting at model calls needs it"),
        (
            "model calls",
            {"sampler": "heun"},
            "Split Sigmas (Stepwise): sampler is not one of Stepwise, so its model calls are not known",
        ),
    ],
)
def test_cuts_that_cannot_be_made(at, inputs, message):
    if "sampler" in inputs:
        inputs = {"sampler": core.KSamplerSelect.execute("heun").args[0]}
    assert refused("StepwiseSplitSigmas", sigmas=karras(), at=at, **inputs).startswith(message)


def test_reverse_and_scale():
    sigmas = karras(6)
    (up,) = call("StepwiseReverseSigmas", sigmas=sigmas, lowest=0.001)
    assert torch.equal(up[1:], sigmas.flip(0)[1:])
    assert up[0] == torch.tensor(0.001)
    assert refused("StepwiseReverseSigmas", sigmas=sigmas, lowest=0.5).startswith(
        "Reverse Sigmas (Stepwise): lowest is 0.5, not"
    )
    (double,) = call("StepwiseScaleSigmas", sigmas=sigmas, factor=2.0)
    assert torch.equal(double, sigmas * 2.0)


def test_resample_keeps_a_schedule_of_core():
    theirs = core.KarrasScheduler.execute(10, 14.6, 0.03, 7.0).args[0]
    assert torch.equal(call("StepwiseResampleSigmas", sigmas=theirs, steps=10)[0], theirs)
    assert len(call("StepwiseResampleSigmas", sigmas=theirs, steps=33)[0]) == 34


def test_parse_reads_what_core_prints():
    assert torch.equal(call("StepwiseParseSigmas", text=str(torch.tensor([3.0, 0.001, 0.0])))[0],
                       torch.tensor([3.0, 0.001, 0.0]))  # fmt: skip
    assert refused("StepwiseParseSigmas", text="3, x").startswith(
        "Parse Sigmas (Stepwise): text has 'x' in line 1, which is no"
    )


def test_check_lets_a_sound_schedule_through_and_says_what_it_sees():
    sigmas = karras(model=toy_model("EPS"))
    passed, report = call("StepwiseCheckSigmas", sigmas=sigmas, model=toy_model("EPS"))
    assert passed is sigmas
    assert report == "12 steps, 14.6146 to 0: sound"
    passed, report = call("StepwiseCheckSigmas", sigmas=sigmas[6:-1], model=toy_model("EPS"))
    assert torch.equal(passed, sigmas[6:-1])
    assert "sigmas[0] is" in report
    assert "far below" in report
    assert "ends with noise" in report


@pytest.mark.parametrize(
    ("values", "kind", "finding"),
    [
        ([3.0, float("nan"), 0.0], None, "sigmas[1] is nan"),
        ([3.0, 3.0, 0.0], None, "sigmas[1] is 3, not below"),
        ([14.6, 1.0, 0.0], "FLOW", "sigmas[0] is 14.6, and a flow model begins at 1"),
        ([80.0, 1.0, 0.0], "EPS", "sigmas[0] is 80, above the highest noise level"),
    ],
)
def test_check_stops_what_no_sampler_should_see(values, kind, finding):
    model = None if kind is None else toy_model(kind)
    passed, report = call("StepwiseCheckSigmas", sigmas=torch.tensor(values), model=model)
    assert isinstance(passed, ExecutionBlocker)
    assert passed.message.startswith(f"Check Sigmas (Stepwise): {finding}")
    assert report.startswith("not sound\n")
    assert finding in report


def test_check_knows_the_sampler():
    sigmas = torch.tensor([1.0, 0.37, 0.33, 0.12, 0.0])
    for solver, calls in {"Heun": 7, "DPMpp2M": 4}.items():
        (sampler,) = call(f"Stepwise{solver}Sampler")
        report = call("StepwiseCheckSigmas", sigmas=sigmas, sampler=sampler)[1]
        assert report == f"4 steps, 1 to 0: sound, {calls} model calls of {sampler.solver.name}"
    (ddpm,) = call("StepwiseDDPMSampler", variance="large")
    passed, report = call("StepwiseCheckSigmas", sigmas=sigmas, sampler=ddpm, model=toy_model("FLOW"))
    said = "DDPM: variance is 'large', which flow models do not have. Choose small."
    assert report.splitlines()[:2] == ["4 steps, 1 to 0: sound, but not for DDPM", said]
    assert passed.message == f"Check Sigmas (Stepwise): {said}"


def test_check_says_what_it_cannot_know_of_a_sampler_of_core():
    sigmas, theirs = karras(), core.KSamplerSelect.execute("euler").args[0]
    passed, report = call("StepwiseCheckSigmas", sigmas=sigmas, sampler=theirs)
    assert passed is sigmas
    assert report.endswith(": sound, model calls not known, since this SAMPLER is not one of Stepwise")


def test_check_counts_one_step_and_one_call():
    (sampler,) = call("StepwiseEulerSampler")
    report = call("StepwiseCheckSigmas", sigmas=torch.tensor([1.0, 0.0]), sampler=sampler)[1]
    assert report == "1 step, 1 to 0: sound, 1 model call of Euler"


NARROW = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "EDM", "FLOW", "FLUX"])
def test_the_models_own_schedule_is_sound_in_a_narrow_number_format(dtype, kind, caplog):
    """Rounding may lift its first level above the model's range, by at most half the spacing of the format's numbers;
    the step node says nothing of it either."""
    model = toy_model(kind)
    sigmas = call("StepwiseFlowSchedule" if "FL" in kind else "StepwiseKarrasSchedule", steps=8, model=model)[0]
    passed, report = call("StepwiseCheckSigmas", sigmas=sigmas.to(dtype), model=model)
    assert not isinstance(passed, ExecutionBlocker)
    assert ": sound" in report
    assert "\n" not in report
    (guider,) = call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=2.0)
    inputs = {"guider": guider, "noise": core.RandomNoise.execute(3).args[0]}
    with caplog.at_level("WARNING"):
        call("StepwiseEuler", **inputs, latent_image={"samples": torch.zeros(1, 4, 8, 8)}, sigmas=sigmas.to(dtype))
    assert not [each for each in caplog.messages if "sigmas" in each]


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("own", [True, False], ids=["by rounding", "by more"])
def test_the_tolerance_of_a_number_format_is_half_its_spacing(dtype, own):
    model = toy_model("EPS")
    most = float(model.get_model_object("model_sampling").sigma_max)
    above = torch.tensor(most).to(dtype) * (1.0 if own else 1.0 + 2 * torch.finfo(dtype).eps)
    passed, report = call("StepwiseCheckSigmas", sigmas=torch.stack([above, above * 0.1, above * 0]), model=model)
    assert isinstance(passed, ExecutionBlocker) != own
    assert own or "Leave SIGMAS in float32, and wire the model into the schedule node" in report


@pytest.mark.parametrize("levels", [[], [0.0], [0.7]], ids=str)
def test_a_part_of_no_steps_is_sound_and_said(levels):
    (sampler,) = call("StepwiseEulerSampler")
    sigmas = torch.tensor(levels)
    passed, report = call("StepwiseCheckSigmas", sigmas=sigmas, model=toy_model("EPS"), sampler=sampler)
    assert passed is sigmas
    head, said = report.splitlines()
    assert head == f"0 steps{f' at {levels[0]:g}' if levels else ''}: sound, 0 model calls of Euler"
    left = "noised to 0.7" if levels == [0.7] else "as it is"
    assert said.startswith("sigmas has no step, so no model is called and the latent is left")
    assert f"{left}. This is right for a part of no steps" in said
    (table,) = call("StepwisePlanTable", sampler=sampler, sigmas=sigmas)
    assert table.startswith("Euler on VE, 0 steps, 0 model calls")
