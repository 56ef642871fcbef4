"""Cancel, progress, failures of the model, and runs that are cut and go on."""

import threading

import comfy.model_management
import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from stepwise.benchmarks import _run_waits
from stepwise.samplers import Plan
from toy_models import THROUGH, SmoothNet, call, prompt, sample, toy_model

STEPS = 6


def inputs_of(model, cfg=3.0, batch=1, mask=False):
    (guider,) = call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=cfg)
    latent = {"samples": torch.zeros(batch, 4, 8, 8)}
    if mask:
        latent["samples"] = torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(3))
        latent["noise_mask"] = torch.ones(1, 1, 8, 8)
        latent["noise_mask"][..., :4] = 0.0
    return {"guider": guider, "noise": core.RandomNoise.execute(7).args[0], "latent_image": latent}


def schedule_of(kind):
    return torch.linspace(1.0, 0.0, STEPS + 1) if kind == "FLOW" else call("StepwiseKarrasSchedule", steps=STEPS)[0]


def test_the_thread_that_draws_ahead_is_gone_after_cancel(monkeypatch):
    """On a pretended GPU, through the step node."""
    seen = []

    def cancelling(self, x, *args, **kwargs):
        seen.append(sum(thread.name.startswith("stepwise-noise") for thread in threading.enumerate()))
        if len(seen) == 3:
            raise comfy.model_management.InterruptProcessingException
        return x * 0.5

    monkeypatch.setattr(_run_waits.Half, "forward", cancelling)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        _run_waits.counts_of("DPMpp2MSDE", 5, idle=False)
    assert seen == [1, 1, 1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stepwise-noise")]


class Interrupting(SmoothNet):
    """Presses Cancel during its third call."""

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        if self.calls == 3:
            comfy.model_management.interrupt_current_processing()
        return out


@pytest.mark.parametrize("through", THROUGH)
def test_cancel_ends_the_run_before_the_next_model_call(through):
    net = Interrupting(4)
    inputs = inputs_of(toy_model("EPS", net), cfg=1.0)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(through, "DPMpp2M", inputs, schedule_of("EPS"))
    assert net.calls == 3
    call("StepwiseDPMpp2M", **inputs, sigmas=schedule_of("EPS"))


@pytest.mark.parametrize("node", ["StepwiseEuler", "StepwiseDPMSolver"])
def test_progress_counts_steps_of_the_whole_schedule_once_each(node, monkeypatch):
    import latent_preview

    seen = []
    monkeypatch.setattr(
        latent_preview,
        "prepare_callback",
        lambda model, steps, x0: lambda step, denoised, x, total: seen.append((step, total)),
    )
    inputs = inputs_of(toy_model("EPS"))
    call(node, **inputs, sigmas=schedule_of("EPS"))
    assert seen == [(step, STEPS) for step in range(STEPS)]


class Failing(SmoothNet):
    """Returns NaN or infinity from a noise level on, for one kind of prompt or for all."""

    def __init__(self, below, value, victim=None):
        super().__init__(4)
        self.below, self.value, self.victim = below, value, victim

    def forward(self, x, timesteps, context=None, **kwargs):
        out = super().forward(x, timesteps, context, **kwargs)
        for i, level in enumerate(context.mean(dim=(1, 2)).tolist()):
            if timesteps[i] < self.below and (self.victim is None or (level > 0) == (self.victim == "conditional")):
                out[i, 0, 0, 0] = self.value
        return out


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("victim", ["conditional", "unconditional"])
@pytest.mark.parametrize("through", THROUGH)
def test_a_prediction_that_is_not_finite_is_named(value, victim, through):
    inputs = inputs_of(toy_model("EPS", Failing(500, value, victim)))
    sigmas = schedule_of("EPS")
    with pytest.raises(ValueError, match="not finite") as caught:
        sample(through, "DPMpp2M", inputs, sigmas)
    model_sampling = inputs["guider"].model_patcher.get_model_object("model_sampling")
    first = next(i for i, s in enumerate(sigmas) if model_sampling.timestep(s) < 500)
    assert f"at step {first + 1} of {STEPS}, sigma {sigmas[first].item():.6g}" in str(caught.value)
    assert f"the {victim} prediction had it" in str(caught.value)


def test_on_the_cpu_a_run_ends_with_the_step_that_failed():
    """Four steps, and the fourth once more to see which prediction had it."""
    net = Failing(500, float("nan"))
    with pytest.raises(ValueError, match="not finite at step 4 of 6"):
        call("StepwiseEuler", **inputs_of(toy_model("EPS", net), cfg=1.0), sigmas=schedule_of("EPS"))
    assert net.calls == 5


def test_a_cfg_patch_that_makes_nan_is_told_from_the_model():
    model = toy_model("EPS")
    model.set_model_sampler_cfg_function(lambda args: args["cond"] * float("nan"))
    with pytest.raises(ValueError, match=r"step 1 of 6.*the combined prediction had it, all its parts were finite"):
        call("StepwiseEuler", **inputs_of(model), sigmas=schedule_of("EPS"))


def test_under_a_foreign_guider_only_the_combined_prediction_is_known():
    inputs = inputs_of(toy_model("EPS", Failing(500, float("nan"))))
    inner = inputs["guider"]

    class Foreign(type(inner)):
        def predict_noise(self, x, timestep, model_options=None, seed=None):
            return self.inner_model.apply_model(x, timestep, c_crossattn=torch.zeros(1, 4, 8))

    foreign = Foreign(inner.model_patcher)
    foreign.set_conds(prompt(0.4), prompt(-0.3))
    with pytest.raises(ValueError, match="Only that one is known under this GUIDER"):
        call("StepwiseEuler", **{**inputs, "guider": foreign}, sigmas=schedule_of("EPS"))


@pytest.mark.parametrize(("below", "step"), [(500, 4), (30, STEPS)])
@pytest.mark.parametrize("late", [0, 1, 3, STEPS])
def test_a_failure_is_found_at_the_right_call_however_late_the_sums_come(late, below, step, monkeypatch):
    """As on a GPU that is so many steps behind: the run goes on meanwhile, and ends at the last step in any case."""
    from stepwise.nodes.host.transfer import Arriving

    there = Arriving.there

    def later(self):
        self.asked = getattr(self, "asked", 0) + 1
        return self.asked > late and there(self)

    monkeypatch.setattr(Arriving, "there", later)
    call("StepwiseEuler", **inputs_of(toy_model("EPS")), sigmas=schedule_of("EPS"))
    failing = inputs_of(toy_model("EPS", Failing(below, float("nan"), "conditional")))
    with pytest.raises(ValueError, match=rf"at step {step} of 6.*the conditional prediction had it"):
        call("StepwiseDPMpp2M", **failing, sigmas=schedule_of("EPS"))


def test_a_state_that_does_not_fit_is_refused():
    inputs, sigmas = inputs_of(toy_model("EPS")), schedule_of("EPS")
    _, _, state = call("StepwiseEuler", **inputs, sigmas=sigmas, end_step=2)
    go_on = {"guider": inputs["guider"], "state": state}
    with pytest.raises(ValueError, match=r"DPM\+\+ 2M: state was made by Euler .*and this is DPM\+\+ 2M"):
        call("StepwiseDPMpp2M", **go_on)
    with pytest.raises(
        ValueError, match=r"state was made by Euler \(s_churn = 0\.0\), and this is Euler \(s_churn = 5\.0\)\."
    ):
        call("StepwiseEuler", **go_on, s_churn=5.0)
    with pytest.raises(ValueError, match="Euler: sigmas is not the schedule that the state was made on"):
        call("StepwiseEuler", **go_on, sigmas=schedule_of("FLOW"))
    with pytest.raises(ValueError, match="Euler: start_step is 3, and the state stands at step 2 of a run from step 0"):
        call("StepwiseEuler", **go_on, start_step=3)
    flow = inputs_of(toy_model("FLOW"))
    with pytest.raises(ValueError, match="Euler: state comes from a model on the VE path, and this model is on FLOW"):
        call("StepwiseEuler", guider=flow["guider"], state=state)
    heun = core.KSamplerSelect.execute("heun").args[0]
    _, _, foreign = call("StepwiseSample", **inputs, sampler=heun, sigmas=sigmas, end_step=2)
    with pytest.raises(ValueError, match="Euler: state comes from a sampler that keeps nothing to resume"):
        call("StepwiseEuler", guider=inputs["guider"], state=foreign)


def test_start_step_without_a_state_is_cores_advanced_sampler():
    """KSamplerAdvanced noises the latent to the level where it starts and runs the rest of the schedule."""
    inputs, sigmas = inputs_of(toy_model("EPS")), schedule_of("EPS")
    part, _, _ = call("StepwiseEuler", **inputs, sigmas=sigmas, start_step=2)
    tail, _, _ = call("StepwiseEuler", **inputs, sigmas=sigmas[2:])
    assert torch.equal(part["samples"], tail["samples"])


def test_image_in_a_batch_has_the_in_sampler_noise_of_its_own_seed():
    """Image 1 of a batch with seed 7 is the picture of seed 8, when it starts from the same noise."""
    model, sigmas = toy_model("EPS"), schedule_of("EPS")

    class Fixed:
        def __init__(self, seed, noise):
            self.seed, self.noise = seed, noise

        def generate_noise(self, latent):
            return self.noise

    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    pair = call("StepwiseDDPM", **{**inputs_of(model, batch=2), "noise": Fixed(7, noise)}, sigmas=sigmas)[0]
    one = call("StepwiseDDPM", **{**inputs_of(model), "noise": Fixed(8, noise[1:])}, sigmas=sigmas)[0]
    assert torch.allclose(pair["samples"][1:], one["samples"], atol=1e-5)


@pytest.mark.parametrize("part", ["whole", "first part", "rest", "of another pack's split"])
@pytest.mark.parametrize("solver", ["DPMpp2M", "UniPC", "Restart"])
def test_a_plan_is_made_once_a_run(solver, part, monkeypatch):
    inputs, sigmas = inputs_of(toy_model("EPS")), schedule_of("EPS")
    node = f"Stepwise{solver}"
    window = {"whole": {}, "first part": {"end_step": 3}, "rest": {}, "of another pack's split": {}}[part]
    if part == "rest":
        inputs = {"guider": inputs["guider"], "state": call(node, **inputs, sigmas=sigmas, end_step=3)[2]}
    elif part == "of another pack's split":
        inputs["sigmas"] = sigmas[:4]
    else:
        inputs["sigmas"] = sigmas
    made, check = [], Plan.__post_init__
    monkeypatch.setattr(Plan, "__post_init__", lambda self: (made.append(self), check(self))[1])
    call(node, **inputs, **window)
    assert len(made) == 1
