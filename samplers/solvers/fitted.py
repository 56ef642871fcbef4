"""Plans whose rows were found by a fit, carried as text."""

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, cast

from ..parameters import InputError, Param, counted
from ..path import Path
from ..plan import Stage, ascends, planned, row
from .history import known_history

# More calls than a fit ever makes, and more earlier predictions than a row takes.
MOST_CALLS, MOST_TAKEN = 1000, 64
ROUNDING = 1e-6
WHOLE = "wire the SIGMAS of Fitted Plan Sampler as they are: no denoise, no split, start_step 0"

Rows = Annotated[str, Param("Path, levels and rows of the fitted plan, as text.", rare=True)]


@planned
def fitted(path: Path, sigmas: Sequence[float], *, rows: Rows = "") -> list[Stage]:
    """x_{n+1} = carry_n x_n + sum_j taken_{n,j} d_{n-j},   d_n = denoised(x_n, told_n).

    The numbers are those of `rows`, which a fit has found for one model, one guidance and these levels: no others are
    taken. With the carry at t / s and rows that sum to 1 on the picture, x has the noise level that the model is told.
    An `opening` r < 1 multiplies the noise that the run starts from, before the first call, which is told r sigma_0:
    the step from noise to the level r sigma_0 for a prediction of 0, the mean of the latents, which costs no call.

    Raises:
        InputError: `rows` are no fitted plan, or one of another path or of other levels.
    """
    levels, told, carry, taken, named, opening = read(rows)
    if named is not path:
        problem = f"is a plan that was fitted on the {named!r} path, and this model is on {path!r}"
        raise InputError("sampler", problem, "fit a plan to this model, or take the model of the plan")
    check_levels(levels, sigmas)
    stages, weight = list[Stage](), opening
    depth = max(len(each) for each in taken) - 1
    for n, (sigma, factor, shares) in enumerate(zip(told, carry, taken, strict=True)):
        names = ["denoised", *(f"previous{back}" for back in range(1, len(shares)))]
        # What x holds of the picture: 1 where its noise level is kept.
        held = weight * factor + math.fsum(shares)
        weight = 1.0 if math.isclose(held, 1.0, rel_tol=1e-9) else held
        made = row("x", {**dict(zip(names, shares, strict=True)), "x": factor}, weight)
        before = (row("x", {"x": opening}, opening),) if n == 0 and opening != 1.0 else ()
        stages.append(Stage(sigma, (made, *known_history(n, depth)), n, before))
    return stages


def check_levels(levels: Sequence[float], sigmas: Sequence[float]) -> None:
    """Raises InputError where `sigmas` are not the plan's own levels, up to a rounding of float32."""
    if ascends(sigmas):
        raise InputError("sigmas", "go up, and a fitted plan goes down", "unsample with DPM++ 2M or Heun")
    if len(levels) != len(sigmas):
        steps = counted(max(len(sigmas) - 1, 0), "step")
        raise InputError("sigmas", f"have {steps}, and the fitted plan has {len(levels) - 1}", WHOLE)
    for index, (wanted, given) in enumerate(zip(levels, sigmas, strict=True)):
        if not math.isclose(wanted, given, rel_tol=ROUNDING, abs_tol=1e-12):
            problem = f"is {given:.6g}, and the plan was fitted with {wanted:.6g} there"
            raise InputError("sigmas", problem, WHOLE, index)


Read = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], tuple[tuple[float, ...], ...], Path, float]
PARTS = {"path", "sigmas", "told", "carry", "taken"}


def written(
    path: Path,
    sigmas: Sequence[float],
    told: Sequence[float],
    carry: Sequence[float],
    taken: Sequence[Sequence[float]],
    opening: float = 1.0,
) -> str:
    """The text that `read` reads; Python's shortest form of a float, which comes back as the same float."""
    plain: dict[str, Any] = {"path": path.value, "sigmas": sigmas, "told": told, "carry": carry, "taken": taken}
    if opening != 1.0:
        plain["opening"] = opening
    return json.dumps(plain, separators=(",", ":"), allow_nan=False)


def read(rows: str) -> Read:
    """Levels, what the model is told, carries, shares, path and opening. Raises InputError for anything else."""

    def wrong(problem: str) -> InputError:
        return InputError("rows", f"are no fitted plan: {problem}", "load the recipe again, or fit the plan anew")

    try:
        plain = json.loads(rows)
    except (ValueError, RecursionError):
        raise wrong("the text cannot be read") from None
    if not isinstance(plain, dict) or set(cast(dict[str, Any], plain)) - {"opening"} != PARTS:
        raise wrong("it lacks a part, or has another one")
    found = cast(dict[str, Any], plain)
    if found["path"] not in ("VE", "FLOW"):
        raise wrong("its path is neither VE nor FLOW")
    sigmas, told, carry = (numbers(found[name]) for name in ("sigmas", "told", "carry"))
    shares = cast(list[Any], found["taken"] if isinstance(found["taken"], list) else [])
    taken = [numbers(each) for each in shares]
    opening = numbers([found.get("opening", 1.0)])
    if sigmas is None or told is None or carry is None or opening is None or not all(taken):
        raise wrong("it holds other things than numbers")
    calls = len(told)
    if not 1 <= calls <= MOST_CALLS or [len(sigmas), len(carry), len(taken)] != [calls + 1, calls, calls]:
        raise wrong("its parts are not of one length")
    rows_taken = tuple(each for each in taken if each is not None)
    if any(len(each) > min(n + 1, MOST_TAKEN) for n, each in enumerate(rows_taken)):
        raise wrong("a row takes more predictions than there are")
    if not 0.0 < opening[0] <= 1.0:
        raise wrong("it does not open with a part of the noise")
    return sigmas, told, carry, rows_taken, Path(found["path"]), opening[0]


def numbers(values: Any) -> tuple[float, ...] | None:
    """Finite numbers, or None."""
    if not isinstance(values, list):
        return None
    listed = cast(list[Any], values)
    if not all(type(value) in (int, float) and math.isfinite(value) for value in listed):
        return None
    return tuple(float(value) for value in listed)
