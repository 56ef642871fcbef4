"""Examples that show what a sampler does on the way."""

from typing import Any

from ..description import Workflow
from .parts import begin_on_karras, guider, loader, prompt, rows, saved

PROMPTS, SCHEDULE, GUIDANCE = "Model and prompts", "Noise and noise levels", "Guidance"


def filmstrips() -> Workflow:
    runs, strips = "DDPM above, DDIM below", "What the model expects, step by step"
    w = Workflow(
        "DDPM beside DDIM, step by step",
        "filmstrips",
        "## The same noise, two ways down\nTrajectory takes the steps of any SAMPLER and keeps what the model expects "
        "the picture to be at every second step, with the noise level over it. DDPM (above) adds noise at every step: "
        "its updates turn by about a right angle. DDIM (below) adds none and goes nearly straight: its turns in the "
        "plot are small.",
        ((PROMPTS, SCHEDULE), (GUIDANCE,), (runs,), (strips,)),
    )
    model = loader(w, PROMPTS)
    positive = prompt(w, PROMPTS, w.demo.names[0], "cat face\nrocket\npizza", size=(290, 110))
    negative = prompt(w, PROMPTS, w.demo.names[1], w.demo.nothing, compact=True)
    size = {"width": w.demo.pixels, "height": w.demo.pixels, "batch_size": 3}
    latent = w.add("EmptyLatentImage", PROMPTS, compact=True, **size)
    noise = w.add("RandomNoise", SCHEDULE, noise_seed=7, compact=True)
    sigmas = w.add("StepwiseKarrasSchedule", SCHEDULE, compact=True, steps=20, model=model[0])
    given = {"model": model[0], "positive": positive[0], "negative": negative[0]}
    guided = guider(w, GUIDANCE, **given)
    ddpm = w.add("StepwiseDDPMSampler", GUIDANCE, compact=True)
    ddim = w.add("StepwiseDDIMSampler", GUIDANCE, compact=True, eta=0.0)
    begins = {"guider": guided[0], "noise": noise[0], "latent_image": latent[0], "sigmas": sigmas[0]}
    made = [
        w.add("StepwiseTrajectory", runs, title, sampler=sampler[0], **begins, vae=model[1], steps="every 2", **more)
        for title, sampler, more in (
            ("DDPM", ddpm, {"previews": "every image", "size": (330, 0)}),
            ("DDIM", ddim, {"compact": True}),
        )
    ]
    joined = {"image1": made[0][8], "image2": made[1][8], "direction": "down", "match_image_size": True}
    stack = w.add("ImageStitch", strips, compact=True, **joined, spacing_width=8, spacing_color="black")
    saved(w, strips, stack[0], size=(440, 330))
    w.add("PreviewImage", strips, "The figures of DDIM", column=1, size=(330, 330), images=made[1][7])
    return w


def taken_apart() -> Workflow:
    steps, rows_of, whole = 4, "By hand, and in one node", "DPM++ 2M in one node"
    groups = [f"Step {number}" for number in range(1, steps + 1)]
    w = Workflow(
        "DPM++ 2M taken apart",
        "taken_apart",
        "## A sampler by hand\nPredict asks the model what the clean picture is. Extrapolate goes on in the direction "
        "in which that prediction has moved since the step before; the first step has none, and the last, to level 0, "
        "goes without. Step moves x to the next noise level. Then again. The lower row is DPM++ 2M in one node: the "
        "same to the last bit.",
        ((PROMPTS, SCHEDULE), *((group,) for group in groups), (whole, rows_of)),
    )
    model, prompts, begins = begin_on_karras(w, PROMPTS, SCHEDULE, steps=steps)
    guided = guider(w, PROMPTS, model=model[0], **prompts, cfg=2.0, compact=True)
    narrow = {"size": (220, 0)}
    taken: dict[str, Any] = begins
    before, moved = None, None
    for number, group in enumerate(groups, 1):
        call = w.add("StepwisePredict", group, f"Predict {number}", guider=guided[0], **taken, **narrow)
        x0 = call[1]
        if before is not None and number < steps:
            mixed = {"state": call[0], "x0": call[1], "previous_x0": before}
            x0 = w.add("StepwiseExtrapolate", group, f"Extrapolate {number}", **mixed, **narrow)[0]
        moved = w.add("StepwiseStep", group, f"Step {number}", guider=guided[0], state=call[0], x0=x0, **narrow)
        before, taken = call[1], {"state": moved[0]}
    one = w.add("StepwiseDPMpp2M", whole, compact=True, guider=guided[0], **begins)
    assert moved is not None
    rows(w, rows_of, model, [("By hand", moved[1]), ("In one node", one[0])], column=0)
    return w
