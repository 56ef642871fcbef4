"""The example workflows, each described once."""

from typing import Any

from .graph import Link, Node, Workflow


def first_picture() -> Workflow:
    w = Workflow(
        "DPM++ 2M Karras with CFG",
        "dpmpp_2m_karras_cfg",
        "## The recommended default\nDPM++ 2M on the Karras schedule, 20 steps, guidance 7.5. "
        "The Digits model comes with the pack; wire any other MODEL, prompts and VAE in its place.",
    )
    model, positive, negative, latent = digits(w)
    run = default_run(w, model, positive, negative, latent)
    picture(w, run, model, 2)
    return w


def default_run(w: Workflow, model: Node, positive: Node, negative: Node, latent: Node) -> Node:
    """DPM++ 2M on the Karras schedule of the model, 20 steps, guidance 7.5: the recommended default."""
    prompts = {"positive": positive[0], "negative": negative[0]}
    guider = w.add("StepwiseCFGGuider", (1, 0), model=model[0], **prompts, cfg=7.5)
    noise = w.add("RandomNoise", (1, 4), noise_seed=7)
    sigmas = w.add("StepwiseKarrasSchedule", (1, 7), steps=20, model=model[0])
    inputs = {"noise": noise[0], "latent_image": latent[0], "sigmas": sigmas[0]}
    return w.add("StepwiseDPMpp2M", (2, 0), guider=guider[0], **inputs)


def picture(w: Workflow, run: Node, model: Node, first_row: float) -> None:
    decoded = w.add("VAEDecode", (3, 0), samples=run[0], vae=model[1])
    grid = w.add("StepwiseImageGrid", (3, first_row), images=decoded[0], columns=5, gap=8)
    w.add("SaveImage", (4, 0), images=grid[0], filename_prefix="stepwise", size=(420, 330))


def side_by_side() -> Workflow:
    w = Workflow(
        "DDPM, DDIM, DPM-Solver and LCM side by side",
        "side_by_side",
        "## Four ways from the same noise\nFrom top to bottom: DDPM 1000 steps, DDIM 50, DPM-Solver of order 2 with 10 "
        "steps (19 model calls), LCM 4 steps on the distilled model.",
    )
    positive = w.add("StepwiseDigit", (0, 0), "Digits to draw", labels="0-9")
    negative = w.add("StepwiseDigit", (0, 2.4), "No class", labels="")
    latent = w.add("EmptyLatentImage", (0, 4.8), width=64, height=64, batch_size=10)
    noise = w.add("RandomNoise", (0, 8), noise_seed=7)
    model = w.add("StepwiseDigitsModel", (0, 10.8), variant="standard")
    distilled = w.add("StepwiseDigitsModel", (0, 13.8), "Digits Model (LCM)", variant="lcm")
    prompts = {"positive": positive[0], "negative": negative[0]}
    guider = w.add("StepwiseCFGGuider", (1, 0), model=model[0], **prompts, cfg=3.0)
    plain = w.add("StepwiseCFGGuider", (1, 4), "CFG Guider (LCM)", model=distilled[0], **prompts, cfg=1.0)
    trained = {"model": model[0]}
    full = w.add("StepwiseTimestepSchedule", (1, 8), "1000 steps", steps=1000, **trained)
    fifty = w.add("StepwiseTimestepSchedule", (1, 14), "50 steps", steps=50, **trained)
    ten = w.add(
        "StepwiseExponentialSchedule",
        (1, 20),
        "10 steps",
        steps=10,
        model=model[0],
    )
    four = w.add("StepwiseLCMSchedule", (1, 24.5), "4 steps", steps=4, model=distilled[0])
    common = {"noise": noise[0], "latent_image": latent[0]}
    runs = [
        w.add("StepwiseDDPM", (2, 0), guider=guider[0], **common, sigmas=full[0]),
        w.add("StepwiseDDIM", (2, 6.5), guider=guider[0], **common, sigmas=fifty[0]),
        w.add("StepwiseDPMSolver", (2, 13), guider=guider[0], **common, sigmas=ten[0]),
        w.add("StepwiseLCM", (2, 19), guider=plain[0], **common, sigmas=four[0]),
    ]
    rows = []
    for i, run in enumerate(runs):
        decoded = w.add("VAEDecode", (3, 5 * i), samples=run[0], vae=model[1])
        rows.append(w.add("StepwiseImageGrid", (3, 5 * i + 1.8), images=decoded[0]))
    stacked(w, rows, 4)
    return w


def on_a_checkpoint() -> Workflow:
    w = Workflow(
        "DPM++ 2M Karras on a Stable Diffusion checkpoint",
        "dpmpp_2m_karras_checkpoint",
        "## The same on an ordinary checkpoint\nChoose a Stable Diffusion 1.5 checkpoint of yours. For SDXL set the "
        "latent to 1024 x 1024 and the guidance to 5 or 6.",
    )
    loader = w.add("CheckpointLoaderSimple", (0, 0), ckpt_name="v1-5-pruned-emaonly-fp16.safetensors")
    positive = w.add(
        "CLIPTextEncode",
        (0, 3),
        "Positive",
        (290, 130),
        text="a lighthouse on a cliff at dawn, oil painting",
        clip=loader[1],
    )
    negative = w.add("CLIPTextEncode", (0, 6), "Negative", (290, 130), text="blurry, text", clip=loader[1])
    latent = w.add("EmptyLatentImage", (0, 9), width=512, height=512, batch_size=1)
    run = default_run(w, loader, positive, negative, latent)
    decoded = w.add("VAEDecode", (3, 0), samples=run[0], vae=loader[2])
    w.add("SaveImage", (4, 0), images=decoded[0], filename_prefix="stepwise", size=(420, 330))
    return w


def digits(w: Workflow) -> tuple[Node, Node, Node, Node]:
    """The Digits model, the digits to draw, no class, and ten empty latents: the left column."""
    model = w.add("StepwiseDigitsModel", (0, 0), variant="standard")
    positive = w.add("StepwiseDigit", (0, 3), "Digits to draw", labels="0-9")
    negative = w.add("StepwiseDigit", (0, 5.4), "No class", labels="")
    latent = w.add("EmptyLatentImage", (0, 8), width=64, height=64, batch_size=10)
    return model, positive, negative, latent


def digits_on_karras(w: Workflow) -> tuple[Node, dict[str, Any], dict[str, Any]]:
    """The Digits model, its prompts, and what a run of 20 steps begins with: the left column."""
    model, positive, negative, latent = digits(w)
    noise = w.add("RandomNoise", (0, 11.5), noise_seed=7)
    sigmas = w.add("StepwiseKarrasSchedule", (0, 14.5), steps=20, model=model[0])
    prompts = {"positive": positive[0], "negative": negative[0]}
    return model, prompts, {"noise": noise[0], "latent_image": latent[0], "sigmas": sigmas[0]}


def row_of_images(w: Workflow, latent: Link, model: Node, place: tuple[float, float], title: str) -> Node:
    x, y = place
    decoded = w.add("VAEDecode", (x, y), samples=latent, vae=model[1])
    return w.add("StepwiseImageGrid", (x, y + 1.8), title, images=decoded[0], columns=10, gap=8)


def stacked(w: Workflow, rows: list[Node], column: float) -> None:
    """The rows under each other, saved as one picture."""
    stack = rows[0]
    for i, image in enumerate(rows[1:]):
        joined = {"image1": stack[0], "image2": image[0], "direction": "down"}
        stack = w.add("ImageStitch", (column, 6 * i), **joined, spacing_width=8, spacing_color="black")
    w.add("SaveImage", (column + 1, 0), images=stack[0], filename_prefix="stepwise", size=(720, 400))


def pause_and_resume() -> Workflow:
    w = Workflow(
        "Pause and resume",
        "pause_and_resume",
        "## Stop, save, go on\nThe first DPM++ 2M stops after step 5 of 20 (`end_step`); Save State writes the run to "
        "ComfyUI's output folder. The second goes on from there. Tomorrow, or after a crash: put Load State in the "
        "place of the first. Top: the model's idea of the picture at the pause. Middle: gone on. Bottom: the run in "
        "one piece, the same to the last bit.",
    )
    model, prompts, begins = digits_on_karras(w)
    guider = w.add("StepwiseCFGGuider", (1, 0), model=model[0], **prompts, cfg=4.0)
    first = w.add("StepwiseDPMpp2M", (1, 4), "To step 5", guider=guider[0], **begins, end_step=5)
    w.add("StepwiseSaveState", (1, 11.5), state=first[2], filename_prefix="stepwise/pause")
    seen = w.add("StepwiseInspectState", (1, 15), state=first[2], size=(290, 260))
    second = w.add("StepwiseDPMpp2M", (2, 4), "From step 5 on", guider=guider[0], state=first[2])
    whole = w.add("StepwiseDPMpp2M", (2, 11.5), "In one piece", guider=guider[0], **begins)
    rows = [
        row_of_images(w, latent, model, (3, 6 * i), title)
        for i, (latent, title) in enumerate(
            [(seen[1], "At the pause"), (second[0], "Gone on"), (whole[0], "One piece")]
        )
    ]
    stacked(w, rows, 4)
    return w


def fork_into_guidances() -> Workflow:
    w = Workflow(
        "Fork one run into four guidances",
        "fork_into_guidances",
        "## One beginning, four endings\nThe first four steps decide what goes where; they are made once, at guidance "
        "3. From that state four runs go on, each with a guidance of its own: 1, 3, 7.5 and 15, from top to bottom. "
        "Forking is wiring a state twice.",
    )
    model, prompts, begins = digits_on_karras(w)
    guiders = [
        w.add("StepwiseCFGGuider", (1, 4 * i), f"Guidance {cfg:g}", model=model[0], **prompts, cfg=cfg)
        for i, cfg in enumerate((1.0, 3.0, 7.5, 15.0))
    ]
    first = w.add("StepwiseDPMpp2M", (1, 16), "To step 4", guider=guiders[1][0], **begins, end_step=4)
    ends = [
        w.add("StepwiseDPMpp2M", (2, 7.5 * i), f"On at {guider.title.lower()}", guider=guider[0], state=first[2])
        for i, guider in enumerate(guiders)
    ]
    rows = [row_of_images(w, end[0], model, (3, 6 * i), end.title) for i, end in enumerate(ends)]
    stacked(w, rows, 4)
    return w


def hand_over() -> Workflow:
    w = Workflow(
        "High-noise model hands over to low-noise model",
        "hand_over",
        "## Two models, one run\nThe first model takes the steps at high noise, the second those at low noise, as "
        "with Wan 2.2's pair: each with its own guidance, on one schedule, and nothing is lost between them. Here the "
        "second is the distilled twin of the first, without guidance. Top: handed over at step 8. Bottom: the first "
        "model alone.",
    )
    model, prompts, begins = digits_on_karras(w)
    twin = w.add("StepwiseDigitsModel", (0, 19), "Low-noise model", variant="lcm")
    high = w.add("StepwiseCFGGuider", (1, 0), "At high noise", model=model[0], **prompts, cfg=4.0)
    low = w.add("StepwiseCFGGuider", (1, 4), "At low noise", model=twin[0], **prompts, cfg=1.0)
    first = w.add("StepwiseDPMpp2M", (1, 8), "High noise: to step 8", guider=high[0], **begins, end_step=8)
    second = w.add("StepwiseDPMpp2M", (2, 0), "Low noise: from step 8", guider=low[0], state=first[2])
    alone = w.add("StepwiseDPMpp2M", (2, 8), "The first model alone", guider=high[0], **begins)
    rows = [
        row_of_images(w, run[0], model, (3, 6 * i), title)
        for i, (run, title) in enumerate([(second, "Handed over"), (alone, "One model")])
    ]
    stacked(w, rows, 4)
    return w


def curve_and_interval() -> Workflow:
    w = Workflow(
        "Guidance curve and interval",
        "guidance_curve_and_interval",
        "## Guidance 15, everywhere and where it helps\nTop: the same scale at every noise level. Bottom: it follows "
        "the drawn curve, from high noise at its left to low noise at its right, and only inside the interval; "
        "elsewhere the negative prompt is not evaluated. Drag the points of the curve.",
    )
    model, prompts, begins = digits_on_karras(w)
    points = [[0.0, 0.1], [0.4, 0.4], [0.75, 0.6], [1.0, 0.3]]
    drawn = {"points": points, "interpolation": "monotone_cubic"}
    curve = w.add("StepwiseDrawnCurveGuidance", (1, 0), size=(290, 460), curve=drawn)
    interval = w.add("StepwiseIntervalGuidance", (1, 9), sigma_low=0.19, sigma_high=3.0, rule=curve[0])
    given = {"model": model[0], **prompts, "cfg": 15.0}
    guiders = [
        w.add("StepwiseCFGGuider", (2, 0), "The same scale everywhere", **given),
        w.add("StepwiseCFGGuider", (2, 9), "Curve and interval", **given, rule=interval[0]),
    ]
    runs = [w.add("StepwiseDPMpp2M", (3, 9 * i), guider=guider[0], **begins) for i, guider in enumerate(guiders)]
    titles = ("Everywhere", "Curve and interval")
    rows = [row_of_images(w, run[0], model, (4, 6 * i), titles[i]) for i, run in enumerate(runs)]
    stacked(w, rows, 5)
    return w


def cfg_by_hand() -> Workflow:
    w = Workflow(
        "CFG by hand",
        "cfg_by_hand",
        "## Guidance, taken apart\nTwo predictions, combined at scale 7.5: the same picture as *DPM++ 2M Karras with "
        "CFG*, and the place where more prompts and other operations go. The report says what a run evaluates.",
    )
    model, positive, negative, latent = digits(w)
    leaves = [
        w.add("StepwisePrediction", (1, 3 + 2 * i), f"Prediction ({name})", conditioning=prompt[0])
        for i, (name, prompt) in enumerate((("positive", positive), ("negative", negative)))
    ]
    guided = w.add("StepwiseCFGCombine", (2, 3), positive=leaves[0][0], negative=leaves[1][0], scale=7.5)
    by_expression(w, model, guided, latent)
    return w


def two_prompts() -> Workflow:
    w = Workflow(
        "Two prompts, two scales",
        "two_prompts_two_scales",
        "## One prompt guides, another leans on it\nGuidance towards the first prompt at scale 4. To it is added the "
        "difference that the second prompt makes, times 3 at high noise and fading out, where it is no longer "
        "evaluated: the second digit bends the shape, the first one keeps the last word.",
    )
    model = w.add("StepwiseDigitsModel", (0, 0), variant="standard")
    first = w.add("StepwiseDigit", (0, 3), "First prompt", labels="0-9")
    second = w.add("StepwiseDigit", (0, 5.4), "Second prompt", labels="1-9,0")
    negative = w.add("StepwiseDigit", (0, 7.8), "No class", labels="")
    latent = w.add("EmptyLatentImage", (0, 10.2), width=64, height=64, batch_size=10)
    leaves = [
        w.add("StepwisePrediction", (1, 3 + 2 * i), f"Prediction ({name})", conditioning=prompt[0])
        for i, (name, prompt) in enumerate((("first", first), ("second", second), ("negative", negative)))
    ]
    guided = w.add("StepwiseCFGCombine", (2, 3), positive=leaves[0][0], negative=leaves[2][0], scale=4.0)
    change = w.add(
        "StepwiseAddPredictions", (2, 6.5), "Second - negative", a=leaves[1][0], b=leaves[2][0], factor_b=-1.0
    )
    fading = w.add("StepwiseCurveGuidance", (2, 10), "Fading out", start=1.0, end=0.0, low=0.0, sigma_end=1.0)
    scaled = w.add("StepwiseScalePrediction", (3, 6.5), prediction=change[0], factor=3.0, rule=fading[0])
    both = w.add("StepwiseAddPredictions", (3, 3), "Both", a=guided[0], b=scaled[0])
    by_expression(w, model, both, latent)
    return w


def by_expression(w: Workflow, model: Node, prediction: Node, latent: Node) -> None:
    """From an expression of predictions to the picture, with the report on the way."""
    column = prediction.place[0] + 1
    sigmas = w.add("StepwiseKarrasSchedule", (column, 8), steps=20, model=model[0])
    inputs = {"model": model[0], "prediction": prediction[0], "sigmas": sigmas[0]}
    guider = w.add("StepwiseGuider", (column, 0), **inputs)
    noise = w.add("RandomNoise", (column, 4.5), noise_seed=7)
    w.add("PreviewAny", (column + 1, 8), "Report", (420, 150), source=guider[1])
    run = {"noise": noise[0], "latent_image": latent[0], "sigmas": sigmas[0]}
    sampled = w.add("StepwiseDPMpp2M", (column + 1, 0), guider=guider[0], **run)
    decoded = w.add("VAEDecode", (column + 2, 0), samples=sampled[0], vae=model[1])
    grid = w.add("StepwiseImageGrid", (column + 2, 2), images=decoded[0], columns=5, gap=8)
    w.add("SaveImage", (column + 3, 0), images=grid[0], filename_prefix="stepwise", size=(420, 330))


WORKFLOWS = (
    first_picture,
    side_by_side,
    on_a_checkpoint,
    pause_and_resume,
    fork_into_guidances,
    hand_over,
    curve_and_interval,
    cfg_by_hand,
    two_prompts,
)
