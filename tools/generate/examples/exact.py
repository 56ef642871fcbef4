"""Examples on a model whose predictions are exact: the ways of runs, and reports on samplers."""

from ..description import Link, Node, Workflow
from .parts import saved

SIDE = 384


def mixture_ways() -> Workflow:
    levels, samplers, runs = "The data, and noise levels", "Samplers", "A run in each picture"
    watched, pictures = "A run of Trajectory", "Side by side"
    w = Workflow(
        "The ways of a run on a mixture",
        "mixture_ways",
        "## Where a sampler goes\nThe data are six Gaussians, and the model's predictions are exact, so all that is "
        "wrong is the sampler's. Each line is a value on its way from noise to an orange dot. Above: Euler in 5 steps "
        "and in 40, DPM++ 2M in 5. Below, towards two of the six: DPM++ 2M in 20 at guidance 4; Euler Ancestral in 20 "
        "at guidance 1, which adds noise, run by Trajectory; and what the model expects on that run's way.",
        ((levels, samplers), (runs,), (watched,), (pictures,)),
    )
    model = w.add("StepwiseMixtureModel", levels, compact=True)
    schedules = {
        steps: w.add(
            "StepwiseKarrasSchedule", levels, f"Karras, {steps} steps", compact=steps != 5, steps=steps, model=model[0]
        )
        for steps in (5, 20, 40)
    }
    euler = w.add("StepwiseEulerSampler", samplers, compact=True)
    multistep = w.add("StepwiseDPMpp2MSampler", samplers, compact=True)
    noisy = w.add("StepwiseEulerAncestralSampler", samplers, compact=True)
    guided = {"prompt": "0, 2", "cfg": 4.0}
    made = []
    for title, sampler, steps, given in (
        ("Euler, 5 steps", euler, 5, {}),
        ("Euler, 40 steps", euler, 40, {}),
        ("DPM++ 2M, 5 steps", multistep, 5, {}),
        ("DPM++ 2M at guidance 4", multistep, 20, guided),
    ):
        wired = {"sampler": sampler[0], "sigmas": schedules[steps][0], "size": SIDE}
        made.append(shown(w, runs, title, compact=not given, **wired, **given))
    asked = made[-1]
    prompts = {"model": asked[0], "positive": asked[1], "negative": asked[2]}
    guider = w.add("StepwiseCFGGuider", watched, compact=True, **prompts, cfg=1.0)
    begins = {
        "noise": w.add("RandomNoise", watched, compact=True, noise_seed=7)[0],
        "latent_image": w.add("EmptyLatentImage", watched, "48 values", compact=True, width=64, height=48)[0],
        "sigmas": schedules[20][0],
    }
    seen = w.add("StepwiseTrajectory", watched, compact=True, guider=guider[0], sampler=noisy[0], **begins)
    for title, latent in (("Euler Ancestral", seen[3]), ("Expected on it", seen[4])):
        few = {"prompt": guided["prompt"], "starts": 16, "size": SIDE}
        made.append(shown(w, watched, title, compact=True, trajectory=latent, **few))
    lines = [beside(w, pictures, [each[3] for each in made[at : at + 3]]) for at in (0, 3)]
    saved(w, pictures, beside(w, pictures, lines, "down"), size=(460, 340))
    return w


def shown(w: Workflow, group: str, title: str, compact: bool, **inputs) -> Node:
    """A Mixture Model with its picture; `size` there is an input of the node."""
    node = w.add("StepwiseMixtureModel", group, title, compact=compact)
    node.inputs |= inputs
    return node


def sampler_report() -> Workflow:
    asked, reports = "Two samplers of the same idea", "What is found"
    w = Workflow(
        "What a sampler gets right",
        "sampler_report",
        "## Any SAMPLER, measured\nSampler Report runs a sampler on data whose exact answer is known; no model is "
        "needed. heunpp2 of ComfyUI calls the model three times a step and is of order 1: its errors fall as Euler's, "
        "which it stays behind at equal calls. Heun of this pack is of order 2. Wire a sampler of any pack in their "
        "place.",
        ((asked,), (reports,), ("Errors over model calls",)),
    )
    theirs = w.add("KSamplerSelect", asked, sampler_name="heunpp2")
    ours = w.add("StepwiseHeunSampler", asked, compact=True)
    made = [
        w.add(
            "StepwiseSamplerReport", reports, title, column=column, size=(430, 560), sampler=sampler[0], families="VE"
        )
        for column, (title, sampler) in enumerate((("heunpp2", theirs), ("Heun", ours)))
    ]
    saved(w, "Errors over model calls", beside(w, "Errors over model calls", [each[1] for each in made]))
    return w


def beside(w: Workflow, group: str, images: list[Link], direction: str = "right") -> Link:
    """The pictures in a row, or under each other."""
    whole = images[0]
    for image in images[1:]:
        joined = {"image1": whole, "image2": image, "direction": direction}
        whole = w.add("ImageStitch", group, compact=True, **joined, spacing_width=8, spacing_color="black")[0]
    return whole
