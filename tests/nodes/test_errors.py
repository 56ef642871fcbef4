"""Bad input is refused in the artist's words, before the model is touched."""

import re

import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from toy_models import SmoothNet, call, prompt, refused, sample, toy_model


@pytest.fixture
def graph():
    """The inputs of a step node, and a count of the model's calls."""

    def make(kind="EPS"):
        net = SmoothNet(4)
        (guider,) = call(
            "StepwiseCFGGuider", model=toy_model(kind, net), positive=prompt(0.4), negative=prompt(-0.3), cfg=2.0
        )
        noise = core.RandomNoise.execute(7).args[0]
        return net, {"guider": guider, "noise": noise, "latent_image": {"samples": torch.zeros(1, 4, 8, 8)}}

    return make


BAD_SIGMAS = [
    ("EPS", [3.0, 1.0, 2.0, 0.0], "sigmas[2] is 2, not below the value before it, 1", "descends"),
    ("EPS", [3.0, 3.0, 0.0], "sigmas[1] is 3, not below", "descends"),
    ("EPS", [float("nan"), 1.0, 0.0], "sigmas[0] is nan", "finite"),
    ("EPS", [float("inf"), 1.0, 0.0], "sigmas[0] is inf", "finite"),
    ("EPS", [3.0, 1.0, -1.0], "sigmas[2] is -1, below 0", "down to 0"),
    ("FLOW", [14.6, 1.0, 0.0], "sigmas[0] is 14.6, and a flow model begins at 1", "wire the model"),
    (
        "FLOW",
        [1000.0, 937.5, 0.0],
        "sigmas[0] is 1000, and a flow model begins at 1: these look like timesteps",
        "1000.",
    ),
    ("FLOW", [1.00001, 0.5, 0.0], "sigmas[0] is 1.00001, and a flow model begins at 1", "wire the model"),
    ("EPS", [[3.0, 1.0], [2.0, 0.0]], "sigmas has the shape [2, 2], and a schedule is one list", "wire the sigmas"),
    ("EPS", 3.0, "sigmas has the shape [], a single number, 3", "wire the sigmas"),
]


@pytest.mark.parametrize(("kind", "values", "problem", "cure"), BAD_SIGMAS, ids=lambda v: str(v)[:30])
def test_bad_sigmas_are_named_with_index_value_and_cure(graph, kind, values, problem, cure):
    net, inputs = graph(kind)
    message = refused("StepwiseDPMpp2M", **inputs, sigmas=torch.tensor(values))
    assert message.startswith(f"DPM++ 2M: {problem}")
    assert cure in message.lower()
    assert net.calls == 0


# The host's own node takes the first level before it asks our SAMPLER, and gets no further where that is none.
@pytest.mark.parametrize(("kind", "values", "problem", "cure"), BAD_SIGMAS[:-2], ids=lambda v: str(v)[:30])
def test_a_sampler_object_refuses_them_too(graph, kind, values, problem, cure):
    net, inputs = graph(kind)
    with pytest.raises(ValueError, match=re.escape(f"Euler Sampler: {problem}")):
        sample("core's sampler", "Euler", inputs, torch.tensor(values))
    assert net.calls == 0


@pytest.mark.parametrize(
    ("node", "values", "message"),
    [
        ("StepwiseDDIM", {"eta": 1.5}, "DDIM: eta is 1.5, out of range. Give a value from 0 to 1."),
        ("StepwiseDDIM", {"eta": float("nan")}, "DDIM: eta is nan, out of range. Give a value from 0 to 1."),
        ("StepwiseDPMSolver", {"order": "4"}, "DPM-Solver: order is '4'. Choose one of 1, 2, 3."),
        ("StepwiseEuler", {"start_step": 4}, "Euler: start_step is 4, and the schedule has the steps 0 to 2"),
        ("StepwiseEuler", {"start_step": 2, "end_step": 1}, "Euler: end_step is 1, and the run begins at step 2"),
        ("StepwiseEuler", {"noise": None}, "Euler: noise is not wired. Wire it, or wire a state"),
        ("StepwiseEuler", {"latent_image": None}, "Euler: latent_image is not wired"),
        ("StepwiseEuler", {"sigmas": None}, "Euler: sigmas is not wired"),
        ("StepwiseEuler", {"latent_image": {"wrong": 1}}, "Euler: latent_image is not a LATENT"),
        (
            "StepwiseEuler",
            {"latent_image": {"samples": torch.ones(1, 16, 8, 8)}},
            "Euler: latent_image has the shape (1, 16, 8, 8), and the model takes 4 channels in 2 dimensions. Encode",
        ),
        (
            "StepwiseEuler",
            {"latent_image": {"samples": torch.ones(1, 4, 2, 8, 8)}},
            "Euler: latent_image has the shape (1, 4, 2, 8, 8), and the model takes 4 channels in 2 dimensions",
        ),
    ],
    ids=lambda v: str(v)[:40],
)
def test_other_bad_inputs_of_a_step_node(graph, node, values, message):
    net, inputs = graph()
    assert refused(node, **{**inputs, "sigmas": torch.tensor([3.0, 2.0, 1.0, 0.0]), **values}).startswith(message)
    assert net.calls == 0


def test_large_variance_on_a_flow_model_is_refused(graph):
    _, inputs = graph("FLOW")
    with pytest.raises(
        ValueError, match=r"^DDPM: variance is 'large', which flow models do not have\. Choose small\.$"
    ):
        call("StepwiseDDPM", **inputs, sigmas=torch.tensor([1.0, 0.5, 0.0]), variance="large")


@pytest.mark.parametrize(
    ("node", "values", "message"),
    [
        ("StepwiseKarrasSchedule", {"steps": 0}, "Karras Schedule: steps is 0, out of range"),
        (
            "StepwiseKarrasSchedule",
            {"sigma_min": 20.0},
            "Karras Schedule: sigma_min is 20, not between 0 and",
        ),
        (
            "StepwiseTimestepSchedule",
            {"steps": 1001},
            "Timestep Schedule: steps is 1001, and there are 1000 noise levels",
        ),
        ("StepwiseTimestepSchedule", {"steps": 1000, "steps_offset": 1}, "Timestep Schedule: steps_offset is 1, and"),
        ("StepwiseLCMSchedule", {"steps": 51}, "LCM Schedule: steps is 51, and there are 50 noise levels"),
        ("StepwiseLCMSampler", {"nothing": 1.0}, "LCM Sampler: nothing is not a parameter here"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_bad_inputs_of_other_nodes(node, values, message):
    assert refused(node, **values).startswith(message)


def test_plan_table_of_a_foreign_sampler_is_refused():
    heun = core.KSamplerSelect.execute("heun").args[0]
    with pytest.raises(ValueError, match=r"^Plan Table: sampler is not one of Stepwise, so it has no plan"):
        call("StepwisePlanTable", sampler=heun, sigmas=torch.tensor([3.0, 0.0]))


def test_plan_table_shows_one_line_per_model_call():
    (sampler,) = call("StepwiseDPMSolverSampler")
    (sigmas,) = call("StepwiseKarrasSchedule", steps=5)
    (text,) = call("StepwisePlanTable", sampler=sampler, sigmas=sigmas)
    head, _, *lines = text.splitlines()
    assert head == "DPM-Solver on VE, 5 steps, 9 model calls"
    assert sum("x = " in line for line in lines) == 9
