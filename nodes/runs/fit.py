"""A plan fitted to what guiders do: starts, levels, the fit, and what is reported of it."""

import math
from collections.abc import Sequence
from typing import Any

import comfy.model_management
import comfy.utils

from ...samplers import VE, Path, Plan, start
from ...samplers.fitting import FULL, QUICK, Budget, Fitted, Split, Stopped, Subject, begin_from, fit
from ...samplers.fitting.errors import distances
from ...samplers.fitting.linear_form import single
from ...samplers.fitting.reference import fine_levels, reference
from ...samplers.guidance.informed import counts_steps
from ...samplers.parameters import InputError, Value
from ...samplers.recipe import Recipe
from ...samplers.registry import FITTED
from ...samplers.schedules import karras
from ...samplers.schedules.checks import check_sigmas
from ...samplers.schedules.published import align_your_steps
from ...samplers.solvers.exponential_multistep import dpmpp_2m
from ...samplers.solvers.unipc import unipc
from ..host.fitting import GuiderSubject
from ..host.guider import PredictionGuider
from ..host.latents import packed, read_latent
from ..host.levels import read_sigmas, snapped
from ..host.models import family_of, family_of_all, path_of, sampling_of
from ..host.schedulers import named_sigmas
from ..host.seeds import ImageSeeds, components_of, nested, starting_noise

BUDGETS = {"quick": QUICK, "full": FULL}
# Align Your Steps was published for the levels of Stable Diffusion.
SD_RANGE = (12.0, 16.0)
UNTESTED = "It was stopped, and not measured on starts that the fit has not seen."


def fitted(
    guiders: Sequence[Any], latent_image: Any, calls: int, starts: int, seed: int, budget: str, begin: Any
) -> tuple[Recipe, str, tuple[float, ...]]:
    """The recipe of a plan of so many calls, what there is to say of it, and the levels that it began from.

    Raises InputError for an input that cannot be used, before the model is touched; the host's own exception where
    Cancel comes before there is anything to keep.
    """
    begins = None if begin is None else read_sigmas(begin, "begin")
    for number, each in enumerate(guiders, 1):
        if not hasattr(each, "model_patcher") or not hasattr(each, "sample"):
            raise InputError(f"guider_{number}", "is not a GUIDER", "wire CFG Guider (Stepwise) into it")
        if isinstance(each, PredictionGuider) and counts_steps(each.expression):
            problem = "is guided by the number of the step, and the reference has other steps than the plan"
            raise InputError(f"guider_{number}", problem, "leave Guidance by Steps out, or take Guidance Interval")
    if not guiders:
        raise InputError("guider_1", "is not wired", "wire CFG Guider (Stepwise) into it")
    guider = guiders[0]
    sampling = sampling_of(guider.model_patcher)
    path = path_of(sampling)
    for number, other in enumerate(guiders[1:], 2):
        if path_of(sampling_of(other.model_patcher)) is not path:
            raise InputError(f"guider_{number}", "has a model on another path", "give all guiders the same model")
        ours, theirs = (family_of(each.model_patcher) for each in (guider, other))
        if any(ours[name] != theirs[name] for name in ("latent", "channels")):
            problem = f"has a model for other latents ({theirs['latent']}) than guider_1 ({ours['latent']})"
            raise InputError(f"guider_{number}", problem, "give all guiders the same model")
    latent = read_latent(guider.model_patcher, latent_image)
    if latent.get("noise_mask") is not None:
        raise InputError("latent_image", "has a noise_mask, and a plan is fitted to whole pictures", "leave it out")
    levels = levels_of(sampling, calls, begins)
    samples = latent["samples"]
    # As many images at once as the latent has: what an ordinary run of it needs is enough.
    batch = len(components_of(samples)[0])
    round_up = batch * len(guiders)
    several = math.ceil(starts / round_up) * round_up
    half = math.ceil(starts / 2 / round_up) * round_up
    split, test = Split(several, half), slice(several + half, several + 2 * half)

    def like(images: int) -> Any:
        return nested([part.new_zeros((images, *part.shape[1:])) for part in components_of(samples)])

    # Addressed as the seeds of a batch are, far from those of the pictures that are then drawn with low seeds.
    noise = packed(starting_noise(ImageSeeds.counted(seed + 2**40, test.stop).seeds, like(1)))
    subject = GuiderSubject(guiders, noise, like, levels[0], batch)
    bar = comfy.utils.ProgressBar(1000)
    try:
        found = fit(
            subject,
            begin_from(path, levels),
            split,
            BUDGETS[budget],
            report=lambda part, _: bar.update_absolute(round(900 * part), 1000),
        )
    except Stopped:
        raise comfy.model_management.InterruptProcessingException from None
    twice = plain_levels(sampling, 2 * calls)
    if begin is not None:
        twice = tuple(fine_levels(path, levels, 2 * calls, subject.sigma_min)[0])
    # Who has pressed Cancel does not wait for as many calls again.
    tested = {} if found.stopped else figures(subject, found, (levels, twice), test)
    bar.update_absolute(1000, 1000)
    recipe = Recipe(
        FITTED.name,
        {"rows": found.form.rows},
        path,
        found.form.sigmas,
        float(getattr(guider, "cfg", 0.0) or 0.0),
        family_of_all(guider),
        about(found, BUDGETS[budget], split, seed) | tested,
    )
    return recipe, report(recipe, found, test), levels


def levels_of(sampling: Any, calls: int, begin: Any) -> tuple[float, ...]:
    """The levels that the fit begins from: those that are wired, or Karras, or on flow models the model's own."""
    path = path_of(sampling)
    if begin is not None:
        levels = snapped(path, begin)
        check_sigmas(path, levels, "begin")
        if len(levels) != calls + 1:
            problem = f"has {len(levels) - 1} steps, and calls is {calls}"
            raise InputError("begin", problem, "give both the same number")
        if levels[-1] != 0.0:
            raise InputError("begin", f"ends at {levels[-1]:g}", "end it with 0: a plan is fitted to finished pictures")
        return single(levels)
    return plain_levels(sampling, calls)


def plain_levels(sampling: Any, calls: int) -> tuple[float, ...]:
    if path_of(sampling) is VE:
        return single(karras(calls, sigma_min=float(sampling.sigma_min), sigma_max=float(sampling.sigma_max)))
    return snapped(path_of(sampling), named_sigmas(sampling, "simple", calls, 1.0).tolist())


def baselines(path: Path, schedules: Sequence[tuple[float, ...]]) -> dict[str, Plan]:
    """What others do on these levels, and on as many of Align Your Steps."""
    found = dict[str, Plan]()
    for sigmas in schedules:
        count = len(sigmas) - 1
        found[f"DPM++ 2M, {count} calls"] = dpmpp_2m(path, sigmas)
        found[f"UniPC, {count} calls"] = unipc(path, sigmas, warm_up="multistep")
        if path is VE and SD_RANGE[0] < sigmas[0] < SD_RANGE[1]:
            aligned = align_your_steps(count, model_type="SD1")
            found[f"DPM++ 2M on Align Your Steps, {count} calls"] = dpmpp_2m(path, (sigmas[0], *aligned[1:]))
    return found


def figures(subject: Subject, found: Fitted, schedules: Sequence[tuple[float, ...]], test: slice) -> dict[str, Value]:
    """Distance to the ODE of the model, median and mean over the starts that no fit has seen."""
    try:
        (*_, exact), _ = reference(subject, schedules[0], test, 160)
        plans = {f"fitted, {found.form.calls} calls": found.plan, **baselines(subject.path, schedules)}
        ends = {name: subject.run(plan, start(subject.starts[test]), test).x for name, plan in plans.items()}
    except Stopped:
        return {}
    off = {name: distances(end, exact) for name, end in ends.items()}
    return {f"test, {name}": f"{each.median():.4f} / {each.mean():.4f}" for name, each in off.items()}


def about(found: Fitted, budget: Budget, split: Split, seed: int) -> dict[str, Value]:
    kept = "keep" if found.form.keeps_marginals else "do not keep"
    return {
        "rows": f"{kept} the noise level of x",
        "fitted on": f"{split.fit} starts, selected on {split.select}, seed {seed}",
        "model calls a start": f"{found.calls} of {budget.calls}",
        "seconds": round(found.seconds, 1),
        "select, before and after": f"{found.began:.4f} {found.selected:.4f}",
        **({"stopped by": found.stopped} if found.stopped else {}),
    }


def report(recipe: Recipe, found: Fitted, test: slice) -> str:
    """The figures as text: distance |x - ODE| / |ODE|, median / mean."""
    head = f"Distance to the model's ODE, median / mean over {test.stop - test.start} starts that the fit has not seen:"
    measured = {
        name.removeprefix("test, "): value for name, value in recipe.figures.items() if name.startswith("test, ")
    }
    others = [f"{name}: {value}" for name, value in recipe.figures.items() if not name.startswith("test, ")]
    tested = [head, *(f"  {name}: {value}" for name, value in measured.items())] if measured else [UNTESTED]
    better = "" if found.selected < found.began else "Nothing better was found than what it began from.\n"
    return better + "\n".join([*tested, *others, *recipe.lines()[:2]])
