"""A picture of a mixture of Gaussians in two dimensions, with the ways of a run drawn over it."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ...samplers import VE, Path
from ...samplers.exact import Mixture
from .drawing import COLOURS, GROUNDS

# Drawn larger and made smaller, for smooth lines.
FINER = 2


def reach(data: Mixture) -> float:
    """Half the side of the picture: three deviations around every mean, and the beginning of a run, N(0, I)."""
    apart = data.means[:, :2].abs().amax(1) + 3.0 * data.variances.sqrt()
    return max(2.6, float(apart.max()))


def in_scale(path: Path, x: Tensor, sigma: float) -> Tensor:
    """x / sqrt(alpha^2 + sigma^2): the variance-preserving scale, in which runs of both families look alike."""
    alpha = path.alpha(sigma)
    return x / (alpha * alpha + sigma * sigma) ** 0.5


def shade(data: Mixture, half: float, side: int) -> np.ndarray:
    """`[side, side]`, the root of the density over its highest value; of more dimensions the first two, which are a
    mixture themselves."""
    flat = Mixture(data.means[:, :2], data.variances, data.weights)
    line = (torch.arange(side, dtype=torch.float64) + 0.5) * (2.0 * half / side) - half
    places = torch.stack([line.repeat(side), -line.repeat_interleave(side)], 1)
    density = flat.log_density(VE, places, 0.0).exp()
    return (density / density.max()).sqrt().reshape(side, side).numpy()


def density_picture(
    data: Mixture, asked: Sequence[int], ways: Sequence[Tensor], side: int = 512, theme: str = "dark"
) -> np.ndarray:
    """`[side, side, 3]`, 0 to 255. The components that are asked for are shaded in colour, the others in grey; `ways`
    are the values `[P, D]` after one another in the variance-preserving scale, each drawn as a line to a dot."""
    half = reach(data)
    ground, ink, grid = (rgb(each) for each in GROUNDS[theme])
    colour = rgb(COLOURS[theme][0])
    # It is smooth: half the pixels are enough.
    rough = max(side // 2, 1)
    whole = shade(data, half, rough)[..., None]
    pixels = ground + 0.8 * whole * (grid - ground)
    part = shade(data.part(asked), half, rough)[..., None] if asked else whole
    pixels = pixels + 0.75 * part * (colour - pixels)
    picture = Image.fromarray(pixels.astype(np.uint8)).resize((side * FINER,) * 2, Image.Resampling.BICUBIC)
    if ways:
        draw_ways(picture, np.stack([way[:, :2].double().numpy() for way in ways]), half, tuple(ink.astype(int)), theme)
    return np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS))


def draw_ways(picture: Image.Image, ways: np.ndarray, half: float, ink: tuple[int, ...], theme: str) -> None:
    """ways: `[steps, P, 2]`."""
    side = picture.width
    places = np.stack([ways[..., 0] + half, half - ways[..., 1]], -1) * (side / (2.0 * half))
    draw = ImageDraw.Draw(picture)
    end = tuple(rgb(COLOURS[theme][1]).astype(int))
    for i in range(places.shape[1]):
        draw.line([tuple(each) for each in places[:, i].tolist()], fill=ink, width=FINER)
    for x, y in places[:-1].reshape(-1, 2).tolist():
        dot(draw, x, y, 1.2 * FINER, ink)
    for x, y in places[-1].tolist():
        dot(draw, x, y, 3.2 * FINER, end)


def dot(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: tuple[int, ...]) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=float)
