"""Examples of runs that stop, go on, fork and hand over."""

from typing import Any

from ..description import Workflow
from .parts import begin, begin_on_karras, guider, loader, prompt, rows

# Of the edit: more than half of the way up, where the picture still has its composition.
DENOISE = 0.6
PROMPTS, SCHEDULE, GUIDANCE = "Model and prompts", "Noise and noise levels", "Guidance"


def pause_and_resume() -> Workflow:
    stop, on, pictures = "Stop after step 5 of 20", "Go on, and in one piece", "Pause, gone on, one piece"
    state = "The state, saved and read"
    w = Workflow(
        "Pause and resume",
        "pause_and_resume",
        "## Stop, save, go on\nThe first DPM++ 2M stops after step 5 of 20 (`end_step`); Save State writes the run to "
        "ComfyUI's output folder. The second goes on from there. Tomorrow, or after a crash: put Load State in the "
        "place of the first. Top: the model's idea of the picture at the pause. Middle: gone on. Bottom: the run in "
        "one piece, the same to the last bit.",
        ((PROMPTS, SCHEDULE), (GUIDANCE, stop), (on,), (state, pictures)),
    )
    model, prompts, begins = begin_on_karras(w, PROMPTS, SCHEDULE)
    guided = guider(w, GUIDANCE, model=model[0], **prompts, compact=True)
    first = w.add("StepwiseDPMpp2M", stop, "To step 5", guider=guided[0], **begins, end_step=5)
    w.add("StepwiseSaveState", state, column=1, state=first[2], filename_prefix="stepwise/pause")
    seen = w.add("StepwiseInspectState", state, size=(330, 200), state=first[2])
    second = w.add("StepwiseDPMpp2M", on, "From step 5 on", guider=guided[0], state=first[2])
    whole = w.add("StepwiseDPMpp2M", on, "In one piece", compact=True, guider=guided[0], **begins)
    rows(w, pictures, model, [("At the pause", seen[1]), ("Gone on", second[0]), ("One piece", whole[0])])
    return w


def load_tomorrow() -> Workflow:
    today, so_far = "Today: to step 8 of 20", "Saved, and the picture so far"
    tomorrow = "Tomorrow: select this group, press Ctrl+M, run"
    w = Workflow(
        "Save a run and load it tomorrow",
        "save_and_load",
        "## A run in two sittings\nRun: KSampler (Stepwise) stops at step 8 and Save State writes a file. Later select "
        "the group below on the right, press Ctrl+M to switch it on, choose the file in Load State, and run: only the "
        "remaining steps are taken. Seed, latent and schedule come with the state; keep steps, solver and schedule as "
        "they are.",
        ((PROMPTS,), (today,), (so_far, tomorrow)),
    )
    model, positive, negative, latent = begin(w, PROMPTS)
    inputs = {"model": model[0], "positive": positive[0], "negative": negative[0]}
    common = {**inputs, "seed": 7, "cfg": w.demo.cfg}
    first = w.add("StepwiseKSampler", today, size=(330, 0), **common, latent_image=latent[0], end_step=8)
    w.add("StepwiseSaveState", so_far, compact=True, state=first[2], filename_prefix="stepwise/tomorrow")
    decoded = w.add("VAEDecode", so_far, compact=True, samples=first[1], vae=model[1])
    shown = {"columns": w.demo.columns, "gap": 8}
    images = w.add("StepwiseImageGrid", so_far, compact=True, images=decoded[0], **shown)
    w.add("PreviewImage", so_far, column=1, size=(330, 210), images=images[0])
    off = {"muted": True}
    loaded = w.add("StepwiseLoadState", tomorrow, **off, file="stepwise/tomorrow_00001_.safetensors [output]")
    second = w.add("StepwiseKSampler", tomorrow, compact=True, **off, **common, state=loaded[0])
    finished = w.add("VAEDecode", tomorrow, compact=True, **off, samples=second[0], vae=model[1])
    last = w.add("StepwiseImageGrid", tomorrow, compact=True, **off, images=finished[0], **shown)
    w.add("SaveImage", tomorrow, column=1, size=(330, 250), **off, images=last[0], filename_prefix="stepwise")
    return w


def edit_a_picture() -> Workflow:
    picture, up, edited = "A picture, and its way up", "Unsample: up to its noise", "Down again: as it was, and edited"
    pictures = "Before, back, edited, from its noise"
    w = Workflow(
        "Edit a picture - unsample, change the prompt, sample",
        "edit_a_picture",
        "## Up to the noise, and down with another prompt\nHeun takes the picture up the reversed schedule with the "
        "prompt that describes it, at guidance 1. Down again with that prompt it is the picture (second row); with "
        "another prompt it is edited (third). A lower `denoise` keeps more. Last row: all the way up, and that noise "
        "as the start of a new picture.",
        ((PROMPTS,), (picture, GUIDANCE), (up,), (edited, pictures)),
    )
    model, positive, negative, latent = begin(w, PROMPTS, compact=True)
    other = prompt(w, PROMPTS, "What to make of it", w.demo.others)
    inputs = {"model": model[0], "positive": positive[0], "negative": negative[0], "latent_image": latent[0]}
    start = w.add("StepwiseKSampler", picture, compact=True, **inputs, seed=7, cfg=w.demo.cfg)
    none = w.add("StepwiseNoise", picture, "No starting noise", compact=True, start="none")
    part = w.add("StepwiseKarrasSchedule", picture, compact=True, steps=10, denoise=DENOISE, model=model[0])
    whole = w.add("StepwiseKarrasSchedule", picture, "All the way", compact=True, steps=20, model=model[0])
    turned = w.add("StepwiseReverseSigmas", picture, sigmas=part[0], lowest=0.0)
    all_up = w.add("StepwiseReverseSigmas", picture, "All the way up", compact=True, sigmas=whole[0], lowest=0.0)
    plain = guider(w, GUIDANCE, "As it is: one prompt", model=model[0], positive=positive[0], cfg=1.0)
    prompts = {"positive": other[0], "negative": negative[0], "compact": True}
    edit = guider(w, GUIDANCE, "The edit", model=model[0], **prompts)
    begins: dict[str, Any] = {"guider": plain[0], "noise": none[0], "latent_image": start[0]}
    risen = w.add("StepwiseHeun", up, "Up to the level of denoise", **begins, sigmas=turned[0])
    top = w.add("StepwiseDPMpp2M", up, "All the way up to noise", compact=True, **begins, sigmas=all_up[0])
    own = w.add("StepwiseNoiseFromLatent", up, compact=True, latent=top[0], model=model[0], normalise=True)
    down: dict[str, Any] = {"noise": none[0], "latent_image": risen[0], "sigmas": part[0]}
    back = w.add("StepwiseHeun", edited, "Back again", compact=True, guider=plain[0], **down)
    new = w.add("StepwiseDPMpp2M", edited, "Edited", compact=True, guider=edit[0], **down)
    fresh = {"noise": own[0], "latent_image": latent[0], "sigmas": whole[0], "compact": True}
    another = w.add("StepwiseDPMpp2M", edited, "From its noise", guider=edit[0], **fresh)
    shown = [("Before", start[0]), ("Back again", back[0]), ("Edited", new[0]), ("From its noise", another[0])]
    rows(w, pictures, model, shown)
    return w


def fork_into_guidances() -> Workflow:
    four, beginning, endings = "Four guidances", "One beginning: steps 1 to 4", "Four endings: steps 5 to 20"
    w = Workflow(
        "Fork one run into four guidances",
        "fork_into_guidances",
        "## One beginning, four endings\nThe first four steps decide what goes where; they are made once, at guidance "
        "3. From that state four runs go on, each with a guidance of its own: 1, 3, 7.5 and 15, from top to bottom. "
        "Forking is wiring a state twice.",
        ((PROMPTS, SCHEDULE), (four,), (beginning,), (endings, "Four rows of pictures")),
    )
    model, prompts, begins = begin_on_karras(w, PROMPTS, SCHEDULE)
    guiders = [
        guider(w, four, f"Guidance {cfg:g}", model=model[0], **prompts, cfg=cfg) for cfg in (1.0, 3.0, 7.5, 15.0)
    ]
    first = w.add("StepwiseDPMpp2M", beginning, "To step 4", guider=guiders[1][0], **begins, end_step=4)
    ends = [
        w.add("StepwiseDPMpp2M", endings, f"On at guidance {cfg}", compact=True, guider=guided[0], state=first[2])
        for guided, cfg in zip(guiders, ("1", "3", "7.5", "15"), strict=True)
    ]
    rows(w, "Four rows of pictures", model, [(str(end.title), end[0]) for end in ends])
    return w


def hand_over() -> Workflow:
    high_group, low_group = "At high noise: to step 8", "At low noise: from step 8 on"
    w = Workflow(
        "High-noise model hands over to low-noise model",
        "hand_over",
        "## Two models, one run\nThe first model takes the steps at high noise, the second those at low noise, as with "
        "Wan 2.2's pair: each with its own guidance, on one schedule, and nothing is lost between them. Here the "
        "second is the distilled twin of the first, without guidance. Top: handed over at step 8. Bottom: the first "
        "model alone.",
        ((PROMPTS, SCHEDULE), (high_group,), (low_group,), ("The first model alone", "Two rows of pictures")),
    )
    model, prompts, begins = begin_on_karras(w, PROMPTS, SCHEDULE)
    twin = loader(w, PROMPTS, "Low-noise model", "lcm", compact=True)
    high = guider(w, high_group, "At high noise", model=model[0], **prompts)
    low = guider(w, low_group, "At low noise", model=twin[0], **prompts, cfg=1.0)
    first = w.add("StepwiseDPMpp2M", high_group, "High noise: to step 8", guider=high[0], **begins, end_step=8)
    second = w.add("StepwiseDPMpp2M", low_group, "Low noise: from step 8", guider=low[0], state=first[2])
    given = {"guider": high[0], **begins, "compact": True}
    alone = w.add("StepwiseDPMpp2M", "The first model alone", "One model, 20 steps", **given)
    rows(w, "Two rows of pictures", model, [("Handed over", second[0]), ("One model", alone[0])])
    return w
