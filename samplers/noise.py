"""Noise as a function of its address.

What an image draws depends on its own seed and on what the draw is for, never on its neighbours in the batch,
on the order of drawing, on where a run was cut or on the device.
"""

import hashlib
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from .plan import Noise

SEEDS = 1 << 64


def stream_seed(seed: int, address: Noise) -> int:
    """The generator seed of one draw: 63 bits of a BLAKE2b hash of the image's seed and the address."""
    numbers = struct.pack("<QddQ", seed % SEEDS, address.sigma_from, address.sigma_to, address.occurrence)
    digest = hashlib.blake2b(numbers + address.purpose.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class AddressedNoise:
    """Independent standard normal noise, one stream per image.

    Args:
        seeds: one seed per image of the batch (0 to 2**64 - 1; wraps around).
        device: where it is drawn. On the CPU, the default, a picture does not depend on the device it is made on.
        scale: standard deviation, for models whose noise is not of unit variance.

    Disjoint intervals get independent draws, which have the law of normalised Brownian increments.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu", scale: float = 1.0):
        self.seeds = tuple(seeds)
        self.device = torch.device(device)
        self.scale = scale

    def __call__(self, address: Noise, like: Tensor) -> Tensor:
        if len(like) != len(self.seeds):
            raise ValueError(f"noise for {len(self.seeds)} images was asked to fill a batch of {len(like)}")
        pinned = self.device.type == "cpu" and like.device.type == "cuda"
        drawn = torch.empty(like.shape, dtype=torch.float32, device=self.device, pin_memory=pinned)
        generator = torch.Generator(self.device)
        for image, seed in zip(drawn, self.seeds, strict=True):
            image.normal_(std=self.scale, generator=generator.manual_seed(stream_seed(seed, address)))
        return drawn.to(device=like.device, dtype=like.dtype, non_blocking=pinned)
