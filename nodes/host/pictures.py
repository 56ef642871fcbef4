"""What a VAE of the host makes of a latent, to look at."""

from typing import Any

from torch import Tensor

from .seeds import components_of


def decoded(vae: Any, samples: Any) -> Tensor:
    """`[B, H, W, 3]` of a latent: of a video its first frame, of several components the first one."""
    first = components_of(samples)[0]
    if first.ndim == 5:
        # As the host's own previews do.
        first = first[:, :, :1]
    pictures = vae.decode(first)
    return pictures[:, 0] if pictures.ndim == 5 else pictures
