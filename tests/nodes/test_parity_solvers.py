"""The stochastic and multistep solvers equal the host's own when both are given the same noise."""

import itertools
import math
import re
from types import SimpleNamespace

import comfy.k_diffusion.sa_solver as host_sa
import comfy.k_diffusion.sampling as host_sampling
import pytest
import torch
from comfy.extra_samplers.uni_pc import sample_unipc
from parity import core_noise, core_run, drawn, key, our_run, relative, schedule
from stepwise.nodes.host import sampler as host
from stepwise.samplers import FLOW, VE, run, start
from stepwise.samplers.plan import Predicted
from stepwise.samplers.registry import SOLVERS
from stepwise.samplers.schedules import karras
from stepwise.samplers.solvers.first_level import begun
from toy_models import toy_model

SOLVER = {solver.id: solver for solver in SOLVERS}
FULL, MOVED = {"final_order": "full"}, {"first_level": "core"}
COLD = {"warm_up": "multistep"}
HEUN = {**FULL, **MOVED, "solver_type": "heun"}
STAGES = {"weights": "published", **COLD, **FULL, **MOVED}
SEEDS = {"eta": 0.6, "r": 0.4, "solver_type": "phi_2"}
REVERSE = lambda x: x**1.7  # noqa: E731
# Ours, its parameters, the host's name, its options, the paths, the bound.
ROWS = [
    ("EulerAncestral", {}, "euler_ancestral", {}, "both", 1e-5),
    ("EulerAncestral", {"eta": 0.6, "s_noise": 0.9}, "euler_ancestral", {"eta": 0.6, "s_noise": 0.9}, "both", 1e-5),
    ("DDPM", {}, "euler_ancestral", {}, "EPS", 1e-5),
    ("DDPM", {}, "ddpm", {}, "EPS", 1e-5),
    ("Heun", {}, "heun", {}, "both", 1e-5),
    ("DPMSolver", {"order": "2"}, "dpm_2", {}, "EPS", 1e-5),
    ("DPMpp2S", {"eta": 1.0}, "dpmpp_2s_ancestral", {}, "both", 1e-4),
    ("DPMpp2S", {"eta": 0.5, "s_noise": 0.9}, "dpmpp_2s_ancestral", {"eta": 0.5, "s_noise": 0.9}, "both", 1e-4),
    ("DPMpp2MSDE", {**FULL, **MOVED}, "dpmpp_2m_sde", {}, "both", 1e-5),
    ("DPMpp2MSDE", {**HEUN, "eta": 0.7}, "dpmpp_2m_sde_heun", {"eta": 0.7}, "both", 1e-5),
    ("DPMpp3MSDE", {**FULL, **MOVED, "weights": "published"}, "dpmpp_3m_sde", {}, "both", 1e-5),
    ("DPMpp3M", {**FULL, **COLD, "weights": "published"}, "dpmpp_3m_sde", {"eta": 0.0}, "EPS", 1e-5),
    ("RESSinglestep", {"eta": 0.6, "c2": 0.4, "solver_type": "phi_2", **MOVED}, "seeds_2", SEEDS, "both", 1e-5),
    ("ERSDE", {"scaler": "reverse_sde", "eta": 0.7, **STAGES}, "er_sde", {"noise_scaler": REVERSE}, "both", 3e-3),
    ("ERSDE", {"scaler": "ode", **STAGES}, "er_sde", {"noise_scaler": lambda x: x}, "both", 1e-3),
    ("ERSDE", {"order": 2, **STAGES}, "er_sde", {"max_stage": 2}, "both", 1e-3),
    ("ERSDE", {"order": 1, **STAGES}, "er_sde", {"max_stage": 1}, "both", 1e-5),
    ("GradientEstimation", {"gamma": 1.7}, "gradient_estimation", {"ge_gamma": 1.7}, "both", 1e-5),
    ("IPNDM", {"order": 3}, "ipndm", {"max_order": 3}, "both", 1e-5),
    ("LMS", {**FULL, **COLD, "order": 4}, "lms", {}, "both", 1e-4),
    ("DEIS", {**FULL, **COLD, "noise_rate": "core"}, "deis", {}, "both", 5e-5),
    ("DEIS", {**FULL, **COLD, "order": 2, "noise_rate": "core"}, "deis", {"max_order": 2}, "both", 5e-5),
    ("LCM", {"s_noise": 0.9, "s_noise_end": 0.4}, "lcm", {"s_noise": 0.9, "s_noise_end": 0.4}, "both", 1e-5),
]


def without_addresses(value):
    """The same name in every process."""
    return re.sub(r" at 0x\w+", "", str(value))


@pytest.mark.parametrize("cfg", [1.0, 5.0])
@pytest.mark.parametrize(("ours", "params", "name", "options", "paths", "bound"), ROWS, ids=without_addresses)
def test_equals_the_hosts_solver_given_the_same_noise(
    ours, params, name, options, paths, bound, cfg, monkeypatch, differences
):
    for kind in ("EPS", "FLOW") if paths == "both" else (paths,):
        model = toy_model(kind)
        sigmas = schedule(model)
        core = core_run(name, model, sigmas, options, cfg, core_noise)
        mine = our_run(ours, model, sigmas, params, cfg, monkeypatch)
        off = relative(mine, core)
        differences(f"ComfyUI {name} {options or ''}, {kind}, guidance {cfg:g}", off)
        assert off < bound


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
@pytest.mark.parametrize("eta", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_sde_gpu"])
def test_dpmpp_sde_equals_the_hosts_when_its_two_draws_are_composed_as_ours(name, kind, eta, monkeypatch, differences):
    """The host asks for noise over [s, m] and over [s, t]; it is given what our two increments make of them."""
    model = toy_model(kind)
    sigmas = schedule(model)
    sampling = model.get_model_object("model_sampling")
    params = {"eta": eta, **MOVED}
    path, limits = host.path_of(sampling), host.Limits.of(sampling, params)
    plan = host.make_plan(SOLVER["DPMppSDE"], params, path, sigmas.tolist(), limits=limits)
    levels, outer = begun(path, sigmas.tolist(), "core", limits.below), {}
    for stage in plan.stages:
        parts = [(noise, value) for noise, value in stage.rows[-1].terms if not isinstance(noise, str)]
        if len(parts) == 2:
            size = math.hypot(parts[0][1], parts[1][1])
            outer[key(levels[stage.step], levels[stage.step + 1])] = [(noise, value / size) for noise, value in parts]

    def composed(x):
        def draw(s, t):
            parts = outer.get(key(s, t))
            if parts is None:
                return drawn(s, t, x)
            return sum(value * drawn(n.sigma_from, n.sigma_to, x) for n, value in parts)

        return draw

    core = core_run(name, model, sigmas, {"eta": eta}, 1.0, composed)
    off = relative(our_run("DPMppSDE", model, sigmas, params, 1.0, monkeypatch), core)
    differences(f"ComfyUI {name} eta {eta:g}, {kind}", off)
    assert off < 1e-5


def test_unipc_is_the_hosts_formula_in_float64(differences):
    """To 1e-8, where the host as it runs is off by its float32."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)

    def denoiser(x, sigma):
        level = torch.as_tensor(sigma).reshape(-1)[:1]
        return torch.tanh(1.3 * x / (1.0 + level**2)) + 0.3 * torch.sin(level)

    flow = tuple(3.0 * u / (1.0 + 2.0 * u) for u in (1.0 - i / 12 for i in range(13)))
    try:
        for path, sigmas in ((VE, karras(12)), (FLOW, flow)):
            for variant in ("bh1", "bh2"):
                x = sigmas[0] * torch.linspace(-2.0, 2.0, 32).reshape(2, 16)
                levels = torch.tensor(sigmas)
                core = sample_unipc(lambda x, s, **_: denoiser(x, s), x.clone(), levels, {}, None, True, variant)
                params = {"variant": variant, **COLD, "end": "core", "time": "log_sigma"}
                # The host divides by alpha when the sampler is done.
                mine = run(SOLVER["UniPC"].plan(path, sigmas, **params), denoiser, start(x)).x * path.alpha(0.001)
                differences(f"ComfyUI uni_pc {variant} in float64, {path!r}", relative(mine, core))
                assert relative(mine, core) < 1e-8
    finally:
        torch.set_default_dtype(previous)


def test_the_hosts_weights_of_sa_solver_have_no_digit_left_on_short_steps():
    """In float32 and powers of the log-SNR itself. In float64 they are those of our plan, whose places are counted in
    steps."""
    lams = torch.linspace(-2.6, 3.4, 1025, dtype=torch.float64)
    sigmas = tuple((-lams).exp().tolist())
    everywhere = {"sde_start": 20000.0, "sde_end": 0.0}
    plan = SOLVER["SASolver"].plan(VE, sigmas, predictor_order=4, **everywhere)
    step = 1000
    terms = dict(next(r for r in plan.stages[step].rows if r.draws).terms)
    ours = torch.tensor(
        [terms[name] for name in ("previous3", "previous2", "previous1", "denoised")], dtype=torch.float64
    )
    for dtype, low, high in ((torch.float64, 0.0, 1e-3), (torch.float32, 0.5, math.inf)):
        given = lams.to(dtype)
        nodes, sigma = given[step - 3 : step + 1], (-given[step + 1]).exp()
        theirs = host_sa.compute_stochastic_adams_b_coeffs(sigma, nodes, given[step], given[step + 1], 1.0)
        assert low <= ((theirs - ours).abs().max() / ours.abs().max()).item() < high, dtype


class Predictions:
    """A model of the host's sampler functions: what it predicts at a level, guided and not, whatever x is."""

    def __init__(self, denoised, uncond=None):
        self.denoised, self.uncond = denoised, uncond or denoised
        patcher = SimpleNamespace(get_model_object=lambda name: SimpleNamespace())
        self.inner_model = SimpleNamespace(model_patcher=patcher)

    def __call__(self, x, sigma, model_options=None, **_):
        level = float(sigma[0])
        guided, uncond = (x.new_full(x.shape, each(level)) for each in (self.denoised, self.uncond))
        for after in (model_options or {}).get("sampler_post_cfg_function", []):
            guided = after({"denoised": guided, "uncond_denoised": uncond})
        return guided


def silent(s, t):
    return torch.zeros(1, 1, dtype=torch.float64)


def host_end(function, model, sigmas, x=0.0, **options):
    """Where a sampler function of the host's brings x."""
    levels = torch.tensor(sigmas, dtype=torch.float64)
    begin = torch.full((1, 1), x, dtype=torch.float64)
    extra = {"model_options": {}}
    return function(model, begin, levels, extra_args=extra, disable=True, **options).item()


def our_end(solver, predictions, path, sigmas, x=0.0, **params):
    begin = torch.full((1, 1), x, dtype=torch.float64)

    def denoiser(x, sigma):
        made = [x.new_full(x.shape, each(sigma)) for each in (predictions.denoised, predictions.uncond)]
        return Predicted(*made) if params.get("cfg_pp") else made[0]

    return run(SOLVER[solver].plan(path, sigmas, **params), denoiser, start(begin), lambda _, x: 0.0 * x).x.item()


def test_what_is_wrong_with_the_hosts_res_multistep_ancestral():
    """On flow models a constant 2 is not carried to where it belongs, 2 alpha; and a prediction linear in log sigma,
    which a method of order 2 integrates exactly, is missed once noise has been added."""
    two = Predictions(lambda sigma: 2.0)
    host = host_sampling.sample_res_multistep_ancestral
    assert host_end(host, two, (0.8, 0.6), 0.4, noise_sampler=silent) == pytest.approx(1.10, abs=0.005)
    assert our_end("RESMultistep", two, FLOW, (0.8, 0.6), 0.4, eta=1.0) == pytest.approx(0.80, abs=1e-12)

    line = Predictions(math.log)
    sigmas = (10.0, 5.0, 3.0, 2.0, 1.0)
    exact, level = 0.0, sigmas[0]
    for step, (s, t) in enumerate(itertools.pairwise(sigmas)):
        down = t * t / s
        # x / sigma over the step, of D = log sigma: the integral of -D / sigma^2. The first step has one prediction.
        whole = lambda v: (math.log(v) + 1.0) / v  # noqa: E731
        part = whole(down) - whole(s) if step else math.log(s) * (1.0 / down - 1.0 / s)
        exact, level = down * (exact / level + part), t
    assert our_end("RESMultistep", line, VE, sigmas, eta=1.0) == pytest.approx(exact, rel=1e-12)
    assert abs(host_end(host, line, sigmas, noise_sampler=silent) - exact) > 0.02


def test_what_is_wrong_with_the_hosts_cfg_pp_of_multistep_samplers():
    """Where both predictions stay what they are, the guided image is where a run is at every level: signal 1 on VE."""
    model = Predictions(lambda sigma: 1.0, lambda sigma: 0.0)
    sigmas, x = (10.0, 5.0, 2.0, 1.0), 0.0
    for solver, name in (("RESMultistep", "res_multistep"), ("GradientEstimation", "gradient_estimation")):
        host = getattr(host_sampling, f"sample_{name}_cfg_pp")
        for steps in (2, 3):
            at = x
            for s, t in itertools.pairwise(sigmas[: steps + 1]):
                # The guided image, with the noise of the unconditional prediction.
                at = 1.0 + t * at / s
            assert our_end(solver, model, VE, sigmas[: steps + 1], x, cfg_pp=True) == pytest.approx(at, rel=1e-12)
            missed = host_end(host, model, sigmas[: steps + 1], x) - at
            assert abs(missed) > 0.05, name
    s, t = sigmas[1:3]
    host = host_sampling.sample_res_multistep_cfg_pp
    at = 1.0 + t * (1.0 + s * x / sigmas[0]) / s
    assert host_end(host, model, sigmas[:3], x) - at == pytest.approx((1.0 - t / s) * (0.0 - 1.0), rel=1e-9)
