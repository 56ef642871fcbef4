"""One model call as guidance sees it, and its statistics image by image."""

import math
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from ..path import Path


@dataclass(frozen=True)
class Call:
    """What a rule may know of a model call besides the predictions.

    x: the state that the model saw, `[B, ...]` of any rank.
    sigma: its noise level, a Python float: the one of this very call, inner stages too.
    path: how the noise level maps to alpha and sigma.
    scale: the guidance scale; `guide` fills in what the rules of the kind `scale` made of it.
    components: for packed latents `[B, 1, N]`, the lengths of the parts of N; each part is normalised apart.
    advances: whether memory moves on with this call: once per step, at its first call.
    memory: what rules remember from step to step; tensors in it are replaced, never written to.
    key: what the names of this rule's memory begin with; `guide` fills it in.
    shapes: the shapes `[C, ...]` of the packed parts, where they are known.
    """

    x: Tensor
    sigma: float
    path: Path
    scale: float = 1.0
    components: tuple[int, ...] = ()
    advances: bool = True
    memory: MutableMapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    key: str = ""
    shapes: tuple[tuple[int, ...], ...] = ()


@dataclass
class Descent:
    """The pace of a sampler that tells only its noise levels: memory advances when sigma falls below the last value at
    which it advanced. One object a run."""

    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    last: float = math.inf

    def advances(self, sigma: float) -> bool:
        if sigma >= self.last:
            return False
        self.last = sigma
        return True


def per_image(statistic: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`statistic` of each image by itself, as `[B, 1, ...]` of the tensors' rank.

    One call per image and not one for the batch: how a device splits up a reduction depends on the whole tensor's
    shape, and an image's value must not depend on its neighbours, not in the last bit either.
    """
    rank = (1,) * tensors[0].ndim
    values = [statistic(*images).reshape(rank) for images in zip(*tensors, strict=True)]
    return values[0] if len(values) == 1 else torch.cat(values)


def cuts(components: Sequence[int]) -> list[slice]:
    """Where the parts of packed tensors lie in their last axis."""
    ends = list(accumulate(components))
    return [slice(end - length, end) for length, end in zip(components, ends, strict=True)]


def apart(components: Sequence[int], rule: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`rule` on the whole tensors, or on each component of packed ones."""
    if len(components) < 2:
        return rule(*tensors)
    return torch.cat([rule(*(tensor[..., cut] for tensor in tensors)) for cut in cuts(components)], dim=-1)


def unpacked(call: Call, rule: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`rule` on each image by itself, as `[1, C, ...]`, and on each component in its own shape where that is known.

    For rules that know channels from places.
    """

    def each(*tensors: Tensor) -> Tensor:
        values = [rule(*(tensor[i : i + 1] for tensor in tensors)) for i in range(len(tensors[0]))]
        return values[0] if len(values) == 1 else torch.cat(values)

    if len(call.shapes) < 2:
        return apart(call.components, each, *tensors)
    found: list[Tensor] = []
    for cut, shape in zip(cuts(call.components), call.shapes, strict=True):
        value = each(*(tensor[..., cut].reshape(-1, *shape) for tensor in tensors))
        found.append(value.reshape(len(value), 1, -1))
    return torch.cat(found, dim=-1)
