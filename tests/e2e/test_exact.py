"""The examples on exact data, through the real server: their pictures, and what the reports say in them."""

import json
import re
from pathlib import Path

import numpy as np
from stepwise.samplers.exact import mixture
from stepwise.tests.e2e.harness import picture, run_prompt

API = Path(__file__).resolve().parents[2] / "example_workflows" / "api"
SIDE, GAP = 384, 8


def ran(server, name):
    prompt = json.loads((API / f"{name}.json").read_text(encoding="utf-8"))
    result = run_prompt(server, prompt, patience=400).check()
    (file,) = [file for file in result.files() if file["type"] == "output"]
    return prompt, result, np.asarray(picture(server, file).convert("RGB")).astype(float)


def test_the_ways_of_a_run_are_drawn_beside_each_other(server):
    """Euler in 5 steps and 40, DPM++ 2M; below them, towards two components, DPM++ 2M at guidance 4, Euler Ancestral at
    1, and what is expected on its way, which ends where the run does."""
    _, _, whole = ran(server, "mixture_ways")
    assert whole.shape == (2 * SIDE + GAP, 3 * SIDE + 2 * GAP, 3)
    drawn = [
        whole[row * (SIDE + GAP) :, column * (SIDE + GAP) :][:SIDE, :SIDE] for row in range(2) for column in range(3)
    ]
    assert min(np.abs(a - b).mean() for i, a in enumerate(drawn) for b in drawn[:i]) > 1.0
    near_two = [np.isin(nearest(each), (0, 2)).mean() for each in (drawn[1], drawn[3])]
    assert near_two[1] > 0.9 > 0.7 > near_two[0], "guidance leads into the two that the prompt names"
    run, expected = map(ends, drawn[4:])
    assert (run & expected).sum() > 0.6 * (run | expected).sum() > 50


def ends(drawn):
    """The pixels in the colour of a run's ends."""
    return np.abs(drawn - (0xE6, 0x9F, 0x00)).max(-1) < 40


def nearest(drawn):
    """Of every pixel in the colour of a run's ends: the component whose mean is nearest."""
    data = mixture(6, 2)
    means = data.means.numpy()
    half = max(2.6, float((np.abs(means).max(1) + 3.0 * data.variances.sqrt().numpy()).max()))
    rows, columns = np.nonzero(ends(drawn))
    places = np.stack([columns + 0.5, SIDE - rows - 0.5], 1) * (2.0 * half / SIDE) - half
    assert len(places) > 100
    return np.square(places[:, None] - means).sum(-1).argmin(1)


def test_two_samplers_are_reported_on(server):
    prompt, result, whole = ran(server, "sampler_report")
    assert whole.shape == (576, 2 * 768 + GAP, 3)
    assert not np.array_equal(whole[:, :768], whole[:, -768:])
    texts = {
        prompt[number]["_meta"]["title"]: shown["text"][0]
        for number, shown in result.outputs.items()
        if "text" in shown
    }
    orders = {title: float(re.search(r"order +VE +([0-9.]+);", text)[1]) for title, text in texts.items()}
    assert abs(orders["heunpp2"] - 1.0) < 0.15
    assert abs(orders["Heun"] - 2.0) < 0.15
    assert "! error to Euler's" in texts["heunpp2"]
    assert texts["Heun"].startswith("Heun: nothing of")
