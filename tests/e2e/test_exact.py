"""The examples on exact data, through the real server: their pictures, and what the reports say in them."""

import json
import re
from pathlib import Path

import numpy as np
from stepwise.tests.e2e.harness import picture, run_prompt

API = Path(__file__).resolve().parents[2] / "example_workflows" / "api"
SIDE, GAP = 384, 8


def ran(server, name):
    prompt = json.loads((API / f"{name}.json").read_text(encoding="utf-8"))
    result = run_prompt(server, prompt, patience=400).check()
    (file,) = [file for file in result.files() if file["type"] == "output"]
    return prompt, result, np.asarray(picture(server, file).convert("RGB")).astype(float)


def test_the_ways_of_a_run_are_drawn_beside_each_other(server):
    _, _, whole = ran(server, "mixture_ways")
    assert whole.shape == (SIDE, 4 * SIDE + 3 * GAP, 3)
    five, forty, multistep, guided = (whole[:, i * (SIDE + GAP) :][:, :SIDE] for i in range(4))
    assert min(np.abs(five - other).mean() for other in (forty, multistep, guided)) > 1.0
    # Guidance leads into two of the six: the others' shade is grey there, and no way ends in it.
    ends = [(np.abs(each - (0xE6, 0x9F, 0x00)).max(-1) < 40) for each in (forty, guided)]
    assert ends[1].any()
    assert np.argwhere(ends[1]).std(0).prod() < 0.6 * np.argwhere(ends[0]).std(0).prod()


def test_two_samplers_are_reported_on(server):
    prompt, result, whole = ran(server, "sampler_report")
    assert whole.std() > 20
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
