"""Examples to begin with: one run, and runs side by side."""

from typing import Any

from ..demo_model import DIGITS
from ..description import Node, Workflow
from .parts import begin, empty, grid, guider, loader, picture, prompt, saved, stacked

PROMPTS, GUIDANCE, SCHEDULE, PICTURE = "Model and prompts", "Guidance", "Noise and noise levels", "The picture"


def first_picture() -> Workflow:
    w = Workflow(
        "DPM++ 2M Karras with CFG",
        "dpmpp_2m_karras_cfg",
        "## The recommended default\nDPM++ 2M on the Karras schedule, 20 steps. The model of emoji comes with the "
        "pack; wire any other MODEL, prompts and VAE in its place, with the guidance that suits it: 7 for Stable "
        "Diffusion.",
        ((PROMPTS,), (GUIDANCE, SCHEDULE), ("20 steps of DPM++ 2M",), (PICTURE,)),
    )
    model, positive, negative, latent = begin(w, PROMPTS)
    run = default_run(w, "20 steps of DPM++ 2M", model, positive, negative, latent, cfg=w.demo.cfg)
    picture(w, PICTURE, run, model)
    return w


def default_run(w: Workflow, group: str, model: Node, positive: Node, negative: Node, latent: Node, cfg: float) -> Node:
    """DPM++ 2M on the Karras schedule of the model, 20 steps: the recommended default."""
    guided = guider(w, GUIDANCE, model=model[0], positive=positive[0], negative=negative[0], cfg=cfg)
    noise = w.add("RandomNoise", SCHEDULE, noise_seed=7)
    sigmas = w.add("StepwiseKarrasSchedule", SCHEDULE, steps=20, model=model[0])
    inputs = {"noise": noise[0], "latent_image": latent[0], "sigmas": sigmas[0]}
    return w.add("StepwiseDPMpp2M", group, guider=guided[0], **inputs)


def side_by_side() -> Workflow:
    prompts, models, schedules = "Prompts and noise", "Model and LCM twin", "Four schedules"
    solvers, pictures = "Four solvers", "Four rows of pictures"
    w = Workflow(
        "DDPM, DDIM, DPM-Solver and LCM side by side",
        "side_by_side",
        "## Four ways from the same noise\nFrom top to bottom: DDPM with 1000 steps, DDIM with 50, DPM-Solver of order "
        "2 with 10 steps (19 model calls), LCM with 4 steps on the distilled model.",
        ((prompts, models), (GUIDANCE, schedules), (solvers,), (pictures,)),
        demo=DIGITS,
    )
    positive = prompt(w, prompts, w.demo.names[0], w.demo.prompts)
    negative = prompt(w, prompts, w.demo.names[1], w.demo.nothing, compact=True)
    latent = empty(w, prompts, compact=True)
    noise = w.add("RandomNoise", prompts, compact=True, noise_seed=7)
    model = loader(w, models)
    distilled = loader(w, models, "Digits Model (LCM)", "lcm")
    given = {"positive": positive[0], "negative": negative[0]}
    guided = guider(w, GUIDANCE, model=model[0], **given)
    plain = guider(w, GUIDANCE, "CFG Guider (LCM)", model=distilled[0], **given, cfg=1.0)
    trained = {"model": model[0], "compact": True}
    full = w.add("StepwiseTimestepSchedule", schedules, "1000 steps", steps=1000, **trained)
    fifty = w.add("StepwiseTimestepSchedule", schedules, "50 steps", steps=50, **trained)
    ten = w.add("StepwiseExponentialSchedule", schedules, "10 steps", steps=10, **trained)
    four = w.add("StepwiseLCMSchedule", schedules, "4 steps", compact=True, steps=4, model=distilled[0])
    common = {"noise": noise[0], "latent_image": latent[0]}
    runs = [
        w.add("StepwiseDDPM", solvers, guider=guided[0], **common, sigmas=full[0]),
        w.add("StepwiseDDIM", solvers, compact=True, guider=guided[0], **common, sigmas=fifty[0]),
        w.add("StepwiseDPMSolver", solvers, column=1, compact=True, guider=guided[0], **common, sigmas=ten[0]),
        w.add("StepwiseLCM", solvers, column=1, compact=True, guider=plain[0], **common, sigmas=four[0]),
    ]
    stacked(w, pictures, [grid(w, pictures, run[0], model, None) for run in runs])
    return w


def on_a_checkpoint() -> Workflow:
    w = Workflow(
        "DPM++ 2M Karras on a Stable Diffusion checkpoint",
        "dpmpp_2m_karras_checkpoint",
        "## The same on an ordinary checkpoint\nChoose a Stable Diffusion 1.5 checkpoint of yours: the loader is red "
        "until you do, unless you have the one that it names. For SDXL set the latent to 1024 x 1024 and the guidance "
        "to 5 or 6.",
        (("Your checkpoint", PROMPTS), (GUIDANCE, SCHEDULE), ("20 steps of DPM++ 2M",), (PICTURE,)),
        runs=False,
    )
    # The name that ComfyUI's own template of Stable Diffusion 1.5 has.
    loaded = w.add("CheckpointLoaderSimple", "Your checkpoint", ckpt_name="v1-5-pruned-emaonly-fp16.safetensors")
    texts = [
        w.add("CLIPTextEncode", PROMPTS, title, size=(290, 110), text=text, clip=loaded[1])
        for title, text in (("Positive", "a lighthouse on a cliff at dawn, oil painting"), ("Negative", "blurry, text"))
    ]
    latent = w.add("EmptyLatentImage", PROMPTS, width=512, height=512, batch_size=1)
    run = default_run(w, "20 steps of DPM++ 2M", loaded, *texts, latent, cfg=7.0)
    decoded = w.add("VAEDecode", PICTURE, compact=True, samples=run[0], vae=loaded[2])
    saved(w, PICTURE, decoded[0])
    return w


def one_node() -> Workflow:
    w = Workflow(
        "Text to image with KSampler (Stepwise)",
        "ksampler",
        "## One node where KSampler stood\nGuidance, noise, schedule and solver in one node. `solver` and `schedule` "
        "show the settings of what you choose. Lower `end_step` to stop there, and wire `state` into a second one to "
        "go on.",
        ((PROMPTS,), ("Sampling",), (PICTURE,)),
    )
    model, positive, negative, latent = begin(w, PROMPTS)
    inputs = {"model": model[0], "positive": positive[0], "negative": negative[0], "latent_image": latent[0]}
    run = w.add("StepwiseKSampler", "Sampling", size=(330, 0), **inputs, seed=7, cfg=w.demo.cfg)
    picture(w, PICTURE, run, model)
    return w


def image_to_image() -> Workflow:
    first, again, pictures = "A picture to begin from", "Its noisier half, with other prompts", "Before and after"
    w = Workflow(
        "Image to image",
        "image_to_image",
        "## From a picture to a picture\nA lower `denoise` on the schedule keeps more of the first picture: at 0.6 the "
        "run begins at the noise level from which 60 % of the steps are left. Load Image and VAE Encode bring in a "
        "picture of your own.",
        ((PROMPTS,), (first,), (again,), (pictures,)),
    )
    model, positive, negative, latent = begin(w, PROMPTS, compact=True)
    other = prompt(w, PROMPTS, "What to make of it", w.demo.others)
    noise = w.add("RandomNoise", PROMPTS, noise_seed=7, compact=True)
    inputs = {"model": model[0], "positive": positive[0], "negative": negative[0], "latent_image": latent[0]}
    start = w.add("StepwiseKSampler", first, compact=True, **inputs, seed=1, cfg=w.demo.cfg)
    decoded = w.add("VAEDecode", first, compact=True, samples=start[0], vae=model[1])
    encoded = w.add("VAEEncode", first, compact=True, pixels=decoded[0], vae=model[1])
    sigmas = w.add("StepwisePolyexponentialSchedule", first, steps=20, denoise=0.6, model=model[0])
    guided = guider(w, again, model=model[0], positive=other[0], negative=negative[0], compact=True)
    begins: dict[str, Any] = {"noise": noise[0], "latent_image": encoded[0], "sigmas": sigmas[0]}
    run = w.add("StepwiseUniPC", again, guider=guided[0], **begins)
    before = w.add("StepwiseImageGrid", pictures, "Before", compact=True, images=decoded[0], columns=w.demo.batch)
    after = grid(w, pictures, run[0], model, "After", columns=w.demo.batch)
    stacked(w, pictures, [before, after])
    return w


def inpaint() -> Workflow:
    first, masked, again = "A picture to begin from", "Redrawn: white", "Drawn anew under the mask"
    pictures = "Before and after"
    w = Workflow(
        "Inpaint",
        "inpaint",
        "## Keep one half, draw the other anew\nSet Latent Noise Mask tells the step node where to draw: here the "
        "lower half. The rest of the latent stays as it was; the VAE mixes a little over the edge. A state keeps mask "
        "and original, so a run that inpaints can stop and go on.",
        ((PROMPTS,), (first, masked), (again,), (pictures,)),
    )
    model, positive, negative, latent = begin(w, PROMPTS, compact=True)
    other = prompt(w, PROMPTS, "What to draw there", w.demo.others)
    noise = w.add("RandomNoise", PROMPTS, noise_seed=7, compact=True)
    inputs = {"model": model[0], "positive": positive[0], "negative": negative[0], "latent_image": latent[0]}
    start = w.add("StepwiseKSampler", first, compact=True, **inputs, seed=1, cfg=w.demo.cfg)
    half = w.demo.pixels // 2
    black = w.add("SolidMask", masked, "Black", compact=True, value=0.0, width=2 * half, height=2 * half)
    white = w.add("SolidMask", masked, "White", compact=True, value=1.0, width=2 * half, height=half)
    drawn = {"destination": black[0], "source": white[0], "x": 0, "y": half, "operation": "add"}
    mask = w.add("MaskComposite", masked, "The lower half white", compact=True, **drawn)
    held = w.add("SetLatentNoiseMask", masked, compact=True, samples=start[0], mask=mask[0])
    sigmas = w.add("StepwiseBetaSchedule", first, compact=True, steps=20, model=model[0])
    guided = guider(w, first, model=model[0], positive=other[0], negative=negative[0])
    run = w.add("StepwiseDEIS", again, guider=guided[0], noise=noise[0], latent_image=held[0], sigmas=sigmas[0])
    before = grid(w, pictures, start[0], model, "Before", columns=w.demo.batch)
    after = grid(w, pictures, run[0], model, "After", columns=w.demo.batch)
    stacked(w, pictures, [before, after])
    return w
