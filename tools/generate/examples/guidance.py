"""Examples of guidance: curves, rules, and expressions of predictions."""

from typing import Any

from ..demo_model import DIGITS
from ..description import Node, Workflow
from .parts import begin, begin_on_karras, empty, guider, loader, picture, prompt, rows

PROMPTS, SCHEDULE, RUNS = "Model and prompts", "Noise and noise levels", "One run for each"
PICTURE = "The picture"


def curve_and_interval() -> Workflow:
    rules, guiders = "How guidance acts", "Guidance 15, twice"
    w = Workflow(
        "Guidance curve and interval",
        "guidance_curve_and_interval",
        "## Guidance 15, everywhere and where it helps\nTop: the same scale at every noise level. Bottom: it follows "
        "the drawn curve, from high noise at its left to low noise at its right, and only inside the interval; "
        "elsewhere the negative prompt is not evaluated. Drag the points of the curve.",
        ((PROMPTS, SCHEDULE), (rules,), (guiders, RUNS), ("Two rows of pictures",)),
    )
    model, prompts, begins = begin_on_karras(w, PROMPTS, SCHEDULE)
    points = [[0.0, 0.1], [0.4, 0.4], [0.75, 0.6], [1.0, 0.3]]
    drawn = {"points": points, "interpolation": "monotone_cubic"}
    curve = w.add("StepwiseDrawnCurveGuidance", rules, curve=drawn)
    interval = w.add("StepwiseIntervalGuidance", rules, sigma_low=0.19, sigma_high=3.0, rule=curve[0])
    given = {"model": model[0], **prompts, "cfg": w.demo.high}
    made = [
        guider(w, guiders, "The same scale everywhere", **given),
        guider(w, guiders, "Curve and interval", **given, rule=interval[0]),
    ]
    titles = ("Everywhere", "Curve and interval")
    runs = [
        w.add("StepwiseDPMpp2M", RUNS, f"Run: {title.lower()}", compact=True, guider=one[0], **begins)
        for title, one in zip(titles, made, strict=True)
    ]
    rows(w, "Two rows of pictures", model, [(title, run[0]) for title, run in zip(titles, runs, strict=True)])
    return w


def drawn() -> Workflow:
    curves, run_group = "Guidance and noise, drawn", "20 steps of Euler"
    w = Workflow(
        "Euler with drawn guidance and noise levels",
        "euler_drawn",
        "## Draw the run\nLeft curve: how strongly the prompt guides, from high noise at its left to low noise at its "
        "right. Right curve: how fast the noise falls over the steps. Drag the points and run: Euler takes the steps.",
        ((PROMPTS,), (curves,), ("Guidance", run_group), (PICTURE,)),
    )
    model, positive, negative, latent = begin(w, PROMPTS)
    rises = {"points": [[0.0, 0.2], [0.5, 1.0], [1.0, 0.4]], "interpolation": "monotone_cubic"}
    falls = {"points": [[0.0, 1.0], [0.45, 0.6], [1.0, 0.0]], "interpolation": "monotone_cubic"}
    rule = w.add("StepwiseDrawnCurveGuidance", curves, curve=rises)
    sigmas = w.add("StepwiseCurveSchedule", curves, column=1, curve=falls, steps=20, model=model[0])
    prompts = {"positive": positive[0], "negative": negative[0]}
    guided = guider(w, "Guidance", model=model[0], **prompts, cfg=5.0, rule=rule[0])
    noise = w.add("RandomNoise", PROMPTS, compact=True, noise_seed=7)
    begins = {"noise": noise[0], "latent_image": latent[0], "sigmas": sigmas[0]}
    picture(w, PICTURE, w.add("StepwiseEuler", run_group, guider=guided[0], **begins), model)
    return w


def compared(
    w: Workflow, model: Node, begins: dict[str, Any], guiders: list[tuple[str, Node]], solver: str = "StepwiseDPMpp2M"
) -> None:
    """A run and a row of pictures for each guider, in nodes collapsed to their titles."""
    runs = [
        (title, w.add(solver, RUNS, f"Run: {title}", compact=True, guider=one[0], **begins)[0])
        for title, one in guiders
    ]
    rows(w, "A row of pictures for each", model, runs)


def without_burning() -> Workflow:
    rules, guiders = "Three rules", "High guidance, four times"
    w = Workflow(
        "High guidance without burnt contrast",
        "without_burning",
        "## What a rule does to high guidance\nFrom top to bottom: guidance 15 alone, with Adaptive Projected Guidance "
        "(APG), with Guidance Rescale, with Dynamic Thresholding. Rules are chained by their own `rule` input.",
        ((PROMPTS, SCHEDULE), (rules,), (guiders, RUNS), ("A row of pictures for each",)),
    )
    model, prompts, begins = begin_on_karras(w, PROMPTS, SCHEDULE)
    apg = w.add("StepwiseAPGGuidance", rules, norm_threshold=0.5 * (w.demo.pixels / 8))
    rescale = w.add("StepwiseRescaleGuidance", rules)
    threshold = w.add("StepwiseThresholdGuidance", rules, limit=w.demo.threshold)
    given = {"model": model[0], **prompts, "cfg": w.demo.high, "compact": True}
    made = [("Plain", guider(w, guiders, "Guidance 15", **given))]
    made += [
        (title, guider(w, guiders, f"Guidance 15, {title}", **given, rule=rule[0]))
        for title, rule in (("APG", apg), ("Rescale", rescale), ("Thresholding", threshold))
    ]
    compared(w, model, begins, made)
    return w


def more_prompts() -> Workflow:
    rules, guiders = "Rules that take one more prompt", "Guidance"
    w = Workflow(
        "More than two prompts",
        "more_prompts",
        "## One more prompt\nFrom top to bottom: Another Prompt adds a second one with a weight of its own; Dual "
        "Guidance goes from nothing over a middle prompt to the positive one, as instruction editing does; Perp-Neg "
        "takes out of the negative prompt what it shares with the positive one.",
        ((PROMPTS,), (rules, SCHEDULE), (guiders, RUNS), ("A row of pictures for each",)),
    )
    model, prompts, begins = begin_on_karras(w, PROMPTS, SCHEDULE)
    other = prompt(w, PROMPTS, "The other prompt", w.demo.others)
    another = w.add("StepwiseAnotherPromptGuidance", rules, other=other[0], prompt_scale=1.5)
    dual = w.add("StepwiseDualGuidance", rules, middle=other[0], middle_scale=1.5)
    perp = w.add("StepwisePerpNegGuidance", rules, empty=prompts["negative"])
    given = {"model": model[0], **prompts, "compact": True}
    made = [
        ("Another Prompt", guider(w, guiders, "With another prompt", **given, rule=another[0])),
        ("Dual Guidance", guider(w, guiders, "With a middle prompt", **given, rule=dual[0])),
        ("Perp-Neg", guider(w, guiders, "Perp-Neg", **{**given, "negative": other[0]}, rule=perp[0])),
    ]
    compared(w, model, begins, made)
    return w


def newer_rules() -> Workflow:
    rules, guiders = "Eight rules", "Guidance 7.5"
    w = Workflow(
        "Rules for today's models",
        "newer_rules",
        "## Eight ways with the same two predictions\nFrom top to bottom: guidance alone, six rules, each by itself, "
        "then the scale by component (video with sound) and steps. Momentum acts without a negative prompt, too.",
        ((PROMPTS, SCHEDULE), (rules,), (guiders, RUNS), ("A row of pictures for each",)),
        demo=DIGITS,
    )
    model, prompts, begins = begin_on_karras(w, PROMPTS, SCHEDULE)
    kinds = {
        "CFG Norm": w.add("StepwiseCFGNormGuidance", rules),
        "Tangential": w.add("StepwiseTCFGGuidance", rules),
        "Frequencies": w.add("StepwiseFDGGuidance", rules),
        "MAMBO-G": w.add("StepwiseMAMBOGGuidance", rules),
        "Sliding mode": w.add("StepwiseSMCGuidance", rules),
        "Momentum": w.add("StepwiseMomentumGuidance", rules, column=1),
    }
    component = w.add("StepwiseComponentGuidance", rules, column=1)
    kinds["Last steps"] = w.add("StepwiseStepsGuidance", rules, column=1, rule=component[0])
    given = {"model": model[0], **prompts, "cfg": 7.5, "compact": True}
    made = [("Plain", guider(w, guiders, "Plain", **given))]
    made += [(title, guider(w, guiders, title, **given, rule=rule[0])) for title, rule in kinds.items()]
    compared(w, model, begins, made)
    return w


def worse_versions() -> Workflow:
    leaves_group, formula, told = "Predictions, good and worse", "Away from the worse one", "Told less noise"
    w = Workflow(
        "Away from a worse version of the model",
        "worse_versions",
        "## Guidance without a negative prompt\nFrom top to bottom: guidance away from the empty prompt; with it what "
        "a prediction without attention in the middle of the network lacks (Perturbed Attention Guidance); guidance "
        "away from another model, here the same one with less detail; and the model told less noise than there is.",
        ((PROMPTS, told), (leaves_group, formula), ("Guiders", RUNS), ("A row of pictures for each",)),
        demo=DIGITS,
    )
    model, prompts, begins = begin_on_karras(w, PROMPTS, PROMPTS)
    more = w.add("StepwiseDetail", told, "More detail", model=model[0], amount=0.15)
    less = w.add("StepwiseDetail", told, "Less detail", compact=True, model=model[0], amount=-0.3)
    perturbation = w.add("StepwisePerturbation", leaves_group)
    good, worse, other = (
        w.add("StepwisePrediction", leaves_group, title, compact=True, conditioning=prompts["positive"], **by)
        for title, by in (
            ("Prediction", {}),
            ("Perturbed", {"perturbation": perturbation[0]}),
            ("Of the other model", {"model": less[0]}),
        )
    )
    empty_prompt = w.add(
        "StepwisePrediction", leaves_group, "Empty prompt", compact=True, conditioning=prompts["negative"]
    )
    plain = w.add("StepwiseCFGCombine", formula, "Plain", positive=good[0], negative=empty_prompt[0], scale=2.0)
    lacks = w.add("StepwiseAddPredictions", formula, "What is lacking", a=good[0], b=worse[0], factor_b=-1.0)
    added = {"a": plain[0], "b": lacks[0], "factor_b": 1.5}
    attention = w.add("StepwiseAddPredictions", formula, "Perturbed attention", column=1, **added)
    two = {"positive": good[0], "negative": other[0], "scale": 2.0}
    models = w.add("StepwiseCFGCombine", formula, "Two models", column=1, **two)
    made = [
        (title, w.add("StepwiseGuider", "Guiders", f"Guider: {title}", compact=True, model=by[0], prediction=each[0]))
        for title, by, each in (
            ("plain", model, plain),
            ("attention", model, attention),
            ("two models", model, models),
            ("detail", more, plain),
        )
    ]
    compared(w, model, begins, made)
    return w


def cfg_by_hand() -> Workflow:
    leaves_group, formula = "A prediction for each prompt", "Combined by a formula"
    w = Workflow(
        "CFG by hand",
        "cfg_by_hand",
        "## Guidance, taken apart\nTwo predictions, combined at a scale: the same picture as *DPM++ 2M Karras with "
        "CFG*, and the place where more prompts and other operations go. The report says what a run evaluates.",
        ((PROMPTS,), (leaves_group, formula), ("Guider and noise levels",), ("Steps", "Report", PICTURE)),
    )
    model, positive, negative, latent = begin(w, PROMPTS)
    leaves = [
        w.add("StepwisePrediction", leaves_group, f"Prediction ({name})", conditioning=each[0])
        for name, each in (("positive", positive), ("negative", negative))
    ]
    guided = w.add("StepwiseCFGCombine", formula, positive=leaves[0][0], negative=leaves[1][0], scale=w.demo.cfg)
    by_expression(w, model, guided, latent)
    return w


def two_prompts() -> Workflow:
    leaves_group, formula = "A prediction for each prompt", "First, guided, and a part of the second"
    w = Workflow(
        "Two prompts, two scales",
        "two_prompts_two_scales",
        "## One prompt guides, another leans on it\nGuidance towards the first prompt at scale 4. To it is added the "
        "difference that the second prompt makes, times 3 at high noise and fading out, where it is no longer "
        "evaluated: the second digit bends the shape, the first one keeps the last word.",
        ((PROMPTS, leaves_group), (formula,), ("Guider and noise levels",), ("Steps", "Report", PICTURE)),
        demo=DIGITS,
    )
    model = loader(w, PROMPTS)
    first = prompt(w, PROMPTS, "First prompt", w.demo.prompts)
    second = prompt(w, PROMPTS, "Second prompt", w.demo.others)
    negative = prompt(w, PROMPTS, w.demo.names[1], w.demo.nothing, compact=True)
    latent = empty(w, PROMPTS, compact=True)
    leaves = [
        w.add("StepwisePrediction", leaves_group, f"Prediction ({name})", compact=True, conditioning=each[0])
        for name, each in (("first", first), ("second", second), ("negative", negative))
    ]
    guided = w.add("StepwiseCFGCombine", formula, positive=leaves[0][0], negative=leaves[2][0], scale=4.0)
    change = w.add(
        "StepwiseAddPredictions", formula, "Second - negative", a=leaves[1][0], b=leaves[2][0], factor_b=-1.0
    )
    fading = w.add("StepwiseCurveGuidance", formula, "Fading out", start=1.0, end=0.0, low=0.0, sigma_end=1.0)
    given = {"prediction": change[0], "factor": 3.0, "rule": fading[0]}
    scaled = w.add("StepwiseScalePrediction", formula, "Times 3, fading out", column=1, **given)
    both = w.add("StepwiseAddPredictions", formula, "Both", column=1, a=guided[0], b=scaled[0])
    by_expression(w, model, both, latent)
    return w


def by_expression(w: Workflow, model: Node, prediction: Node, latent: Node) -> None:
    """From an expression of predictions to the picture, with the report on the way."""
    group = "Guider and noise levels"
    sigmas = w.add("StepwiseKarrasSchedule", group, steps=20, model=model[0])
    inputs = {"model": model[0], "prediction": prediction[0], "sigmas": sigmas[0]}
    guided = w.add("StepwiseGuider", group, **inputs)
    noise = w.add("RandomNoise", group, compact=True, noise_seed=7)
    w.add("PreviewAny", "Report", "Report", size=(330, 150), source=guided[1])
    run = {"noise": noise[0], "latent_image": latent[0], "sigmas": sigmas[0]}
    sampled = w.add("StepwiseDPMpp2M", "Steps", compact=True, guider=guided[0], **run)
    picture(w, PICTURE, sampled, model)


def over_the_run() -> Workflow:
    leaves_group, changes = "A prediction for each prompt", "Which prompt counts when"
    w = Workflow(
        "Mix, fade and switch prompts",
        "mix_fade_switch",
        "## Two prompts over one run\nFrom top to bottom: half of each at every noise level; from the one to the other "
        "along a curve; the second one inside a range of noise levels and the first one elsewhere. What does not count "
        "is not evaluated.",
        ((PROMPTS,), (leaves_group, changes, SCHEDULE), ("Guiders", RUNS), ("A row of pictures for each",)),
    )
    model, prompts, begins = begin_on_karras(w, PROMPTS, SCHEDULE)
    other = prompt(w, PROMPTS, "The other prompt", w.demo.others)
    a, b = (
        w.add("StepwisePrediction", leaves_group, title, compact=True, conditioning=each)
        for title, each in (("Prediction (first)", prompts["positive"]), ("Prediction (other)", other[0]))
    )
    mixed = w.add("StepwiseMixPredictions", changes, a=a[0], b=b[0], amount=0.5)
    faded = w.add("StepwiseCrossfadePredictions", changes, column=1, a=a[0], b=b[0])
    switched = w.add("StepwiseSwitchPrediction", changes, inside=b[0], outside=a[0], sigma_low=0.3, sigma_high=2.0)
    made = [
        (
            title,
            w.add("StepwiseGuider", "Guiders", f"Guider: {title}", compact=True, model=model[0], prediction=each[0]),
        )
        for title, each in (("mixed", mixed), ("faded", faded), ("switched", switched))
    ]
    compared(w, model, begins, made)
    return w


def apg_by_hand() -> Workflow:
    parts, sums = "What guidance adds, taken apart", "Prompt + 14 times a part"
    w = Workflow(
        "Projected guidance by hand",
        "projected_by_hand",
        "## Which part of guidance burns\nGuidance adds the difference of two predictions. Top: all of it, at scale "
        "15. Middle: the part along the prediction, which raises contrast. Bottom: the part across it, which is "
        "Adaptive Projected Guidance, with its size clamped.",
        ((PROMPTS, SCHEDULE), (parts,), (sums, "Guiders"), (RUNS, "A row of pictures for each")),
        demo=DIGITS,
    )
    model, prompts, begins = begin_on_karras(w, PROMPTS, SCHEDULE)
    cond, uncond = (
        w.add("StepwisePrediction", parts, title, compact=True, conditioning=prompts[name])
        for title, name in (("Prediction (positive)", "positive"), ("Prediction (negative)", "negative"))
    )
    change = w.add("StepwiseAddPredictions", parts, "Positive - negative", a=cond[0], b=uncond[0], factor_b=-1.0)
    along = w.add("StepwiseProjectPrediction", parts, "The part along", prediction=change[0], onto=cond[0])
    clamped = w.add("StepwiseClampPrediction", parts, "Not larger than", prediction=change[0], limit=0.5)
    across = w.add("StepwiseRejectPrediction", parts, "The part across", prediction=clamped[0], onto=cond[0])
    made = []
    for title, part in (("all of it", change), ("along", along), ("across", across)):
        added = {"a": cond[0], "b": part[0], "factor_b": w.demo.high - 1.0, "compact": True}
        whole = w.add("StepwiseAddPredictions", sums, f"Add: {title}", **added)
        given = {"model": model[0], "prediction": whole[0], "compact": True}
        made.append((title, w.add("StepwiseGuider", "Guiders", f"Guider: {title}", **given)))
    compared(w, model, begins, made)
    return w
