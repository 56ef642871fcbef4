"""The unconditional prediction, which CFG++ reads beside the guided one, from any guider that evaluates it."""

from collections.abc import Mapping
from typing import Any

import comfy.model_patcher
from torch import Tensor


class UncondWitness:
    """Sees the unconditional prediction of each model call of one run, by a post-CFG function of its own."""

    def __init__(self, name: str, model: Any, extra_args: Mapping[str, Any]):
        self.name, self.model = name, model
        self.mask = extra_args.get("denoise_mask")
        self.seen: dict[str, Any] = {}
        options = comfy.model_patcher.create_model_options_clone(extra_args["model_options"])
        set_post = comfy.model_patcher.set_model_options_post_cfg_function
        self.options = set_post(options, self.look, disable_cfg1_optimization=True)
        self.extra_args = {**extra_args, "model_options": self.options}

    def look(self, args: dict[str, Any]) -> Tensor:
        self.seen = args
        return args["denoised"]

    def taken(self, denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The prediction of the call that gave `denoised`, masked as the host masks that one: outside the mask both are
        the original picture, so that CFG++ moves nothing there. Where guidance rests, it is x as well.

        Raises ValueError where the guider evaluates no negative prompt.
        """
        seen, self.seen = self.seen, {}
        if denoised is x:
            return x
        if seen.get("uncond") is None:
            raise ValueError(
                f"{self.name}: cfg_pp reads the prediction of a negative prompt, and this GUIDER makes none. Wire "
                "CFG Guider (Stepwise) or CFGGuider, or turn cfg_pp off."
            )
        if self.mask is None:
            return seen["uncond_denoised"]
        mask = self.mask
        if "denoise_mask_function" in self.options:
            around = {"model": self.model.inner_model, "sigmas": self.model.sigmas}
            mask = self.options["denoise_mask_function"](sigma, mask, extra_options=around)
        return seen["uncond_denoised"] * mask + self.model.latent_image * (1.0 - mask)
