"""IMAGE batches: side by side in one picture, and as a file's bytes."""

import io
import math

import numpy as np
from PIL import Image
from torch import Tensor

# The host's own for Save Image.
COMPRESSION = 4


def image_grid(images: Tensor, columns: int, gap: int) -> Tensor:
    """`[B, H, W, C]` -> `[1, rows * (H + gap) - gap, columns * (W + gap) - gap, C]`, row by row; empty places are 0."""
    count, height, width, channels = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    grid = images.new_zeros(rows * columns, height + gap, width + gap, channels)
    grid[:count, :height, :width] = images
    grid = grid.view(rows, columns, height + gap, width + gap, channels).transpose(1, 2)
    grid = grid.reshape(1, rows * (height + gap), columns * (width + gap), channels)
    return grid[:, : grid.shape[1] - gap, : grid.shape[2] - gap]


def one_picture(images: Tensor) -> Tensor:
    """`[B, H, W, C]` or a video `[B, F, H, W, C]` -> `[H', W', C]`: all of them in as square a grid as there is."""
    images = images.reshape(-1, *images.shape[-3:])
    return image_grid(images, math.ceil(len(images) ** 0.5), gap=4)[0]


def png(picture: Tensor) -> bytes:
    """`[H, W, C]`, 0 to 1, as Save Image writes it."""
    values = np.clip(255.0 * picture.float().cpu().numpy(), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", compress_level=COMPRESSION)
    return file.getvalue()
