"""Finds the first prediction that is not finite, and who made it, without waiting for the device but at the end."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ...samplers import Predicted, State, run
from ...samplers.plan import NoiseSource
from .denoiser import HostDenoiser
from .transfer import Arriving


class Noted(NamedTuple):
    """A state, what guidance remembered there, and the sums up to it on their way to the CPU."""

    state: State
    memory: Mapping[str, torch.Tensor]
    sums: Arriving


class FiniteCheck:
    """Sums every prediction, image by image, into a table that stays on the device, one kernel a model call.

    A NaN or an infinity makes its sum one. After a step the sums since the last good state are sent to the CPU, unless
    others are still on their way, and looked at once they are there: on the CPU at once, on a GPU when it has come that
    far, which is as many steps later as the host is ahead of it. Only the last step is waited for. When a sum is not
    finite, the run is repeated from the last state that was known to be good up to the bad call, which is then made
    again with an eye on the predictions that guidance combines.
    """

    def __init__(self, denoiser: HostDenoiser, state: State):
        self.denoiser, self.plan = denoiser, denoiser.plan
        self.good, self.memory = state, dict(denoiser.progress.memory)
        self.noted: Noted | None = None
        self.sums = torch.zeros(len(self.plan.stages), len(state.x), dtype=torch.float32, device=state.x.device)

    def __call__(self, x: torch.Tensor, sigma: float) -> torch.Tensor | Predicted:
        """The denoiser's prediction, noted."""
        call = self.denoiser.calls
        predicted = self.denoiser(x, sigma)
        denoised = predicted.denoised if isinstance(predicted, Predicted) else predicted
        torch.sum(denoised, dim=tuple(range(1, denoised.ndim)), dtype=torch.float32, out=self.sums[call])
        return predicted

    def note(self, state: State) -> None:
        """Sends for the sums up to `state`, which the run has reached."""
        if self.noted is None:
            self.send_for(state)

    def send_for(self, state: State) -> None:
        sums = Arriving([self.sums[self.good.index : state.index]])
        self.noted = Noted(state, dict(self.denoiser.progress.memory), sums)

    def look(self, state: State, noise: NoiseSource, final: bool) -> None:
        """Raises ValueError, saying what went wrong where, if sums have come that are not finite: with the `final`
        state all have."""
        if final and (self.noted is None or self.noted.state is not state or not self.noted.sums.there()):
            self.send_for(state)
        if self.noted is None or not (final or self.noted.sums.there()):
            return
        (good, memory, sent), self.noted = self.noted, None
        seen, sums = self.good.index, sent.taken()[0].tolist()
        bad = next((call for call, row in enumerate(sums, seen) if not all(map(math.isfinite, row))), None)
        if bad is None:
            self.good, self.memory = good, memory
            return
        stage = self.plan.stages[bad]
        raise ValueError(
            f"{self.denoiser.name}: the model's output is not finite at step {stage.step + 1} of {self.plan.steps}, "
            f"sigma {stage.sigma:.6g}{of_images(sums[bad - seen])}: {self.culprit(bad, noise)}"
        )

    def culprit(self, call: int, noise: NoiseSource) -> str:
        """Who had it, from predictions that a guider of ours shows by itself, and others in a post-CFG function."""
        if name := self.denoiser.input_at_fault():
            return f"the {name} had it, before the first model call. Look at the node that makes the {name}"
        progress, seen = self.denoiser.progress, dict[str, torch.Tensor]()

        def witness(args: dict[str, Any]) -> torch.Tensor:
            given = {"positive": args["cond_denoised"], "negative": args["uncond_denoised"]}
            seen.update({name: value for name, value in given.items() if value is not None})
            return args["denoised"]

        self.denoiser.go_back(self.good.index, self.memory)
        state = run(self.plan, self.denoiser, self.good, noise, stop=call)
        memory = dict(progress.memory)
        progress.witness = seen.__setitem__
        run(self.plan, self.denoiser, state, noise, stop=call + 1)
        progress.witness = None
        if not seen:
            self.denoiser.go_back(call, memory)
            changes = self.denoiser.watched_by(witness)
            run(self.plan, lambda x, sigma: self.denoiser(x, sigma, **changes), state, noise, stop=call + 1)
        guilty = [name for name, value in seen.items() if not torch.isfinite(value).all()]
        if guilty:
            kinds = {"positive": "the conditional prediction", "negative": "the unconditional prediction"}
            return (
                f"{' and '.join(kinds.get(name, name) for name in guilty)} had it. Run the model in a wider number "
                f"format (start ComfyUI with --force-fp32 to see whether that is it), or check its file and its patches"
            )
        if seen:
            return "the combined prediction had it, all its parts were finite. Lower the guidance or remove a CFG patch"
        return (
            "the combined prediction had it. Only that one is known under this GUIDER; wire CFG Guider (Stepwise) to "
            "see which part is to blame"
        )


def of_images(sums: Sequence[float]) -> str:
    """Which images of a batch it was."""
    bad = [str(i) for i, value in enumerate(sums) if not math.isfinite(value)]
    if len(sums) == 1:
        return ""
    return f", image{'s' * (len(bad) > 1)} {', '.join(bad)} of 0 to {len(sums) - 1}"
