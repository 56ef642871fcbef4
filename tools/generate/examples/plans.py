"""Examples of fitted plans and of recipes."""

from ..demo_model import DIGITS
from ..description import Workflow
from .parts import begin, guider, rows

# What Save Plan calls the first recipe of `fit_a_plan`.
FITTED = "stepwise/digits_00001_.safetensors [output]"
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
    sockets = {"guiders.guider_1": guided[0]}
    fitted = w.add("StepwiseFitPlan", fit, size=(400, 420), **sockets, latent_image=latent[0], calls=10, starts=10)
    w.add("StepwiseSavePlan", fit, compact=True, plan=fitted[0], filename_prefix="stepwise/digits")
    sampler = w.add("StepwisePlanSampler", run, plan=fitted[0])
    begins = {"guider": guided[0], "noise": noise[0], "latent_image": latent[0]}
    ten = w.add("StepwiseSample", run, compact=True, **begins, sampler=sampler[0], sigmas=sampler[1])
    karras = w.add("StepwiseKarrasSchedule", plain, compact=True, steps=10, model=model[0])
    other = w.add("StepwiseDPMpp2M", plain, compact=True, **begins, sigmas=karras[0])
    rows(w, PICTURES, model, [("Fitted plan", ten[0]), ("DPM++ 2M Karras", other[0])])
    return w


def load_a_recipe() -> Workflow:
    written, shown = "A recipe by hand", "The picture of these eight calls"
    loaded, again = "A recipe of Fit a plan: Ctrl+M, run", "The picture of the recipe"
    w = Workflow(
        "Load a recipe",
        "load_a_recipe",
        "## How to sample, as a file\nSave Plan keeps a list of levels, a sampler and a guidance in one small file, as "
        "turbo models come with them. A fitted plan is saved in the same way: run the example *Fit a plan*, click "
        "with Ctrl on the titles of both grey groups, press Ctrl+M to switch them on, choose the file in Load "
        "Plan, and run.",
        ((PROMPTS,), (written,), (shown, loaded), (again,)),
        demo=DIGITS,
    )
    model, positive, negative, latent = begin(w, PROMPTS, compact=True)
    noise = w.add("RandomNoise", PROMPTS, noise_seed=7, compact=True)
    given = {"model": model[0], "positive": positive[0], "negative": negative[0]}
    guided = guider(w, PROMPTS, compact=True, **given, cfg=7.5)
    levels = w.add("StepwiseParseSigmas", written, size=(300, 0), text="14.61 7 3.5 1.8 0.9 0.4 0.16 0.05 0")
    sampler = w.add("StepwiseDPMpp2MSampler", written, compact=True)
    parts = {"sampler": sampler[0], "sigmas": levels[0], "model": model[0]}
    kept = {"filename_prefix": "stepwise/eight", "cfg": 7.5, "note": "eight calls, levels by hand"}
    w.add("StepwiseSavePlan", written, size=(330, 300), **parts, **kept)
    begins = {"guider": guided[0], "noise": noise[0], "latent_image": latent[0]}
    first = w.add("StepwiseSample", shown, compact=True, **begins, sampler=sampler[0], sigmas=levels[0])
    rows(w, shown, model, [("Eight calls", first[0])])
    off = {"muted": True}
    file = w.add("StepwiseLoadPlan", loaded, **off, file=FITTED)
    plan = w.add("StepwisePlanSampler", loaded, compact=True, **off, plan=file[0])
    second = w.add("StepwiseSample", loaded, compact=True, **off, **begins, sampler=plan[0], sigmas=plan[1])
    decoded = w.add("VAEDecode", again, compact=True, **off, samples=second[0], vae=model[1])
    images = w.add("StepwiseImageGrid", again, compact=True, **off, images=decoded[0], columns=10, gap=8)
    w.add("SaveImage", again, size=(340, 200), **off, images=images[0], filename_prefix="stepwise")
    return w
