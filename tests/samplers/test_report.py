"""The report on samplers whose properties are known: those that are right, and those with one known fault."""

import json

import pytest
import torch
from cases import FLOW, VE, solver
from stepwise.samplers import AddressedNoise, run, start
from stepwise.samplers.exact import findings
from stepwise.samplers.exact.problems import TOP
from stepwise.samplers.exact.report import ERROR, RIGHT, WRONG, measured, plain

PATHS = pytest.mark.parametrize("path", [VE, FLOW])


def of_ours(name, **params):
    """A solver of ours as the report wants a sampler."""

    def sampler(path, denoiser, noise, latent, sigmas, seed):
        levels = sigmas.tolist()
        plan = solver(name)(path, levels, **params)
        x = path.alpha(levels[0]) * latent + levels[0] * noise
        seeds = [seed + image for image in range(len(noise))]
        return run(plan, denoiser, start(x), AddressedNoise(seeds)).x / path.alpha(levels[-1])

    return sampler


EULER = of_ours("Euler")


@PATHS
@pytest.mark.parametrize(("name", "order", "calls"), [("Euler", 1, 1), ("DPMpp2M", 2, 1), ("Heun", 2, 2)])
def test_order_and_calls_are_those_of_the_registry(name, order, calls, path):
    points = [findings.error_of(of_ours(name), path, steps) for steps in findings.COUNTS]
    assert findings.order_of(points) == pytest.approx(order, abs=0.15)
    assert findings.calls_a_step(points) == calls
    assert [point.calls for point in points] == [calls * point.steps for point in points]


@PATHS
def test_heun_is_nearer_than_euler_at_equal_calls(path):
    ours = findings.at_calls(of_ours("Heun"), path, 2.0)
    assert [point.calls for point in ours] == list(findings.AT_CALLS)
    assert ours[-1].error < 0.3 * findings.error_of(EULER, path, ours[-1].calls).error


@PATHS
@pytest.mark.parametrize("name", ["Euler", "DPMpp2M", "DDPM", "DPMppSDE"])
def test_a_right_sampler_is_found_right(name, path):
    sampler = of_ours(name)
    assert findings.adds_noise(sampler, path) == (name in ("DDPM", "DPMppSDE"))
    assert abs(findings.level_off(sampler, path)) < findings.BY_CHANCE
    assert findings.alone_apart(sampler, path) == findings.again_apart(sampler, path) == 0.0
    assert findings.writes(sampler, path) == []
    laws = [findings.law_of(sampler, path, steps) for steps in findings.LAW_STEPS]
    assert abs(laws[-1].variance - 1.0) < 0.1
    assert abs(laws[-1].mean_off) < findings.BY_CHANCE


@PATHS
def test_a_memory_shows_where_a_run_is_split(path):
    assert findings.split_apart(EULER, path) < findings.ROUNDING
    assert findings.split_apart(of_ours("DPMpp2M"), path) > 1e-3


def test_an_order_needs_three_errors_between_the_limits():
    errors = (0.4, 0.2, 0.05, 0.02, 1e-6)
    points = [findings.Point(10 * 2**i, 1, error) for i, error in enumerate(errors)]
    assert findings.order_of(points) is None
    points[1] = findings.Point(20, 1, 0.08)
    assert findings.order_of(points) is not None
    points[3] = findings.Point(80, 1, 0.06)
    assert findings.order_of(points) is None, "errors that rise have no order"


@pytest.mark.parametrize("order", [1.0, 2.5])
def test_an_order_is_the_slope(order):
    points = [findings.Point(steps, steps, 0.05 * (steps / 10) ** -order) for steps in (10, 20, 40)]
    assert findings.order_of(points) == pytest.approx(order)


def told_less(path, denoiser, noise, latent, sigmas, seed):
    """Euler whose model is told nine tenths of the noise."""
    return EULER(path, lambda x, sigma: denoiser(x, 0.9 * sigma), noise, latent, sigmas, seed)


def with_neighbours(path, denoiser, noise, latent, sigmas, seed):
    """Its images lean on the mean of the batch."""
    return EULER(path, denoiser, noise + 0.1 * noise.mean(0), latent, sigmas, seed)


def forgetful(path, denoiser, noise, latent, sigmas, seed):
    """Noise of a generator that nobody seeds."""
    return EULER(path, denoiser, noise, latent, sigmas, seed) + 0.01 * torch.rand(noise.shape)


def writing(path, denoiser, noise, latent, sigmas, seed):
    if sigmas[-1] == 0.0:
        sigmas[-1] = 0.001
    return EULER(path, denoiser, noise, latent, sigmas, seed)


def too_narrow(path, denoiser, noise, latent, sigmas, seed):
    """What it ends with has half the deviation of the data."""
    end = EULER(path, denoiser, noise, latent, sigmas, seed)
    return 0.7 + 0.5 * (end - 0.7)


def raising(path, denoiser, noise, latent, sigmas, seed):
    raise RuntimeError("no such\nluck")


FAULTS = {
    "noise level at each call": told_less,
    "alone is in a batch": with_neighbours,
    "same seed, same picture": forgetful,
    "leaves SIGMAS alone": writing,
    "law on Gaussian data": too_narrow,
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_found_and_named(what):
    report = measured("faulty", FAULTS[what], EULER, [VE])
    assert report.found(what, VE).verdict == WRONG
    assert any(line.startswith(f"! {what}") for line in report.text().splitlines())


def test_a_sampler_that_raises_is_a_report_of_errors():
    report = measured("broken", raising, EULER, [VE])
    errors = [each for each in report.findings if each.verdict == ERROR]
    assert {each.says for each in errors} == {"RuntimeError: no such luck"}
    assert len(errors) >= 7
    assert report.text().startswith("broken: ")
    json.dumps(report.data(), allow_nan=False)


@PATHS
def test_what_returns_no_number_has_no_property(path):
    """NaN is another NaN with every seed: that is no noise."""

    def sampler(path, denoiser, noise, latent, sigmas, seed):
        denoiser(noise, float(sigmas[0]))
        return torch.full_like(noise, torch.nan)

    found = measured("broken", sampler, EULER, [path])
    said = {each.what: each for each in found.findings}
    assert said["adds noise"].says == f"ValueError: its result is NaN or infinite, in 12 steps from {TOP[path]:g}"
    assert {each.verdict for each in found.findings} <= {ERROR, RIGHT, WRONG, ""}
    right = {what for what, each in said.items() if each.verdict == RIGHT}
    # What it is asked on the way, and not of its result.
    assert right <= {"leaves SIGMAS alone", "noise level at each call"}
    assert said["order"].says == said["error to Euler's"].says == "not measured"


@PATHS
def test_without_a_call_there_is_no_noise_level(path):
    found = measured("none", lambda path, denoiser, noise, latent, sigmas, seed: latent + noise, EULER, [path])
    assert found.found("noise level at each call", path).says == "not measured: it does not call the model"
    assert ERROR not in {each.verdict for each in found.findings}


def test_a_cancelled_run_is_no_finding():
    class Cancelled(BaseException):
        pass

    def cancelled(*_):
        raise Cancelled

    with pytest.raises(Cancelled):
        measured("cancelled", cancelled, EULER, [VE])


def test_euler_is_right_in_everything_and_progress_is_told():
    told = []
    report = measured("Euler", EULER, EULER, [FLOW], lambda done, total: told.append((done, total)))
    assert report.text().startswith("Euler: nothing of")
    assert told == [(i + 1, len(told)) for i in range(len(told))]
    assert report.found("order", FLOW).values == pytest.approx(1.0, abs=0.1)
    assert report.found("error to Euler's", FLOW).values == {"12": 1.0, "24": 1.0, "48": 1.0}
    assert {each.verdict for each in report.findings} <= {RIGHT, ""}


def test_json_has_no_number_that_json_has_not():
    assert plain({"a": (float("nan"), [float("inf"), 1.0]), 2: None}) == {"a": [None, [None, 1.0]], "2": None}
