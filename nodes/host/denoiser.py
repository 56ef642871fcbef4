"""The host's model as the denoiser of a plan."""

from collections.abc import Mapping
from typing import Any

import comfy.model_management
import torch

from ...samplers import Plan, Predicted
from ...samplers.plan import ascends
from .progress import Progress, watched
from .transfer import placed_like


class HostDenoiser:
    """`model(x, sigma, **extra_args)` of the host, told where the run stands; in the first `rests` steps not called.

    For a plan that reads the unconditional prediction (CFG++) it is taken out of the guider by a post-CFG function of
    this run, and masked as the host masks the guided one: outside the mask both are the original picture, so that CFG++
    moves nothing there.
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        model: Any,
        extra_args: Mapping[str, Any],
        progress: Progress,
        calls: int,
        rests: int = 0,
    ):
        self.name, self.plan, self.model, self.progress, self.calls = name, plan, model, progress, calls
        self.rests, self.upwards = rests, ascends(plan.sigmas)
        self.uncond: torch.Tensor | None = None
        self.sigmas: torch.Tensor | None = None
        self.extra_args = progress.shown_to(extra_args)
        if plan.reads_uncond:
            self.extra_args["model_options"] = watched(self.extra_args["model_options"], self.witness)

    def __call__(self, x: torch.Tensor, sigma: float, **changes: Any) -> torch.Tensor | Predicted:
        """The prediction of model call number `calls`, which becomes the next."""
        progress, call, stages = self.progress, self.calls, self.plan.stages
        progress.sigma, progress.stage, progress.step = sigma, call, progress.before + stages[call].step
        progress.level, progress.upwards = self.plan.sigmas[stages[call].step], self.upwards
        progress.first = call == 0 or stages[call - 1].step != stages[call].step
        self.calls += 1
        # The host's progress bar looks for Cancel too, but only ten times a second.
        comfy.model_management.throw_exception_if_processing_interrupted()
        if stages[call].step < self.rests:
            # The rows of such a step read no prediction.
            return x
        sigmas = self.levels(x)[call]
        denoised = self.model(x, sigmas, **{**self.extra_args, **changes})
        return Predicted(denoised, self.taken(sigmas)) if self.plan.reads_uncond else denoised

    def levels(self, x: torch.Tensor) -> torch.Tensor:
        """The noise levels of all calls, copied to the device at the first: no call then needs a kernel for its own.

        One for each image, and none of them twice: whoever writes to those of one call changes no other.
        """
        if self.sigmas is None:
            levels = placed_like([stage.sigma for stage in self.plan.stages], x)
            self.sigmas = levels.unsqueeze(1).repeat(1, len(x))
        return self.sigmas

    def go_back(self, calls: int, memory: Mapping[str, torch.Tensor]) -> None:
        """The next call is number `calls`, and guidance remembers what it did then."""
        self.calls, self.progress.memory, self.sigmas = calls, dict(memory), None

    def input_at_fault(self) -> str:
        """The input of the run that is not finite, or nothing; for a run that has failed, since it waits."""
        given = {
            "latent": getattr(self.model, "latent_image", None),
            "noise": getattr(self.model, "noise", None),
            "mask": self.extra_args.get("denoise_mask"),
        }
        return next((name for name, each in given.items() if each is not None and not each.isfinite().all()), "")

    def watched_by(self, witness: Any) -> dict[str, Any]:
        """Changes for a call whose predictions `witness`, a post-CFG function, sees too."""
        return {"model_options": watched(self.extra_args["model_options"], witness, self.plan.reads_uncond)}

    def witness(self, args: dict[str, Any]) -> torch.Tensor:
        self.uncond = args["uncond_denoised"] if args.get("uncond") is not None else None
        return args["denoised"]

    def taken(self, sigmas: torch.Tensor) -> torch.Tensor:
        """The unconditional prediction of the call just made. Raises ValueError where the guider has none."""
        uncond, self.uncond = self.uncond, None
        if uncond is None:
            raise ValueError(
                f"{self.name}: cfg_pp needs the prediction of a negative prompt, and this GUIDER makes none. Wire "
                f"CFG Guider (Stepwise) or CFGGuider with a negative prompt, or turn cfg_pp off."
            )
        mask = self.extra_args.get("denoise_mask")
        if mask is None:
            return uncond
        model_options = self.extra_args["model_options"]
        if "denoise_mask_function" in model_options:
            options = {"model": self.model.inner_model, "sigmas": self.model.sigmas}
            mask = model_options["denoise_mask_function"](sigmas, mask, extra_options=options)
        return uncond * mask + self.model.latent_image * (1.0 - mask)
