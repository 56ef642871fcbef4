"""The mixture of Gaussians as a MODEL, and conditionings that name its components."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...samplers.exact import Mixture, mixture
from ...samplers.parameters import InputError, quoted
from .exact import ExactNetwork, exact_model


class MixtureNetwork(ExactNetwork):
    """The exact network of a mixture whose values stand at each position of the latent: `[B, D, H, W]`, or 5-D.

    The context `[B, tokens, K]`, averaged over the tokens, multiplies the weights of the components. One of ones is all
    of them, zeros leave components out, and what the host mixes of two is mixed here.
    """

    def __init__(self, data: Mixture, kind: str):
        super().__init__(kind, data.dimensions)
        self.data = data

    def denoised(self, x: Tensor, sigma: float, context: Tensor | None) -> Tensor:
        rows = x.movedim(1, -1)
        weights = None if context is None else self.log_weights(context, rows.shape[1:-1].numel())
        found = self.data.denoised(self.path, rows.reshape(-1, rows.shape[-1]), sigma, weights)
        return found.reshape(rows.shape).movedim(-1, 1)

    def log_weights(self, context: Tensor, positions: int) -> Tensor:
        """`[B * positions, K]`, not normalised."""
        if context.shape[-1] != self.data.components:
            raise ValueError(
                f"The model of StepwiseMixtureModel has {self.data.components} components, and this conditioning is "
                f"one for {context.shape[-1]}: wire a conditioning that the same node made."
            )
        weights = context.mean(1).clamp(min=0.0) * self.data.weights
        if not bool((weights.sum(1) > 0.0).all()):
            raise ValueError(
                "A conditioning of StepwiseMixtureModel leaves no component of the mixture: wire one of that node's "
                "conditionings, not one that was set to zero."
            )
        return weights.log().repeat_interleave(positions, 0)


def mixture_model(
    components: int, dimensions: int, seed: int, kind: str, rounded: bool, disable_dynamic: bool = False
) -> Any:
    """The MODEL of `samplers.exact.mixture` with this seed."""
    network = MixtureNetwork(mixture(components, dimensions, seed), kind)
    model = exact_model(network, rounded, disable_dynamic)
    # With this the host can make the model anew, for a second GPU or without dynamic memory.
    model.cached_patcher_init = (mixture_model, (components, dimensions, seed, kind, rounded))
    return model


def data_of(model: Any) -> Mixture | None:
    """The data of a MODEL, where it is one of these."""
    network = getattr(model.model, "diffusion_model", None)
    return network.data if isinstance(network, MixtureNetwork) else None


def conditioning_of(components: Sequence[int], count: int) -> list[list[Any]]:
    """CONDITIONING for some of `count` components; for none of them, all."""
    chosen = torch.zeros(1, 1, count)
    chosen[..., list(components or range(count))] = 1.0
    return [[chosen, {}]]


def parse_components(text: str, count: int) -> list[int]:
    """ "0, 2" -> [0, 2], "1-3" -> [1, 2, 3], "" -> []. Raises InputError for a number that the mixture has not."""
    found: list[int] = []
    for index, entry in enumerate(re.sub(r"\s*-\s*", "-", text).replace(",", " ").split()):
        match = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", entry)
        if match is None:
            problem = f"is {quoted(entry)}, neither a number nor a range of numbers"
            raise InputError(
                "prompt", problem, "write numbers with commas between them (0, 2), a range (1-3), or nothing", index
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if max(first, last) >= count:
            problem = f"is {quoted(entry)}, and the components are numbered from 0 to {count - 1}"
            raise InputError("prompt", problem, "name fewer, or raise components", index)
        found.extend(range(min(first, last), max(first, last) + 1))
    return sorted(set(found))
