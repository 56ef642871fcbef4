"""The stochastic and multistep solvers equal the host's own when both are given the same noise."""

import math

import pytest
from parity import core_noise, core_run, drawn, key, our_run, relative, schedule
from stepwise.nodes.host import sampler as host
from stepwise.samplers.registry import SOLVERS
from toy_models import toy_model

SOLVER = {solver.id: solver for solver in SOLVERS}
FULL = {"final_order": "full"}
COLD = {"warm_up": "multistep"}
# Ours, its parameters, the host's name, its options, the paths, the bound.
ROWS = [
    ("EulerAncestral", {}, "euler_ancestral", {}, "both", 1e-5),
    ("EulerAncestral", {"eta": 0.6, "s_noise": 0.9}, "euler_ancestral", {"eta": 0.6, "s_noise": 0.9}, "both", 1e-5),
    ("DDPM", {}, "euler_ancestral", {}, "EPS", 1e-5),
    ("DDPM", {}, "ddpm", {}, "EPS", 1e-5),
    ("Heun", {}, "heun", {}, "both", 1e-5),
    ("DPMSolver", {"order": "2"}, "dpm_2", {}, "EPS", 1e-5),
    ("DPMpp2S", {"eta": 1.0}, "dpmpp_2s_ancestral", {}, "both", 1e-5),
    ("DPMpp2S", {"eta": 0.5, "s_noise": 0.9}, "dpmpp_2s_ancestral", {"eta": 0.5, "s_noise": 0.9}, "both", 1e-5),
    ("DPMpp2MSDE", FULL, "dpmpp_2m_sde", {}, "both", 1e-5),
    ("DPMpp2MSDE", {**FULL, "solver_type": "heun", "eta": 0.7}, "dpmpp_2m_sde_heun", {"eta": 0.7}, "both", 1e-5),
    ("DPMpp3MSDE", {**FULL, "weights": "published"}, "dpmpp_3m_sde", {}, "both", 1e-5),
    ("DPMpp3M", {**FULL, **COLD, "weights": "published"}, "dpmpp_3m_sde", {"eta": 0.0}, "both", 1e-5),
    ("LMS", {**FULL, **COLD, "order": 4}, "lms", {}, "both", 1e-4),
    ("DEIS", {**FULL, **COLD, "order": 3}, "deis", {}, "EPS", 1e-3),
    ("LCM", {"s_noise": 0.9, "s_noise_end": 0.4}, "lcm", {"s_noise": 0.9, "s_noise_end": 0.4}, "both", 1e-5),
]


@pytest.mark.parametrize("cfg", [1.0, 5.0])
@pytest.mark.parametrize(("ours", "params", "name", "options", "paths", "bound"), ROWS, ids=lambda v: str(v))
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
def test_dpmpp_sde_equals_the_hosts_when_its_two_draws_are_composed_as_ours(kind, eta, monkeypatch, differences):
    """The host asks for noise over [s, m] and over [s, t]; it is given what our two increments make of them."""
    model = toy_model(kind)
    sigmas = schedule(model)
    plan = host.make_plan(
        SOLVER["DPMppSDE"], {"eta": eta}, host.path_of(model.get_model_object("model_sampling")), sigmas.tolist()
    )
    outer = {}
    for stage in plan.stages:
        parts = [(noise, value) for noise, value in stage.rows[-1].terms if not isinstance(noise, str)]
        if len(parts) == 2:
            size = math.hypot(parts[0][1], parts[1][1])
            outer[key(sigmas[stage.step], sigmas[stage.step + 1])] = [(noise, value / size) for noise, value in parts]

    def composed(x):
        def draw(s, t):
            parts = outer.get(key(s, t))
            if parts is None:
                return drawn(s, t, x)
            return sum(value * drawn(n.sigma_from, n.sigma_to, x) for n, value in parts)

        return draw

    core = core_run("dpmpp_sde", model, sigmas, {"eta": eta}, 1.0, composed)
    off = relative(our_run("DPMppSDE", model, sigmas, {"eta": eta}, 1.0, monkeypatch), core)
    differences(f"ComfyUI dpmpp_sde eta {eta:g}, {kind}", off)
    assert off < 1e-5
