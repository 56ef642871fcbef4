"""DPM++ 2M by hand, from Predict, Extrapolate and Step, is its node, bit for bit."""

import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from toy_models import Latent5D, SmoothNet, call, prompt, refused, toy_model

STEPS = 6


def inputs_of(kind="EPS", rule=None, latent=None, **form):
    model = toy_model(kind, **form)
    given = {"positive": prompt(0.4), "negative": prompt(-0.3), "cfg": 3.0, **({"rule": rule} if rule else {})}
    sigmas = torch.linspace(1.0, 0.0, STEPS + 1) if kind == "FLOW" else call("StepwiseKarrasSchedule", steps=STEPS)[0]
    return {
        "guider": call("StepwiseCFGGuider", model=model, **given)[0],
        "noise": core.RandomNoise.execute(7).args[0],
        "latent_image": latent or {"samples": torch.zeros(2, 4, 8, 8)},
        "sigmas": sigmas,
    }


def by_hand(inputs, extrapolates):
    """The states and outputs after each step."""
    made, before, taken = [], None, inputs
    for step in range(STEPS):
        state, x0, _ = call("StepwisePredict", **taken)
        better = x0
        if before is not None and extrapolates and step + 1 < STEPS:
            (better,) = call("StepwiseExtrapolate", state=state, x0=x0, previous_x0=before)
        made.append(call("StepwiseStep", guider=inputs["guider"], state=state, x0=better))
        before, taken = x0, {"guider": inputs["guider"], "state": made[-1][0]}
    return made


def masked():
    generator = torch.Generator().manual_seed(3)
    mask = (torch.rand(1, 1, 8, 8, generator=generator) > 0.5).float()
    return {"samples": torch.randn(2, 4, 8, 8, generator=generator), "noise_mask": mask}


CASES = {
    "EPS": lambda: inputs_of(),
    "V": lambda: inputs_of("V_PREDICTION"),
    "FLOW": lambda: inputs_of("FLOW"),
    "masked": lambda: inputs_of(latent=masked()),
    "momentum": lambda: inputs_of(rule=call("StepwiseMomentumGuidance")[0]),
    "video": lambda: inputs_of(
        latent={"samples": torch.zeros(1, 4, 3, 8, 8)}, latent_format=Latent5D(), module=SmoothNet(4, 3)
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_dpmpp_2m_by_hand_is_the_sampler_node(case):
    inputs = CASES[case]()
    for step, (state, output) in enumerate(by_hand(inputs, extrapolates=True), 1):
        theirs, _, held = call("StepwiseDPMpp2M", **inputs, end_step=step)
        assert torch.equal(state.state.x, held.state.x), step
        assert torch.equal(output["samples"], theirs["samples"]), step


def test_without_extrapolation_it_is_another_sampler_and_near_euler():
    inputs = inputs_of()
    plain = by_hand(inputs, extrapolates=False)[-1][1]["samples"]
    euler = call("StepwiseEuler", **inputs)[0]["samples"]
    second = call("StepwiseDPMpp2M", **inputs)[0]["samples"]
    assert torch.allclose(plain, euler, atol=1e-5)
    assert (second - euler).abs().max() > 1e-2


def test_the_prediction_is_that_of_a_run_stopped_there():
    inputs = inputs_of()
    state, _, denoised = call("StepwisePredict", **inputs)
    assert state.step == 0
    assert torch.equal(denoised["samples"], call("StepwiseDPMpp2M", **inputs, end_step=1)[1]["samples"])


def test_one_model_call_is_made():
    inputs = inputs_of()
    net = inputs["guider"].model_patcher.model.diffusion_model
    call("StepwisePredict", **inputs)
    assert net.calls == 1


def test_wrong_inputs_are_refused():
    inputs = inputs_of()
    assert refused("StepwisePredict", guider=inputs["guider"]).startswith("Predict: noise is not wired. Wire it")
    state, x0, _ = call("StepwisePredict", **inputs)
    message = refused("StepwiseExtrapolate", state=state, x0=x0, previous_x0=x0)
    assert message.startswith("Extrapolate: previous_x0 was made at noise level 14.6")
    (*_, before, (done, _)) = by_hand(inputs, extrapolates=False)
    message = refused("StepwisePredict", guider=inputs["guider"], state=done)
    assert message.startswith("Predict: state stands at the end of its schedule")
    last, clean, _ = call("StepwisePredict", guider=inputs["guider"], state=before[0])
    message = refused("StepwiseExtrapolate", state=last, x0=clean, previous_x0=x0)
    assert message.startswith("Extrapolate: state stands before the step to 0")
    solver = call("StepwiseDPMpp2M", **inputs, end_step=2)[2]
    message = refused("StepwisePredict", guider=inputs["guider"], state=solver)
    assert message.startswith("Predict: state was made by DPM++ 2M")
