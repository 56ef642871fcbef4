"""The measurements of docs/: what they measure is what they say, on small runs of the real model in the real host."""

import importlib
from functools import cache

import pytest
import torch

judge = importlib.import_module("stepwise.tools.measure.judge")
markdown = importlib.import_module("stepwise.tools.generate.markdown")
quality = importlib.import_module("stepwise.benchmarks.quality")

KARRAS_5, KARRAS_10, KARRAS_20 = (m for m in quality.METHODS if m.schedule == "Karras")
DDIM_20 = quality.Method("DDIM", "DDIM", "Karras", 20, ode=True)
EXACT = quality.converged(60)


@cache
def sampled(method, guidance, count=10, chunk=0):
    return quality.Samples(*quality.Job(method, guidance, chunk, count).run())


@pytest.fixture(scope="module")
def referee():
    return quality.Referee(per_class=2)


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_dpmpp_2m_comes_nearer_to_the_ode_with_every_doubling_and_nearer_than_ddim(guidance):
    exact = sampled(EXACT, guidance).latents
    five, ten, twenty, ddim = (
        quality.distance(sampled(method, guidance).latents, exact)
        for method in (KARRAS_5, KARRAS_10, KARRAS_20, DDIM_20)
    )
    assert five > 2 * ten > 4 * twenty
    assert ddim > 2 * twenty


@pytest.mark.parametrize(("guidance", "factor"), [(1.0, 1), (3.0, 2)])
def test_evaluations_are_what_the_network_did(guidance, factor):
    calls = {"DDIM": 50, "DPM-Solver-2": 19, "LCM": 4}
    for method in quality.METHODS:
        if calls.pop(method.name, None) is not None:
            expected = 2 * method.steps - 1 if method.solver == "DPMSolver" else method.steps
            assert sampled(method, guidance, count=2).evaluations == factor * expected
    assert not calls


def test_methods_at_one_seed_begin_at_one_noise():
    """Two methods that have converged agree; with another seed they do not."""
    first = sampled(EXACT, 1.0).latents
    assert quality.distance(sampled(quality.METHODS[1], 1.0).latents, first) < 0.05
    assert quality.distance(sampled(KARRAS_20, 1.0, chunk=1).latents, first) > 0.3


def test_ten_steps_at_guidance_1_are_read_as_their_class(referee):
    made = sampled(KARRAS_10, 1.0, count=50)
    assert referee.accuracy > 0.965
    assert quality.accuracy(referee.judge, made.images, made.labels) > 0.9


def test_frechet_distance_is_the_closed_form():
    a = torch.randn(200, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shift = torch.arange(6.0, dtype=torch.float64)
    assert judge.frechet_distance(a, a) == pytest.approx(0.0, abs=1e-6)
    assert judge.frechet_distance(a, a + shift) == pytest.approx(55.0, abs=1e-6)
    spread_out = a.mean(0) + 3.0 * (a - a.mean(0))
    assert judge.frechet_distance(a, spread_out) == pytest.approx(4.0 * a.var(0).sum().item(), rel=1e-6)


def test_figures_of_real_images_against_themselves(referee):
    assert referee.frechet(referee.real, referee.real_labels) == pytest.approx(0.0, abs=1e-3)
    assert referee.floor > 10 * referee.floor_deviation > 0
    assert referee.spread(referee.real, referee.real_labels) == pytest.approx(1.0)
    mean = referee.real.mean(0)
    assert referee.spread(mean + 0.5 * (referee.real - mean), referee.real_labels) == pytest.approx(0.25)


@pytest.fixture(scope="module")
def small():
    """A run of everything there is, on few images and methods, in two chunks and in this process."""
    size = quality.Size(2, (KARRAS_5, KARRAS_10), (1.0, 3.0), 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "CHUNK", 10)
        jobs = quality.jobs_of(size)
    return size, quality.joined({job: job.run() for job in reversed(jobs)})


def test_every_image_is_sampled_once_from_a_noise_of_its_own(small):
    size, runs = small
    for method in size.methods:
        made = runs[method, 1.0].latents
        assert len(made) == 20
        assert torch.pdist(made.flatten(1)).min() > 0.1
        assert runs[method, 1.0].labels.bincount().tolist() == [2] * 10
        torch.testing.assert_close(made[:10], sampled(method, 1.0).latents)


def test_tables_have_a_line_for_everything(small, referee):
    size, runs = small
    lines = quality.measure(runs, size, referee)
    assert [(line.method, line.guidance) for line in lines] == [(m, g) for m in size.methods for g in size.guidances]
    whole = quality.whole_table(lines, referee).splitlines()
    assert len(whole) == 2 + len(lines) + 1
    assert len({line.count("|") for line in whole}) == 1
    short = quality.short_table(lines, referee, size.guidances).splitlines()
    assert len(short) == 2 + len(size.methods) + 1
    assert len({line.count("|") for line in short}) == 1


def test_the_grid_shows_every_method_at_every_guidance(small):
    size, runs = small
    picture = quality.grid(runs, size).tobytes()
    for method in (*size.methods, quality.converged(size.ode_steps)):
        for guidance in size.guidances:
            inverted = quality.Samples(-runs[method, guidance].latents, runs[method, guidance].evaluations)
            assert quality.grid({**runs, (method, guidance): inverted}, size).tobytes() != picture


def test_the_first_picture_is_ten_digits_in_order(referee):
    picture = quality.run_workflow(quality.first_of_digits())
    assert picture.shape == (136, 352, 3)
    tiles = [picture[y : y + 64 : 8, x : x + 64 : 8, 0] for y in (0, 72) for x in range(0, 352, 72)]
    assert quality.accuracy(referee.judge, torch.stack(tiles).unsqueeze(1), torch.arange(10)) >= 0.9


def test_the_readme_is_changed_between_its_marks_only():
    text = "before\n<!-- quality -->\nold\n<!-- /quality -->\nafter\n"
    assert markdown.filled(text, "new\n", "quality") == "before\n<!-- quality -->\nnew\n<!-- /quality -->\nafter\n"
    with pytest.raises(SystemExit, match="quality"):
        markdown.filled("no marks\n", "new\n", "quality")


def test_both_pages_have_the_marks():
    for path in (quality.CLAIMS, quality.PAGE):
        assert markdown.marked("quality").search(path.read_text(encoding="utf-8"))
