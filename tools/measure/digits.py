"""Digits drawn by the model that comes with the pack, through its nodes, and the evaluations of the network counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from .host import execute, node

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
) -> tuple[Tensor, float]:
    """Latents `[count, 1, 8, 8]` of the digits 0 to 9 in turn, and the evaluations of the network per image.

    The evaluations are counted at the network. `rules` are rules of guidance, by registry id and with their parameters;
    `params` are those of the solver.
    """
    model, evaluated = digits(variant), []
    (positive,), (negative,) = node("StepwiseDigit", labels="0-9"), node("StepwiseDigit", labels="")
    chain: Any = ()
    for rule, settings in rules:
        (chain,) = node(f"Stepwise{rule}Guidance", rule=chain, **settings)
    given = {"model": model, "positive": positive, "negative": negative, "cfg": guidance, "rule": chain}
    (guider,) = node("StepwiseCFGGuider", **given)
    (sigmas,) = node(f"Stepwise{schedule}Schedule", model=model, steps=steps)
    (noise,) = execute("RandomNoise", {"noise_seed": seed})
    latent = {"samples": torch.zeros(count, 1, 8, 8)}
    hook = model.model.diffusion_model.register_forward_hook(lambda *call: evaluated.append(len(call[-1])))
    try:
        output = node(f"Stepwise{solver}", guider=guider, noise=noise, latent_image=latent, sigmas=sigmas, **params)[0]
    finally:
        hook.remove()
    return output["samples"].clone(), sum(evaluated) / count
