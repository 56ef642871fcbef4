"""Modules under the names that they had in version 0.1, for one version more."""

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any


def renamed(old: str, *modules: ModuleType, **names: str) -> Callable[[str], Any]:
    """A module's `__getattr__` that finds what was there in `modules`, under its new name where `names` has one."""

    def found(name: str) -> Any:
        for module in modules:
            if hasattr(module, names.get(name, name)):
                where = f"{module.__name__}.{names.get(name, name)}"
                warnings.warn(f"{old}.{name} is now {where}; the old name goes with 0.3", DeprecationWarning, 2)
                return getattr(module, names.get(name, name))
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return found
