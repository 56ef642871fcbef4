"""GUIDER objects: the host's own guider, with a shorter way where the conditioning is plain."""

from collections.abc import Mapping
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from .lean import Prepared, is_plain


class LeanGuider(comfy.samplers.CFGGuider):
    """The host's classifier-free guidance, with the same result."""

    prepared: Prepared | None = None

    def inner_sample(self, *args: Any, **kwargs: Any) -> Tensor:
        self.prepared = None
        try:
            return super().inner_sample(*args, **kwargs)
        finally:
            self.prepared = None

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: Mapping[str, Any] | None = None, seed: int | None = None
    ) -> Tensor:
        model_options = model_options or {}
        conds = [self.conds["positive"], self.conds["negative"]]
        if not is_plain(conds, model_options):
            return super().predict_noise(x, timestep, model_options, seed)
        if self.prepared is None or not self.prepared.fits(conds, x):
            self.prepared = Prepared(self.inner_model, conds, x)
        alone = self.cfg == 1.0 and not model_options.get("disable_cfg1_optimization")
        found = self.prepared(x, timestep, model_options, (0,) if alone else (0, 1))
        return found[0] if alone else torch.lerp(found[1], found[0], self.cfg)
