"""Fitted plans beside DPM++ 2M, UniPC and Align Your Steps: the figures of docs/fitting.md.

    python benchmarks/fitting.py --case digits-7.5-10      one fit on the Digits model and its baselines, some minutes
    python benchmarks/fitting.py --case mixture            all of the exact mixture, about a minute
    python benchmarks/fitting.py                           every case, one after another

Printed is the distance |x - ODE| / |ODE| of the final picture, median and mean over 128 starts that no fit has seen.
The ODE is DPM++ 2M on 160 levels of the same model; all is computed in the same run.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from stepwise.samplers import FLOW, VE, start
from stepwise.samplers.fitting import FULL, KEEPING, LOOSE, QUICK, Alone, Budget, Freedom, Split, begin_from, fit
from stepwise.samplers.fitting.errors import distances
from stepwise.samplers.fitting.linear_form import single
from stepwise.samplers.fitting.reference import fine_levels
from stepwise.samplers.fitting.subject import Subject
from stepwise.samplers.plan import Plan
from stepwise.samplers.schedules import karras
from stepwise.samplers.schedules.published import align_your_steps
from stepwise.samplers.solvers.exponential_multistep import dpmpp_2m
from stepwise.samplers.solvers.unipc import unipc
from torch import Tensor

BATCH = 32
SPLIT, TEST = Split(64, 32), slice(96, 224)
FITS = {"quick": (QUICK, KEEPING), "full": (FULL, KEEPING), "loose": (FULL, LOOSE)}


@dataclass(frozen=True)
class Case:
    """What a plan of so many calls is fitted on."""

    name: str
    guidance: float
    calls: int
    make: Callable[[float], Subject]
    levels: Callable[[int], tuple[float, ...]]


def digits(guidance: float) -> Subject:
    """The Digits model in ComfyUI, at a guidance, with the ten digits in turn as prompts."""
    from stepwise.nodes.host.fitting import GuiderSubject
    from stepwise.tools.measure.digits import digits as model
    from stepwise.tools.measure.host import node

    (positive,), (negative,) = node("StepwiseDigit", labels="0-9"), node("StepwiseDigit", labels="")
    (guider,) = node(
        "StepwiseCFGGuider", model=model("standard"), positive=positive, negative=negative, cfg=guidance, rule=()
    )
    noise = torch.randn(TEST.stop, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return GuiderSubject([guider], noise, lambda images: torch.zeros(images, 1, 8, 8), DIGITS_MAX, BATCH)


DIGITS_MIN, DIGITS_MAX = 0.029167158529162407, 14.614641189575195


def digits_levels(steps: int) -> tuple[float, ...]:
    return single(karras(steps, sigma_min=DIGITS_MIN, sigma_max=DIGITS_MAX))


class Mixture:
    """Six Gaussians in 16 dimensions, three of which are the prompt; the denoiser is known, E[x0 | x]."""

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
    Case("digits-7.5-10", 7.5, 10, digits, digits_levels),
    Case("digits-7.5-5", 7.5, 5, digits, digits_levels),
    Case("digits-1-8", 1.0, 8, digits, digits_levels),
    *(
        Case(f"mixture-{path!r}-{guidance:g}-{calls}", guidance, calls, lambda g, p=path: mixture(p, g), levels)
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
        yield f"UniPC {schedule}, {calls}", unipc(path, levels)
        if path is VE:
            aligned = single(align_your_steps(calls, model_type="SD1"))
            yield f"DPM++ 2M Align Your Steps, {calls}", dpmpp_2m(path, (case.levels(1)[0], *aligned[1:]))


def figures(errors: Tensor) -> str:
    return f"{errors.median():.4f} / {errors.mean():.4f}"


def ode(subject: Subject, levels: tuple[float, ...], calls: int = 160) -> Tensor:
    fine, _ = fine_levels(subject.path, levels, calls, subject.sigma_min)
    return subject.run(dpmpp_2m(subject.path, fine), start(subject.starts[TEST]), TEST).x


@torch.inference_mode()
def measure(case: Case, fits: dict[str, tuple[Budget, Freedom]], others: tuple[float, ...]) -> None:
    """Prints the baselines, the fits, and what these do at other guidances."""
    subject, levels = case.make(case.guidance), case.levels(case.calls)
    exact = ode(subject, levels)
    print(f"{case.name}: median / mean over {len(exact)} starts", flush=True)

    def far(plan: Plan, of: Subject, to: Tensor) -> str:
        return figures(distances(of.run(plan, start(of.starts[TEST]), TEST).x, to))

    for name, plan in baselines(case):
        print(f"  {name:<36} {far(plan, subject, exact)}", flush=True)
    plans = dict[str, Plan]()
    for name, (budget, freedom) in fits.items():
        began = time.monotonic()
        found = fit(subject, begin_from(subject.path, levels), SPLIT, budget, freedom)
        plans[name] = found.plan
        spent = f"{found.calls} calls a start, {time.monotonic() - began:.0f} s"
        stopped = f", stopped by {found.stopped}" if found.stopped else ""
        print(f"  {name + ', ' + str(case.calls):<36} {far(found.plan, subject, exact)}   {spent}{stopped}", flush=True)
        for stage, calls, fitted, selected in found.rounds:
            print(f"    {stage:<20} {calls:>5} calls   fit {fitted:.4f}   select {selected:.4f}", flush=True)
        print(f"    levels {' '.join(f'{sigma:.4g}' for sigma in found.form.sigmas)}", flush=True)
    for guidance in others:
        another = case.make(guidance)
        there = ode(another, levels)
        print(f"  at guidance {guidance:g}: DPM++ 2M {far(dpmpp_2m(subject.path, levels), another, there)}", flush=True)
        for name, plan in plans.items():
            print(f"  at guidance {guidance:g}: {name} {far(plan, another, there)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", default="", help="the beginning of the names of the cases to measure")
    parser.add_argument("--fits", nargs="*", default=list(FITS), choices=list(FITS), help="which fits")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="that each fit may take")
    parser.add_argument("--also", nargs="*", type=float, default=[], help="other guidances to try the plans at")
    given = parser.parse_args()
    torch.set_num_threads(1)
    fits = {name: FITS[name] for name in given.fits}
    fits = {name: (Budget(b.calls, b.rounds, b.reference, given.seconds), f) for name, (b, f) in fits.items()}
    cases = [case for case in CASES if case.name.startswith(given.case)]
    if any(case.make is digits for case in cases):
        from stepwise.tools.measure.host import load_host

        load_host()
    for case in cases:
        measure(case, fits, tuple(given.also))


if __name__ == "__main__":
    main()
