"""The example of comparing samplers by looking."""

from ..description import Workflow
from .parts import guider, loader, prompt

PROMPTS, SAMPLERS, ROWS, TABLE = "Model and prompts", "Samplers", "A row for each", "The table"
STEPS = 8


def compare_samplers() -> Workflow:
    w = Workflow(
        "Compare samplers over guidance",
        "compare_samplers",
        "## Three samplers, four guidance scales, one noise\n"
        f"Each run makes at most {STEPS} model calls. After a run, Open the page in Compare Samplers shows pictures "
        "over each other, and how far apart they are.\nFor seeds instead of scales, choose seeds in `columns`. Any "
        "pack's SAMPLER can be a row: the last is ComfyUI's.",
        ((PROMPTS,), (SAMPLERS, ROWS), (TABLE,)),
    )
    model = loader(w, PROMPTS)
    positive = prompt(w, PROMPTS, w.demo.names[0], w.demo.prompts.splitlines()[0])
    negative = prompt(w, PROMPTS, w.demo.names[1], w.demo.nothing, compact=True)
    latent = w.add("EmptyLatentImage", PROMPTS, "One picture", compact=True, **one_picture(w))
    noise = w.add("RandomNoise", PROMPTS, noise_seed=7, compact=True)
    guided = guider(w, SAMPLERS, compact=True, model=model[0], positive=positive[0], negative=negative[0])
    sigmas = w.add("StepwiseKarrasSchedule", SAMPLERS, compact=True, steps=STEPS, model=model[0])
    samplers = [w.add(f"Stepwise{kind}Sampler", SAMPLERS, compact=True) for kind in ("Euler", "DPMpp2M")]
    samplers.append(w.add("KSamplerSelect", SAMPLERS, compact=True, sampler_name="dpmpp_sde"))
    names = ("", "", "ComfyUI's dpmpp_sde")
    titles = ("Row of Euler", "Row of DPM++ 2M", "Row of dpmpp_sde")
    common = {"sigmas": sigmas[0], "guider": guided[0]}
    entries = [
        w.add("StepwiseCompareEntry", ROWS, title, compact=not name, sampler=each[0], **common, label=name)
        for title, each, name in zip(titles, samplers, names, strict=True)
    ]
    wired = {f"entries.entry_{i}": each[0] for i, each in enumerate(entries, 1)}
    begins = {"noise": noise[0], "latent_image": latent[0], "vae": model[1]}
    columns = {"columns": "guidance", "columns.scales": "1, 3, 7.5, 15"}
    w.add("StepwiseCompare", TABLE, **wired, **begins, **columns, equal_calls=STEPS, size=(420, 700))
    return w


def one_picture(w: Workflow) -> dict[str, int]:
    return {"width": w.demo.pixels, "height": w.demo.pixels, "batch_size": 1}
