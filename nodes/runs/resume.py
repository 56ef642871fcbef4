"""How a run goes on from a state: exactly, or as a fork that says what it dropped."""

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from ...samplers import Plan, State
from ...samplers.checkpoint import check_state, fingerprint
from ...samplers.parameters import InputError, Value
from ...samplers.plan import ascends
from ...samplers.schedules.checks import check_sigmas
from ...samplers.solvers.open_end import carried_over
from ..host.levels import snapped
from ..host.sampler import PlanSampler, make_plan
from ..host.seeds import image_seeds, seed_of
from .face import Face
from .held import HeldRun, told_apart

OR_FORK = "or set on_mismatch to fork"


def resumed(
    held: HeldRun,
    sampler: Any,
    noise: Any,
    sigmas: tuple[float, ...] | None,
    start_step: int,
    on_mismatch: str,
    face: Face,
) -> tuple[HeldRun, Plan]:
    """`held`, ready to go on under `sampler`, and the plan of that.

    Latent, noise and mask always come from the state. Where solver, parameters or `sigmas` differ from the state's,
    `on_mismatch` decides: error raises InputError, fork goes on from the present x and says what it dropped. The seed
    of `noise` is the state's, whatever is wired, but for a fork; strict raises InputError for another one.
    """
    if held.state is None:
        cure = "use a Stepwise sampler in the node that made it"
        raise InputError("state", f"comes from a sampler that keeps nothing to resume ({held.solver})", cure)
    if not isinstance(sampler, PlanSampler):
        problem = "is not one of Stepwise, so it cannot go on from a state"
        raise InputError("sampler", problem, "wire a Sampler node of Stepwise")
    # In a copy of the node that began the run it is still as it was there.
    if start_step not in (0, held.start_step, held.step):
        problem = f"is {start_step}, and the state stands at step {held.step} of a run from step {held.start_step}"
        raise InputError("start_step", problem, "set it to 0")
    fork = Fork(on_mismatch, face)
    if held.solver == sampler.solver.name:
        # A parameter that is newer than the state had no other value then.
        defaults = {name: parameter.default for name, parameter in sampler.solver.parameters.items()}
        held = replace(held, params={**defaults, **held.params})
    held = fork.solver(held, sampler.solver.name, sampler.settings)
    held = fork.seed(held, noise)
    held = fork.schedule(held, sampler, sigmas)
    return fork.plan(held, sampler)


class Fork:
    """What does not agree with the state, one thing at a time; `restarts` once the solver's history is of no use."""

    def __init__(self, on_mismatch: str, face: Face):
        self.allowed, self.strict = on_mismatch == "fork", on_mismatch == "strict"
        self.face = face
        self.restarts = False
        self.plans: dict[tuple[float, ...], Plan] = {}

    def refuse(self, name: str, problem: str, cure: str, instead: str) -> None:
        """Raises InputError, or says what is done instead."""
        if not self.allowed:
            raise InputError(name, problem, f"{cure}, {OR_FORK}")
        name, _ = self.face.words.get(name, (name, None))
        self.face.say(f"fork: {name} {problem}: {instead}.")

    def solver(self, held: HeldRun, solver: str, settings: Mapping[str, Value]) -> HeldRun:
        if (solver, dict(settings)) == (held.solver, dict(held.params)):
            return held
        before, now = told_apart(held, solver, settings)
        problem = f"was made by {before}, and this is {now}"
        instead = f"{solver} begins anew from the present x, without the history of {held.solver}"
        self.refuse("state", problem, "use the same solver and parameters", instead)
        self.restarts = True
        return replace(held, solver=solver, params=settings)

    def seed(self, held: HeldRun, noise: Any) -> HeldRun:
        if noise is None:
            return held
        seeds = image_seeds(noise, held.latent)
        if seeds == held.image_seeds:
            return held
        problem = f"has the seed {seeds}, and the state was made with {held.image_seeds}"
        # A seed that moves after every run is the host's default.
        if not self.allowed and not self.strict:
            self.face.say(f"noise {problem}, which counts.")
            return held
        instead = "noise that the sampler adds from here on is of the new seed; the starting noise stays"
        self.refuse(
            "noise", problem, "leave noise unwired, set on_mismatch to error, where the state's counts", instead
        )
        return replace(held, seed=seed_of(noise), **asdict(seeds))

    def schedule(self, held: HeldRun, sampler: PlanSampler, sigmas: tuple[float, ...] | None) -> HeldRun:
        """The state's schedule, the wired one below the present level, or both parts of one that was split there."""
        if sigmas is None or snapped(held.path, sigmas) == snapped(held.path, held.sigmas):
            return held
        check_sigmas(held.path, snapped(held.path, sigmas), fewest=0, upwards=True)
        level, split = held.level, held.step == held.steps and sigmas[:1] == held.sigmas[-1:]
        if held.step == held.steps and sigmas in ((), (level,)):
            # A part of no steps leaves the picture as it is.
            return held
        if level is None:
            problem = "has steps, and the state was made on an empty schedule: it has no noise level to go on from"
            raise InputError("sigmas", problem, "leave state unwired to begin a run, or leave sigmas unwired")
        up = ascends(held.sigmas if held.steps else sigmas)
        if held.steps and ascends(sigmas) != up:
            way, other = ("up", "down") if up else ("down", "up")
            problem = f"go {other}, and the state was made going {way}: it cannot turn round"
            cure = (
                "leave state unwired and wire the output of its node into latent_image, with Noise (Stepwise) at start "
                "none; from level 1 of a flow model wire it through Noise from Latent"
            )
            raise InputError("sigmas", problem, cure)
        # Two float32 schedules may round one level differently: that is no step.
        below = tuple(
            sigma for sigma in sigmas if (sigma > level * (1.0 + 1e-6) if up else sigma < level * (1.0 - 1e-6))
        )
        joined = replace(held, sigmas=(*held.sigmas[: held.step + 1], *below))
        kept = None if self.restarts or not below else self.kept_history(held, joined, sampler)
        if split and kept is not None:
            return kept
        where = "above" if up else "below"
        instead = f"the run goes on with the levels of the new schedule {where} the present one, {level:.6g}"
        if split and not self.restarts:
            problem = (
                f"goes on where the state's schedule ends, and {held.solver} plans by the end or the length of all"
            )
            cure = (
                f"wire the full schedule into the first node and stop it with end_step {held.step}; leave sigmas "
                f"unwired and start_step 0 in the second"
            )
            self.refuse("sigmas", problem, cure, f"{instead}, without the history of the first part")
        else:
            cure = "wire the full schedule of the first part, or leave sigmas unwired"
            self.refuse("sigmas", "is not the schedule that the state was made on", cure, instead)
        if not below:
            problem = f"has no level {where} the present one, {level:.6g}"
            raise InputError("sigmas", problem, "wire a schedule that goes on from there")
        self.restarts = self.restarts or kept is None
        return kept or joined

    def plan(self, held: HeldRun, sampler: PlanSampler) -> tuple[HeldRun, Plan]:
        """The state checked against its plan, or the beginning of a new plan."""
        if not self.restarts:
            plan = self.plan_of(held, sampler)
            if held.plan != fingerprint(plan) and plan.sigmas != held.sigmas[held.solver_step :]:
                plan = plan_of(held, sampler, snap=False)
            if held.plan == fingerprint(plan):
                check_state(plan, held.state)
                return held, plan
            problem = f"was made by another version of Stepwise, whose {held.solver} takes other steps"
            instead = f"{held.solver} begins anew from the present x"
            self.refuse("state", problem, "finish it with the version that made it", instead)
        if held.step == held.steps:
            problem = "stands at the end of its schedule, where nothing is left to do for another solver"
            raise InputError("state", problem, "wire a state of an earlier step")
        if apart := [pace.level for pace in held.state.paces if not math.isclose(pace.level, held.level, rel_tol=1e-5)]:
            problem = f"has an image at noise level {apart[0]:.4g}, beyond the level {held.level:.4g} of its step"
            cure = "finish it with the solver and the parameters that it was made with"
            raise InputError("state", problem, cure)
        state = State({"x": held.state.x}, 0, held.state.denoised)
        held = replace(held, state=state, solver_step=held.step)
        plan = self.plan_of(held, sampler)
        return replace(held, plan=fingerprint(plan)), plan

    def kept_history(self, held: HeldRun, joined: HeldRun, sampler: PlanSampler) -> HeldRun | None:
        """`joined`, at the place of `held` with all that the solver remembers; None where the solver, had it known that
        schedule, would have come there in another way."""
        controller = sampler.solver.controller
        if controller is not None and controller(sampler.params).ends:
            return None
        plan = self.plan_of(joined, sampler)
        state = carried_over(held.state, self.plan_of(held, sampler), plan)
        return None if state is None else replace(joined, state=state, plan=fingerprint(plan))

    def plan_of(self, held: HeldRun, sampler: PlanSampler) -> Plan:
        """`plan_of`, made once for each schedule."""
        levels = held.sigmas[held.solver_step :]
        if levels not in self.plans:
            self.plans[levels] = plan_of(held, sampler)
        return self.plans[levels]


def plan_of(held: HeldRun, sampler: PlanSampler, snap: bool = True) -> Plan:
    """What the present solver does with its part of the schedule."""
    levels = held.sigmas[held.solver_step :]
    return make_plan(sampler.solver, sampler.params, held.path, levels, True, snap, held.limits)
