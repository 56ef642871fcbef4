"""Digits drawn by the model that comes with the pack, through its nodes, and the evaluations of the network counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from .host import Guided, node

CHUNK = 40  # images sampled together, four of each class


@dataclass(frozen=True)
class Samples:
    """The images of one method at one guidance, as latents `[N, 1, 8, 8]`, and the network's evaluations for each."""

    latents: Tensor
    evaluations: float

    @property
    def images(self) -> Tensor:
        """As the VAE decodes them: 0 = paper, 1 = ink, clamped."""
        return ((self.latents + 1.0) / 2.0).clamp(0.0, 1.0)

    @property
    def labels(self) -> Tensor:
        return torch.arange(len(self.latents)) % 10


@cache
def digits(variant: str) -> Any:
    return node("StepwiseDigitsModel", variant=variant)[0]


@cache
def weaker_digits(deviation: float) -> Any:
    """The standard model with normal noise of seed 0 in every matrix and kernel of its network, of so many times the
    deviation of the weights there."""
    model = node("StepwiseDigitsModel", variant="standard")[0]
    generator = torch.Generator().manual_seed(0)
    for weights in model.model.diffusion_model.parameters():
        if weights.ndim > 1:
            noise = torch.randn(weights.shape, generator=generator).to(weights)
            weights.data += deviation * weights.data.std() * noise
    return model


@torch.inference_mode()
def sample_digits(
    solver: str,
    schedule: str,
    steps: int,
    variant: str,
    guidance: float,
    seed: int,
    count: int,
    rules: Sequence[tuple[str, Mapping[str, Any]]] = (),
    params: Mapping[str, Any] = MappingProxyType({}),
    perturbed: str = "",
    weaker: float = 0.0,
) -> tuple[Tensor, float]:
    """Latents `[count, 1, 8, 8]` of the digits 0 to 9 in turn, and the evaluations of the network per image.

    The evaluations are counted at the network. `rules` are rules of guidance, by registry id and with their parameters;
    `params` are those of the solver; `perturbed` is as in `Guided`, and `weaker` the deviation of the weaker model that
    makes the negative prediction.
    """
    model = digits(variant)
    (positive,), (negative,) = node("StepwiseDigit", labels="0-9"), node("StepwiseDigit", labels="")
    guided = Guided(model, positive, negative, guidance, rules, perturbed, weaker_digits(weaker) if weaker else None)
    latents, evaluations = guided.sample(solver, schedule, steps, seed, torch.zeros(count, 1, 8, 8), params)
    return latents, evaluations / count
