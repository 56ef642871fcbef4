"""The mark of a LATENT that still has noise in it, for the node that gets it without the state beside it."""

from collections.abc import Mapping
from typing import Any

from ...samplers.plan import ascends
from .held import HeldRun

# Other nodes copy it along with the rest of the latent, and read nothing of it.
MARK = "stepwise_unfinished"


def marked(latent: Mapping[str, Any], held: HeldRun, step: int) -> dict[str, Any]:
    """`latent` at a step of its run, with the mark where noise is left."""
    plain = unmarked(latent)
    if not held.sigmas or held.sigmas[step] == 0.0:
        return plain
    up = {"up": True} if ascends(held.sigmas) else {}
    return {**plain, MARK: {**up, "solver": held.solver, "step": step, "steps": held.steps, "sigma": held.sigmas[step]}}


def unmarked(latent: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in latent.items() if name != MARK}


def remark(latent: Any, noisy: bool, sigma: float) -> str:
    """What is wrong with `latent` as the beginning of a run at the level `sigma`; nothing where it is finished, or goes
    on at its own level without more noise."""
    mark = latent.get(MARK) if isinstance(latent, Mapping) else None
    if not isinstance(mark, Mapping):
        return ""
    level = mark.get("sigma")
    if not noisy and isinstance(level, float) and abs(level - sigma) <= 1e-3 * level:
        return ""
    where = f"step {mark.get('step')} of {mark.get('steps')}"
    if mark.get("up"):
        return (
            f"latent_image: this picture is unsampled, to noise level {level:.4g}, and is given noise again or goes on "
            "at another level: begin there, with Noise (Stepwise) at start none"
        )
    noise = "and is given noise again" if noisy else "and goes on at another noise level"
    return (
        f"latent_image: this picture is not finished ({where}) {noise}: wire its state, "
        "in the place of latent_image, or let its run end first"
    )
