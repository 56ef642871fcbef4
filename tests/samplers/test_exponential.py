"""The refined exponential solvers, ER-SDE and the methods of constant weights, against formulas got in other ways."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.integrate
import torch
from cases import FLOW, VE, assert_same, everywhere, flow_line, schedules, solver
from exact import mixture
from stepwise.samplers import run, start
from stepwise.samplers.parameters import InputError
from stepwise.samplers.schedules import karras
from stepwise.samplers.solvers import er_sde, sde

COLD = {"warm_up": "multistep", "final_order": "full"}
BOTH = pytest.mark.parametrize(("path", "sigmas"), everywhere(VE, FLOW))


@BOTH
def test_res_multistep_is_the_exponential_adams_method(path, sigmas):
    """Of order 2 DPM++ 2M SDE with heun and no noise, of order 3 DPM++ 3M."""
    res = solver("RESMultistep")
    heun = {"solver_type": "heun", "eta": 0.0, "final_order": "full"}
    assert_same(res(path, sigmas), solver("DPMpp2MSDE")(path, sigmas, **heun))
    assert_same(res(path, sigmas, order=3), solver("DPMpp3M")(path, sigmas))


@BOTH
def test_identities_of_the_others(path, sigmas):
    """RES with phi_1 at the middle is DPM++ 2S, where log-SNR is finite. Gradient estimation is Euler at 1 and iPNDM of
    order 2 at 1.5. ER-SDE of order 1 is Euler without noise, and DDPM with all of the reverse SDE's."""
    if sigmas[0] < path.sigma_max:
        assert_same(solver("RESSinglestep")(path, sigmas, solver_type="phi_1"), solver("DPMpp2S")(path, sigmas), 1e-9)
    gradient = solver("GradientEstimation")
    assert_same(gradient(path, sigmas, gamma=1.0), solver("Euler")(path, sigmas))
    assert_same(gradient(path, sigmas, gamma=1.5), solver("IPNDM")(path, sigmas, order=2))
    er = solver("ERSDE")
    assert_same(er(path, sigmas, order=1, scaler="ode"), solver("Euler")(path, sigmas))
    if sigmas[0] < path.sigma_max:
        assert_same(er(path, sigmas, order=1, scaler="reverse_sde"), solver("DDPM")(path, sigmas), rel=1e-7)


@pytest.mark.parametrize(("path", "sigmas"), everywhere(VE))
def test_both_times_are_one_on_ve(path, sigmas):
    for name, params in (("UniPC", {}), ("DPMSolver", {}), ("RESMultistep", {"order": 3}), ("DPMpp2MSDE", {})):
        plans = [solver(name)(path, sigmas, **params, time=time) for time in ("log_sigma", "half_log_snr")]
        assert_same(*plans)


def test_both_times_differ_on_flow():
    sigmas = flow_line(6, 3.0)
    for name in ("UniPC", "DPMSolver", "RESMultistep", "DPMpp2MSDE"):
        with pytest.raises(AssertionError):
            assert_same(*(solver(name)(FLOW, sigmas, time=time) for time in ("log_sigma", "half_log_snr")))


def phis(h):
    """phi_1 and phi_2 by their recursion, for an h that is not small."""
    one = math.expm1(h) / h
    return one, (one - 1.0) / h


def test_the_weights_of_res_2m_are_the_papers():
    """b_2 = phi_2(-h) / c_2, b_1 = phi_1(-h) - b_2, with c_2 the place of the earlier prediction in steps h."""
    plan = solver("RESMultistep")(VE, karras(8))
    for step in range(1, 7):
        before, s, t = plan.sigmas[step - 1 : step + 2]
        h, c2 = math.log(s / t), math.log(s / before) / math.log(s / t)
        phi1, phi2 = phis(-h)
        expected = {"x": math.exp(-h), "denoised": h * (phi1 - phi2 / c2), "previous1": h * phi2 / c2}
        (x,) = [dict(r.terms) for r in plan.stages[step].rows if r.target == "x"]
        assert x == pytest.approx(expected, rel=1e-11)


def res_3s(gamma, c2, c3):
    """One step of the third-order exponential Runge-Kutta method on VE, its tableau written out   (Hochbruck and
    Ostermann 2005, section 5.2)."""

    def step(denoiser, x, s, t):
        h = math.log(s / t)
        level = lambda c: s * math.exp(-c * h)  # noqa: E731
        phi = lambda c: phis(-c * h)  # noqa: E731
        one = denoiser(x, s)
        u2 = math.exp(-c2 * h) * x + h * c2 * phi(c2)[0] * one
        two = denoiser(u2, level(c2))
        a32 = gamma * c2 * phi(c2)[1] + c3**2 / c2 * phi(c3)[1]
        u3 = math.exp(-c3 * h) * x + h * ((c3 * phi(c3)[0] - a32) * one + a32 * two)
        three = denoiser(u3, level(c3))
        b3 = phi(1.0)[1] / (gamma * c2 + c3)
        b2 = gamma * b3
        return math.exp(-h) * x + h * ((phi(1.0)[0] - b2 - b3) * one + b2 * two + b3 * three)

    return step


def order_of(step):
    """The global order of a one-step method on VE, on the data whose exact answer is known."""
    data, errors = mixture(), []
    x = data.sample(VE, 14.6, 32)
    exact, denoiser = data.solution(VE, x, 14.6, 0.03), data.denoiser(VE)
    for steps in (80, 160, 320):
        at = x
        for s, t in pairwise(karras(steps + 1, sigma_min=0.03, sigma_max=14.6)[:-1]):
            at = step(denoiser, at, s, t)
        errors.append((at - exact(0.03)).square().mean(1).sqrt().median().item())
    return math.log2(errors[0] / errors[-1]) / 2.0


@pytest.mark.parametrize(("c2", "c3"), [(1.0 / 3.0, 2.0 / 3.0), (0.5, 1.0), (0.4, 0.9), (1.0, 0.5)])
def test_res_3s_is_the_tableau_with_the_square(c2, c3):
    gamma = (3.0 * c3**2 - 2.0 * c3) / (c2 * (2.0 - 3.0 * c2))
    sigmas = karras(9)[:-1]
    data = mixture()
    x = data.sample(VE, sigmas[0], 4)
    denoiser, at = data.denoiser(VE), x
    for s, t in pairwise(sigmas):
        at = res_3s(gamma, c2, c3)(denoiser, at, s, t)
    ours = run(solver("RESSinglestep")(VE, sigmas, order="3", c2=c2, c3=c3), denoiser, start(x)).x
    torch.testing.assert_close(ours, at, rtol=1e-10, atol=1e-10)


def test_a_cube_in_its_place_costs_an_order():
    """As RES4LYF has gamma: 3 c3^3 - 2 c3 over c2 (2 - 3 c2)."""
    c2, c3 = 1.0 / 3.0, 2.0 / 3.0
    right, wrong = ((3.0 * c3**power - 2.0 * c3) / (c2 * (2.0 - 3.0 * c2)) for power in (2, 3))
    assert order_of(res_3s(right, c2, c3)) == pytest.approx(3.0, abs=0.15)
    assert order_of(res_3s(wrong, c2, c3)) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize(("params", "name"), [({"c2": 2.0 / 3.0}, "c2"), ({"c2": 0.5, "c3": 0.5}, "c3")])
def test_where_there_is_no_method_of_order_3(params, name):
    with pytest.raises(InputError) as refused:
        solver("RESSinglestep")(VE, karras(4), order="3", **params)
    assert refused.value.name == name
    assert len(solver("RESSinglestep")(VE, karras(4), order="2", **params).stages) == 7


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("path", [VE, FLOW])
def test_the_right_form_of_ipndm_v_is_lms(path, order):
    """Adams-Bashforth on uneven steps: weights that integrate every power of sigma below the order exactly, which
    is one linear system a step, solved by another library."""
    for name, sigmas in schedules(path, (20,)).items():
        plan = solver("LMS")(path, sigmas, order=order, **COLD)
        for step, (s, t) in enumerate(pairwise(sigmas)):
            used = min(order, step + 1)
            if t == 0.0 or used == 1:
                continue
            nodes = np.array(sigmas[step - used + 1 : step + 1][::-1])
            scaled = (nodes - s) / (t - s)
            powers = np.arange(used)
            weights = (t - s) * np.linalg.solve(scaled[None, :] ** powers[:, None], 1.0 / (powers + 1.0))
            terms = dict(plan.stages[step].rows[-1].terms)
            # On FLOW from 1 the slope is (x - denoised) / sigma too.
            mine = [terms.get(f"slope{i}", 0.0) * node for i, node in enumerate(nodes)]
            np.testing.assert_allclose(mine, weights, rtol=1e-9, err_msg=f"{name}, step {step}")


SCALERS = {
    ("er_sde", 1.0): lambda rho: rho * (math.exp(rho**0.3) + 10.0),
    ("reverse_sde", 1.0): lambda rho: rho**2,
    ("reverse_sde", 0.5): lambda rho: rho**1.5,
    ("ode", 1.0): lambda rho: rho,
}


@pytest.mark.parametrize(("scaler", "eta"), SCALERS)
@pytest.mark.parametrize(("rho_s", "rho_t"), [(14.6, 9.0), (80.0, 1.0), (0.2, 0.19), (2.0, 0.01), (9999.0, 30.0)])
def test_the_moments_of_er_sde(scaler, eta, rho_s, rho_t):
    """By parts as ComfyUI has them: dt + phi_t int 1 / phi, and dt^2 / 2 + phi_t int (rho - rho_s) / phi; the integrals
    by scipy."""
    phi = SCALERS[scaler, eta]
    options = {"epsabs": 0.0, "epsrel": 1e-12, "limit": 500}
    in_log = lambda f: scipy.integrate.quad(  # noqa: E731
        lambda u: f(math.exp(u)) * math.exp(u), math.log(rho_t), math.log(rho_s), **options
    )[0]
    dt = rho_t - rho_s
    first = dt + phi(rho_t) * in_log(lambda rho: 1.0 / phi(rho))
    second = dt**2 / 2.0 + phi(rho_t) * in_log(lambda rho: (rho - rho_s) / phi(rho))
    ends = np.log([rho_s]), np.log([rho_t])
    found = er_sde.moments(er_sde.scaler_of(scaler, eta), *ends, 3)[0].tolist()
    expected = [1.0 - phi(rho_t) / phi(rho_s), first / dt, 2.0 * second / dt**2]
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-11)
    assert found[0] == pytest.approx(expected[0], rel=1e-12)


@pytest.mark.parametrize("path", [VE, FLOW])
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_the_noise_along_a_step_is_one_path_of_the_right_size(path, eta):
    """At each level the variance is that of one step straight there, and what two levels share is the upper one's noise
    carried on."""
    s, inner, t = 0.9, 0.5, 0.2
    found = sde.noise_along(path, s, (t, inner), eta)
    for level, parts in found.items():
        assert math.hypot(*parts.values()) == pytest.approx(sde.sde_step(path, s, level, eta)[2], rel=1e-12)
    carry = sde.sde_step(path, inner, t, eta)[0]
    shared = sum(value * found[t][noise] for noise, value in found[inner].items())
    assert shared == pytest.approx(carry * sum(value**2 for value in found[inner].values()), rel=1e-12)


@pytest.mark.parametrize("path", [VE, FLOW])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_the_end_of_comfyui_is_a_step_to_a_thousandth(path, variant):
    """The last row goes to 0.001 (on FLOW divided by alpha there), and reads the corrected state; nothing before it
    changes where the plan to 0 has it too."""
    sigmas = karras(8) if path is VE else flow_line(8, 3.0)
    ours, zero = (solver("UniPC")(path, sigmas, variant=variant, end=end) for end in ("core", "zero"))
    for stage, other in zip(ours.stages[:-1], zero.stages[:-1], strict=True):
        assert stage.sigma == other.sigma
        assert set(other.rows) <= set(stage.rows)
    s, alpha = sigmas[-2], path.alpha(0.001)
    expected = {"denoised": path.gain(s, 0.001) / alpha, "x": 0.001 / s / alpha}
    assert dict(ours.stages[-1].rows[-1].terms) == pytest.approx(expected, rel=1e-14)


def test_a_first_level_of_comfyui():
    """The run begins a little below 1 on FLOW, and only there and from there."""
    for name in ("DPMppSDE", "DPMpp2MSDE", "DPMpp3MSDE", "ERSDE", "RESSinglestep"):
        plan = solver(name)(FLOW, flow_line(4), first_level="core")
        assert plan.stages[0].sigma == 1.0 - 1e-4
        assert plan.stages == solver(name)(FLOW, (1.0 - 1e-4, *flow_line(4)[1:])).stages
        for path, sigmas in ((VE, karras(4)), (FLOW, (0.9, *flow_line(4)[2:]))):
            assert solver(name)(path, sigmas, first_level="core") == solver(name)(path, sigmas)
