"""Examples of noise levels and noise: schedules side by side, schedules edited, flow models, Brownian noise."""

from ..demo_model import DIGITS
from ..description import Workflow
from .parts import begin, guider, loader, picture, rows

PROMPTS = "Model and prompts"
RUNS, ROWS = "One run for each", "A row of pictures for each"
# Of the schedules for models of Stable Diffusion's family, each with its name in the plot.
COMPARED = (
    "Karras",
    "Exponential",
    "Polyexponential",
    "Timestep",
    "Beta",
    "Laplace",
    "VP",
    "KLOptimal",
    "AlignYourSteps",
)


def compare_schedules() -> Workflow:
    schedules, plot, look = "Ten schedules", "Drawn side by side", "Looked over before a run"
    w = Workflow(
        "Compare schedules before a run",
        "compare_schedules",
        "## Noise levels, seen\nTen schedules of 20 steps in one plot; unfold one (at its title) to change it. Check "
        "Sigmas says what is wrong with a schedule, from any pack; Plan Table lists what a sampler does at each step, "
        "without a model call.",
        ((schedules,), (plot,), (look,), ("The plan of DPM++ 2M",)),
    )
    model = loader(w, schedules, compact=True)
    made = [w.add(f"Stepwise{name}Schedule", schedules, compact=True, steps=20, model=model[0]) for name in COMPARED]
    wired = {f"sigmas.sigmas_{i}": each[0] for i, each in enumerate(made, 1)}
    names = "\n".join((*COMPARED, "beta57"))
    drawn = w.add("StepwisePlotSigmas", plot, size=(520, 750), **wired, names=names, model=model[0])
    sampler = w.add("StepwiseDPMpp2MSampler", look)
    given = {"sigmas": made[0][0], "model": model[0], "sampler": sampler[0]}
    checked = w.add("StepwiseCheckSigmas", look, size=(380, 200), **given)
    given = {"sampler": sampler[0], "sigmas": checked[0], "model": model[0]}
    w.add("StepwisePlanTable", "The plan of DPM++ 2M", size=(420, 640), **given)
    by_name = {"scheduler": "beta57", "steps": 20, "model": model[0]}
    named = w.add("StepwiseNamedSchedule", schedules, "Schedule by Name: beta57", compact=True, **by_name)
    drawn.inputs[f"sigmas.sigmas_{len(made) + 1}"] = named[0]
    return w


def edit_schedule() -> Workflow:
    cut, changed, plot = "Cut and changed", "Joined and checked", "Drawn"
    w = Workflow(
        "Cut, stretch and join noise levels",
        "edit_schedule",
        "## A schedule of your own\nNoise levels from text, cut at a noise level. The upper part is taken in fewer "
        "steps, the lower one in more, and both are joined again. Check Sigmas lets the result through only when a "
        "sampler can run on it. Reverse, Scale and Set First Sigma are for samplers and models that want it.",
        ((PROMPTS, "Noise levels from text"), (cut,), (changed, "Steps"), (plot,), ("The picture",)),
    )
    model, positive, negative, latent = begin(w, PROMPTS, compact=True)
    text = w.add("StepwiseParseSigmas", "Noise levels from text", size=(290, 120))
    split = w.add("StepwiseSplitSigmas", cut, sigmas=text[0], at="sigma", sigma=2.0)
    fewer = w.add("StepwiseResampleSigmas", cut, "Above 2: 3 steps", sigmas=split[0], steps=3)
    more = w.add("StepwiseResampleSigmas", cut, "Below 2: 12 steps", sigmas=split[1], steps=12)
    joined = w.add("StepwiseJoinSigmas", changed, compact=True, high_sigmas=fewer[0], low_sigmas=more[0])
    checked = w.add("StepwiseCheckSigmas", changed, size=(330, 150), sigmas=joined[0], model=model[0])
    scaled = w.add("StepwiseScaleSigmas", changed, "Scale Sigmas: half of it", compact=True, sigmas=text[0], factor=0.5)
    upward = w.add("StepwiseReverseSigmas", changed, "Reverse Sigmas: upwards", compact=True, sigmas=text[0])
    wired = [("from text", text[0]), ("cut and joined", checked[0]), ("half", scaled[0]), ("upwards", upward[0])]
    sockets = {f"sigmas.sigmas_{i}": link for i, (_, link) in enumerate(wired, 1)}
    names = "\n".join(name for name, _ in wired)
    drawn = w.add("StepwisePlotSigmas", plot, size=(360, 520), **sockets, names=names)
    inputs = {"positive": positive[0], "negative": negative[0]}
    guided = guider(w, "Steps", compact=True, model=model[0], **inputs)
    noise = w.add("RandomNoise", "Steps", compact=True, noise_seed=7)
    begins = {"noise": noise[0], "latent_image": latent[0], "sigmas": checked[0]}
    run = w.add("StepwiseLMS", "Steps", compact=True, guider=guided[0], **begins)
    picture(w, "The picture", run, model)
    first = {"sigmas": text[0], "sigma": 20.0, "compact": True}
    higher = w.add("StepwiseSetFirstSigma", changed, "Set First Sigma: from 20", **first)
    drawn.inputs |= {f"sigmas.sigmas_{len(wired) + 1}": higher[0], "names": f"{names}\nfrom 20"}
    return w


def flow_model() -> Workflow:
    shifted, solvers = "The shift: more steps at high noise", "Noise levels and guidance"
    others = "Made for one family"
    w = Workflow(
        "A flow model and its shift",
        "flow_model",
        "## Models of the family of SD3, Flux and Wan\nTheir time runs from 1, noise, to 0, the picture. "
        "ModelSamplingSD3 sets the shift and Flow Schedule follows the model. From top to bottom: shift 1, shift 3, "
        "shift 3 with CFG-Zero*, Linear-Quadratic with Heun, and Euler on the levels made for Flux, Flux.2 and "
        "LTX-Video. The Digits model has a flow variant: the same network in these coordinates.",
        ((PROMPTS, shifted), (solvers, others), ("Guidance", RUNS), (ROWS,)),
        demo=DIGITS,
    )
    model, positive, negative, latent = begin(w, PROMPTS, compact=True, variant="flow")
    noise = w.add("RandomNoise", PROMPTS, compact=True, noise_seed=7)
    moved = w.add("ModelSamplingSD3", shifted, model=model[0], shift=3.0)
    one = w.add("StepwiseFlowSchedule", solvers, "Flow Schedule, shift 1", compact=True, steps=10, model=model[0])
    three = w.add("StepwiseFlowSchedule", solvers, "Flow Schedule, shift 3", steps=10, model=moved[0])
    bent = w.add("StepwiseLinearQuadraticSchedule", solvers, compact=True, steps=10, model=model[0])
    zero = w.add("StepwiseCFGZeroStarGuidance", solvers)
    prompts = {"positive": positive[0], "negative": negative[0], "compact": True}
    plain = guider(w, "Guidance", "CFG Guider, shift 1", model=model[0], **prompts)
    later = guider(w, "Guidance", "CFG Guider, shift 3", model=moved[0], **prompts)
    starred = guider(w, "Guidance", "CFG Guider, CFG-Zero*", model=moved[0], **prompts, rule=zero[0])
    begins = {"noise": noise[0], "latent_image": latent[0], "compact": True}
    steps = {"compact": True, "steps": 10}
    families = [
        w.add("StepwiseOptimalStepsSchedule", others, **steps),
        w.add("StepwiseFlux2Schedule", others, **steps),
        w.add("StepwiseLTXVSchedule", others, **steps),
    ]
    ways = (
        ("Euler, shift 1", "StepwiseEuler", plain, one),
        ("Euler, shift 3", "StepwiseEuler", later, three),
        ("Euler, CFG-Zero*", "StepwiseEuler", starred, three),
        ("Heun, Linear-Quadratic", "StepwiseHeun", plain, bent),
        *(
            (f"Euler, {name}", "StepwiseEuler", plain, each)
            for name, each in zip(("Optimal Steps", "Flux.2", "LTXV"), families, strict=True)
        ),
    )
    made = [
        (title, w.add(kind, RUNS, title, guider=one[0], sigmas=each[0], **begins)) for title, kind, one, each in ways
    ]
    rows(w, ROWS, model, [(title, run[0]) for title, run in made])
    return w


def brownian() -> Workflow:
    seeds, schedules, solvers = "A seed for each picture", "Few steps and many", "Noise of each kind"
    w = Workflow(
        "Brownian noise and a seed for each picture",
        "brownian_noise",
        "## More steps, the same picture\nDPM++ 2M SDE adds noise at every step. Rows 1 and 2: with `noise_kind` "
        "brownian 12 and 48 steps follow one path of noise, and make one picture, finer. Rows 3 and 4: with "
        "independent noise the number of steps changes the picture. Each picture has a seed of its own, so you can "
        "make it again alone.",
        ((PROMPTS, seeds), (schedules, "Guidance"), (solvers,), (ROWS,)),
        demo=DIGITS,
    )
    model, positive, negative, latent = begin(w, PROMPTS, compact=True)
    listed = ", ".join(str(seed) for seed in (7, 12, 100, 3, 4, 51, 6, 77, 8, 9)[: w.demo.batch])
    noise = w.add("StepwiseNoise", seeds, seeds=listed)
    few = w.add("StepwiseKarrasSchedule", schedules, "12 steps", steps=12, model=model[0])
    many = w.add("StepwiseKarrasSchedule", schedules, "48 steps", compact=True, steps=48, model=model[0])
    prompts = {"positive": positive[0], "negative": negative[0]}
    guided = guider(w, "Guidance", compact=True, model=model[0], **prompts)
    begins = {"guider": guided[0], "noise": noise[0], "latent_image": latent[0]}
    made = []
    for kind in ("brownian", "independent"):
        for steps, sigmas in (("12", few), ("48", many)):
            compact = (kind, steps) != ("brownian", "12")
            shown = {"compact": compact, "column": int(compact), "noise_kind": kind}
            title = f"{kind.capitalize()}, {steps} steps"
            made.append((title, w.add("StepwiseDPMpp2MSDE", solvers, title, **begins, sigmas=sigmas[0], **shown)))
    rows(w, ROWS, model, [(title, run[0]) for title, run in made])
    return w
