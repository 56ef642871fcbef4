"""Examples of fitted plans and of recipes."""

from ..demo_model import DIGITS
from ..description import Workflow
from .parts import begin, empty, guider, rows

PROMPTS, PICTURES = "Model and prompts", "Two rows of pictures"


def fit_a_plan() -> Workflow:
    fit, run, plain = "Fit once, save the recipe", "Ten calls of the fitted plan", "Ten calls of DPM++ 2M Karras"
    w = Workflow(
        "Fit a plan - ten calls for twenty",
        "fit_a_plan",
        "## A plan for one model and one guidance\nFit Plan compares plans of ten calls with the model's own run in "
        "160, on starting noises of its own, and says how far each ends from it. Save Plan keeps the best as a recipe. "
        "`budget` full also moves the levels. Top: the fitted plan. Bottom: DPM++ 2M Karras, from the same noise.",
        ((PROMPTS,), (fit,), (run, plain), (PICTURES,)),
        demo=DIGITS,
    )
    model, positive, negative, latent = begin(w, PROMPTS, compact=True)
    noise = w.add("RandomNoise", PROMPTS, noise_seed=7, compact=True)
    given = {"model": model[0], "positive": positive[0], "negative": negative[0]}
    guided = guider(w, PROMPTS, compact=True, **given, cfg=7.5)
    small = empty(w, fit, compact=True)
    small.title, small.inputs["batch_size"] = "The size to fit, five at a time", 5
    sockets = {"guiders.guider_1": guided[0]}
    fitted = w.add("StepwiseFitPlan", fit, size=(400, 420), **sockets, latent_image=small[0], calls=10, starts=10)
    w.add("StepwiseSavePlan", fit, compact=True, plan=fitted[0], filename_prefix="stepwise/digits")
    sampler = w.add("StepwisePlanSampler", run, plan=fitted[0])
    begins = {"guider": guided[0], "noise": noise[0], "latent_image": latent[0]}
    ten = w.add("StepwiseSample", run, compact=True, **begins, sampler=sampler[0], sigmas=sampler[1])
    karras = w.add("StepwiseKarrasSchedule", plain, compact=True, steps=10, model=model[0])
    other = w.add("StepwiseDPMpp2M", plain, compact=True, **begins, sigmas=karras[0])
    rows(w, PICTURES, model, [("Fitted plan", ten[0]), ("DPM++ 2M Karras", other[0])])
    return w


def load_a_recipe() -> Workflow:
    written, loaded = "Today: levels, a solver, a guidance", "Tomorrow: select this group, press Ctrl+M, run"
    shown, again = "The picture of these levels", "The picture of the file"
    w = Workflow(
        "Load a recipe",
        "load_a_recipe",
        "## How to sample, as a file\nTurbo models come with a list of levels, a solver and a guidance. Save Plan "
        "keeps the three in one small file, with a note; a fitted plan is saved in the same way. Later select the "
        "group below on the right, press Ctrl+M to switch it on, choose the file in Load Plan, and run.",
        ((PROMPTS,), (written,), (shown, loaded), (again,)),
        demo=DIGITS,
    )
    model, positive, negative, latent = begin(w, PROMPTS, compact=True, variant="lcm")
    noise = w.add("RandomNoise", PROMPTS, noise_seed=7, compact=True)
    guided = guider(w, PROMPTS, compact=True, model=model[0], positive=positive[0], negative=negative[0], cfg=1.0)
    levels = w.add("StepwiseParseSigmas", written, size=(300, 0), text="14.61 2.2 0.7 0.2 0")
    sampler = w.add("StepwiseLCMSampler", written, compact=True)
    parts = {"sampler": sampler[0], "sigmas": levels[0], "model": model[0]}
    kept = {"filename_prefix": "stepwise/four", "cfg": 1.0, "note": "LCM in four calls"}
    w.add("StepwiseSavePlan", written, size=(330, 300), **parts, **kept)
    begins = {"guider": guided[0], "noise": noise[0], "latent_image": latent[0]}
    first = w.add("StepwiseSample", shown, compact=True, **begins, sampler=sampler[0], sigmas=levels[0])
    rows(w, shown, model, [("Four calls", first[0])])
    off = {"muted": True}
    file = w.add("StepwiseLoadPlan", loaded, **off, file="stepwise/four_00001_.safetensors [output]")
    plan = w.add("StepwisePlanSampler", loaded, compact=True, **off, plan=file[0])
    second = w.add("StepwiseSample", loaded, compact=True, **off, **begins, sampler=plan[0], sigmas=plan[1])
    decoded = w.add("VAEDecode", again, compact=True, **off, samples=second[0], vae=model[1])
    images = w.add("StepwiseImageGrid", again, compact=True, **off, images=decoded[0], columns=10, gap=8)
    w.add("SaveImage", again, size=(340, 200), **off, images=images[0], filename_prefix="stepwise")
    return w
