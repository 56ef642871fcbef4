"""Choosing guidance: the figures are of what the page says, on small runs of the real model in the real host."""

import importlib
import math

import pytest
import torch
from stepwise.samplers import VE
from stepwise.samplers.schedules import karras

guidance = importlib.import_module("stepwise.benchmarks.guidance")
judge = importlib.import_module("stepwise.tools.measure.judge")
markdown = importlib.import_module("stepwise.tools.generate.markdown")


@pytest.mark.parametrize("way", [*guidance.WAYS, *guidance.NEWER], ids=lambda way: way.name)
def test_every_way_has_about_40_evaluations_of_its_own(way):
    """Counted at the network; and at a high scale no two ways make the same picture."""
    made = guidance.run(way, 15.0, 2)
    assert abs(made.evaluations - 40) <= 1
    if way != guidance.CFG:
        assert (made.latents - guidance.run(guidance.CFG, 15.0, 2).latents).abs().mean() > 0.01


def test_at_scale_1_all_but_cfg_pp_are_the_conditional_prediction():
    plain = guidance.run(guidance.CFG, 1.0, 2)
    assert plain.evaluations == 20
    for way in (*guidance.WAYS, *guidance.NEWER):
        if way.steps == guidance.STEPS:
            same = torch.equal(guidance.run(way, 1.0, 2).latents, plain.latents)
            assert same is not (way.cfg_pp or way.moves_scale_1)


def test_the_scale_of_cfg_pp_is_that_of_plain_guidance_in_steps_of_the_mean_length():
    """In steps that are all of one length CFG++ with Euler is plain guidance; the real ones have this mean."""
    way = guidance.WAYS[-1]
    lams = [VE.lam(sigma) for sigma in karras(way.steps)[:-1]]
    mean = (lams[-1] - lams[0]) / (len(lams) - 1)
    assert way.scale(7.5) / (1.0 - math.exp(-mean)) == pytest.approx(7.5, rel=1e-3)


@pytest.fixture(scope="module")
def measured():
    """Two ways at two scales, on few images."""
    referee = judge.Referee(per_class=2)
    ways = (guidance.CFG, guidance.WAYS[1])
    return guidance.measured(ways, (1.0, 7.5), 20, referee), referee


def test_the_table_has_a_line_for_everything_and_one_for_real_images(measured):
    lines, referee = measured
    assert [(line.way.name, line.guidance) for line in lines] == [
        ("CFG", 1.0),
        ("CFG", 7.5),
        ("Rescale, phi 0.7", 7.5),
    ]
    table = guidance.table(lines, referee).splitlines()
    assert len(table) == 2 + 3 + 1
    assert len({line.count("|") for line in table}) == 1


def line(way, scale, evaluations, accuracy, frechet):
    return guidance.Line(way, scale, evaluations, accuracy, 1.0, frechet, 0.1)


def test_what_an_interval_saves_is_against_its_best_scale_of_the_same_quality():
    """The largest that is read right as often and comes as near; none where none does."""
    plain = [line(guidance.CFG, 2.0, 40.0, 0.9, 50.0), line(guidance.CFG, 9.0, 40.0, 0.999, 30.0)]
    inside = [
        line(guidance.SAVING, scale, 26.0, accuracy, frechet)
        for scale, accuracy, frechet in ((1.0, 0.95, 20.0), (3.0, 0.9, 50.0), (5.0, 0.8, 40.0), (7.0, 0.95, 60.0))
    ]
    rows = guidance.saved(plain, inside).splitlines()[2:]
    assert rows == ["| 2 | 90.0% | 50.0 | 40 | 3 | 90.0% | 50.0 | 26 | 35% |"]


def test_the_plot_is_drawn(measured, tmp_path):
    lines, referee = measured
    guidance.plot(lines, referee, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


def test_the_page_has_its_marks_and_all_are_filled():
    text = guidance.PAGE.read_text(encoding="utf-8")
    for name in ("guidance", "saved", "newer", "detail"):
        assert markdown.marked(name).search(text)[0].count("\n") > 5
