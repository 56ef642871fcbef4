"""Examples of every solver: as nodes that take steps, and as SAMPLERs for nodes that take one."""

from ..demo_model import DIGITS
from ..description import Node, Workflow
from .parts import begin, guider, loader, saved

PROMPTS, SCHEDULES, PICTURE = "Model and prompts", "Noise levels and guidance", "A row for each"
PLAIN = (
    *("Euler", "Heun", "DPMSolver", "DPMpp2M", "DPMpp3M", "UniPC", "DEIS", "LMS"),
    *("RESMultistep", "RESSinglestep", "GradientEstimation", "IPNDM", "PLMS", "DPMFast", "DPMAdaptive"),
)
NOISY = (
    *("DDPM", "DDIM", "EulerAncestral", "DPM2Ancestral", "DPMpp2S", "DPMppSDE", "DPMpp2MSDE", "DPMpp3MSDE", "ERSDE"),
    *("SASolver", "Restart", "LCM"),
)
NOTE = (
    "All on one noise, in 8 steps, LCM in 4 on the distilled model. The rows of the picture, from top to bottom: "
    "those that add no noise, and below them those that do. Unfold a node (at its title) to see its settings."
)


def common(w: Workflow) -> tuple[Node, dict[str, Node], dict[str, Node], Node, Node]:
    """The model, a guider and noise levels for each of both variants, noise and empty latents."""
    model, positive, negative, latent = begin(w, PROMPTS, compact=True)
    twin = loader(w, PROMPTS, "Digits Model (LCM)", "lcm", compact=True)
    noise = w.add("RandomNoise", PROMPTS, compact=True, noise_seed=7)
    prompts = {"positive": positive[0], "negative": negative[0]}
    guiders = {
        "": guider(w, SCHEDULES, compact=True, model=model[0], **prompts),
        "LCM": guider(w, SCHEDULES, "CFG Guider (LCM)", compact=True, model=twin[0], **prompts, cfg=1.0),
    }
    sigmas = {
        "": w.add("StepwiseKarrasSchedule", SCHEDULES, "8 steps", compact=True, steps=8, model=model[0]),
        "LCM": w.add("StepwiseLCMSchedule", SCHEDULES, "4 steps (LCM)", compact=True, steps=4, model=twin[0]),
    }
    return model, guiders, sigmas, noise, latent


def together(w: Workflow, model: Node, runs: list[Node]) -> None:
    """All latents as one batch, a row for each run."""
    wired = {f"latents.latent{i}": run[0] for i, run in enumerate(runs)}
    batch = w.add("BatchLatentsNode", PICTURE, compact=True, **wired)
    decoded = w.add("VAEDecode", PICTURE, compact=True, samples=batch[0], vae=model[1])
    grid = w.add("StepwiseImageGrid", PICTURE, compact=True, images=decoded[0], columns=w.demo.batch, gap=4)
    saved(w, PICTURE, grid[0], size=(420, 600))


def every_solver() -> Workflow:
    groups = {"These add no noise": PLAIN, "These add noise": NOISY}
    w = Workflow(
        "Every solver from one noise",
        "every_solver",
        f"## Twenty-seven solvers\n{NOTE}",
        ((PROMPTS, SCHEDULES), *((group,) for group in groups), (PICTURE,)),
        demo=DIGITS,
    )
    model, guiders, sigmas, noise, latent = common(w)
    begins = {"noise": noise[0], "latent_image": latent[0]}
    settings = {"DDIM": {"eta": 0.5}}
    runs = []
    for group, solvers in groups.items():
        for solver in solvers:
            kind = solver if solver in guiders else ""
            given = {"guider": guiders[kind][0], "sigmas": sigmas[kind][0], **begins, **settings.get(solver, {})}
            runs.append(w.add(f"Stepwise{solver}", group, compact=True, **given))
    together(w, model, runs)
    return w


def every_sampler() -> Workflow:
    groups = {"SAMPLERs that add no noise": PLAIN, "SAMPLERs that add noise": NOISY}
    w = Workflow(
        "Every solver as a SAMPLER",
        "every_sampler",
        "## For nodes that take a SAMPLER\nEach solver as a SAMPLER in ComfyUI's SamplerCustomAdvanced, the last one "
        f"in Sample (Stepwise). {NOTE}",
        ((PROMPTS, SCHEDULES), *((group,) for group in groups), (PICTURE,)),
        demo=DIGITS,
    )
    model, guiders, sigmas, noise, latent = common(w)
    begins = {"noise": noise[0], "latent_image": latent[0]}
    settings = {"DDIM": {"eta": 0.5}}
    runs = []
    for group, solvers in groups.items():
        for solver in solvers:
            kind = solver if solver in guiders else ""
            sampler = w.add(f"Stepwise{solver}Sampler", group, compact=True, **settings.get(solver, {}))
            given = {"guider": guiders[kind][0], "sampler": sampler[0], "sigmas": sigmas[kind][0], **begins}
            taker = "StepwiseSample" if solver == NOISY[-1] else "SamplerCustomAdvanced"
            runs.append(w.add(taker, group, column=1, compact=True, **given))
    together(w, model, runs)
    return w
