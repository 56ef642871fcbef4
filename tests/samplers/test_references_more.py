"""Every twin in tools/generate/diffusers_twins.py: the scheduler of diffusers and our solver take the same steps.

How they are run, and the bounds: support/diffusers_runs.py.
"""

import math
import re
import sys
import textwrap
import zlib
from inspect import getsource
from pathlib import Path

import diffusers_runs
import numpy as np
import pytest
import torch
from cases import FLOW, VE, solver
from cases import Path as NoisePath
from diffusers_runs import (
    BETAS,
    BOUNDS,
    DATA,
    InOrder,
    Theirs,
    diffusers,
    generator,
    same_scale,
    set_sigmas,
    variance_preserving,
)
from stepwise.samplers import run, start
from stepwise.samplers.schedules import karras
from stepwise.tools.generate import diffusers_twins, generated, names, twins

ROOT = Path(__file__).resolve().parents[2]

make, compare, pytestmark = diffusers_runs.make, diffusers_runs.compare, diffusers_runs.pytestmark

VARIANCE_PRESERVING = {
    diffusers_twins.MULTISTEP,
    diffusers_twins.UNIPC,
    "DEISMultistepScheduler",
    "DPMSolverSinglestepScheduler",
}
TWO_CALLS = {"HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"}
DRAW_FLOAT32 = {diffusers_twins.MULTISTEP, "FlowMatchEulerDiscreteScheduler", "LTXEulerAncestralRFScheduler"}
HAVE_KARRAS = {
    diffusers_twins.MULTISTEP,
    diffusers_twins.UNIPC,
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
}
FLOW_SIGMAS = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
ARGUMENTS = {"order"}


class Preconditioned(Theirs):
    """A scheduler whose model predicts F, with denoised = c_skip x + c_out F   (Karras et al. 2022, table 1)."""

    def predict(self, path, x, sigma):
        data = self.scheduler.config.sigma_data
        norm = sigma * sigma + data * data
        denoised = DATA.denoised(path, x, sigma)
        return (denoised - data * data / norm * x) / (sigma * data / math.sqrt(norm))


def levels_of(path: NoisePath, steps: int) -> tuple[float, ...]:
    """A schedule of `steps` steps that ends above 0."""
    sigmas = karras(steps + 1)[:-1]
    return tuple(sigma / (1.0 + sigma) for sigma in sigmas) if path is FLOW else sigmas


def configuration(twin, path) -> dict:
    config = {name: value for name, value in twin.options.items() if name not in ARGUMENTS}
    if twin.name.startswith(("FlowMatch", "EDM", "LTX")):
        return config | ({"shift": 3.0} if twin.name.startswith("FlowMatch") else {})
    config |= FLOW_SIGMAS if path is FLOW else BETAS
    return config | ({"use_karras_sigmas": True} if path is VE and twin.name in HAVE_KARRAS else {})


def prepared(make, twin, path, steps: int):
    """The scheduler and the noise levels of its steps."""
    scheduler = make(twin.name, **configuration(twin, path))
    scheduler.set_timesteps(steps)
    scheduler.is_scale_input_called = True
    if twin.name.startswith("LTX") and make.precision == "float64":
        # They come from another scheduler's module.
        scheduler.sigmas = scheduler.sigmas.double()
    if "sigma_min" in twin.options.values() or twin.name == "DEISMultistepScheduler":
        set_sigmas(scheduler, levels_of(path, steps))
    scheduler.set_begin_index(0)
    sigmas = scheduler.sigmas.tolist()
    return scheduler, [sigmas[0], *sigmas[1:-1:2], sigmas[-1]] if twin.name in TWO_CALLS else sigmas


def theirs_of(twin, path, scheduler, plan):
    arguments = {name: value for name, value in twin.options.items() if name in ARGUMENTS}
    if any(not isinstance(operand, str) for stage in plan.stages for row in stage.rows for operand, _ in row.terms):
        arguments["generator"] = generator()
    kind = Preconditioned if twin.name.startswith("EDM") else Theirs
    scale = variance_preserving if path is VE and twin.name in VARIANCE_PRESERVING else same_scale
    return kind(scheduler, scale, path is FLOW, arguments, twin.name in DRAW_FLOAT32)


def cases():
    rows = [(twin, path) for twin in diffusers_twins.DIFFUSERS if not twin.test for path in twin.paths]
    return [pytest.param(*row, id=f"{label(row[0])}-{row[0].ours}-{row[1]}") for row in rows]


def label(twin) -> str:
    return " ".join([twin.name, *(f"{name} {value}" for name, value in twin.options.items())])


@pytest.mark.parametrize(("twin", "path_name"), cases())
def test_twin(make, compare, monkeypatch, twin, path_name):
    # What `make` reads as float64, which two of the schedulers do not import.
    monkeypatch.setattr(sys.modules[getattr(diffusers, twin.name).__module__], "np", np, raising=False)
    monkeypatch.setitem(BOUNDS, "float64", max(BOUNDS["float64"], twin.bound))
    path = NoisePath[path_name]
    calls = -1 if "All steps but the one to 0" in twin.note else None
    for steps in twin.steps:
        scheduler, sigmas = prepared(make, twin, path, steps)
        plan = solver(twin.ours)(path, sigmas, **twin.params)
        name = f"{label(twin)} = {twin.ours}, {path_name}"
        if calls is None or steps > 1:
            compare(name, plan, theirs_of(twin, path, scheduler, plan), calls=calls)


@pytest.mark.parametrize("twin", [t for t in (*diffusers_twins.DIFFUSERS, *twins.COMFYUI) if t.test], ids=label)
def test_the_test_of_a_row_exists(twin):
    file, function = twin.test.split("::")
    assert re.search(rf"^def {function}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_the_page_is_as_generated():
    assert generated.faults(names.files()) == [], "run: python -m tools.generate.names"


def singlestep(make, path, plan, **config):
    config = {"final_sigmas_type": "sigma_min", "lower_order_final": False, **config}
    scheduler = make("DPMSolverSinglestepScheduler", **config, **({"use_flow_sigmas": True} if path is FLOW else BETAS))
    scheduler.set_timesteps(len(plan.stages))
    set_sigmas(scheduler, [*(stage.sigma for stage in plan.stages), plan.sigmas[-1]])
    return scheduler, same_scale if path is FLOW else variance_preserving


@pytest.mark.parametrize("path", [VE, FLOW])
def test_dpmpp_2s(make, compare, path):
    plan = solver("DPMpp2S")(path, levels_of(path, 12))
    scheduler, scale = singlestep(make, path, plan, algorithm_type="dpmsolver++", solver_order=2)
    compare(f"DPMSolverSinglestepScheduler dpmsolver++ 2, {path!r}", plan, Theirs(scheduler, scale))


class InTurn:
    """A singlestep scheduler with another solver_type in each call of a step."""

    def __init__(self, scheduler, *kinds: str):
        self.scheduler, self.kinds, self.timesteps = scheduler, kinds, scheduler.timesteps

    def step(self, prediction, t, x):
        call = (self.scheduler.step_index or 0) % len(self.kinds)
        self.scheduler.register_to_config(solver_type=self.kinds[call])
        return self.scheduler.step(prediction, t, x)


@pytest.mark.parametrize("path", [VE, FLOW])
def test_dpm_solver_3(make, compare, path):
    """Lu et al. 2022a, algorithm 2, integrates the slope exactly in the second call of a step, which is solver_type
    heun, and has one difference alone in the third, which is midpoint."""
    plan = solver("DPMSolver")(path, levels_of(path, 8), order="3")
    scheduler, scale = singlestep(make, path, plan, algorithm_type="dpmsolver", solver_order=3)
    theirs = Theirs(InTurn(scheduler, "midpoint", "heun", "midpoint"), scale)
    compare(f"DPMSolverSinglestepScheduler dpmsolver 3, {path!r}", plan, theirs)


@pytest.mark.parametrize("steps", [2, 5, 10, 20])
def test_plms(make, compare, steps):
    """PNDM without its Runge-Kutta steps: two calls in the first step, and after each of them the same x."""
    scheduler = make("PNDMScheduler", **BETAS, skip_prk_steps=True, set_alpha_to_one=True)
    scheduler.set_timesteps(steps)
    kept = scheduler.alphas_cumprod.double()
    levels = [((1.0 - kept[t]) / kept[t]).sqrt().item() for t in dict.fromkeys(scheduler.timesteps.tolist())]
    plan = solver("PLMS")(VE, (*levels, 0.0))
    compare(f"PNDM = PLMS, {steps} steps", plan, Theirs(scheduler, variance_preserving), calls=-1)


# Two steps bring a sample between two components, where float32 loses it.
@pytest.mark.parametrize("steps", [10, 20])
def test_dpm_2_ancestral(make, compare, steps):
    """KDPM2Ancestral on its own levels and inner points, with the same noise."""
    scheduler = make("KDPM2AncestralDiscreteScheduler", **BETAS)
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)
    plan = solver("DPM2Ancestral")(VE, [scheduler.sigmas[0].item(), *scheduler.sigmas[1:-1:2].tolist()])
    theirs = Theirs(scheduler, arguments={"generator": generator()})
    compare(f"KDPM2Ancestral = DPM2Ancestral, {steps} steps", plan, theirs)


@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0])
def test_sa_solver(make, compare, tau):
    """Of order 1, predicted and corrected, on its own levels and with the same noise."""
    orders = {"predictor_order": 1, "corrector_order": 1}
    scheduler = make("SASolverScheduler", **BETAS, **orders, tau_func=lambda t: tau)
    scheduler.set_timesteps(10)
    scheduler.set_begin_index(0)
    everywhere = {"sde_start": 20000.0, "sde_end": 0.0, "warm_up": "multistep"}
    plan = solver("SASolver")(VE, scheduler.sigmas.tolist(), **orders, tau=tau, **everywhere)
    theirs = Theirs(scheduler, variance_preserving, arguments={"generator": generator()})
    compare(f"SASolver of order 1 = SASolver, tau {tau:g}", plan, theirs)


def drawn(s: float, t: float, like: torch.Tensor) -> torch.Tensor:
    """Noise of an interval, from a name on which float32 and float64 agree."""
    seed = zlib.crc32(f"{float(s):.4g} {float(t):.4g}".encode())
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 2, 12])
def test_dpm_solver_sde(make, differences, steps):
    """It asks for noise over half of a step and over all of it, and is given what our increments make of them."""
    scheduler = make("DPMSolverSDEScheduler", use_karras_sigmas=True, **BETAS)
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)
    sigmas = scheduler.sigmas.tolist()
    plan = solver("DPMppSDE")(VE, [sigmas[0], *sigmas[1:-1:2], sigmas[-1]])
    outer = {}
    for stage in plan.stages:
        parts = [(noise, value) for noise, value in stage.rows[-1].terms if not isinstance(noise, str)]
        if len(parts) == 2:
            size = math.hypot(parts[0][1], parts[1][1])
            key = f"{plan.sigmas[stage.step]:.4g} {plan.sigmas[stage.step + 1]:.4g}"
            outer[key] = [(noise, value / size) for noise, value in parts]

    def composed(s, t):
        parts = outer.get(f"{float(s):.4g} {float(t):.4g}")
        if parts is None:
            return drawn(s, t, x)
        return sum(value * drawn(noise.sigma_from, noise.sigma_to, x) for noise, value in parts)

    scheduler.noise_sampler = composed
    x, ours = DATA.sample(VE, plan.sigmas[0], 16), []
    source = lambda address, like: drawn(address.sigma_from, address.sigma_to, like)  # noqa: E731
    run(plan, DATA.denoiser(VE), start(x), source, watch=lambda state: ours.append(state.x))
    pairs = list(zip(ours, Theirs(scheduler).trajectory(plan, x), strict=True))
    off = max(((mine - yours).abs().max() / yours.abs().max()).item() for mine, yours in pairs)
    differences(f"diffusers DPMSolverSDEScheduler, VE, {make.precision}", off)
    assert off < BOUNDS[make.precision]


@pytest.mark.parametrize("path", [VE, FLOW])
def test_sde_dpmsolver_3_has_a_sign_wrong(make, compare, monkeypatch, path):
    """diffusers weighs the second difference with (1 - e^-2h - 2h) / (2h)^2 - 1/2, which tends to -1 with h; half the
    integral, as its ODE form has it, is + 1/2 and tends to 0. With that sign it is our DPM++ 3M SDE."""
    cls = getattr(diffusers, diffusers_twins.MULTISTEP)
    twin = twins.Twin(
        diffusers_twins.MULTISTEP, {**diffusers_twins.SDE, "solver_order": 3, "solver_type": "heun"}, "DPMpp3MSDE"
    )
    scheduler, sigmas = prepared(make, twin, path, 20)
    plan = solver("DPMpp3MSDE")(path, sigmas, weights="published", final_order="full")
    theirs = theirs_of(twin, path, scheduler, plan)
    x, ours = DATA.sample(path, plan.sigmas[0], 16), []
    noise = InOrder(torch.float32 if make.precision == "as shipped" else torch.float64)
    run(plan, DATA.denoiser(path), start(x), noise, watch=lambda state: ours.append(state.x))
    shipped = theirs.trajectory(plan, x)
    assert max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(ours, shipped, strict=True)) > 1e-2
    source = getsource(cls.multistep_dpm_solver_third_order_update)
    wrong = "(2.0 * h) ** 2 - 0.5"
    assert source.count(wrong) == 1, "diffusers has changed it: look again"
    made: dict = {}
    mended = textwrap.dedent(source.replace(wrong, "(2.0 * h) ** 2 + 0.5"))
    module = sys.modules[cls.__module__]
    exec(mended, vars(module), made)  # noqa: S102
    monkeypatch.setattr(cls, "multistep_dpm_solver_third_order_update", made["multistep_dpm_solver_third_order_update"])
    scheduler, _ = prepared(make, twin, path, 20)
    compare(f"{label(twin)}, sign mended, {path!r}", plan, theirs_of(twin, path, scheduler, plan))


def largest(plan, theirs) -> float:
    x, ours = DATA.sample(plan.path, plan.sigmas[0], 16), []
    run(plan, DATA.denoiser(plan.path), start(x), watch=lambda state: ours.append(state.x))
    return max(
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(ours, theirs.trajectory(plan, x), strict=True)
    )


@pytest.mark.parametrize(
    ("name", "options", "ours", "params", "stated"),
    [
        (diffusers_twins.MULTISTEP, {"solver_order": 3}, "DPMpp3M", twins.PUBLISHED, 6e-3),
        ("DEISMultistepScheduler", {"solver_order": 2, "lower_order_final": False}, "DEIS", {"order": 2}, 1e-2),
        ("DEISMultistepScheduler", {"solver_order": 3, "lower_order_final": False}, "DEIS", {"order": 3}, 3e-2),
    ],
)
def test_those_without_a_twin_are_as_far_as_stated(make, name, options, ours, params, stated):
    twin = twins.Twin(name, options, ours, {**params, **twins.COLD}, twins.VE)
    scheduler, sigmas = prepared(make, twin, VE, 10)
    plan = solver(ours)(VE, sigmas, **twin.params)
    assert stated / 2.0 < largest(plan, theirs_of(twin, VE, scheduler, plan)) < stated * 2.0


@pytest.mark.parametrize("path", [VE, FLOW])
def test_bh1_of_diffusers_ends_in_nan(make, path):
    twin = twins.Twin(diffusers_twins.UNIPC, {"solver_type": "bh1"}, "UniPC")
    scheduler, sigmas = prepared(make, twin, path, 10)
    plan = solver("UniPC")(path, sigmas, order=2, variant="bh1", warm_up="multistep")
    x = DATA.sample(path, plan.sigmas[0], 16)
    *before, last = theirs_of(twin, path, scheduler, plan).trajectory(plan, x)
    assert torch.isnan(last).all()
    assert not torch.isnan(before[-1]).any()
    assert not torch.isnan(run(plan, DATA.denoiser(path), start(x)).x).any()
