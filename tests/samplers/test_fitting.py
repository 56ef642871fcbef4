"""Fitted plans, on data whose denoiser is known."""

import math
from dataclasses import replace
from functools import partial
from itertools import count, pairwise

import pytest
import torch
from exact import gaussian, mixture, relative_rms
from stepwise.samplers import FLOW, VE, run, start
from stepwise.samplers.fitting import (
    LOOSE,
    QUICK,
    Alone,
    Budget,
    Freedom,
    LinearForm,
    Split,
    Stopped,
    begin_from,
    fit,
    form_of,
)
from stepwise.samplers.fitting.errors import distances, score
from stepwise.samplers.fitting.freedom import Number, made
from stepwise.samplers.fitting.gauss_newton import GaussNewton, broyden
from stepwise.samplers.fitting.gradient import Descent, derivatives, descend, flat, gradient, valued
from stepwise.samplers.fitting.meter import Meter
from stepwise.samplers.fitting.reference import fine_levels, reference
from stepwise.samplers.fitting.tails import ends_of, tracked
from stepwise.samplers.parameters import InputError
from stepwise.samplers.registry import SOLVERS
from stepwise.samplers.schedules import karras
from stepwise.samplers.solvers.fitted import written

SPLIT, TEST = Split(32, 16), slice(48, 112)
KARRAS = karras(5, sigma_min=0.03, sigma_max=14.6)
LEVELS = {VE: KARRAS, FLOW: tuple(3.0 * u / (1.0 + 2.0 * u) for u in (1.0, 0.8, 0.6, 0.4, 0.2, 0.0))}
LOWEST = {VE: 0.03, FLOW: 0.001}
SOLVER = {solver.id: solver for solver in SOLVERS}


def subject(path, data=None, images=112) -> Alone:
    data = data or mixture()
    noise = torch.randn(images, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return Alone(path, data.denoiser(path), LEVELS[path][0] * noise, LOWEST[path])


def in_torch(data, path):
    """The mixture's denoiser with levels as tensors, for derivatives by them and by x: its posterior means by
    softmax."""

    def denoiser(x, sigma):
        alpha, variances = path.alpha(sigma), data.variances
        spread = alpha * alpha * variances + sigma * sigma
        squares = (x[:, None, :] - alpha * data.means).square().sum(-1)
        parts = torch.softmax(data.weights.log() - 0.5 * (squares / spread + x.shape[1] * spread.log()), -1)
        shrunk = alpha * variances / spread
        return parts @ (data.means * (1.0 - alpha * shrunk)[:, None]) + (parts @ shrunk)[:, None] * x

    return denoiser


def far(of: Alone, plan, images=TEST) -> torch.Tensor:
    """The distance from the reference of many levels, on starts that no fit has seen."""
    (*_, exact), _ = reference(of, LEVELS[of.path], images, 800)
    return distances(of.run(plan, start(of.starts[images]), images).x, exact)


@pytest.mark.parametrize("name", ["DPMpp2M", "DPMpp3M", "DEIS", "IPNDM", "LMS", "Euler", "UniPC"])
@pytest.mark.parametrize("path", [VE, FLOW])
def test_a_multistep_plan_and_its_linear_form_take_the_same_steps(name, path):
    """UniPC corrects x before it goes on, so that its row reads x and no other carry than t / s remains."""
    options = {"warm_up": "multistep"} if "warm_up" in SOLVER[name].parameters else {}
    plan = SOLVER[name].plan(path, LEVELS[path], **options)
    model = mixture().denoiser(path)
    x = LEVELS[path][0] * torch.randn(4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    form = form_of(plan)
    assert len(form.plan().stages) == len(plan.stages)
    assert relative_rms(run(form.plan(), model, start(x)).x, run(plan, model, start(x)).x) < 1e-12


def test_what_is_no_linear_form_is_refused():
    for name, options in (("EulerAncestral", {}), ("Heun", {}), ("DPMpp2M", {"cfg_pp": True})):
        with pytest.raises(InputError, match="several calls"):
            form_of(SOLVER[name].plan(VE, KARRAS, **options))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_not_written_into_a_plan(value):
    """JSON has no word for it, and other readers would refuse the recipe."""
    with pytest.raises(ValueError, match="Out of range float"):
        written(VE, (2.0, 0.0), (2.0,), (value,), ((1.0,),))


@pytest.mark.parametrize("base", ["DPMpp2M", "UniPC"])
@pytest.mark.parametrize("path", [VE, FLOW])
def test_a_run_from_where_a_change_counts_ends_where_the_whole_run_does(path, base):
    """For every number that can be fitted: nothing before its restart depends on it."""
    of, meter = subject(path), Meter(QUICK)
    options = {"warm_up": "multistep"} if base == "UniPC" else {}
    begin = begin_from(path, LEVELS[path], partial(SOLVER[base].plan, **options))
    numbers = Freedom(free=True, opening=True).numbers(begin)
    values = {each: 0.02 * (-1) ** i for i, each in enumerate(numbers)} | {Number("opening", 0): -0.04}
    track = tracked(of, made(begin, values), SPLIT.fitted, meter)
    forms = [made(begin, values | {number: values[number] + 0.03}) for number in numbers]
    spent = meter.calls
    ends = ends_of(of, track, [(form, each.restart) for each, form in zip(numbers, forms, strict=True)], meter)
    assert meter.calls - spent == sum(begin.calls - each.restart for each in numbers)
    for number, form, end in zip(numbers, forms, ends, strict=True):
        whole = of.run(form.plan(), start(of.starts[SPLIT.fitted]), SPLIT.fitted).x
        assert relative_rms(end, whole) < 1e-12
        assert relative_rms(whole, track.end) > 1e-7, number


@pytest.mark.parametrize("path", [VE, FLOW])
def test_an_opening_is_the_first_step_for_a_prediction_of_0(path):
    levels, model = LEVELS[path], mixture().denoiser(path)
    x = levels[0] * torch.randn(4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plan = SOLVER["Euler"].plan(path, levels)
    later = replace(form_of(SOLVER["Euler"].plan(path, levels[1:])), sigmas=(levels[0], *levels[2:]))
    opened = replace(later, opening=levels[1] / levels[0]).plan()
    assert len(opened.stages) == len(plan.stages) - 1
    asked = run(plan, lambda x, sigma: torch.zeros_like(x) if sigma == levels[0] else model(x, sigma), start(x))
    assert relative_rms(run(opened, model, start(x)).x, asked.x) < 1e-12


@pytest.mark.parametrize("freedom", [Freedom(), LOOSE, Freedom(opening=True)], ids=["keeping", "loose", "opening"])
@pytest.mark.parametrize("path", [VE, FLOW])
def test_the_gradient_is_the_slope_of_the_score(path, freedom):
    """Against differences of whole runs, number by number."""
    of, begin = subject(path), begin_from(path, LEVELS[path])
    numbers, images = freedom.numbers(begin), SPLIT.fitted
    small = [-0.02 if each.kind == "opening" else -0.05 * (-1) ** i for i, each in enumerate(numbers)]
    reached = torch.tensor(small, dtype=torch.float64)
    (*_, target), _ = reference(of, begin.sigmas, images, 160)

    def log_score(values):
        form = made(begin, valued(numbers, values))
        return math.log(score(distances(of.run(form.plan(), start(of.starts[images]), images).x, target)))

    slope = gradient(in_torch(mixture(), path), made(begin, valued(numbers, reached)), of.starts[images], target)
    found = derivatives(begin, numbers, reached) @ slope
    for i, number in enumerate(numbers):
        aside = torch.zeros_like(reached)
        aside[i] = 1e-3
        difference = (log_score(reached + aside) - log_score(reached - aside)) / 2e-3
        assert found[i].item() == pytest.approx(difference, rel=0.02, abs=0.02 * found.abs().max().item()), number


@pytest.mark.parametrize("path", [VE, FLOW])
def test_the_jacobian_is_the_derivative_of_whole_runs(path):
    """Number by number: the steps of its differences are small against what bends."""
    of, begin, images = subject(path), begin_from(path, LEVELS[path]), SPLIT.fitted
    numbers = Freedom().numbers(begin)
    (*_, target), _ = reference(of, begin.sigmas, images, 160)

    def end(number, value):
        form = made(begin, dict.fromkeys(numbers, 0.0) | {number: value})
        return of.run(form.plan(), start(of.starts[images]), images).x

    columns = GaussNewton(of, begin, numbers, {}, target, images, Meter(QUICK)).columns()
    for number, column in zip(numbers, columns, strict=True):
        derivative = (end(number, 1e-4) - end(number, -1e-4)) / 2e-4
        assert relative_rms(column, derivative) < 0.1, number


@pytest.mark.parametrize("path", [VE, FLOW])
def test_the_first_step_of_a_descent_moves_each_number_by_its_rate(path):
    """However steep the score is there (Kingma and Ba 2015, section 2.1): to where it falls."""
    of, begin, freedom = subject(path), begin_from(path, LEVELS[path]), Freedom()
    numbers, starts = freedom.numbers(begin), of.starts[SPLIT.fitted]
    (*_, target), _ = reference(of, begin.sigmas, SPLIT.fitted, 160)
    denoiser, still = in_torch(mixture(), path), torch.zeros(len(numbers), dtype=torch.float64)
    found = derivatives(begin, numbers, still) @ gradient(denoiser, made(begin, valued(numbers, still)), starts, target)
    expected = made(begin, valued(numbers, -0.01 * found.sign()))
    (first, *_) = descend(Descent(denoiser, 1, 0.01), begin, freedom, {}, starts, target)
    assert flat(first) == pytest.approx(flat(expected), rel=1e-9, abs=1e-9)


def test_a_descent_goes_on_from_what_forward_only_has_found():
    of, begin = subject(VE), begin_from(VE, KARRAS)
    forward = fit(of, begin, SPLIT, Budget(400, 1))
    further = fit(of, begin, SPLIT, Budget(400, 1), descent=Descent(in_torch(mixture(), VE), 60))
    assert further.rounds[: len(forward.rounds)] == forward.rounds
    assert further.selected < 0.9 * forward.selected
    assert further.calls == forward.calls + 60 * begin.calls


@pytest.mark.parametrize("calls", [3, 10])
@pytest.mark.parametrize("path", [VE, FLOW])
def test_the_levels_of_the_plan_are_among_those_of_the_reference(path, calls):
    sigmas = LEVELS[path]
    fine, places = fine_levels(path, sigmas, 50 * calls, LOWEST[path])
    assert [fine[place] for place in places] == pytest.approx(sigmas, rel=1e-9)
    assert all(s > t for s, t in pairwise(fine))
    assert len(fine) == pytest.approx(50 * calls, rel=0.1)


@pytest.mark.parametrize("path", [VE, FLOW])
def test_the_reference_is_one_run_and_tells_its_calls(path):
    """Cut at the levels of the plan, it is DPM++ 2M in one piece, bit for bit."""
    of, images, told, seen = subject(path), slice(0, 8), list[int](), dict[int, torch.Tensor]()
    found, calls = reference(of, LEVELS[path], images, 60, told.append)
    fine, places = fine_levels(path, LEVELS[path], 60, LOWEST[path])
    plan = SOLVER["DPMpp2M"].plan(path, fine)
    of.run(plan, start(of.starts[images]), images, watch=lambda state: seen.setdefault(state.index, state.x))
    assert torch.equal(found[0], of.starts[images])
    assert all(torch.equal(x, seen[place]) for x, place in zip(found[1:], places[1:], strict=True))
    assert (sum(told), calls, len(told)) == (len(plan.stages), len(plan.stages), 5)


def test_on_one_gaussian_two_predictions_are_enough_for_no_error():
    """There the denoiser is linear, so one free number of the last row moves every image onto the ODE."""
    of = subject(VE, gaussian(0.0, 1.0, 16))
    begin = begin_from(VE, karras(3, sigma_min=0.03, sigma_max=14.6))
    found = fit(of, begin, SPLIT, Budget(2000, 12, reference=400), Freedom(levels=False))
    assert found.began > 1e-3
    assert found.selected < 1e-6


@pytest.mark.parametrize("freedom", [Freedom(), LOOSE], ids=["keeping", "loose"])
@pytest.mark.parametrize("path", [VE, FLOW])
def test_five_fitted_calls_come_nearer_than_ten_of_dpmpp_2m(path, freedom):
    of = subject(path)
    found = fit(of, begin_from(path, LEVELS[path]), SPLIT, Budget(600, 8), freedom)
    twice, _ = fine_levels(path, LEVELS[path], 10, LOWEST[path])
    errors, others = far(of, found.plan), far(of, begin_from(path, twice).plan())
    assert len(found.plan.stages) == 5
    assert errors.median() < 0.5 * others.median()
    assert found.form.keeps_marginals == (not freedom.free)


def test_what_a_step_has_seen_changes_the_jacobian_there_and_nowhere_else():
    generator = torch.Generator().manual_seed(0)
    columns = list(torch.randn(5, 3, 40, generator=generator, dtype=torch.float64))
    moved = torch.randn(3, 40, generator=generator, dtype=torch.float64)
    change = torch.randn(5, generator=generator, dtype=torch.float64)
    scales = torch.rand(5, generator=generator, dtype=torch.float64) + 0.1
    updated = torch.stack(broyden(columns, change.tolist(), scales, moved))

    def along(jacobian, by):
        return torch.tensordot(by, jacobian, dims=1)

    torch.testing.assert_close(along(updated, change), moved)
    other = torch.randn(5, generator=generator, dtype=torch.float64)
    other -= change * (other * scales * change).sum() / (scales * change.square()).sum()
    torch.testing.assert_close(along(updated, other), along(torch.stack(columns), other))


def test_a_fit_is_the_same_every_time():
    one, two = (fit(subject(VE), begin_from(VE, KARRAS), SPLIT, Budget(300, 2)) for _ in range(2))
    assert one.plan == two.plan
    assert one.rounds == two.rounds


def test_the_calls_of_a_start_are_counted_as_they_are_made_and_stay_in_the_budget():
    of, seen = subject(VE), []
    counting = replace(of, denoiser=lambda x, sigma: seen.append(len(x)) or of.denoiser(x, sigma))
    found = fit(counting, begin_from(VE, KARRAS), SPLIT, Budget(400, 12))
    # The reference runs on all that a fit may see, all else on one part of it at a time, some of it many times over.
    assert sum(images // SPLIT.fit for images in seen) == found.calls <= 400
    assert fit(of, begin_from(VE, KARRAS), SPLIT, QUICK).calls <= 200


class Stopping(Alone):
    """Stops after so many runs."""

    def run(self, *given, **named):
        if next(self.__dict__["count"]) >= self.__dict__["most"]:
            raise Stopped("by hand")
        return super().run(*given, **named)


@pytest.mark.parametrize("more", [1, 3, 8, 29])
def test_what_is_stopped_keeps_the_best_so_far(more):
    """So many runs after those of the reference, from each level to the next."""
    of = subject(VE)
    stopping = Stopping(of.path, of.denoiser, of.starts, of.sigma_min)
    begin = begin_from(VE, KARRAS)
    stopping.__dict__.update(count=count(), most=begin.calls + more)
    found = fit(stopping, begin, SPLIT, Budget(1500, 12))
    assert found.stopped == "by hand"
    assert found.selected == min([found.began, *(selected for *_, selected in found.rounds)])
    assert (found.form == begin) == (found.selected == found.began)


@pytest.mark.parametrize("most", [0, 1, len(KARRAS) - 2])
def test_what_is_stopped_before_the_reference_is_there_says_so(most):
    of = subject(VE)
    stopping = Stopping(of.path, of.denoiser, of.starts, of.sigma_min)
    stopping.__dict__.update(count=count(), most=most)
    with pytest.raises(Stopped):
        fit(stopping, begin_from(VE, KARRAS), SPLIT, QUICK)


def test_no_time_ends_a_fit_with_its_beginning():
    found = fit(subject(VE), begin_from(VE, KARRAS), SPLIT, Budget(1500, 12, seconds=0.0))
    assert (found.form, found.stopped) == (begin_from(VE, KARRAS), "time")


def test_a_fit_that_can_only_get_worse_returns_its_beginning():
    """Starts to fit on that are another distribution than those that select: the images themselves, barely noised."""
    of = subject(VE)
    starts = of.starts.clone()
    starts[: SPLIT.fit] *= 1e-3
    begin = begin_from(VE, KARRAS)
    found = fit(replace(of, starts=starts), begin, SPLIT, QUICK)
    assert found.selected <= found.began
    (*_, exact), _ = reference(of, begin.sigmas, SPLIT.selected, 160)
    end = of.run(found.plan, start(starts[SPLIT.selected]), SPLIT.selected).x
    assert score(distances(end, exact)) == pytest.approx(found.selected, rel=1e-9)


@pytest.mark.parametrize("split", [Split(1, 8), Split(8, 0), Split(100, 100)])
def test_a_split_without_enough_starts_is_refused(split):
    with pytest.raises(InputError, match="starts"):
        fit(subject(VE), begin_from(VE, KARRAS), split, QUICK)


def test_loose_rows_say_what_they_hold_of_the_picture():
    """A plan checks its weights: a row that does not sum to 1 declares its sum."""
    begin = begin_from(VE, KARRAS)
    numbers = LOOSE.numbers(begin)
    form = made(begin, dict.fromkeys(numbers, 0.05))
    assert isinstance(form, LinearForm)
    assert not form.keeps_marginals
    assert any(row.weight != 1.0 for stage in form.plan().stages for row in stage.rows)
