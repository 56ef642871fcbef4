"""What a step node says of its run: on its face, where the page draws it (web/face.js), and in the log."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...samplers.plan import ascends
from ..host.previews import EVERY_IMAGE, FIRST_IMAGE
from ..shared.messages import AS_WIRED, Words
from .held import HeldRun
from .identity import is_link

MOST_SEEDS = 4


@dataclass
class Face:
    """The remarks on a run, each said once, what the node was run with, for the page to compare with, and which
    `previews` the workflow asks for (web/previews.js)."""

    node: str = ""
    words: Words = field(default_factory=lambda: AS_WIRED)
    prompt: Mapping[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    previews: str = FIRST_IMAGE

    @classmethod
    def of(cls, hidden: Any, words: Words = AS_WIRED) -> "Face":
        """The face of the node whose hidden inputs are `hidden`, and whose inputs have these `words`."""
        prompt = getattr(hidden, "prompt", None)
        shown = prompt if isinstance(prompt, Mapping) else {}
        return cls(str(getattr(hidden, "unique_id", None) or ""), words, shown, previews=asked_for(hidden))

    def say(self, remark: str) -> None:
        if remark not in self.remarks:
            logging.warning("Stepwise: %s", remark)
            self.remarks.append(remark)

    def after(self, held: HeldRun, state: HeldRun | None) -> dict[str, list[Any]]:
        """What the node leaves for the page, having made `held` of `state` or of nothing."""
        shown = {
            "node": self.node,
            "did": did(held, state),
            "went_on": state is not None,
            "paused": is_paused(held),
            "remarks": self.remarks,
            "with": upstream(self.prompt, self.node),
        }
        return {"stepwise_face": [shown]}


def asked_for(hidden: Any) -> str:
    """The previews that the workflow asks for; a prompt without a workflow asks for the host's own."""
    found: Any = getattr(hidden, "extra_pnginfo", None)
    for name in ("workflow", "extra", "stepwise_previews"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return EVERY_IMAGE if found == EVERY_IMAGE else FIRST_IMAGE


def is_paused(held: HeldRun) -> bool:
    """Whether the run has noise left, or upwards steps, and a state to go on from."""
    if held.state is None or not held.sigmas:
        return False
    return held.step < held.steps if ascends(held.sigmas) else held.sigmas[held.step] > 0.0


def did(held: HeldRun, state: HeldRun | None) -> str:
    """What a part of a run did, in a line; nothing for a run in one piece, but what its adaptive steps cost."""
    return "; ".join(filter(None, (part_of(held, state), calls_of_images(held))))


def calls_of_images(held: HeldRun) -> str:
    """The model calls of adaptive steps so far."""
    paces = () if held.state is None else held.state.paces
    if len(paces) < 2:
        return "".join(map(str, paces))
    return "; ".join(f"image {i}: {pace}" for i, pace in enumerate(paces))


def part_of(held: HeldRun, state: HeldRun | None) -> str:
    seed = seeds_of(held.seeds or (held.seed,))
    if is_paused(held):
        begun = f"went on from step {state.step}, " if state is not None else ""
        left = f", noise level {held.sigmas[held.step]:.4g} left" if held.step == held.steps else ""
        return f"{begun}stopped at step {held.step} of {held.steps}{left}, {seed}"
    return "" if state is None else f"went on from step {state.step} to {max(held.steps, 0)}, {seed}"


def seeds_of(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    more = f" and {len(seeds) - MOST_SEEDS} more" if len(seeds) > MOST_SEEDS else ""
    return f"seeds {', '.join(map(str, seeds[:MOST_SEEDS]))}{more}"


def upstream(prompt: Mapping[str, Any], node: str) -> dict[str, Any]:
    """A node of a prompt and all that leads to it: what is in the host's cache under the node's result."""
    found: dict[str, Any] = {}
    waiting = [node]
    while waiting:
        number = waiting.pop()
        if number in found or number not in prompt:
            continue
        inputs = prompt[number].get("inputs", {})
        found[number] = {"class_type": prompt[number].get("class_type"), "inputs": inputs}
        waiting += [value[0] for value in inputs.values() if is_link(value)]
    return found
