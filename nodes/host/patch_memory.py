"""What patches of others remember from one model call to the next, so that a state can carry it.

ComfyUI's APG keeps its running average in variables of its own closure: a function that assigns to variables around it.
Those can be read and put back. What keeps its memory elsewhere is named instead.
"""

import dis
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import CellType, FunctionType
from typing import Any

from torch import Tensor, device

Options = Mapping[str, Any]

FORGETS = (
    "Stepwise: %s on this model or its prompts begins anew in every part of a run, so this one can differ from the run "
    "in one piece. Remove it, or make the run in one piece."
)


def functions(held: Any, at: str = "") -> Iterator[tuple[str, FunctionType]]:
    """Every function in nested model options, with its place there."""
    if isinstance(held, FunctionType):
        yield f"{at} {held.__qualname__}", held
    elif isinstance(held, Mapping):
        for name, each in held.items():
            yield from functions(each, f"{at}.{name}" if at else str(name))
    elif isinstance(held, list | tuple):
        for number, each in enumerate(held):
            yield from functions(each, f"{at}.{number}")


def assigned_cells(function: FunctionType) -> Iterator[tuple[str, CellType]]:
    """The variables around a function that it assigns to."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    written = {each.argval for each in dis.get_instructions(function.__code__) if each.opname == "STORE_DEREF"}
    yield from ((name, cell) for name, cell in cells.items() if name in written)


class PatchMemory:
    """The variables that the patches in `options` remember by, for the length of one run."""

    def __init__(self, options: Options):
        self.cells = {
            f"{at} {name}": cell for at, function in functions(options) for name, cell in assigned_cells(function)
        }
        unknown = [name for name, cell in self.cells.items() if not plain(cell.cell_contents)]
        for name in unknown:
            del self.cells[name]
            logging.warning("Stepwise: %s cannot be carried in a state: a run that is cut can differ.", name)

    def now(self) -> dict[str, Any]:
        """What is remembered, in copies: a patch may write into its tensors."""
        values = {name: cell.cell_contents for name, cell in self.cells.items()}
        return {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in values.items()
            if plain(value)
        }

    @contextmanager
    def lent(self, values: Mapping[str, Any], place: device) -> Iterator[None]:
        """The patches remember `values` for a while, and afterwards what they did before: a run leaves no trace."""
        before = {name: cell.cell_contents for name, cell in self.cells.items()}
        try:
            for name, value in values.items():
                if name in self.cells:
                    self.cells[name].cell_contents = value.to(place) if isinstance(value, Tensor) else value
            yield
        finally:
            for name, cell in self.cells.items():
                cell.cell_contents = before[name]


def plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | Tensor)


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
