"""How several predictions become one."""

import torch
from torch import Tensor


def cfg(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: uncond + scale (cond - uncond)   (Ho and Salimans 2022, eq. 6).

    Written with scale = 1 + w of the paper, so that 1 is the conditional prediction and 0 the unconditional one. Any
    shape; denoised and noise predictions give the same result, since the rule is affine.
    """
    return torch.lerp(uncond, cond, scale)
