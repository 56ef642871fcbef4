"""How to sample with one model: a solver, its levels and a guidance, as a small file that goes with a workflow."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from . import checkpoint
from .checkpoint import RECIPE, Kind, kind_of
from .parameters import InputError, Value, checked, quoted
from .path import Path
from .plan import Plan
from .registry import FITTED, SOLVERS, Solver
from .schedules.checks import check_sigmas

MOST_STEPS, MOST_TEXT = 1000, 10_000
DAMAGED, NEWER = RECIPE.damaged, "update Stepwise"


@dataclass(frozen=True)
class Recipe:
    """What travels as STEPWISE_PLAN.

    solver, params: of the registry, or a fitted plan with its rows; sigmas: the levels, to be taken whole.
    cfg: the guidance that it is for; 0 where it is not known.
    model: what the model is called and what its latents are, as states have it.
    figures: what was measured, by name: numbers and text.
    note: what else there is to say.
    """

    solver: str
    params: Mapping[str, Value]
    path: Path
    sigmas: tuple[float, ...]
    cfg: float = 0.0
    model: Mapping[str, Value] = field(default_factory=dict[str, Value])
    figures: Mapping[str, Value] = field(default_factory=dict[str, Value])
    note: str = ""

    @property
    def entry(self) -> Solver:
        """The solver in the registry. Raises InputError where there is none of the name."""
        found = next((each for each in (*SOLVERS, FITTED) if each.name == self.solver), None)
        if found is None:
            raise InputError("solver", f"is {quoted(self.solver)}, which this Stepwise does not have", NEWER)
        return found

    @property
    def plan(self) -> Plan:
        return self.entry.plan(self.path, self.sigmas, **checked(self.entry.plan, self.params))

    def check(self) -> None:
        """Raises InputError unless every part is of its kind and a plan comes of them."""
        texts = {"solver": self.solver, "note": self.note}
        for name, text in texts.items():
            if type(text) is not str:
                raise InputError(name, f"is {quoted(text)}", DAMAGED)
            if len(text) > MOST_TEXT:
                raise InputError(name, f"has {len(text)} characters", f"give at most {MOST_TEXT}")
        parts: Mapping[str, Any] = vars(self)
        if not isinstance(parts["path"], Path) or type(self.cfg) not in (int, float) or not 0.0 <= self.cfg <= 1000.0:
            raise InputError("cfg", f"is {quoted(self.cfg)}, or the path is {quoted(self.path)}", DAMAGED)
        for name in ("params", "model", "figures"):
            values = parts[name]
            if not isinstance(values, Mapping) or not all(is_plain(each) for each in cast(Any, values).values()):
                raise InputError(name, "holds other things than numbers and text by name", DAMAGED)
        if type(self.sigmas) is not tuple or not all(type(each) is float for each in self.sigmas):
            raise InputError("sigmas", "are no list of numbers", DAMAGED)
        if len(self.sigmas) > MOST_STEPS + 1:
            raise InputError("sigmas", f"are {len(self.sigmas)}", f"give at most {MOST_STEPS + 1}")
        check_sigmas(self.path, self.sigmas)
        try:
            plan = self.plan
        except (ArithmeticError, IndexError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("sigmas", f"allow no plan ({error})", DAMAGED) from None
        if plan.sigmas != self.sigmas:
            raise InputError("sigmas", "are not those of the plan", DAMAGED)

    def lines(self) -> list[str]:
        """What it is, for people: a line for each thing."""
        guidance = f", guidance {self.cfg:g}" if self.cfg else ""
        levels = " ".join(f"{sigma:.5g}" for sigma in self.sigmas)
        found = [f"{self.solver}, {len(self.sigmas) - 1} steps on {self.path!r}{guidance}", f"levels: {levels}"]
        found += [f"for: {self.model['model']} ({self.model.get('sampling', '')})"] if "model" in self.model else []
        found += [
            f"{name}: {value:.4g}" if type(value) is float else f"{name}: {value}"
            for name, value in self.figures.items()
        ]
        return found + ([self.note] if self.note else [])


def is_plain(value: Any) -> bool:
    return type(value) in (bool, int, float, str)


KINDS: Mapping[str, Kind] = {**checkpoint.KINDS, "Recipe": kind_of(Recipe)}


def to_bytes(recipe: Recipe, about: Mapping[str, str] | None = None) -> bytes:
    """The file of a recipe: a safetensors file without tensors, whose metadata anybody can read."""
    recipe.check()
    told = {"recipe": "\n".join(recipe.lines()), **(about or {})}
    return checkpoint.dumps(recipe, KINDS, told, RECIPE)


def from_bytes(data: bytes, name: str = "file") -> Recipe:
    """The recipe in a file. Raises InputError for anything else, and for one that is not whole and consistent."""
    found = checkpoint.loads(data, KINDS, name, RECIPE)
    if not isinstance(found, Recipe):
        raise InputError(name, "holds no recipe", "choose a file that was saved by Save Plan")
    try:
        found.check()
    except InputError as error:
        cure = NEWER if error.cure == NEWER else DAMAGED
        raise InputError(name, f"is inconsistent: {error.name} {error.problem}", cure) from None
    return found
