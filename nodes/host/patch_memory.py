"""What patches and guiders of others remember from one model call to the next, so that a state can carry it.

It is found by looking: what can be reached from them is compared with what it was when the run began, by identity, and
numbers and text by value. ComfyUI's APG keeps its running average in variables of its own closure, TeaCache its last
residual in the attributes of an object. What changed and is made of numbers, text, tensors and plain containers is
carried; what else changed is named. A function is code: one made anew in every call, as ToMe's, is not memory.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import Any

import comfy.samplers
import torch
from torch import Tensor, device

from .looking import PASSED_OVER, Place, Walk
from .plain_values import Copies, NotCarried, Tensors, differ, restored, there
from .transfer import Arriving

Options = Mapping[str, Any]

FORGETS = (
    "Stepwise: %s on this model or its prompts begins anew in every part of a run, so this one can differ from the run "
    "in one piece. Remove it, or make the run in one piece."
)
LEFT_OUT = "Stepwise: %s cannot be carried in a state: a run that is cut can differ. It holds %s."
# Tensors of so many latents are carried.
MOST_LATENTS = 8
# What the host's CFGGuider sets itself.
OF_THE_HOST = PASSED_OVER | frozenset(
    ("model_patcher", "model_options", "original_conds", "cfg", "conds", "inner_model", "loaded_models")
)
CODE = (FunctionType, MethodType)


@dataclass
class Remembered:
    """What is remembered at a step boundary, by place. Of an inference tensor on a device nobody can tell without
    waiting whether it was written into: such a place is `unsure`, with the answers on their way to the CPU."""

    sure: dict[str, Any] = field(default_factory=dict)
    unsure: dict[str, tuple[Any, Arriving]] = field(default_factory=dict)

    def on_cpu(self) -> dict[str, Any]:
        wrote = {name: value for name, (value, answers) in self.unsure.items() if any(map(bool, answers.taken()))}
        return there({**self.sure, **wrote}, torch.device("cpu"))


class PatchMemory:
    """What the patches in `options`, and a `guider` of another pack, remember, for the length of one run.

    room: bytes of the tensors that are carried.
    others: the options of further models that the run asks, in an order that is the same in every part of it.
    """

    def __init__(self, options: Options, guider: Any = None, room: int = 2**20, others: Sequence[Options] = ()):
        walk = Walk()
        found = [*walk.places(options), *walk.places(guider, "guider", OF_THE_HOST)]
        for number, each in enumerate(others, 2):
            found += walk.places(each, f"model {number}")
        self.start = [(place, place.values()) for place in found]
        self.room, self.tensors, self.objects = room, Tensors(room), len(walk.seen)
        for _, values in self.start:
            for each in values.values():
                self.tensors.note(each)
        self.named = dict[str, None]()
        if not walk.complete:
            self.name(f"what lies beyond the first {self.objects} objects of the patches", "too much to look at")

    @property
    def forgotten(self) -> tuple[str, ...]:
        """What changed and cannot be carried."""
        return tuple(self.named)

    def now(self) -> Remembered:
        """What is remembered, in copies: a patch may write into its tensors. What cannot be carried is named, once."""
        found, copies = Remembered(), Copies(self.room)
        for place, before in self.start:
            values = place.values()
            changed = [key for key in values if key not in before or self.differs(before[key], values[key])]
            gone = [key for key in before if key not in values]
            if not changed and not gone:
                continue
            try:
                taken = copies.taken(place, {key: values[key] for key in changed}, gone)
            except NotCarried as error:
                self.name(place.name, str(error))
                continue
            pairs = None if gone else self.tensors.unsure({key: (before.get(key), values[key]) for key in changed})
            if pairs is None:
                found.sure[place.name] = taken
            else:
                found.unsure[place.name] = taken, Arriving([differ(now, copy) for now, copy in pairs])
        return found

    def differs(self, before: Any, now: Any) -> bool:
        if isinstance(now, Tensor):
            return now is not before or self.tensors.wrote(now)
        if type(now) in (list, tuple) and type(before) is type(now):
            return len(before) != len(now) or any(map(self.differs, before, now))
        if now is before or (type(now) in CODE and (before is None or type(before) in CODE)):
            return False
        if type(now) is type(before) and isinstance(now, bool | int | float | str):
            return not (now == before or (now != now and before != before))
        return True

    def name(self, what: str, holding: str) -> None:
        if what not in self.named:
            self.named[what] = None
            logging.warning(LEFT_OUT, what, holding)

    @contextmanager
    def lent(self, values: Mapping[str, Any], place: device) -> Iterator[None]:
        """They remember `values` for a while, and afterwards what they did before: a run leaves no trace. But what only
        grew stays: that is what a patch has collected for somebody else."""
        moved = there(values, place)
        try:
            for each, before in self.start:
                if each.name in moved:
                    each.put(restored(each, before, moved[each.name]))
            yield
        finally:
            for each, before in self.start:
                if not same(each, before) and not grown(each, before):
                    each.put(before)
            self.tensors.put_back()


def same(place: Place, before: Mapping[Any, Any]) -> bool:
    """Whether a place holds the very objects that it held before."""
    now = place.values()
    if now.keys() != before.keys():
        return False
    if place.is_dict or place.is_variable:
        return all(value is before[key] for key, value in now.items())
    pairs = zip(now[None], before[None], strict=False)
    return len(now[None]) == len(before[None]) and all(a is b for a, b in pairs)


def grown(place: Place, before: Mapping[Any, Any]) -> bool:
    """Whether a dictionary or list holds all that it held before, and more."""
    now = place.values()
    if place.is_variable:
        return False
    if place.is_dict:
        return len(now) > len(before) and all(key in now and now[key] is value for key, value in before.items())
    pairs = zip(before[None], now[None], strict=False)
    return len(now[None]) > len(before[None]) and all(a is b for a, b in pairs)


def warn_of_what_forgets(options: Options, conds: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """ComfyUI's caches of model calls know the prompts by numbers that are new in every part; hooks that hold a
    keyframe for a number of steps count the steps of a part."""
    names = list[str]()
    cache = options.get("transformer_options", {}).get("easycache")
    if cache is not None:
        names.append(getattr(cache, "name", type(cache).__name__))
    groups = [cond["hooks"] for each in conds.values() for cond in each if cond.get("hooks") is not None]
    if any(hook.hook_keyframe.has_guarantee_steps() for group in groups for hook in group.hooks):
        names.append("a hook whose keyframes have guarantee_steps")
    for name in names:
        logging.warning(FORGETS, name)


def foreign(guider: Any, ours: type) -> Any:
    """The guider, if it is of another pack: the host's own and ours keep nothing of their own."""
    return None if type(guider) is comfy.samplers.CFGGuider or isinstance(guider, ours) else guider
