"""SA-Solver: its weights, its corrector and its interval, against formulas got in other ways."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.integrate
from cases import FLOW, VE, assert_same, everywhere, flow_line, solver
from stepwise.samplers import Noise
from stepwise.samplers.schedules import karras

EVERYWHERE = {"sde_start": 20000.0, "sde_end": 0.0}
ONE_CALL = {"corrector_order": 0, "warm_up": "multistep", "final_order": "full"}
BOTH = pytest.mark.parametrize(("path", "sigmas"), everywhere(VE, FLOW))


@BOTH
def test_without_a_corrector_it_is_the_exponential_adams_method(path, sigmas):
    """Of order 1 to 3 with noise everywhere the methods of DPM++ 2M SDE and 3M SDE, without noise DPM++ 3M."""
    if sigmas[0] == path.sigma_max:
        return
    sa = solver("SASolver")
    full = {"final_order": "full"}
    noisy = {**ONE_CALL, **EVERYWHERE, "tau": 1.0}
    assert_same(sa(path, sigmas, predictor_order=1, **noisy), solver("DDPM")(path, sigmas), rel=1e-7)
    heun = solver("DPMpp2MSDE")(path, sigmas, solver_type="heun", **full)
    assert_same(sa(path, sigmas, predictor_order=2, **noisy), heun, rel=1e-9)
    assert_same(sa(path, sigmas, predictor_order=3, **noisy), solver("DPMpp3MSDE")(path, sigmas, **full), rel=1e-9)
    third = solver("DPMpp3M")(path, sigmas, warm_up="multistep", **full)
    assert_same(sa(path, sigmas, predictor_order=3, **ONE_CALL, tau=0.0), third, rel=1e-9)


@pytest.mark.parametrize("path", [VE, FLOW])
@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_a_corrected_step_is_the_adams_moulton_step_with_the_same_noise(path, tau, order):
    """Followed with the predictions as unknowns: after the correction x is e^(-tau^2 h) t / s times x before the step,
    the noise of the step, and the integrals by scipy of the Lagrange polynomials through the newest prediction and
    those before it."""
    sigmas = karras(9)[:-1] if path is VE else flow_line(9, 3.0)[1:-1]
    plan = solver("SASolver")(
        path, sigmas, predictor_order=3, corrector_order=order, pece=True, tau=tau, **EVERYWHERE, warm_up="multistep"
    )
    step = 5
    before = [stage for stage in plan.stages if stage.step == step - 1][-1]
    after = next(stage for stage in plan.stages if stage.step == step)
    predicted = dict(next(r for r in before.rows if r.target == "x").terms)
    corrected = dict(next(r for r in after.rows if r.target == "x").terms)
    # In the names of the correction's own call.
    names = {"denoised": "previous1", **{f"previous{i}": f"previous{i + 1}" for i in range(1, 5)}}
    whole = {names.get(name, name): value for name, value in predicted.items()}
    for name, value in corrected.items():
        if name != "x":
            whole[name] = whole.get(name, 0.0) + value
    s, t = sigmas[step - 1], sigmas[step]
    h, rate = path.lam(t) - path.lam(s), 1.0 + tau * tau
    assert whole.pop("x") == pytest.approx(t / s * math.exp(-tau * tau * h), rel=1e-10)
    if tau:
        assert whole.pop(Noise("step", s, t)) == pytest.approx(t * math.sqrt(-math.expm1(-2 * tau**2 * h)), rel=1e-10)
    nodes = [path.lam(sigmas[step - i]) for i in range(order)]
    for i in range(order):
        others = [node for j, node in enumerate(nodes) if j != i]

        def integrand(lam, others=others, node=nodes[i]):
            basis = np.prod([(lam - other) / (node - other) for other in others])
            return rate * math.exp(-rate * (path.lam(t) - lam)) * basis

        weight = path.alpha(t) * scipy.integrate.quad(integrand, path.lam(s), path.lam(t), epsabs=0, epsrel=1e-11)[0]
        name = "denoised" if i == 0 else f"previous{i}"
        assert whole.pop(name, 0.0) == pytest.approx(weight, rel=1e-8, abs=1e-12), name
    assert all(abs(value) < 1e-12 for value in whole.values())


@pytest.mark.parametrize("path", [VE, FLOW])
def test_noise_is_added_in_the_interval_and_nowhere_else(path):
    sigmas = karras(20) if path is VE else flow_line(20, 3.0)
    for high, low in ((5.0, 0.5), (2.0, 1.0), (20000.0, 0.0)):
        plan = solver("SASolver")(path, sigmas, sde_start=high, sde_end=low)
        draws = [draw for stage in plan.stages for r in stage.rows for draw in r.draws]
        ends = [t for _, t in pairwise(sigmas) if t > 0.0 and low <= t / path.alpha(t) <= high]
        assert [draw.sigma_to for draw in draws] == ends
        between = {"core_from": sigmas[4], "core_to": sigmas[11]}
        core = solver("SASolver")(path, sigmas, interval="core", sde_start=high, sde_end=low, **between)
        found = [draw.sigma_to for stage in core.stages for r in stage.rows for draw in r.draws]
        assert found == list(sigmas[4:12])


@pytest.mark.parametrize("path", [VE, FLOW])
@pytest.mark.parametrize("orders", [(3, 4), (6, 6)])
def test_the_weights_of_a_thousand_short_steps_lose_no_digits(path, orders):
    """Where ComfyUI's, of powers of the log-SNR itself in float32, have none left: the weights of an Adams method on
    steps that hardly change are bounded by those on even ones, and sum to what the step makes of a constant."""
    predictor, corrector = orders
    lams = np.linspace(-2.6, 3.4, 1025)
    sigmas = tuple(path.sigma(lam) for lam in lams.tolist())
    plan = solver("SASolver")(path, sigmas, predictor_order=predictor, corrector_order=corrector, **EVERYWHERE)
    for stage in plan.stages[10:]:
        s, t = sigmas[stage.step], sigmas[stage.step + 1]
        terms = dict(next(r for r in reversed(stage.rows) if r.draws).terms)
        predictions = [value for name, value in terms.items() if isinstance(name, str) and name != "x"]
        h = path.lam(t) - path.lam(s)
        assert math.fsum(predictions) == pytest.approx(-path.alpha(t) * math.expm1(-2.0 * h), rel=1e-11)
        # Adams and Bashforth's of order 6 on even steps sum to 22.8 in absolute value.
        assert sum(map(abs, predictions)) < 23.0 * path.alpha(t) * 2.0 * h
