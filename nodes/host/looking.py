"""What plain Python can reach from a patch or a guider: every place where something could be remembered.

Only what is stored is looked at, and nothing is called: no property, no descriptor of a class, no `__getattr__`.
"""

import functools
import sys
import time
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import BuiltinFunctionType, CellType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import comfy.model_patcher
from torch import Tensor, nn

from .progress import KEY

# A walk ends after so many objects, or so many seconds of its own work, and on each way after so many steps. The number
# of objects ends it first, by far, so that what is carried does not depend on the machine.
MOST_OBJECTS, MOST_SECONDS, FARTHEST = 5_000, 2.0, 60
DICTS, SEQUENCES = (dict, OrderedDict, defaultdict, Counter), (list, deque, set)
# Our own entry, a cache that `warn_of_what_forgets` knows, and the host's threads.
PASSED_OVER = frozenset((KEY, "easycache", "multigpu_thread_pool"))
# Objects of these packages keep their own house. A SimpleNamespace is nobody's.
HOUSES = {*sys.stdlib_module_names, "torch", "numpy", "comfy", "comfy_api"} - {"types", "__main__"}


@dataclass(frozen=True)
class Place:
    """Something that can hold values, by the way that leads to it: a variable of a closure, a dictionary (that of an
    object's attributes, too), a list, a slot of an object."""

    name: str
    held: Any
    slot: MemberDescriptorType | None = None
    passed_over: frozenset[str] = PASSED_OVER

    @property
    def is_dict(self) -> bool:
        return self.slot is None and isinstance(self.held, dict)

    @property
    def is_variable(self) -> bool:
        """Whether it holds one value and no more."""
        return self.slot is not None or isinstance(self.held, CellType)

    def values(self) -> dict[Any, Any]:
        """What it holds by key; a list or set has the key None."""
        if self.slot is not None:
            return {None: self.slot.__get__(self.held)} if has_slot(self.slot, self.held) else {}
        if isinstance(self.held, CellType):
            return {None: self.held.cell_contents} if is_full(self.held) else {}
        if isinstance(self.held, dict):
            return {key: value for key, value in self.held.items() if key not in self.passed_over}
        return {None: list(self.held)}

    def put(self, values: Mapping[Any, Any]) -> None:
        """Makes it hold these values and no others."""
        if self.slot is not None:
            self.put_into_slot(values)
        elif isinstance(self.held, CellType):
            if None in values:
                self.held.cell_contents = values[None]
            elif is_full(self.held):
                del self.held.cell_contents
        elif isinstance(self.held, dict):
            for key in self.values().keys() - values.keys():
                del self.held[key]
            self.held.update(values)
        else:
            self.held.clear()
            (self.held.update if isinstance(self.held, set) else self.held.extend)(values[None])

    def put_into_slot(self, values: Mapping[Any, Any]) -> None:
        if None in values:
            self.slot.__set__(self.held, values[None])
        elif has_slot(self.slot, self.held):
            self.slot.__delete__(self.held)


def is_full(cell: CellType) -> bool:
    """A variable of a closure is empty until it is assigned to, and after `del`."""
    try:
        return cell.cell_contents is cell.cell_contents
    except ValueError:
        return False


def has_slot(slot: MemberDescriptorType, owner: Any) -> bool:
    try:
        slot.__get__(owner)
    except AttributeError:
        return False
    return True


class Walk:
    """Every `Place` within reach, each once; `complete` says whether it came to an end, `seen` how many objects it
    met."""

    def __init__(self, most: int = MOST_OBJECTS, seconds: float = MOST_SECONDS):
        self.most, self.ends, self.complete = most, time.thread_time() + seconds, True
        # The objects themselves are held, since an id is only unique among objects that live.
        self.seen: dict[int, Any] = {}
        self.names: dict[str, int] = {}
        self.passed_over: dict[int, frozenset[str]] = {}

    def places(self, value: Any, name: str = "", passed_over: frozenset[str] = PASSED_OVER) -> Iterator[Place]:
        """Depth first, in the order in which things are stored: the same in every part of a run. Attributes of `value`
        itself that are `passed_over` are not looked at."""
        self.passed_over[id(stored(value))] = passed_over
        waiting = [(value, name, 0)]
        while waiting:
            value, name, far = waiting.pop()
            if id(value) in self.seen or is_leaf(value):
                continue
            if len(self.seen) >= self.most or time.thread_time() > self.ends:
                self.complete = False
                return
            if far == FARTHEST:
                self.complete = False
                continue
            self.seen[id(value)] = value
            inside = list[tuple[Any, str]]()
            for place, parts in self.look(value, name):
                if place is not None:
                    yield place
                inside += parts
            waiting += [(each, at, far + 1) for each, at in reversed(inside)]

    def look(self, value: Any, name: str) -> Iterator[tuple[Place | None, list[tuple[Any, str]]]]:
        """The places of one object, and what it leads on to."""
        kind = type(value)
        if kind in DICTS:
            place = self.place(name, value)
            yield place, [(each, way(name, key)) for key, each in place.values().items()]
        elif kind in SEQUENCES:
            yield self.place(name, value), [(each, way(name, i)) for i, each in enumerate(value)]
        elif isinstance(value, tuple | frozenset):
            yield None, [(each, way(name, i)) for i, each in enumerate(value)]
        elif kind is CellType:
            yield self.place(name, value), [(value.cell_contents, name)] if is_full(value) else []
        elif kind is FunctionType:
            yield None, self.of_function(value, f"{name} {value.__qualname__}")
        elif kind is MethodType:
            yield None, [(value.__self__, way(name, "__self__")), (value.__func__, name)]
        elif kind is functools.partial:
            yield None, [(value.func, name), (value.args, way(name, "args")), (value.keywords, way(name, "keywords"))]
        else:
            yield from self.of_object(value, name)

    def of_function(self, function: FunctionType, name: str) -> list[tuple[Any, str]]:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        found = [(cell, f"{name} {variable}") for variable, cell in cells]
        found += [(function.__defaults__, way(name, "defaults")), (function.__kwdefaults__, way(name, "defaults"))]
        return [*found, (function.__dict__, name)]

    def of_object(self, value: Any, name: str) -> Iterator[tuple[Place | None, list[tuple[Any, str]]]]:
        for base in type(value).__mro__:
            for key, slot in vars(base).items():
                if type(slot) is MemberDescriptorType and base.__module__ not in HOUSES:
                    at = way(name, key)
                    yield self.place(at, value, slot), [(slot.__get__(value), at)] if has_slot(slot, value) else []
        attributes = stored(value)
        if attributes is not None:
            yield None, [(attributes, name)]

    def place(self, name: str, held: Any, slot: MemberDescriptorType | None = None) -> Place:
        """Two ways can read alike, as those to 1 and to "1" in one dictionary: a number tells them apart."""
        number = self.names[name] = self.names.get(name, 0) + 1
        passed_over = self.passed_over.get(id(held), PASSED_OVER)
        return Place(name if number == 1 else f"{name}~{number}", held, slot, passed_over)


def way(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def stored(value: Any) -> dict[str, Any] | None:
    """The attributes of an object, if it has a plain dictionary of them."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return found if type(found) is dict else None


def is_leaf(value: Any) -> bool:
    """What nothing is looked for in: values, code, networks, the host's own objects, prompts."""
    kind = type(value)
    if value is None or kind in (bool, int, float, complex, str, bytes, BuiltinFunctionType, ModuleType):
        return True
    if issubclass(kind, type | Tensor | nn.Module | comfy.model_patcher.ModelPatcher):
        return True
    if kind in (*DICTS, *SEQUENCES, tuple, frozenset, CellType, FunctionType, MethodType, functools.partial):
        return is_conditioning(value)
    return kind.__module__.partition(".")[0] in HOUSES


def is_conditioning(value: Any) -> bool:
    """A CONDITIONING, as nodes hand it on or as the host's guider keeps it."""
    return type(value) is list and bool(value) and all(map(is_prompt, value))


def is_prompt(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) == 2 and (value[0] is None or isinstance(value[0], Tensor)) and type(value[1]) is dict
    return type(value) is dict and "model_conds" in value
