"""Which prompts the host evaluates together.

It decides that by free memory, and a network's last bits can depend on it. A state records it, and a run that goes on
otherwise says so.
"""

import logging
from typing import Any

import comfy.patcher_extension
from torch import Tensor

from .progress import KEY, Progress
from .roles import LEAVES

Batching = tuple[tuple[int, ...], ...]

MESSAGE = (
    "Stepwise: the first part of this run evaluated its prompts %s, this part evaluates them %s, since the free memory "
    "is another. The picture can differ from the uncut run in its last bits."
)


class BatchingWatch:
    """Notes the groups of each model call, as the host hands them to the model.

    `before` is what the state says; `last` is what the newest model call did.
    """

    def __init__(self, before: Batching = ()):
        self.before, self.last = before, before
        self.groups: list[tuple[int, ...]] = []
        self.stage = -1

    def attach(self, model_options: dict[str, Any], progress: Progress) -> None:
        """Looks on through a wrapper in the options of this run alone."""

        def note(executor: Any, x: Tensor, t: Tensor, c_concat: Any, c_crossattn: Any, control: Any, *rest, **kwargs):
            if progress.stage != self.stage:
                self.stage, self.groups = progress.stage, []
            options = rest[0] if rest else kwargs.get("transformer_options", {})
            self.groups.append(tuple(options.get(LEAVES, options.get("cond_or_uncond", ()))))
            return executor(x, t, c_concat, c_crossattn, control, *rest, **kwargs)

        kind = comfy.patcher_extension.WrappersMP.APPLY_MODEL
        comfy.patcher_extension.add_wrapper_with_key(kind, KEY, note, model_options, is_model_options=True)

    def compare(self) -> None:
        """After a step: says so where the groups are not those of the state."""
        if not self.groups:
            return
        self.last = tuple(self.groups)
        before, now = (sorted(map(len, groups)) for groups in (self.before, self.last))
        # With other prompts than before (another guider, a time range) there is nothing to repeat.
        if before and sum(before) == sum(now) and before != now:
            logging.warning(MESSAGE, grouping(self.before), grouping(self.last))
        self.before = ()


def grouping(groups: Batching) -> str:
    return "in groups of " + " and ".join(str(len(group)) for group in groups) if len(groups) > 1 else "together"
