"""What a step node says of its run on its face, and the mark of a latent that is not finished."""

import logging

import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from stepwise.nodes.runs.face import Face
from stepwise.nodes.runs.unfinished import MARK
from toy_models import call, nodes_by_id, prompt, toy_model

import nodes as core_nodes

STEPS = 6
NOT_FINISHED = "this picture is not finished (step 3 of 6) and is given noise again: wire its state"


def guider_of(kind="EPS"):
    return call("StepwiseCFGGuider", model=toy_model(kind), positive=prompt(0.4), negative=prompt(-0.3), cfg=3.0)[0]


def noise_of(seed=7):
    return core.RandomNoise.execute(seed).args[0]


def begins(images=1, seed=7, steps=STEPS):
    latent = {"samples": torch.zeros(images, 4, 8, 8)}
    sigmas = call("StepwiseKarrasSchedule", steps=steps)[0]
    return {"guider": guider_of(), "noise": noise_of(seed), "latent_image": latent, "sigmas": sigmas}


def with_face(node_id="StepwiseDPMpp2M", **inputs):
    """The outputs of a step node, and what it leaves for the page."""
    defaults = {"start_step": 0, "end_step": 10000}
    made = nodes_by_id()[node_id].execute(**{**defaults, **inputs})
    (shown,) = made.ui["stepwise_face"]
    return made.args, shown


def ksampler(**inputs):
    """KSampler (Stepwise) with a mark-worthy cut."""
    given = {"model": toy_model("EPS"), "positive": prompt(0.4), "negative": prompt(-0.3), "seed": 7, "steps": STEPS}
    choices = {"solver": {"solver": "DPM++ 2M"}, "schedule": {"schedule": "Karras"}}
    widgets = {"cfg": 3.0, "denoise": 1.0, "add_noise": "enable", "return_with_leftover_noise": "enable"}
    return with_face("StepwiseKSampler", **{**given, **choices, **widgets, **inputs})


def test_a_paused_node_says_where_and_with_which_seed():
    (_, _, state), shown = with_face(**begins(), end_step=3)
    assert (shown["did"], shown["paused"], shown["went_on"]) == ("stopped at step 3 of 6, seed 7", True, False)
    (_, _, further), shown = with_face(guider=guider_of(), state=state, end_step=5)
    assert (shown["did"], shown["paused"]) == ("went on from step 3, stopped at step 5 of 6, seed 7", True)
    _, shown = with_face(guider=guider_of(), state=further)
    assert (shown["did"], shown["paused"]) == ("went on from step 5 to 6, seed 7", False)
    assert shown["went_on"]


def test_a_run_in_one_piece_says_nothing():
    _, shown = with_face(**begins())
    assert (shown["did"], shown["paused"], shown["remarks"]) == ("", False, [])


def test_the_end_of_the_first_half_of_a_split_schedule_is_a_pause():
    inputs = begins()
    inputs["sigmas"] = core.SplitSigmas.execute(inputs["sigmas"], 2).args[0]
    _, shown = with_face(**inputs)
    assert shown["did"].startswith("stopped at step 2 of 2, noise level ")
    assert shown["did"].endswith(" left, seed 7")
    assert shown["paused"]


@pytest.mark.parametrize(
    ("images", "said"), [(2, "seeds 7, 8"), (4, "seeds 7, 8, 9, 10"), (6, "seeds 7, 8, 9, 10 and 2 more")]
)
def test_the_seeds_of_a_batch_are_counted(images, said):
    assert with_face(**begins(images), end_step=3)[1]["did"] == f"stopped at step 3 of 6, {said}"


def test_another_seed_beside_a_state_is_said_on_the_face_once():
    (_, _, state), _ = with_face(**begins(), end_step=3)
    _, shown = with_face(guider=guider_of(), state=state, noise=noise_of(8))
    assert shown["remarks"] == ["noise has the seed 8, and the state was made with 7, which counts."]
    _, shown = with_face("StepwiseUniPC", guider=guider_of(), state=state, on_mismatch="fork")
    (said,) = shown["remarks"]
    assert said.startswith("fork: state was made by DPM++ 2M")


def test_the_page_gets_what_leads_to_the_node_and_no_more():
    graph = {
        "1": {"class_type": "RandomNoise", "inputs": {"noise_seed": 7}},
        "2": {"class_type": "StepwiseDPMpp2M", "inputs": {"noise": ["1", 0], "end_step": 3}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0]}},
    }
    face = Face.of(type("Hidden", (), {"unique_id": "2", "prompt": graph}))
    (_, _, state), _ = with_face(**begins(), end_step=3)
    (shown,) = face.after(state, None)["stepwise_face"]
    assert shown["node"] == "2"
    assert shown["with"] == {number: graph[number] for number in ("1", "2")}


# The mark of a latent that is not finished


def test_only_a_latent_with_noise_left_is_marked():
    (output, denoised, state), _ = with_face(**begins(), end_step=3)
    assert output[MARK]["step"] == 3
    assert MARK not in denoised
    assert MARK not in state.latent
    (output, denoised, _), _ = with_face(guider=guider_of(), state=state)
    assert MARK not in output
    assert MARK not in denoised
    heun = core.KSamplerSelect.execute("heun").args[0]
    assert MARK in with_face("StepwiseSample", **begins(), sampler=heun, end_step=3)[0][0]
    assert MARK not in with_face("StepwiseSample", **begins(), sampler=heun)[0][0]


def untouched(latent):
    return latent


def masked(latent):
    return core_nodes.SetLatentNoiseMask().set_mask(latent, torch.ones(1, 8, 8))[0]


def upscaled(latent):
    return core_nodes.LatentUpscaleBy().upscale(latent, "nearest-exact", 2.0)[0]


def batched(latent):
    return core_nodes.RepeatLatentBatch().repeat(latent, 2)[0]


@pytest.mark.parametrize("between", [untouched, masked, upscaled, batched])
def test_a_latent_that_is_not_finished_is_told_where_it_gets_noise_again(between, caplog):
    """Through the nodes of ComfyUI that copy a latent, to both kinds of step node; the result is marked no more."""
    (cut, *_), _ = with_face(**begins(), end_step=3)
    for run, inputs in ((with_face, begins()), (ksampler, {})):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            (output, *_), shown = run(**{**inputs, "latent_image": between(cut)})
        (said,) = shown["remarks"]
        assert NOT_FINISHED in said
        assert caplog.text.count(NOT_FINISHED) == 1
        assert MARK not in output


def test_a_latent_of_ksampler_is_told_too():
    (cut, *_), _ = ksampler(latent_image={"samples": torch.zeros(1, 4, 8, 8)}, end_step=3)
    _, shown = ksampler(latent_image=cut)
    assert NOT_FINISHED in shown["remarks"][0]


def test_a_latent_that_ends_its_part_at_level_0_is_finished():
    """As KSampler (Advanced) without leftover noise."""
    (cut, *_), shown = ksampler(
        latent_image={"samples": torch.zeros(1, 4, 8, 8)}, end_step=3, return_with_leftover_noise="disable"
    )
    assert MARK not in cut
    assert not shown["paused"]
    assert ksampler(latent_image=cut)[1]["remarks"] == []


def test_a_hand_over_without_more_noise_at_the_same_level_is_no_mistake():
    """As two KSampler (Advanced) pass a latent on; at another level it is one."""
    (cut, *_), _ = ksampler(latent_image={"samples": torch.zeros(1, 4, 8, 8)}, end_step=3)
    rest = {"latent_image": cut, "add_noise": "disable"}
    assert ksampler(**rest, start_step=3)[1]["remarks"] == []
    (said,) = ksampler(**rest, start_step=1)[1]["remarks"]
    assert "not finished (step 3 of 6) and goes on at another noise level: wire its state" in said


@pytest.mark.parametrize("mark", [None, 3, "x", {}, {"sigma": "high"}, {"step": None}])
def test_any_mark_of_that_name_is_survived(mark):
    inputs = begins()
    inputs["latent_image"] = {**inputs["latent_image"], MARK: mark}
    (output, *_), _ = with_face(**inputs)
    assert torch.equal(output["samples"], with_face(**begins())[0][0]["samples"])
