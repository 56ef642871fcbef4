"""What examples have in common: the model with its prompts, noise and schedule, and the pictures at the end."""

from typing import Any

from ..description import Link, Node, Workflow

SAVED = (340, 300)
ROWS = (340, 300)


def loader(w: Workflow, group: str, title: str | None = None, variant: str = "standard", **place: Any) -> Node:
    return w.add(w.demo.loader, group, title, **place, **w.demo.variants[variant])


def prompt(w: Workflow, group: str, title: str, text: str, **place: Any) -> Node:
    if w.demo.lines > 1 and not place.get("compact"):
        place = {"size": (290, 60 + 19 * max(len(text.splitlines()), 1)), **place}
    return w.add(w.demo.prompt, group, title, **place, **{w.demo.field: text})


def empty(w: Workflow, group: str, **place: Any) -> Node:
    size = {"width": w.demo.pixels, "height": w.demo.pixels}
    return w.add("EmptyLatentImage", group, **place, **size, batch_size=w.demo.batch)


def begin(w: Workflow, group: str, *, compact: bool = False, variant: str = "standard") -> tuple[Node, ...]:
    """The model, what to draw, what not, and empty latents."""
    return (
        loader(w, group, variant=variant),
        prompt(w, group, w.demo.names[0], w.demo.prompts),
        prompt(w, group, w.demo.names[1], w.demo.nothing, compact=compact),
        empty(w, group, compact=compact),
    )


def begin_on_karras(
    w: Workflow, group: str, schedule: str, *, steps: int = 20
) -> tuple[Node, dict[str, Any], dict[str, Any]]:
    """The model, its prompts, and what a run on the Karras schedule begins with."""
    model, positive, negative, latent = begin(w, group, compact=True)
    noise = w.add("RandomNoise", schedule, noise_seed=7, compact=True)
    sigmas = w.add("StepwiseKarrasSchedule", schedule, compact=True, steps=steps, model=model[0])
    prompts = {"positive": positive[0], "negative": negative[0]}
    return model, prompts, {"noise": noise[0], "latent_image": latent[0], "sigmas": sigmas[0]}


def guider(w: Workflow, group: str, title: str | None = None, **inputs: Any) -> Node:
    """CFG Guider at the scale that suits the model, or at another."""
    place = {name: inputs.pop(name) for name in ("column", "compact") if name in inputs}
    return w.add("StepwiseCFGGuider", group, title, **place, **{"cfg": w.demo.cfg, **inputs})


def grid(w: Workflow, group: str, latent: Link, model: Node, title: str | None, **inputs: Any) -> Node:
    """The pictures of a latent side by side, in nodes collapsed to their titles."""
    vae = inputs.pop("vae", model[1])
    decoded = w.add("VAEDecode", group, compact=True, samples=latent, vae=vae)
    return w.add("StepwiseImageGrid", group, title, compact=True, images=decoded[0], **{"gap": 8, **inputs})


def saved(w: Workflow, group: str, image: Link, **place: Any) -> Node:
    place = {"size": SAVED, **place}
    return w.add("SaveImage", group, **place, images=image, filename_prefix="stepwise")


def picture(w: Workflow, group: str, run: Node, model: Node, vae: int = 1) -> None:
    """The end of a graph of one run."""
    decoded = w.add("VAEDecode", group, compact=True, samples=run[0], vae=model[vae])
    shown = w.add("StepwiseImageGrid", group, compact=True, images=decoded[0], columns=w.demo.columns, gap=8)
    saved(w, group, shown[0])


def stacked(w: Workflow, group: str, rows: list[Node], column: int = 1) -> None:
    """The rows under each other, saved as one picture, which stands in a column of its own or below them."""
    stack = rows[0]
    for image in rows[1:]:
        joined = {"image1": stack[0], "image2": image[0], "direction": "down"}
        stack = w.add(
            "ImageStitch", group, column=column, compact=True, **joined, spacing_width=8, spacing_color="black"
        )
    saved(w, group, stack[0], column=column, size=ROWS)


def rows(w: Workflow, group: str, model: Node, runs: list[tuple[str, Link]], column: int = 1) -> None:
    """A row of pictures for each named latent, saved as one picture."""
    stacked(w, group, [grid(w, group, latent, model, title, columns=w.demo.batch) for title, latent in runs], column)
