"""Finds the first prediction that is not finite, and who made it, without ever waiting for the device."""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import comfy.model_patcher
import torch

from ..samplers import AddressedNoise, Plan, Predicted, State, run
from .progress import Progress

Change = Callable[[Mapping[str, Any]], Mapping[str, Any]]
# (x, index of the model call, change of the model options) -> denoised
Evaluate = Callable[[torch.Tensor, int, Change], torch.Tensor | Predicted]


class FiniteCheck:
    """Sums every prediction into a vector that stays on the device, one kernel a model call.

    A NaN or an infinity makes its sum one. The vector is read where reading makes nobody wait: on the CPU after every
    step, elsewhere when the device happens to be idle (as after a preview) and at the end. When a sum is not finite,
    the run is repeated from the last state that was known to be good up to the bad call, which is then made again with
    an eye on the predictions that the guidance combines.
    """

    def __init__(self, name: str, plan: Plan, state: State, evaluate: Evaluate, progress: Progress):
        self.name, self.plan, self.evaluate, self.progress = name, plan, evaluate, progress
        self.good, self.memory = state, dict(progress.memory)
        self.calls = state.index
        self.sums = torch.zeros(len(plan.stages), dtype=torch.float32, device=state.x.device)

    def note(self, predicted: torch.Tensor | Predicted) -> torch.Tensor | Predicted:
        denoised = predicted.denoised if isinstance(predicted, Predicted) else predicted
        torch.sum(denoised, dim=tuple(range(denoised.ndim)), dtype=torch.float32, out=self.sums[self.calls])
        self.calls += 1
        return predicted

    def look(self, state: State, noise: AddressedNoise, final: bool) -> None:
        """Raises ValueError, saying what went wrong where, if a prediction up to `state` was not finite."""
        if not (final or self.idle()):
            return
        sums = self.sums[: state.index].tolist()
        bad = next((call for call, value in enumerate(sums) if not math.isfinite(value)), None)
        if bad is None:
            self.good, self.memory = state, dict(self.progress.memory)
            return
        stage = self.plan.stages[bad]
        raise ValueError(
            f"{self.name}: the model's output is not finite at step {stage.step + 1} of {self.plan.steps}, "
            f"sigma {stage.sigma:.6g}: {self.culprit(bad, noise)}"
        )

    def idle(self) -> bool:
        device = self.sums.device
        return device.type == "cpu" or (device.type == "cuda" and torch.cuda.current_stream(device).query())

    def culprit(self, call: int, noise: AddressedNoise) -> str:
        self.progress.memory = dict(self.memory)
        state = self.replayed(self.good, noise, call)
        memory, seen = dict(self.progress.memory), dict[str, torch.Tensor]()
        self.progress.witness = seen.__setitem__
        self.replayed(state, noise, call + 1)
        self.progress.witness = None
        if not seen:
            self.progress.memory = memory
            self.replayed(state, noise, call + 1, lambda options: with_witness(options, seen))
        guilty = [name for name, value in seen.items() if not torch.isfinite(value).all()]
        if guilty:
            kinds = {"positive": "the conditional prediction", "negative": "the unconditional prediction"}
            return (
                f"{' and '.join(kinds.get(name, name) for name in guilty)} had it. Run the model in a wider number "
                f"format (start ComfyUI with --force-fp32 to see whether that is it), or check its file and its patches"
            )
        if seen:
            return (
                "the combined prediction had it, both its parts were finite. Lower the guidance or remove a CFG patch"
                if len(seen) == 2
                else "the combined prediction had it, all its parts were finite. Lower the guidance"
            )
        return (
            "the combined prediction had it. Only that one is known under this GUIDER; wire CFG Guider (Stepwise) to "
            "see which part is to blame"
        )

    def replayed(self, state: State, noise: AddressedNoise, stop: int, change: Change = dict) -> State:
        """The calls from `state` up to `stop` once more, with changed model options."""
        calls = itertools.count(state.index)
        return run(self.plan, lambda x, _: self.evaluate(x, next(calls), change), state, noise, stop=stop)


def with_witness(options: Mapping[str, Any], seen: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Options with which a guider of the host, or of others, shows its predictions."""

    def witness(args: dict[str, Any]) -> torch.Tensor:
        given = {"positive": args["cond_denoised"], "negative": args["uncond_denoised"]}
        seen.update({name: value for name, value in given.items() if value is not None})
        return args["denoised"]

    clone = comfy.model_patcher.create_model_options_clone(options)
    return comfy.model_patcher.set_model_options_post_cfg_function(clone, witness)
