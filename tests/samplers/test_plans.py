"""Theorems on plans, which are plain numbers: no tensors here."""

import math
import sys
from itertools import pairwise

import numpy as np
import pytest
from cases import CASES, FLOW, TABLE, VE, assert_same, each_case, everywhere, flow_line, plans, schedules, solver
from follow import CONSTANT, START, draws_of, follow_constant, noise_variance
from stepwise.samplers import Noise, Plan, PlanError, Row, Stage, row
from stepwise.samplers.parameters import parameters
from stepwise.samplers.schedules import karras, timestep

GOOD = karras(6)


# (a) Marginals


def assert_marginals(case, name, plan):
    followed = follow_constant(plan)
    told = np.array([*(stage.sigma for stage in plan.stages), plan.sigmas[-1]])
    seen = [*followed.calls, followed.end]
    signal = np.array([x[CONSTANT] for x in seen])
    noise = np.sqrt([noise_variance(x) for x in seen])
    alpha = np.array([case.path.alpha(sigma) for sigma in told])
    np.testing.assert_allclose(signal, alpha, rtol=1e-10, atol=1e-10, err_msg=f"signal of {case} on {name}")
    np.testing.assert_allclose(noise, told, rtol=1e-10, atol=0.0, err_msg=f"noise of {case} on {name}")


@each_case(lambda case: case.setting.keeps_marginals)
def test_marginals(case):
    """If denoised is always c, then x = alpha c + sigma e at every model call and at the end, for the sigma told there.

    It holds for a point mass at c exactly, and is what makes DDIM a non-Markovian process with the marginals of DDPM
    (Song et al. 2021, lemma 1).
    """
    for name, plan in plans(case):
        assert_marginals(case, name, plan)


@each_case(lambda case: case.setting.keeps_marginals)
def test_marginals_of_a_thousand_steps(case):
    """At each solver's defaults on a schedule of each kind: of a range, of a table, of flow models. At its other
    settings on that of its path."""
    kinds = {VE: ("Karras-1000", "Timestep-leading-1000"), FLOW: ("line-3-1000", "Karras-1000")}[case.path]
    found = schedules(case.path, (1000,), to_zero=True)
    for name in kinds if case.setting is case.solver.settings[0] else kinds[:1]:
        assert_marginals(case, name, case.plan(found[name]))


def large_variance(case):
    """Ho et al. 2020, section 3.2: the step from timestep t adds variance beta_t, and none at the last step.

    On the full table, in their variance-preserving scale sqrt(abar) x; the betas come from numpy alone.
    """
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    abar = np.cumprod(1.0 - betas)
    plan = case.plan(timestep(TABLE, 1000))
    added = [
        sum(value**2 for operand, value in stage.rows[-1].terms if isinstance(operand, Noise))
        for stage in reversed(plan.stages)
    ]
    assert added[0] == 0.0
    assert np.allclose(abar[:-1] * added[1:], betas[1:], rtol=1e-10, atol=0.0)


def churned_variance(case):
    """Karras et al. 2022, algorithm 2, lines 4 to 6: the level rises by 1 + gamma, the noise added has deviation
    S_noise; between, Euler's step scales all noise by t / t_hat."""
    churn, strength = case.setting.params["s_churn"], case.setting.params["s_noise"]
    for name, plan in plans(case):
        followed = follow_constant(plan)
        variance, gamma = plan.sigmas[0] ** 2, min(churn / plan.steps, math.sqrt(2.0) - 1.0)
        for stage, x, (s, t) in zip(plan.stages, followed.calls, pairwise(plan.sigmas), strict=True):
            place = f"{case}, {name}, step {stage.step + 1}"
            raised = stage.sigma
            if case.path is VE:
                assert raised == pytest.approx((1.0 + gamma) * s, rel=1e-12), place
            shrunk = (case.path.alpha(raised) / case.path.alpha(s)) ** 2 if raised > s else 1.0
            variance = shrunk * variance + strength**2 * (raised**2 - shrunk * s**2)
            assert noise_variance(x) == pytest.approx(variance, rel=1e-10), place
            assert x[CONSTANT] == pytest.approx(case.path.alpha(raised), rel=1e-10, abs=1e-10), place
            variance *= (t / raised) ** 2
        assert noise_variance(followed.end) == pytest.approx(variance, rel=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("churn", [0.0, 0.3, 2.0, 40.0])
@pytest.mark.parametrize("name", ["Euler", "Heun"])
def test_churn_raises_a_level_by_its_share_of_the_steps(name, churn, steps):
    """gamma = min(S_churn / N, sqrt(2) - 1)   (Karras et al. 2022, algorithm 2, line 5)."""
    plan = solver(name)(VE, karras(steps), s_churn=churn)
    for step, s in enumerate(plan.sigmas[:-1]):
        raised = plan.stages[plan.first_stage(step)].sigma
        assert raised / s == pytest.approx(1.0 + min(churn / steps, math.sqrt(2.0) - 1.0), rel=1e-12)


def ancestral_variance(case):
    """k-diffusion's get_ancestral_step on VE, and on FLOW ComfyUI's euler_ancestral_RF: s_noise multiplies what is
    added after Euler's step to sigma_down, at eta = 1."""
    strength = case.setting.params["s_noise"]
    for name, plan in plans(case):
        variance = plan.sigmas[0] ** 2
        for s, t in pairwise(plan.sigmas):
            if case.path is VE:
                up2 = t**2 * (s**2 - t**2) / s**2
                down2 = t**2 - up2
            else:
                down2 = ((1.0 - t) / (1.0 - t * t / s) * t * t / s) ** 2
                up2 = t**2 - down2
            variance = down2 / s**2 * variance + strength**2 * up2
        assert noise_variance(follow_constant(plan).end) == pytest.approx(variance, rel=1e-9, abs=1e-15), name


def weakened_variance(case):
    """ComfyUI's lcm: the noise of step i of n counts s_noise + (s_noise_end - s_noise) i / (n - 1)."""
    first, last = case.setting.params["s_noise"], case.setting.params["s_noise_end"]
    for name, plan in plans(case):
        strengths = np.linspace(first, last, plan.steps)
        seen = [*follow_constant(plan).calls[1:], follow_constant(plan).end]
        for x, strength, t in zip(seen, strengths, plan.sigmas[1:], strict=True):
            assert noise_variance(x) == pytest.approx((strength * t) ** 2, rel=1e-10), name


DEPARTURES = {
    "DDPM": large_variance,
    "Euler": churned_variance,
    "EulerAncestral": ancestral_variance,
    "LCM": weakened_variance,
}


@each_case(lambda case: not case.setting.keeps_marginals)
def test_departures_have_the_variance_of_their_paper(case):
    """A setting that leaves the marginals needs a law from its paper: an entry in DEPARTURES."""
    DEPARTURES[case.solver.id](case)


@each_case(lambda case: not case.setting.keeps_marginals)
def test_departures_do_depart(case):
    """Else `keeps_marginals` would be claimed too little."""
    departures = 0
    for name, plan in plans(case):
        try:
            assert_marginals(case, name, plan)
        except AssertionError:
            departures += 1
    assert departures


# (b) Structure


@each_case()
def test_rows_name_what_exists_and_sum_to_their_weight(case):
    """Reading only what is set; weights as declared: a state or denoised counts 1, a difference 0, noise nothing.

    Sums are of the noise-free rows; on VE, where alpha is 1 everywhere, of the noisy ones too.
    """
    for name, plan in plans(case):
        weights = {"x": 1.0}
        for call, stage in enumerate(plan.stages):
            for rows, given in ((stage.opening, {}), (stage.rows, {"denoised": 1.0})):
                weights |= given
                for r in rows:
                    place = f"{case}, {name}, model call {call + 1}: {r}"
                    operands = [operand for operand, _ in r.terms]
                    assert operands, place
                    assert len(set(operands)) == len(operands), place
                    assert all(isinstance(operand, Noise) or operand in weights for operand in operands), place
                    assert all(math.isfinite(value) and value != 0.0 for _, value in r.terms), place
                    if case.path is VE or not r.draws:
                        total = sum(v * weights[operand] for operand, v in r.terms if isinstance(operand, str))
                        assert total == pytest.approx(r.weight, rel=1e-9, abs=1e-9), place
                    weights[r.target] = r.weight
            assert set(stage.keeps) <= set(weights), (name, call)
            weights = {register: weights[register] for register in stage.keeps}
        assert set(plan.stages[-1].keeps) == {"x"}, name


@each_case()
def test_number_of_model_calls(case):
    """As declared for a step of the opening, one that ends above 0, and one that ends at 0; steps in order, none left
    out. `extra_calls`, which Restart has, come once, in one step, on every schedule that comes down to its t_min and
    has a level from there to its t_max, in sigma / alpha."""
    for name, plan in plans(case):
        assert plan.steps == len(plan.sigmas) - 1
        declared = case.calls(plan.sigmas)
        extra = len(plan.stages) - sum(declared)
        ratios = [sigma / case.path.alpha(sigma) for sigma in plan.sigmas[1:]]
        visited = ratios[-1] <= 0.1 and any(0.1 <= ratio < 2.0 for ratio in ratios)
        assert extra == (case.setting.extra_calls if visited else 0), name
        steps = [stage.step for stage in plan.stages]
        if extra:
            again = next(step for step in range(plan.steps) if steps.count(step) > declared[step])
            declared[again] += extra
        assert steps == [step for step, calls in enumerate(declared) for _ in range(calls)], name
        for done in range(plan.steps + 1):
            assert plan.first_stage(done) == sum(declared[:done]), name


@each_case()
def test_model_calls_are_at_noise_levels_of_their_step(case):
    """A step's first call is at the level it comes from, or above it where noise was added first; its others are not
    above that, unless noise was added before it, and not below the level the step goes to, unless declared. None is
    above what the path has."""
    for name, plan in plans(case):
        for step, (s, t) in enumerate(pairwise(plan.sigmas)):
            first, *others = [stage for stage in plan.stages if stage.step == step]
            noisy = any(r.draws for r in first.opening)
            assert first.sigma > s if noisy else first.sigma == s, f"{name}, step {step + 1}"
            low = 0.0 if case.setting.reaches_below else t
            high = max([stage.sigma for stage in others if stage.opening], default=first.sigma)
            assert all(low <= stage.sigma <= max(first.sigma, high) for stage in others), f"{name}, step {step + 1}"
            assert first.sigma <= case.path.sigma_max


@pytest.mark.parametrize("path", [VE, FLOW])
def test_restart_stays_below_where_the_run_began_and_waits_for_t_min(path):
    """What comes after Heun's own steps: up to t_max or the beginning, whichever is lower, in a part that comes down to
    t_min. Where neither is in the way, the plan is that of a run which knows of no beginning."""
    made, heun = solver("Restart"), solver("Heun")

    def levels(*ratios):
        return tuple(ratio if path is VE else ratio / (1.0 + ratio) for ratio in ratios)

    def highest_again(sigmas, **params):
        return max((stage.sigma for stage in made(path, sigmas, **params).stages if stage.opening), default=None)

    high, low = levels(2.0, 0.15)
    whole = levels(12.0, 6.0, 3.0, 1.0, 0.5, 0.15, 0.05)
    assert highest_again(whole) == pytest.approx(high)
    assert made(path, whole) == made(path, whole, began=math.inf) == made(path, whole, began=whole[0])
    assert highest_again(whole[3:]) == whole[3]
    assert highest_again(whole[3:], t_max=1000.0) == whole[3]
    assert highest_again(whole[3:], began=whole[0]) == pytest.approx(high)
    assert highest_again(whole[4:], t_min=0.1, began=whole[3]) == whole[3]
    for ending in (whole[:4], whole[:5], whole[:6]):
        assert made(path, ending).stages == heun(path, ending).stages
        assert made(path, ending, began=whole[0]).stages == heun(path, ending).stages
    assert highest_again((*whole[:5], *levels(0.1))) == pytest.approx(high)
    again = [stage for stage in made(path, whole).stages if stage.opening]
    assert [draw.sigma_from for stage in again for r in stage.opening for draw in r.draws] == [low]


@pytest.mark.parametrize("name", ["Euler", "Heun"])
@pytest.mark.parametrize("path", [VE, FLOW])
def test_churn_stays_in_the_range_of_the_model(name, path):
    """Karras et al. 2022 round s_hat into it. Below the plan is the one that knows of no range."""
    sigmas = karras(6) if path is VE else flow_line(6)[1:]
    for churn in (1.0, 100.0):
        free, bound = (solver(name)(path, sigmas, s_churn=churn, **limit) for limit in ({}, {"highest": sigmas[0]}))
        assert max(stage.sigma for stage in free.stages) > sigmas[0]
        assert max(stage.sigma for stage in bound.stages) == sigmas[0]
        raised = {stage.step for stage in free.stages if stage.sigma > sigmas[0]}
        assert [each for each in free.stages if each.step not in raised] == [
            each for each in bound.stages if each.step not in raised
        ]
        # Between its own level and the model's a step is raised to the latter.
        assert [stage.sigma for stage in bound.stages if stage.step in raised and stage.opening] == [
            sigmas[0] for step in raised if step
        ]


@each_case()
def test_a_draw_belongs_to_one_step_and_lies_in_its_interval(case):
    """Else one noise would act twice, or a run cut and extended would draw something else."""
    for name, plan in plans(case):
        owner: dict[Noise, int] = {}
        for stage in plan.stages:
            s, t = plan.sigmas[stage.step : stage.step + 2]
            for draw in (draw for r in (*stage.opening, *stage.rows) for draw in r.draws):
                place = f"{name}, step {stage.step + 1}: {draw}"
                assert owner.setdefault(draw, stage.step) == stage.step, place
                low, high = sorted((draw.sigma_from, draw.sigma_to))
                assert t <= low < high <= max(s, stage.sigma), place


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("x", {"x": 0.5, "previous": 0.5})], "reads previous, which is not set"),
        ([row("x", {"x": math.nan, "denoised": 1.0})], "not finite"),
        ([row("x", {"x": math.inf, "denoised": -math.inf})], "not finite"),
        ([row("x", {"x": 1.0, Noise("step", 1.0, 0.0): math.inf})], "not finite"),
        ([row("x", {"x": 0.5, "denoised": 0.5 + 1e-6})], "sums to"),
        ([row("x", {"x": 1.0, "denoised": -1.0})], "must be 1.0"),
        ([row("d", {"x": 1.0}, weight=0.0), row("x", {"x": 1.0, "d": 1.0})], "must be 0.0"),
        ([row("d", {"x": 1.0, "denoised": -1.0}, weight=0.0), row("x", {"x": 0.5, "d": 0.5})], "sums to"),
    ],
)
def test_a_bad_row_is_refused_when_the_plan_is_made(rows, message):
    with pytest.raises(PlanError, match=message):
        Plan(VE, (1.0, 0.0), (Stage(1.0, tuple(rows), 0),))


def test_an_opening_may_not_read_the_prediction_that_follows_it():
    opening = (row("x", {"x": 0.5, "denoised": 0.5}),)
    with pytest.raises(PlanError, match=r"opening of model call 0: .* reads denoised, which is not set"):
        Plan(VE, (1.0, 0.0), (Stage(1.0, (row("x", {"denoised": 1.0}),), 0, opening),))


def test_the_error_names_the_model_call():
    good = Stage(2.0, (row("x", {"x": 0.5, "denoised": 0.5}),), 0)
    with pytest.raises(PlanError, match=r"^model call 1: 'x = \+1 old' reads old"):
        Plan(VE, (2.0, 1.0, 0.0), (good, Stage(1.0, (row("x", {"old": 1.0}),), 1)))


def test_what_nobody_reads_is_dropped():
    """So that equal methods are equal plans: a memory, an idle copy, a difference that ends nowhere."""
    euler = Stage(2.0, (row("x", {"x": 0.5, "denoised": 0.5}),), 0), Stage(1.0, (row("x", {"denoised": 1.0}),), 1)
    idle = (
        row("start", {"x": 1.0}),
        row("x", {"x": 1.0}),
        row("slope", {"x": 1.0, "denoised": -1.0}, weight=0.0),
    )
    burdened = tuple(
        Stage(stage.sigma, (*idle, *stage.rows, row("old", {"denoised": 1.0})), stage.step) for stage in euler
    )
    assert Plan(VE, (2.0, 1.0, 0.0), burdened) == Plan(VE, (2.0, 1.0, 0.0), euler)


@each_case(lambda case: "s_noise" in parameters(case.solver.plan))
def test_noise_of_strength_0_is_left_out_and_the_rest_stays(case):
    """s_noise = 0 on flow models too, where what is left of a row does not sum to 1."""
    sigmas = karras(6) if case.path is VE else flow_line(6)
    loud, silent = (
        case.solver.plan(case.path, sigmas, **{**case.setting.params, "s_noise": strength, **end})
        for strength in (1.0, 0.0)
        for end in ({"s_noise_end": strength} if "s_noise_end" in parameters(case.solver.plan) else {},)
    )
    assert not silent.adds_noise
    for one, other in zip(loud.stages, silent.stages, strict=True):
        rest = [
            r._replace(terms=tuple(term for term in r.terms if not isinstance(term[0], Noise)))
            for r in (*one.opening, *one.rows)
        ]
        left = [(r.target, r.terms) for r in rest if r.terms != ((r.target, 1.0),)]
        assert left == [(r.target, r.terms) for r in (*other.opening, *other.rows)]


def test_a_zero_term_is_no_term():
    assert row("x", {"x": 0.0, "denoised": 1.0, Noise("step", 1.0, 0.0): 0.0}).terms == (("denoised", 1.0),)


# (c) The end


@each_case()
def test_nothing_but_predictions_is_left_at_zero(case):
    """At sigma 0 the last row has no state and no noise, and x is c exactly."""
    for name, plan in plans(case, to_zero=True):
        assert plan.sigmas[-1] == 0.0
        (last,) = plan.stages[-1].rows
        assert "x" not in last.reads, f"{name}: {last}"
        assert not last.draws, f"{name}: {last}"
        end = follow_constant(plan).end
        assert end[CONSTANT] == pytest.approx(1.0, rel=1e-12), name
        assert not end[START:].any(), name


# (d) Noise


@each_case()
def test_noise_is_drawn_exactly_where_it_is_declared(case):
    """And where it is, no order of the ODE is claimed."""
    for name, plan in plans(case):
        assert case.setting.noise or not draws_of(plan), name
    if case.setting.noise:
        assert draws_of(case.plan(karras(20) if case.path is VE else flow_line(20)))
        assert case.setting.order is None


@pytest.mark.parametrize("entry", sorted({case.solver.id for case in CASES}))
def test_a_solver_is_called_stochastic_when_one_of_its_settings_is(entry):
    cases = [case for case in CASES if case.solver.id == entry]
    noisy = any(draws_of(case.plan(flow_line(20))) for case in cases)
    assert cases[0].solver.stochastic == noisy


# (e) Identities


@pytest.mark.parametrize(("path", "sigmas"), everywhere(VE, FLOW))
def test_identities(path, sigmas):
    """DDIM without noise = Euler (Song et al. 2021, eq. 13) = DPM-Solver of order 1 (Lu et al. 2022a, section 4.1);
    DDIM with eta = 1 = DDPM with the posterior variance (Song et al. 2021, section 4.1)."""
    ddim = solver("DDIM")
    assert_same(ddim(path, sigmas, eta=0.0), solver("Euler")(path, sigmas))
    assert_same(ddim(path, sigmas, eta=0.0), solver("DPMSolver")(path, sigmas, order="1"))
    assert_same(ddim(path, sigmas, eta=1.0), solver("DDPM")(path, sigmas, variance="small"))


@pytest.mark.parametrize(("path", "sigmas"), everywhere(VE))
def test_both_times_of_dpmpp_2m_are_one_on_ve(path, sigmas):
    dpmpp_2m = solver("DPMpp2M")
    assert_same(dpmpp_2m(path, sigmas, time="log_sigma"), dpmpp_2m(path, sigmas, time="half_log_snr"))


def test_both_times_of_dpmpp_2m_differ_on_flow():
    sigmas, dpmpp_2m = flow_line(6, 3.0), solver("DPMpp2M")
    with pytest.raises(AssertionError):
        assert_same(dpmpp_2m(FLOW, sigmas, time="log_sigma"), dpmpp_2m(FLOW, sigmas, time="half_log_snr"))


@each_case(lambda case: not case.setting.noise and case.setting.calls == 1 and case.setting.opening[0] == 0)
def test_the_first_step_of_every_one_call_method_is_ddim(case):
    """With one prediction and no memory there is one row that keeps the marginals: DDIM's.

    So a multistep method starts with it, and is it where there is only one step.
    """
    for name, plan in plans(case):
        ddim = solver("DDIM")(case.path, plan.sigmas, eta=0.0)
        (first,) = [dict(r.terms) for r in plan.stages[0].rows if r.target == "x"]
        (expected,) = [dict(r.terms) for r in ddim.stages[0].rows]
        assert first == pytest.approx(expected, rel=1e-12, abs=0.0), name
        if plan.steps == 1:
            assert_same(plan, ddim)


@pytest.mark.parametrize("path", [VE, FLOW])
def test_ddpm_is_the_posterior(path):
    """The row of DDPM small is q(x_t | x_s, x0 = c), got here by conditioning the joint Gaussian of (x_t, x_s), where
    x_s is x_t carried forward: x_s = alpha_s / alpha_t x_t + fresh noise (Ho et al. 2020, eqs. 6 and 7)."""
    for sigmas in schedules(path, to_zero=True).values():
        plan = solver("DDPM")(path, sigmas, variance="small")
        for stage, (s, t) in zip(plan.stages, pairwise(sigmas), strict=True):
            forward = path.alpha(s) / path.alpha(t)
            mean, cov = np.array([path.alpha(t), path.alpha(s)]), np.array([[t * t, forward * t * t], [0.0, s * s]])
            gain = cov[0, 1] / cov[1, 1]
            expected = {
                "x": gain,
                "denoised": mean[0] - gain * mean[1],
                Noise("step", s, t): math.sqrt(cov[0, 0] - gain * cov[0, 1]),
            }
            (r,) = stage.rows
            terms = dict(r.terms)
            for operand, value in expected.items():
                assert terms.get(operand, 0.0) == pytest.approx(value, rel=1e-9, abs=1e-12), (s, t, operand)


# Printing


@each_case()
def test_a_plan_prints_one_line_per_row_and_names_every_model_call(case):
    for name, plan in plans(case):
        head, columns, *lines = str(plan).splitlines()
        assert head.split(", ")[1:3] == [
            f"{count} {thing}" if count == 1 else f"{count} {thing}s"
            for count, thing in ((plan.steps, "step"), (len(plan.stages), "model call"))
        ]
        assert columns.split() == ["call", "step", "sigma", "rows"]
        assert len(lines) == sum(max(1, len(stage.opening) + len(stage.rows)) for stage in plan.stages), name
        starts = iter(lines)
        for call, stage in enumerate(plan.stages):
            block = [next(starts) for _ in range(max(1, len(stage.opening) + len(stage.rows)))]
            assert block[0].split()[:3] == [str(call + 1), str(stage.step + 1), f"{stage.sigma:.6g}"], name
            for line, r in zip(block, (*stage.opening, *stage.rows), strict=False):
                assert str(r) in line
                assert all(str(operand) in line for operand, _ in r.terms)


def test_a_row_prints_as_an_equation():
    r = Row("x", (("x", 0.25), ("denoised", 0.75), (Noise("step", 2.0, 1.0, 3), -0.5)))
    assert str(r) == "x = +0.25 x +0.75 denoised -0.5 step[2 to 1 #3]"


@each_case()
def test_a_plan_takes_time_that_grows_with_the_steps(case):
    """Counted in calls of functions, of which UniPC once made more at each step than at the one before."""

    def called(steps):
        count = [0]
        sigmas = karras(steps) if case.path is VE else flow_line(steps)

        def counter(frame, event, argument):
            count[0] += event in ("call", "c_call")

        previous = sys.getprofile()
        sys.setprofile(counter)
        try:
            case.plan(sigmas)
        finally:
            sys.setprofile(previous)
        return count[0]

    called(4)
    assert called(80) < 2.1 * called(40)
