"""Noise as a function of its address.

What an image draws depends on its own seed and on what the draw is for, never on its neighbours in the batch,
on the order of drawing, on where a run was cut or on the device.
"""

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..plan import Noise, NoiseSource

SEEDS = 1 << 64


def stream_seed(seed: int, address: Noise, component: int = 0) -> int:
    """The generator seed of one draw: 63 bits of a BLAKE2b hash of the image's seed, the address and the component."""
    numbers = struct.pack("<QddQ", seed % SEEDS, address.sigma_from, address.sigma_to, address.occurrence)
    name = address.purpose + (f"\0component {component}" if component else "")
    digest = hashlib.blake2b(numbers + name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class AddressedNoise:
    """Independent standard normal noise, one stream per image.

    Args:
        seeds: one seed per image of the batch (0 to 2**64 - 1; wraps around).
        device: where it is drawn. On the CPU, the default, a picture does not depend on the device it is made on.
        scale: standard deviation, for models whose noise is not of unit variance.
        components: sizes of the pieces of an image, where several latents (video and audio) are packed into one row.
            Each has a stream of its own: the first draws what it would draw unpacked, whatever follows it.

    Disjoint intervals get independent draws, which have the law of normalised Brownian increments.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
        scale: float = 1.0,
        components: Sequence[int] = (),
    ):
        self.seeds = tuple(seeds)
        self.device = torch.device(device)
        self.scale = scale
        self.components = tuple(components)
        self.generator = torch.Generator(self.device)

    def __call__(self, address: Noise, like: Tensor) -> Tensor:
        return self.delivered(self.draw(address, self.buffer(like)), like)

    def draw(self, address: Noise, out: Tensor) -> Tensor:
        """Draws the images of `out`, a `buffer`."""
        images = out if len(out) > 1 else (out,)
        for image, seed in zip(images, self.seeds, strict=True):
            self.fill(image, seed, address, self.scale)
        return out

    def apart(self) -> "AddressedNoise":
        """The same noise from a generator of its own, for another thread."""
        return AddressedNoise(self.seeds, self.device, self.scale, self.components)

    def buffer(self, like: Tensor) -> Tensor:
        """Room for noise for `like`, where it is drawn."""
        if len(like) != len(self.seeds):
            raise ValueError(f"noise for {len(self.seeds)} images was asked to fill a batch of {len(like)}")
        if self.components and like[0].numel() != sum(self.components):
            raise ValueError(f"images of {like[0].numel()} numbers are not components of {self.components}")
        if like.device == self.device and like.dtype == torch.float32:
            return torch.empty_like(like, memory_format=torch.contiguous_format)
        return torch.empty(like.shape, dtype=torch.float32, device=self.device, pin_memory=self.pinned(like))

    def fill(self, image: Tensor, seed: int, address: Noise, std: float = 1.0) -> None:
        """Draws one image, contiguous."""
        pieces = torch.split(image.view(-1), list(self.components)) if self.components else (image,)
        for component, part in enumerate(pieces):
            part.normal_(std=std, generator=self.generator.manual_seed(stream_seed(seed, address, component)))

    def delivered(self, drawn: Tensor, like: Tensor) -> Tensor:
        if drawn.device == like.device and drawn.dtype == like.dtype:
            return drawn
        return drawn.to(device=like.device, dtype=like.dtype, non_blocking=self.pinned(like))

    def pinned(self, like: Tensor) -> bool:
        return self.device.type == "cpu" and like.device.type == "cuda"


@dataclass(frozen=True)
class Varied:
    """See `varied`. Both sources have the standard deviation `scale`, and so has this."""

    first: NoiseSource
    second: NoiseSource
    strength: float

    @property
    def scale(self) -> float:
        return float(getattr(self.first, "scale", 1.0))

    def __call__(self, address: Noise, like: Tensor) -> Tensor:
        near, far = arc(self.strength)
        return self.first(address, like).mul_(near).add_(self.second(address, like), alpha=far)


def varied(first: NoiseSource, second: NoiseSource, strength: float) -> NoiseSource:
    """`first` turned towards `second`: cos(a) first + sin(a) second with a = strength pi / 2.

    It is spherical interpolation at the right angle that independent noises stand at, and so exactly standard normal
    again, and a Brownian path again where both are. Strength 0 is `first` and 1 is `second`, neither drawing the other.
    """
    if strength in (0.0, 1.0):
        return second if strength else first
    return Varied(first, second, strength)


def arc(strength: float) -> tuple[float, float]:
    """cos and sin of `strength` times a right angle."""
    return math.cos(strength * math.pi / 2.0), math.sin(strength * math.pi / 2.0)
