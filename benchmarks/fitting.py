"""Fitted plans beside DPM++ 2M, UniPC and Align Your Steps: the figures of docs/fitting.md.

    python benchmarks/fitting.py --case digits-7.5-10                      one fit on the Digits model and its baselines
    python benchmarks/fitting.py --case mixture --fits quick full loose    all of the exact mixture
    python benchmarks/fitting.py --case digits-7.5-10 --transfer           and what else the plans are good for
    python benchmarks/fitting.py --frontier mixture-VE-5 --calls 4 5 6 8 10 15 20

Printed is the distance |x - ODE| / |ODE| of the final picture, median and mean over 128 starts that no fit has seen.
The ODE is DPM++ 2M on 160 levels of the same model; all is computed in the same run. Times are those of the
clock, on two threads, and those of the processors together.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from stepwise.samplers import FLOW, VE, start
from stepwise.samplers.fitting import (
    FULL,
    KEEPING,
    LOOSE,
    QUICK,
    Alone,
    Budget,
    Descent,
    Freedom,
    Split,
    begin_from,
    fit,
)
from stepwise.samplers.fitting.errors import distances
from stepwise.samplers.fitting.linear_form import Base, single
from stepwise.samplers.fitting.reference import fine_levels
from stepwise.samplers.fitting.subject import Subject
from stepwise.samplers.plan import Plan
from stepwise.samplers.schedules import karras
from stepwise.samplers.schedules.published import align_your_steps
from stepwise.samplers.solvers.exponential_multistep import dpmpp_2m
from stepwise.samplers.solvers.unipc import unipc
from torch import Tensor

# As many pictures in a batch, all ten digits twice, and as many copies of it at once.
BATCH, COPIES = 20, 8
SPLIT, TEST = Split(80, 20), slice(100, 228)
# Of what another guidance, prompt or size does with a plan.
TRANSFER = slice(100, 160)
# With no calls beyond one a step, as DPM++ 2M.
UNIPC = partial(unipc, warm_up="multistep")
# Budget, freedom, and the solver whose rows the fit begins from.
FITS = {
    "quick": (QUICK, KEEPING, dpmpp_2m),
    "full": (FULL, KEEPING, dpmpp_2m),
    "loose": (FULL, LOOSE, dpmpp_2m),
    "opened": (FULL, Freedom(opening=True), dpmpp_2m),
    "quick-unipc": (QUICK, KEEPING, UNIPC),
    "full-unipc": (FULL, KEEPING, UNIPC),
}
# By the gradient of the mixture, after the full fit; Digits in ComfyUI has none.
GRADIENT = "gradient"


@dataclass(frozen=True)
class Case:
    """What a plan of so many calls is fitted on; `others`: what else it is then tried on."""

    name: str
    guidance: float
    calls: int
    make: Callable[[float], Subject]
    levels: Callable[[int], tuple[float, ...]]
    others: Callable[[], Mapping[str, Subject]] = dict[str, Subject]


def digits(guidance: float, labels: str = "0-9", width: int = 8) -> Subject:
    """The Digits model in ComfyUI, at a guidance, with these digits in turn as prompts."""
    from stepwise.nodes.host.fitting import GuiderSubject
    from stepwise.tools.measure.digits import digits as model
    from stepwise.tools.measure.host import node

    (positive,), (negative,) = node("StepwiseDigit", labels=labels), node("StepwiseDigit", labels="")
    (guider,) = node(
        "StepwiseCFGGuider", model=model("standard"), positive=positive, negative=negative, cfg=guidance, rule=()
    )
    noise = torch.randn(TEST.stop, 1, 8, width, generator=torch.Generator().manual_seed(1))

    def like(images: int) -> Tensor:
        return torch.zeros(images, 1, 8, width)

    return GuiderSubject([guider], noise, like, DIGITS_MAX, BATCH, COPIES)


def other_digits() -> Mapping[str, Subject]:
    return {"guidance 5": digits(5.0), "guidance 10": digits(10.0), "8 x 12 values": digits(7.5, width=12)}


def other_prompts() -> Mapping[str, Subject]:
    return {"digits 5 to 9": digits(7.5, "5-9")}


DIGITS_MIN, DIGITS_MAX = 0.029167158529162407, 14.614641189575195


def digits_levels(steps: int) -> tuple[float, ...]:
    return single(karras(steps, sigma_min=DIGITS_MIN, sigma_max=DIGITS_MAX))


class Mixture:
    """Six Gaussians in 16 dimensions, three of which are the prompt; the denoiser is known, E[x0 | x].

    In torch, for its derivative; sigma may be a tensor.
    """

    def __init__(self) -> None:
        made = torch.Generator().manual_seed(0)
        self.means = 0.8 * torch.randn(6, 16, generator=made, dtype=torch.float64)
        self.variances = 0.02 + 0.1 * torch.rand(6, generator=made, dtype=torch.float64)

    def denoised(self, path, x: Tensor, sigma: float, parts: int) -> Tensor:
        alpha, means, variances = path.alpha(sigma), self.means[:parts], self.variances[:parts]
        spread = alpha * alpha * variances + sigma * sigma
        squares = (x[:, None, :] - alpha * means).square().sum(-1)
        share = torch.softmax(-0.5 * (squares / spread + x.shape[1] * spread.log()), -1)
        kept = alpha * variances / spread
        return share @ (means * (1.0 - alpha * kept)[:, None]) + (share @ kept)[:, None] * x


def mixture(path, guidance: float) -> Subject:
    data, top = Mixture(), DIGITS_MAX if path is VE else 1.0

    def denoiser(x: Tensor, sigma: float) -> Tensor:
        cond = data.denoised(path, x, sigma, 3)
        return cond if guidance == 1.0 else cond + (guidance - 1.0) * (cond - data.denoised(path, x, sigma, 6))

    noise = torch.randn(TEST.stop, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Alone(path, denoiser, top * noise, DIGITS_MIN if path is VE else 0.001)


def flow_levels(steps: int) -> tuple[float, ...]:
    return single([3.0 * u / (1.0 + 2.0 * u) for u in (1.0 - i / steps for i in range(steps + 1))])


CASES = [
    Case("digits-7.5-10", 7.5, 10, digits, digits_levels, other_digits),
    Case("digits-7.5-5", 7.5, 5, digits, digits_levels, other_digits),
    Case("digits-1-8", 1.0, 8, digits, digits_levels, other_digits),
    Case("prompts-7.5-10", 7.5, 10, lambda guidance: digits(guidance, "0-4"), digits_levels, other_prompts),
    *(
        Case(
            f"mixture-{path!r}-{guidance:g}-{calls}",
            guidance,
            calls,
            lambda g, p=path: mixture(p, g),
            levels,
            lambda p=path: {f"guidance {g:g}": mixture(p, g) for g in (3.0, 7.5)},
        )
        for path, levels in ((VE, digits_levels), (FLOW, flow_levels))
        for guidance in (1.0, 5.0)
        for calls in (5, 10)
    ),
]


def baselines(case: Case) -> Iterator[tuple[str, Plan]]:
    path = VE if case.levels is digits_levels else FLOW
    schedule = "Karras" if path is VE else "shift 3"
    for calls in (case.calls, 2 * case.calls):
        levels = case.levels(calls)
        yield f"DPM++ 2M {schedule}, {calls}", dpmpp_2m(path, levels)
        yield f"UniPC {schedule}, {calls}", UNIPC(path, levels)
        if path is VE:
            aligned = single(align_your_steps(calls, model_type="SD1"))
            yield f"DPM++ 2M Align Your Steps, {calls}", dpmpp_2m(path, (case.levels(1)[0], *aligned[1:]))


def figures(errors: Tensor) -> str:
    return f"{errors.median():.4f} / {errors.mean():.4f}"


@dataclass(frozen=True)
class Judge:
    """How far plans end from the ODE of a subject, on some of its starts."""

    subject: Subject
    exact: Tensor
    images: slice

    @classmethod
    def of(cls, subject: Subject, levels: tuple[float, ...], images: slice, calls: int = 160) -> "Judge":
        fine, _ = fine_levels(subject.path, levels, calls, subject.sigma_min)
        return cls(subject, subject.run(dpmpp_2m(subject.path, fine), start(subject.starts[images]), images).x, images)

    def figures(self, plan: Plan) -> str:
        end = self.subject.run(plan, start(self.subject.starts[self.images]), self.images).x
        return figures(distances(end, self.exact))


def measure(case: Case, fits: Mapping[str, tuple[Budget, Freedom, Base]], transfer: bool, plain: bool) -> None:
    """Prints the baselines, the fits, and what these do elsewhere."""
    subject, levels = case.make(case.guidance), case.levels(case.calls)
    judge = Judge.of(subject, levels, TEST)
    print(f"{case.name}: median / mean over {len(judge.exact)} starts", flush=True)
    for name, plan in baselines(case) if plain else ():
        print(f"  {name:<36} {judge.figures(plan)}", flush=True)
    plans = {"DPM++ 2M": dpmpp_2m(subject.path, levels)}
    for name, (budget, freedom, base) in fits.items():
        slope = Descent(subject.denoiser) if name == GRADIENT and isinstance(subject, Alone) else None
        began, busy = time.monotonic(), time.process_time()
        found = fit(subject, begin_from(subject.path, levels, base), SPLIT, budget, freedom, descent=slope)
        busy = time.process_time() - busy
        spent = f"{found.calls} calls a start, {time.monotonic() - began:.0f} s, of processors {busy:.0f} s"
        plans[name] = found.plan
        stopped = f", stopped by {found.stopped}" if found.stopped else ""
        print(f"  {name + ', ' + str(case.calls):<36} {judge.figures(found.plan)}   {spent}{stopped}", flush=True)
        for stage, calls, fitted, selected in found.rounds:
            print(f"    {stage:<20} {calls:>5} calls   fit {fitted:.4f}   select {selected:.4f}", flush=True)
        print(f"    levels {' '.join(f'{sigma:.4g}' for sigma in found.form.sigmas)}", flush=True)
        if found.form.opening != 1.0:
            print(f"    opening {found.form.opening:.4g}", flush=True)
    for where, other in case.others().items() if transfer else ():
        there = Judge.of(other, levels, TRANSFER)
        for name, plan in plans.items():
            print(f"  at {where}: {name}, {case.calls}: {there.figures(plan)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", default="", help="the beginning of the names of the cases to measure")
    parser.add_argument("--fits", nargs="*", default=["quick", "full"], choices=[*FITS, GRADIENT], help="which fits")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="that each fit may take")
    parser.add_argument("--alone", action="store_true", help="the fits, without the baselines")
    parser.add_argument("--transfer", action="store_true", help="try the plans on other guidances, prompts and sizes")
    parser.add_argument("--frontier", default="", help="a case without its calls, for plans of --calls each")
    parser.add_argument("--calls", nargs="*", type=int, default=[4, 5, 6, 8, 10, 15], help="of the frontier")
    given = parser.parse_args()
    fits = {name: FITS.get(name, FITS["full"]) for name in given.fits}
    fits = {name: (replace(budget, seconds=given.seconds), *rest) for name, (budget, *rest) in fits.items()}
    cases = [case for case in CASES if case.name.startswith(given.case)]
    if given.frontier:
        case = next(case for case in CASES if case.name.startswith(f"{given.frontier}-"))
        cases = [replace(case, name=f"{given.frontier}-{calls}", calls=calls) for calls in given.calls]
    if any(case.levels is digits_levels and not case.name.startswith("mixture") for case in cases):
        from stepwise.tools.measure.host import load_host

        load_host()
    torch.set_num_threads(2)
    with torch.no_grad():
        for case in cases:
            measure(case, fits, given.transfer, not given.alone)


if __name__ == "__main__":
    main()
