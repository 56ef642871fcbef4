"""What comes over links, from any pack: read once, refused by name, and never left to the model."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from comfy_api.latest import io
from comfy_extras import nodes_custom_sampler as core
from stepwise.nodes.host.digits import digits_vae
from stepwise.nodes.host.levels import read_sigmas
from stepwise.samplers.parameters import InputError, quoted
from toy_models import Latent5D, SmoothNet, call, nodes_by_id, prompt, refused, sample, toy_model

LEVELS = [3.0, 2.0, 1.0, 0.0]
NAN, INF = float("nan"), float("inf")
FORMS = {
    "one row": torch.tensor([LEVELS]),
    "one column": torch.tensor(LEVELS)[:, None],
    "float64": torch.tensor(LEVELS, dtype=torch.float64),
    "bfloat16": torch.tensor(LEVELS, dtype=torch.bfloat16),
    "float16": torch.tensor(LEVELS, dtype=torch.float16),
    "whole numbers": torch.tensor([3, 2, 1, 0]),
    "a list": LEVELS,
    "a tuple": (3, 2, 1, 0),
    "not contiguous": torch.tensor(LEVELS).repeat_interleave(2)[::2],
}
NO_SIGMAS = {
    "two rows": (torch.tensor([LEVELS, LEVELS]), "has the shape [2, 4]"),
    "a number": (torch.tensor(3.0), "has the shape [], a single number, 3"),
    "a float": (3.0, "is a float"),
    "text": ("3, 2, 1, 0", "is a str"),
    "a mapping": ({"sigmas": LEVELS}, "is a dict"),
    "a list of lists": ([LEVELS], "is a list of other things than numbers"),
    "truth values": (torch.tensor([True, False]), "is a tensor of torch.bool"),
    "a node's output": (("8", 0), "is a list of other things than numbers"),
}
NODES_WITH_SIGMAS = {
    "StepwiseSplitSigmas": {"step": 1},
    "StepwiseReverseSigmas": {},
    "StepwiseScaleSigmas": {},
    "StepwiseResampleSigmas": {"steps": 3},
    "StepwisePlanTable": {},
}


def inputs_of(kind="EPS", batch=1, net=None, latent_format=None):
    net = net or SmoothNet(4)
    model = toy_model(kind, net, latent_format)
    (guider,) = call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=2.0)
    latent = {"samples": torch.zeros(batch, 4, 8, 8)}
    return net, {"guider": guider, "noise": core.RandomNoise.execute(7).args[0], "latent_image": latent}


def tensor_out(node, sigmas, **more):
    values = call(node, sigmas=sigmas, **more)
    return [value for value in values if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("form", FORMS)
def test_sigmas_of_every_form_are_the_same_schedule(form):
    sigmas, plain = FORMS[form], torch.tensor(LEVELS)
    assert read_sigmas(sigmas) == tuple(LEVELS)
    (sampler,) = call("StepwiseEulerSampler")
    for node, more in NODES_WITH_SIGMAS.items():
        if node == "StepwisePlanTable":
            assert call(node, sampler=sampler, sigmas=sigmas) == call(node, sampler=sampler, sigmas=plain)
            continue
        for one, other in zip(tensor_out(node, sigmas, **more), tensor_out(node, plain, **more), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(call("StepwiseJoinSigmas", high_sigmas=[5.0, 3.0], low_sigmas=sigmas)[0][1:], plain)
    passed, report = call("StepwiseCheckSigmas", sigmas=sigmas)
    assert torch.equal(torch.as_tensor(passed, dtype=torch.float32), plain)
    assert report.startswith("3 steps, 3 to 0: sound")
    _, inputs = inputs_of()
    first, second = (call("StepwiseEuler", **inputs, sigmas=each)[0]["samples"] for each in (sigmas, plain))
    assert torch.equal(first, second)


@pytest.mark.parametrize("form", NO_SIGMAS)
def test_what_is_no_schedule_is_refused_by_every_node(form):
    sigmas, problem = NO_SIGMAS[form]
    net, inputs = inputs_of()
    (sampler,) = call("StepwiseEulerSampler")
    for node, more in {**NODES_WITH_SIGMAS, "StepwiseEuler": inputs, "StepwiseSample": inputs}.items():
        needs = {"sampler": sampler} if node in ("StepwisePlanTable", "StepwiseSample") else {}
        assert f": sigmas {problem}" in refused(node, sigmas=sigmas, **more, **needs)
    assert f": high_sigmas {problem}" in refused("StepwiseJoinSigmas", high_sigmas=sigmas, low_sigmas=LEVELS)
    assert f": sigmas.sigmas_1 {problem}" in refused("StepwisePlotSigmas", sigmas={"sigmas_1": sigmas})
    assert call("StepwiseCheckSigmas", sigmas=sigmas)[1].startswith(f"not sound\nsigmas {problem}")
    assert net.calls == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_levels_that_a_narrow_number_format_makes_one_name_it(dtype):
    sigmas = torch.linspace(1.0, 0.0, 5001).to(dtype)
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(InputError, match=rf"the same as the level before it: {kind} has too few digits"):
        read_sigmas(sigmas)
    assert read_sigmas(sigmas.float().unique(sorted=True).flip(0))


@pytest.mark.parametrize("node", ["StepwiseScaleSigmas", "StepwiseReverseSigmas"])
@pytest.mark.parametrize("value", [NAN, INF])
def test_levels_that_are_not_finite_go_through_no_node(node, value):
    assert f": sigmas[1] is {value}" in refused(node, sigmas=torch.tensor([3.0, value, 0.0]))


def test_a_schedule_of_one_step_cannot_be_split_and_says_what_can():
    said = refused("StepwiseSplitSigmas", sigmas=torch.tensor([1.0, 0.0]), step=1)
    assert said.endswith("Wire a schedule of 2 steps or more.")


# LATENT


def images(*shape, bad=None, value=NAN):
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    if bad is not None:
        made[bad].view(-1)[5] = value
    return made


BAD_LATENTS = {
    "NaN": ({"samples": images(3, 4, 8, 8, bad=1)}, "latent_image[1] holds a value that is not finite"),
    "infinity": ({"samples": images(3, 4, 8, 8, bad=2, value=INF)}, "latent_image[2] holds a value that is not finite"),
    "no image": ({"samples": torch.zeros(0, 4, 8, 8)}, "latent_image has the shape (0, 4, 8, 8), which holds no image"),
    "no height": ({"samples": torch.zeros(1, 4, 0, 8)}, "latent_image has the shape (1, 4, 0, 8), which holds no"),
    "no tensor": ({"samples": [1.0]}, "latent_image is not a LATENT"),
    "whole numbers": (
        {"samples": torch.zeros(1, 4, 8, 8, dtype=torch.int64)},
        "latent_image holds numbers of the kind",
    ),
    "a matrix": ({"samples": torch.zeros(8, 8)}, "latent_image has the shape (8, 8), which holds no image"),
    "empty and of five dimensions": (
        {"samples": torch.zeros(1, 16, 3, 8, 8)},
        "latent_image has the shape (1, 16, 3, 8, 8), and the model takes 4 channels in 2 dimensions",
    ),
    "short batch_index": (
        {"samples": images(3, 4, 8, 8), "batch_index": [4, 5]},
        "latent_image has a batch_index of 2 numbers and 3 images",
    ),
    "batch_index of one number": (
        {"samples": images(1, 4, 8, 8), "batch_index": 3},
        "latent_image has a batch_index that is 3, no whole numbers",
    ),
    "batch_index of text": (
        {"samples": images(2, 4, 8, 8), "batch_index": "ab"},
        "latent_image has a batch_index that is 'ab', no whole numbers",
    ),
    "batch_index below 0": (
        {"samples": images(2, 4, 8, 8), "batch_index": [-1, 0]},
        "latent_image has a batch_index that is [-1, 0], no whole numbers",
    ),
    "batch_index of halves": (
        {"samples": images(2, 4, 8, 8), "batch_index": [0.5, 1]},
        "latent_image has a batch_index that is [0.5, 1], no whole numbers",
    ),
    "long batch_index": (
        {"samples": images(1, 4, 8, 8), "batch_index": [4, 5]},
        "latent_image has a batch_index of 2 numbers and 1 image.",
    ),
    "mask of no image": (
        {"samples": images(1, 4, 8, 8), "noise_mask": torch.zeros(0, 8, 8)},
        "latent_image has a noise_mask of the shape (0, 8, 8), which holds no image",
    ),
    "mask of NaN": (
        {"samples": images(1, 4, 8, 8), "noise_mask": torch.full((1, 8, 8), NAN)},
        "latent_image has a noise_mask that holds a value that is not finite",
    ),
    "three masks for two images": (
        {"samples": images(2, 4, 8, 8), "noise_mask": torch.ones(3, 8, 8)},
        "latent_image has a noise_mask of 3 images, and 2 images. Give one mask for all images, or one for each",
    ),
    "two masks for one image": (
        {"samples": images(1, 4, 8, 8), "noise_mask": torch.ones(2, 1, 8, 8)},
        "latent_image has a noise_mask of 2 images, and 1 image.",
    ),
    "mask that is none": (
        {"samples": images(1, 4, 8, 8), "noise_mask": 1.0},
        "latent_image has a noise_mask that is a float",
    ),
}


@pytest.mark.parametrize("name", BAD_LATENTS)
def test_a_latent_that_cannot_be_sampled_from_is_named(name):
    latent, problem = BAD_LATENTS[name]
    net, inputs = inputs_of()
    said = refused("StepwiseEuler", **{**inputs, "latent_image": latent}, sigmas=LEVELS)
    assert said.startswith(f"Euler: {problem}")
    assert net.calls == 0


@pytest.mark.parametrize("channels", [2, 16])
@pytest.mark.parametrize("size", [(8, 8), (3, 8, 8)])
def test_an_empty_latent_gets_the_channels_of_the_model(size, channels):
    """As in ComfyUI's own sampler nodes: Empty Latent Image knows no model."""
    _, inputs = inputs_of(net=SmoothNet(4, 3), latent_format=Latent5D())
    latents = [{"samples": torch.zeros(1, count, *size)} for count in (channels, 4)]
    made = [call("StepwiseEuler", **{**inputs, "latent_image": each}, sigmas=LEVELS)[0]["samples"] for each in latents]
    assert torch.equal(*made)


def test_a_picture_goes_into_a_video_model_as_one_frame():
    _, inputs = inputs_of(net=SmoothNet(4, 3), latent_format=Latent5D())
    samples = images(1, 4, 8, 8)
    made = [
        call("StepwiseEuler", **{**inputs, "latent_image": {"samples": each}}, sigmas=LEVELS)[0]["samples"]
        for each in (samples, samples[:, :, None])
    ]
    assert torch.equal(*made)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float16])
def test_a_mask_of_any_number_format_is_the_mask_of_its_values(dtype):
    _, inputs = inputs_of()
    mask = torch.zeros(1, 8, 8)
    mask[..., 4:] = 1.0
    made = [
        call(
            "StepwiseDPMpp2M",
            **{**inputs, "latent_image": {"samples": images(1, 4, 8, 8), "noise_mask": each}},
            sigmas=LEVELS,
        )
        for each in (mask, mask.to(dtype))
    ]
    assert torch.equal(made[0][0]["samples"], made[1][0]["samples"])


@pytest.mark.parametrize("masks", [(8, 8), (1, 8, 8), (1, 1, 8, 8), (2, 8, 8), (4, 8, 8), (4, 1, 16, 16)], ids=str)
def test_masks_that_come_out_even_are_those_of_core(masks):
    """One for all, one for each, or in turn: the picture is kept where the mask is 0."""
    _, inputs = inputs_of()
    samples, mask = images(4, 4, 8, 8), torch.zeros(masks)
    latent = {"samples": samples, "noise_mask": mask}
    made = call("StepwiseEuler", **{**inputs, "latent_image": latent}, sigmas=LEVELS)[0]["samples"]
    torch.testing.assert_close(made, samples)


def test_the_masks_of_a_video_are_those_of_its_frames():
    _, inputs = inputs_of(net=SmoothNet(4, 3), latent_format=Latent5D())
    samples = images(1, 4, 3, 8, 8)
    latent = {"samples": samples, "noise_mask": torch.zeros(3, 8, 8)}
    made = call("StepwiseEuler", **{**inputs, "latent_image": latent}, sigmas=LEVELS)[0]["samples"]
    torch.testing.assert_close(made, samples)


# NOISE


class Given:
    """A NOISE of another pack."""

    def __init__(self, made, seed=3):
        self.made, self.seed = made, seed

    def generate_noise(self, latent):
        return self.made


BAD_NOISE = {
    "one for two": (2, images(1, 4, 8, 8), "noise makes noise for a batch of 1, and latent_image is a batch of 2"),
    "two for one": (1, images(2, 4, 8, 8), "noise makes noise for a batch of 2, and latent_image is a batch of 1"),
    "shape": (1, images(1, 4, 6, 8), "noise makes noise of the shape (1, 4, 6, 8), and latent_image has (1, 4, 8, 8)"),
    "NaN": (2, images(2, 4, 8, 8, bad=1), "noise[1] holds a value that is not finite"),
    "nothing": (1, None, "noise makes something else than noise"),
}


@pytest.mark.parametrize("name", BAD_NOISE)
def test_noise_that_does_not_fit_the_latent_is_named(name):
    batch, made, problem = BAD_NOISE[name]
    net, inputs = inputs_of(batch=batch)
    said = refused("StepwiseEuler", **{**inputs, "noise": Given(made)}, sigmas=LEVELS)
    assert said.startswith(f"Euler: {problem}")
    assert net.calls == 0


def test_noise_without_a_seed_counts_as_seed_0():
    _, inputs = inputs_of()
    made = [
        call("StepwiseDDPM", **{**inputs, "noise": Given(images(1, 4, 8, 8), seed)}, sigmas=LEVELS)[0]["samples"]
        for seed in (None, 0, 1)
    ]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[1], made[2])


def test_a_seed_that_is_no_number_is_named():
    _, inputs = inputs_of()
    said = refused("StepwiseDDPM", **{**inputs, "noise": Given(images(1, 4, 8, 8), "seven")}, sigmas=LEVELS)
    assert said.startswith("DDPM: noise has the seed 'seven', and a seed is a whole number")


# NaN on the way


class BadImage(SmoothNet):
    """Makes NaN for one image of the batch."""

    def forward(self, x, timesteps, context=None, **kwargs):
        out = super().forward(x, timesteps, context, **kwargs)
        out[2, 0, 0, 0] = NAN
        return out


@pytest.mark.parametrize("through", ["step node", "core's sampler"])
def test_a_prediction_that_is_not_finite_names_its_image(through):
    _, inputs = inputs_of(batch=4, net=BadImage(4))
    with pytest.raises(ValueError, match=r"at step 1 of 3, sigma 3, image 2 of 0 to 3: .*prediction had it"):
        sample(through, "Euler", inputs, torch.tensor(LEVELS))


@pytest.mark.parametrize("guilty", ["latent", "noise", "mask"])
def test_core_s_node_is_told_which_input_had_it(guilty):
    _, inputs = inputs_of()
    latent = {"samples": images(1, 4, 8, 8), "noise_mask": torch.ones(1, 8, 8)}
    bad = {"latent": latent["samples"], "mask": latent["noise_mask"], "noise": images(1, 4, 8, 8)}
    bad[guilty].view(-1)[3] = NAN
    changed = {"latent_image": latent, "noise": Given(bad["noise"])}
    with pytest.raises(ValueError, match=f"the {guilty} had it, before the first model call. Look at the node"):
        sample("core's sampler", "Euler", {**inputs, **changed}, torch.tensor(LEVELS))


# Literals where a link belongs

LITERALS = [3, True, [1, "x"], {"samples": 5}, "\ud800"]
OURS = {"STEPWISE_STATE", "STEPWISE_GUIDANCE", "STEPWISE_PREDICTION", "STEPWISE_PLAN"}
SOCKETS = {"MODEL", "CONDITIONING", "GUIDER", "NOISE", "SAMPLER", "SIGMAS", "LATENT", "VAE", "IMAGE", *OURS}


def sockets():
    for node_id, node in nodes_by_id().items():
        for each in node.define_schema().inputs:
            if each.get_io_type() in SOCKETS:
                yield node_id, each.id, each.get_io_type()


def stand_ins(node_id, but):
    """Something of the right kind on every other socket: none of it is looked at further."""
    _, inputs = inputs_of()
    made = {
        "MODEL": inputs["guider"].model_patcher,
        "CONDITIONING": prompt(0.1),
        "SAMPLER": call("StepwiseEulerSampler")[0],
        "SIGMAS": torch.tensor(LEVELS),
        "GUIDER": inputs["guider"],
        "NOISE": inputs["noise"],
        "LATENT": inputs["latent_image"],
        "IMAGE": torch.zeros(1, 8, 8, 3),
        "STEPWISE_PREDICTION": call("StepwisePrediction", conditioning=prompt(0.1))[0],
        "VAE": digits_vae(),
    }
    schema = nodes_by_id()[node_id].define_schema()
    return {
        each.id: made[each.get_io_type()] for each in schema.inputs if each.get_io_type() in made and each.id != but
    }


@pytest.mark.parametrize(("node_id", "name", "kind"), list(sockets()), ids=lambda v: v)
def test_a_literal_on_a_socket_names_node_and_input(node_id, name, kind):
    display_name = nodes_by_id()[node_id].define_schema().display_name
    others = stand_ins(node_id, name)
    for literal in LITERALS:
        if kind == "LATENT" and isinstance(literal, dict):
            continue
        if node_id == "StepwiseCheckSigmas" and kind == "SIGMAS":
            assert call(node_id, **{name: literal})[1].startswith("not sound")
            continue
        said = refused(node_id, **others, **{name: literal})
        assert said.startswith(f"{display_name}: {name} ")
        assert said.isprintable() or "\ud800" not in said
        said.encode()


def test_null_on_an_optional_socket_is_nothing_wired():
    assert call("StepwiseIntervalGuidance", rule=None) == call("StepwiseIntervalGuidance")
    assert call("StepwiseKarrasSchedule", model=None)[0].equal(call("StepwiseKarrasSchedule")[0])


def test_the_check_covers_every_input_of_the_pack():
    """But SIGMAS and curves, which have readers of their own, and what the host puts together of several inputs."""
    from stepwise.nodes.shared.schema import KINDS
    from stepwise.nodes.shared.sockets import IS_ONE

    found = {each.get_io_type() for node in nodes_by_id().values() for each in node.define_schema().inputs}
    plain = {kind for kind in found if not kind.startswith("COMFY_")}
    assert plain - {"SIGMAS", "CURVE"} <= {*IS_ONE, *KINDS}, "an input of a type that nobody looks at"


def test_a_node_keeps_what_the_host_gives_its_clone():
    """Hidden inputs are on the clone of the class that the host executes."""
    node = nodes_by_id()["StepwiseDigit"]
    clone = type("Clone", (node,), {"hidden": SimpleNamespace(unique_id="7")})
    assert isinstance(clone.execute(labels="3"), io.NodeOutput)


# Values that no widget would give: by the API, or over a link

WRONG = {
    "INT": ["x", "3", None, [1], {}, True, NAN, INF, 1.5, -1, 2**70],
    "FLOAT": ["x", "0.5", None, [1.0], {}, True, NAN, INF, -INF, 1e30],
    "BOOLEAN": ["maybe", None, 1, 0.0, []],
    "STRING": [None, 3, True, ["a"], {}],
    "COMBO": ["x", "", None, 3, True, [], {}],
}


# Names of files are looked up, not compared with a list: test_state_safety and test_fitted_plans have them.
FILES = {("StepwiseLoadState", "file"), ("StepwiseLoadPlan", "file")}


def widgets():
    """Each with what stands before its name in a prompt, and the choice that it belongs to."""
    for node_id, node in nodes_by_id().items():
        for each in node.define_schema().inputs:
            if isinstance(each, io.DynamicCombo.Input):
                for option in each.options:
                    yield from ((node_id, widget, (each.id, option.key)) for widget in option.inputs)
            elif (node_id, each.id) not in FILES:
                yield node_id, each, None


WIDGETS = [
    pytest.param(node_id, each, choice, id="-".join([node_id, *(choice or ()), each.id]))
    for node_id, each, choice in widgets()
    if each.get_io_type() in WRONG
]


@pytest.mark.parametrize(("node_id", "widget", "choice"), WIDGETS)
def test_a_value_of_a_wrong_kind_names_node_and_widget(node_id, widget, choice):
    others = stand_ins(node_id, None)
    if node_id in ("StepwiseSaveState", "StepwiseInspectState"):
        others["state"] = SimpleNamespace(solver="", sigmas=(), latent={})
    if node_id == "StepwiseKSampler":
        others |= {"solver": {"solver": "DPM++ 2M"}, "schedule": {"schedule": "Karras"}}
    shown = nodes_by_id()[node_id].define_schema().display_name
    for value in WRONG[widget.get_io_type()]:
        given = {widget.id: value}
        if value is None and (widget.optional or choice):
            continue
        if widget.get_io_type() == "INT" and value == -1 and (widget.min is None or widget.min < 0):
            continue
        if choice:
            given = {choice[0]: {choice[0]: choice[1], **given}}
        said = refused(node_id, **{**others, **given})
        name = f"{choice[0]}.{widget.id}" if choice else widget.id
        assert said.startswith(f"{shown}: {name} is {quoted(value)}"), value
        assert ". Give " in said or ". Choose one of " in said or ". Write text" in said


def test_a_number_of_another_library_is_the_same_number():
    """A state holds Python's own numbers: one of numpy could not be saved."""
    held = [
        call("StepwiseDPMpp2S", **inputs_of()[1], sigmas=LEVELS, eta=eta, end_step=end)[2]
        for eta, end in ((0.5, 2), (np.float64(0.5), np.int64(2)), (torch.tensor(0.5), torch.tensor(2)), (0.5, 2.0))
    ]
    assert [(each.params, each.step) for each in held] == [(held[0].params, 2)] * 4
    assert {type(each.params["eta"]) for each in held} == {float}


def test_null_for_a_setting_of_a_choice_is_its_default():
    solver = {"solver": "DPM++ 2M SDE", "eta": None, "noise_device": None}
    others = {**stand_ins("StepwiseKSampler", None), "steps": 2, "schedule": {"schedule": "Karras"}}
    *_, held = call("StepwiseKSampler", **others, solver=solver)
    assert (held.params["eta"], held.params["noise_device"]) == (1.0, "cpu")


# Parts of no steps


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
def test_a_part_of_no_steps_is_what_core_makes_of_it(kind):
    """Through core's node, both SAMPLERs, and the step node: no model call; the latent at its only level, and as it
    came where there is none."""
    net, inputs = inputs_of(kind)
    inputs["latent_image"] = {"samples": images(1, 4, 8, 8)}
    for sigmas in (torch.zeros(0), torch.tensor([0.7]), torch.tensor([0.0])):
        expected = core.SamplerCustomAdvanced.execute(
            inputs["noise"],
            inputs["guider"],
            core.KSamplerSelect.execute("euler").args[0],
            sigmas,
            inputs["latent_image"],
        ).args[0]["samples"]
        for through in ("step node", "core's sampler"):
            made = sample(through, "DPMpp2M", inputs, sigmas)["samples"]
            assert torch.allclose(made, expected, atol=1e-6)
        foreign = call("StepwiseSample", **inputs, sampler=core.KSamplerSelect.execute("euler").args[0], sigmas=sigmas)
        assert torch.equal(foreign[0]["samples"], expected)
    assert net.calls == 0
    assert torch.equal(
        sample("step node", "Euler", inputs, torch.zeros(0))["samples"], inputs["latent_image"]["samples"]
    )


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
@pytest.mark.parametrize("solver", ["DPMpp3MSDE", "UniPC"])
def test_a_run_goes_on_from_a_part_of_no_steps(kind, solver):
    net, inputs = inputs_of(kind)
    sigmas = torch.tensor([1.0, 0.8, 0.5, 0.2, 0.0])
    whole = call(f"Stepwise{solver}", **inputs, sigmas=sigmas)[0]["samples"]
    calls = net.calls
    for window in ({"start_step": 2, "end_step": 2}, {"start_step": 4}):
        net.calls = 0
        latent, denoised, state = call(f"Stepwise{solver}", **inputs, sigmas=sigmas, **window)
        assert net.calls == 0
        assert state.step == window["start_step"]
        assert latent["samples"].shape == denoised["samples"].shape
    assert torch.equal(latent["samples"], inputs["latent_image"]["samples"])
    *_, state = call(f"Stepwise{solver}", **inputs, sigmas=sigmas, start_step=2, end_step=2)
    *_, straight = call(f"Stepwise{solver}", **inputs, sigmas=sigmas, start_step=2)
    again, _, gone_on = call(f"Stepwise{solver}", guider=inputs["guider"], state=state)
    assert torch.equal(gone_on.state.x, straight.state.x)
    assert calls
    assert not torch.equal(again["samples"], whole)


# What a step node alone can know


@pytest.mark.parametrize(
    ("kind", "sigmas", "latent", "said"),
    [
        ("EPS", [1.0, 0.5, 0.0], torch.zeros(1, 4, 8, 8), "is empty: a flow model's schedule begins so. Take one of"),
        ("EPS", [2.0, 0.5, 0.0], torch.zeros(1, 4, 8, 8), "far below the model's highest noise level, 14.6"),
        ("EPS", [1.0, 0.5, 0.0], images(1, 4, 8, 8), None),
        ("EPS", [20.0, 1.0, 0.0], images(1, 4, 8, 8), "above the highest noise level that the model was trained on"),
        ("EPS", [999.0, 500.0, 0.0], torch.zeros(1, 4, 8, 8), "these look like timesteps. Take their noise levels"),
        ("EPS", [14.6, 1.0, 0.0], torch.zeros(1, 4, 8, 8), None),
        ("FLOW", [0.3, 0.1, 0.0], torch.zeros(1, 4, 8, 8), "far below the model's highest noise level, 1"),
        ("FLOW", [1.0, 0.5, 0.0], torch.zeros(1, 4, 8, 8), None),
    ],
)
def test_a_step_node_says_when_schedule_model_and_latent_do_not_go_together(kind, sigmas, latent, said, caplog):
    _, inputs = inputs_of(kind)
    with caplog.at_level(logging.WARNING):
        call("StepwiseEuler", **{**inputs, "latent_image": {"samples": latent}}, sigmas=torch.tensor(sigmas))
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Stepwise: sigmas")]
    assert len(lines) == (said is not None)
    assert not lines or said in lines[0]


@pytest.mark.parametrize(("solver", "warned"), [("DDPM", True), ("DPMpp2M", False)])
def test_noise_on_the_way_is_said_to_be_wrong_for_a_model_of_two_shifts(solver, warned, caplog):
    _, inputs = inputs_of("FLOW")
    model = inputs["guider"].model_patcher.model
    model.__class__ = type("MiniMaxH3", (type(model),), {})
    with caplog.at_level(logging.WARNING):
        call(f"Stepwise{solver}", **inputs, sigmas=torch.tensor([1.0, 0.5, 0.0]))
    assert any("sound of MiniMax-H3" in record.getMessage() for record in caplog.records) == warned
