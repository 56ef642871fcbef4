"""The combination that every guidance comes down to."""

from typing import Annotated

import torch
from torch import Tensor

from ..parameters import Param


def cfg(
    cond: Tensor,
    uncond: Tensor,
    *,
    cfg: Annotated[
        float, Param("Guidance scale: 1 is the conditional prediction alone, 0 the unconditional.", 0.0, 100.0, 0.1)
    ] = 7.5,
) -> Tensor:
    """Classifier-free guidance: uncond + cfg (cond - uncond)   (Ho and Salimans 2022, eq. 6).

    Written with cfg = 1 + w of the paper, so that 1 is the conditional prediction and 0 the unconditional one. Any
    shape; denoised and noise predictions give the same result, since the rule is affine.
    """
    return torch.lerp(uncond, cond, cfg)
