"""Values made of numbers, text, tensors and plain containers: copied for a state, moved, and put back.

In a state a dictionary is {"dict": its items}, since its keys need not be text, and a set {"set": its members}.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, device

from .looking import Place

# Containers within containers.
DEEPEST = 16


class NotCarried(Exception):
    """A value that no state holds; the text says what it is."""


class Copies:
    """Copies of plain values, with tensors of no more than `room` bytes in all. What is shared stays shared."""

    def __init__(self, room: int):
        self.room = room
        # The tensors themselves are held, since an id is only unique among objects that live.
        self.made: dict[int, tuple[Tensor, Tensor]] = {}

    def taken(self, place: Place, changed: Mapping[Any, Any], gone: list[Any]) -> Any:
        """What a state holds of a place. Raises NotCarried."""
        if place.is_dict:
            now = [(self.plain(key), self.plain(value)) for key, value in changed.items()]
            return {"now": now, "gone": [self.plain(key) for key in gone]}
        if gone:
            raise NotCarried("nothing any more")
        return self.plain(changed[None])

    def plain(self, value: Any, depth: int = 0) -> Any:
        if value is None or type(value) in (bool, int, str):
            return value
        if isinstance(value, float):
            # NumPy's float64 is one, too.
            return float(value)
        if isinstance(value, Tensor):
            return self.clone(value)
        if depth < DEEPEST:
            if type(value) is list:
                return [self.plain(each, depth + 1) for each in value]
            if type(value) in (tuple, torch.Size):
                return tuple(self.plain(each, depth + 1) for each in value)
            if type(value) is dict:
                return {"dict": [(self.plain(k, depth + 1), self.plain(v, depth + 1)) for k, v in value.items()]}
            if type(value) is set:
                return {"set": [self.plain(each, depth + 1) for each in value]}
        raise NotCarried(f"a {type(value).__name__}")

    def clone(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self.made:
            if not is_plain(tensor):
                raise NotCarried("a tensor of an unusual form")
            self.room -= tensor.nbytes
            if self.room < 0:
                raise NotCarried("tensors of more than a few latents")
            self.made[id(tensor)] = tensor.detach().clone(), tensor
        return self.made[id(tensor)][0]


def is_plain(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.device.type != "meta" and not tensor.is_quantized


@dataclass
class Known:
    """A tensor as it was at the start: `version` counts what is written into it, and is not there for one that was made
    under inference mode."""

    tensor: Tensor
    version: int | None
    copy: Tensor | None


class Tensors:
    """The tensors within reach at the start of a run, with copies of no more than `room` bytes in all."""

    def __init__(self, room: int):
        self.room = room
        self.known: dict[int, Known] = {}

    def note(self, value: Any) -> None:
        for tensor in tensors_in(value):
            if id(tensor) in self.known:
                continue
            small = is_plain(tensor) and tensor.nbytes <= self.room
            self.room -= tensor.nbytes if small else 0
            self.known[id(tensor)] = Known(tensor, version(tensor), tensor.detach().clone() if small else None)

    def wrote(self, tensor: Tensor) -> bool:
        """Whether somebody may have written into it: certain by its version, or by its values on the CPU."""
        known = self.known.get(id(tensor))
        if known is None:
            return False
        if known.version is not None:
            return version(tensor) != known.version
        return known.copy is not None and (waits(tensor) or not equal(tensor, known.copy))

    def unsure(self, changed: Mapping[Any, tuple[Any, Any]]) -> list[tuple[Tensor, Tensor]] | None:
        """The tensors that alone may have changed, beside their values at the start; None where something did for
        certain."""
        known = [self.known.get(id(now)) for before, now in changed.values() if now is before]
        if len(known) < len(changed) or not all(
            each is not None and each.version is None and waits(each.tensor) for each in known
        ):
            return None
        return [(each.tensor, each.copy) for each in known]

    def put_back(self) -> None:
        """Writes the first values into the tensors that were written into."""
        with torch.inference_mode():
            for each in self.known.values():
                if each.copy is not None and self.wrote(each.tensor):
                    each.tensor.copy_(each.copy)


def version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def waits(tensor: Tensor) -> bool:
    """Whether to look at its values would wait for a device."""
    return tensor.device.type != "cpu"


def equal(one: Tensor, other: Tensor) -> bool:
    """Bit for bit, so that NaN equals itself."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return torch.equal(one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8))


def differ(one: Tensor, other: Tensor) -> Tensor:
    """Whether their bits differ, as a tensor, so that nobody waits for the answer."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return torch.ones((), dtype=torch.bool)
    return torch.ne(*(each.contiguous().view(-1).view(torch.uint8) for each in (one, other))).any()


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Lists are places of their own, but what a tuple holds is found only in it."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_in(each)


def there(value: Any, place: device) -> Any:
    """A plain value with copies of its tensors on `place`: a state that somebody holds is never written into."""
    made: dict[int, Tensor] = {}

    def at(value: Any) -> Any:
        if isinstance(value, Tensor):
            if id(value) not in made:
                made[id(value)] = value.to(place, copy=True)
            return made[id(value)]
        if isinstance(value, list | tuple):
            return type(value)(map(at, value))
        return {key: at(each) for key, each in value.items()} if isinstance(value, Mapping) else value

    return at(value)


def restored(place: Place, before: Mapping[Any, Any], value: Any) -> Mapping[Any, Any]:
    """What a place is to hold, from what a state holds of it; what does not fit it leaves it as it is."""
    if place.is_dict:
        if not isinstance(value, Mapping) or value.keys() != {"now", "gone"}:
            return before
        gone = [whole(key) for key in value["gone"]]
        kept = {key: each for key, each in before.items() if key not in gone}
        return {**kept, **{whole(key): whole(each) for key, each in value["now"]}}
    if place.is_variable:
        return {None: whole(value)}
    return {None: whole(value)} if isinstance(value, list) else before


def whole(value: Any) -> Any:
    """A plain value as it was."""
    if isinstance(value, list | tuple):
        return type(value)(map(whole, value))
    if isinstance(value, Mapping):
        ((kind, items),) = value.items()
        return set(map(whole, items)) if kind == "set" else {whole(key): whole(each) for key, each in items}
    return value


def is_sound(value: Any) -> bool:
    """Whether a state's value for a place can be put back."""
    try:
        if isinstance(value, Mapping) and value.keys() == {"now", "gone"}:
            dict(whole(value["now"]))
            set(whole(value["gone"]))
        else:
            whole(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
