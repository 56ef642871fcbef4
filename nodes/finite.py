"""Finds the first prediction that is not finite, and who made it, without ever waiting for the device."""

import math
from collections.abc import Mapping
from typing import Any

import comfy.model_patcher
import torch

from ..samplers import Plan, State, run
from ..samplers.plan import NoiseSource


class FiniteCheck:
    """Sums every prediction into a vector that stays on the device, one kernel a model call.

    A NaN or an infinity makes its sum one. The vector is read where reading makes nobody wait: on the CPU after every
    step, elsewhere when the device happens to be idle (as after a preview) and at the end. When a sum is not finite,
    the run is repeated from the last state that was known to be good up to the bad call, which is then made again with
    an eye on the conditional and the unconditional prediction.
    """

    def __init__(self, name: str, plan: Plan, state: State, model: Any, extra_args: Mapping[str, Any]):
        self.name, self.plan, self.model, self.extra_args = name, plan, model, extra_args
        self.good = state
        self.calls = state.index
        self.sums = torch.zeros(len(plan.stages), dtype=torch.float32, device=state.x.device)

    def note(self, denoised: torch.Tensor) -> torch.Tensor:
        torch.sum(denoised, dim=tuple(range(denoised.ndim)), dtype=torch.float32, out=self.sums[self.calls])
        self.calls += 1
        return denoised

    def look(self, state: State, noise: NoiseSource, final: bool) -> None:
        """Raises ValueError, saying what went wrong where, if a prediction up to `state` was not finite."""
        if not (final or self.idle()):
            return
        sums = self.sums[: state.index].tolist()
        bad = next((call for call, value in enumerate(sums) if not math.isfinite(value)), None)
        if bad is None:
            self.good = state
            return
        stage = self.plan.stages[bad]
        raise ValueError(
            f"{self.name}: the model's output is not finite at step {stage.step + 1} of {self.plan.steps}, "
            f"sigma {stage.sigma:.6g}: {self.culprit(bad, noise)}"
        )

    def idle(self) -> bool:
        device = self.sums.device
        return device.type == "cpu" or (device.type == "cuda" and torch.cuda.current_stream(device).query())

    def culprit(self, call: int, noise: NoiseSource) -> str:
        def evaluate(x: torch.Tensor, sigma: float, **changes: Any) -> torch.Tensor:
            return self.model(x, x.new_full((len(x),), sigma), **{**self.extra_args, **changes})

        seen: dict[str, Any] = {}

        def witness(args: dict[str, Any]) -> torch.Tensor:
            seen.update({"conditional": args["cond_denoised"], "unconditional": args["uncond_denoised"]})
            return args["denoised"]

        state = run(self.plan, evaluate, self.good, noise, stop=call)
        options = comfy.model_patcher.create_model_options_clone(self.extra_args.get("model_options", {}))
        options = comfy.model_patcher.set_model_options_post_cfg_function(options, witness)
        run(self.plan, lambda x, sigma: evaluate(x, sigma, model_options=options), state, noise, stop=call + 1)
        guilty = [kind for kind, value in seen.items() if value is not None and not torch.isfinite(value).all()]
        if guilty:
            return (
                f"the {' and the '.join(guilty)} prediction had it. Run the model in a wider number format "
                f"(start ComfyUI with --force-fp32 to see whether that is it), or check its file and its patches"
            )
        if seen:
            return (
                "the combined prediction had it, both its parts were finite. Lower the guidance or remove a CFG patch"
            )
        return (
            "the combined prediction had it. Only that one is known under this GUIDER; wire CFG Guider (Stepwise) to "
            "see which part is to blame"
        )
