"""Live previews of a run: the host's own, of the first image of a batch, or of every image as a grid."""

import math
from collections.abc import Callable
from typing import Any

import comfy.utils
import latent_preview
from PIL import Image

FIRST_IMAGE, EVERY_IMAGE = "first image", "every image"
PREVIEWS = (FIRST_IMAGE, EVERY_IMAGE)
# A preview is drawn at every step: more images than these would hold up the run.
MOST_IMAGES = 64

Callback = Callable[[int, Any, Any, int], None]


def callback_of(model_patcher: Any, steps: int, seen: dict[str, Any], previews: str = FIRST_IMAGE) -> Callback:
    """The host's callback of a run, which draws previews by the method that is chosen there, moves the bar, and puts
    the last prediction into `seen`."""
    if previews == FIRST_IMAGE:
        return latent_preview.prepare_callback(model_patcher, steps, seen)
    previewer = latent_preview.get_previewer(model_patcher.load_device, model_patcher.model.latent_format)
    bar = comfy.utils.ProgressBar(steps)

    def callback(step: int, x0: Any, x: Any, total: int) -> None:
        seen["x0"] = x0
        drawn = None if previewer is None else grid_of(previewer, x0.unbind()[0] if x0.is_nested else x0)
        bar.update_absolute(step + 1, total, drawn)

    return callback


def grid_of(previewer: Any, x0: Any) -> Any:
    """The previews of the images side by side, as the host sends one: its format, the picture, and its longest side."""
    # Each as a batch of one, since a previewer draws the first image and no other.
    made = [previewer.decode_latent_to_preview_image("JPEG", x0[i : i + 1]) for i in range(min(len(x0), MOST_IMAGES))]
    kind, first, longest = made[0]
    if len(made) == 1:
        return made[0]
    columns = math.ceil(math.sqrt(len(made)))
    rows = math.ceil(len(made) / columns)
    width, height = first.size
    grid = Image.new(first.mode, (columns * width, rows * height))
    for i, (_, picture, _) in enumerate(made):
        grid.paste(picture, (i % columns * width, i // columns * height))
    return kind, grid, longest
