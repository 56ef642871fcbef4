"""Recipes on disk: in ComfyUI's output and input folders, under the rules of states."""

from pathlib import Path

from ...samplers import checkpoint, recipe
from ...samplers.checkpoint import RECIPE
from ...samplers.parameters import InputError, quoted
from ...samplers.recipe import Recipe
from . import folders

NOTHING = "no recipe saved yet"
TO_HAVE_ONE = "save one with Save Plan, or put one into the input folder"


def listed() -> list[str]:
    """The recipes there are, newest first."""
    return folders.listed(RECIPE)


def found(name: object) -> Path:
    """The file behind a name of `listed`. Raises InputError for anything else."""
    return folders.found(name, "recipe", NOTHING, TO_HAVE_ONE)


def read(name: object) -> Recipe:
    """The recipe in a file that was chosen by this name."""
    file = found(name)
    try:
        return recipe.from_bytes(checkpoint.read(file, form=RECIPE))
    except OSError as error:
        problem = f"{quoted(name)} cannot be read ({error.strerror})"
        raise InputError("file", problem, "choose another file") from None
    except InputError as error:
        raise InputError(error.name, f"{quoted(name)} {error.problem}", error.cure) from None
