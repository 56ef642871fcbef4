"""What the examples say of themselves is true of their pictures; examples_on_page.py has how they open and run."""

import json
import re
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image, ImageDraw
from stepwise.tests.e2e.harness import fetch, is_drawn, picture, run_prompt, run_with_client
from stepwise.tools.generate.examples import WORKFLOWS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "example_workflows"
FIRST = "DPM++ 2M Karras with CFG"
SIDE_BY_SIDE = "DDPM, DDIM, DPM-Solver and LCM side by side"
PAUSE = "Pause and resume"
FORK = "Fork one run into four guidances"
HAND_OVER = "High-noise model hands over to low-noise model"
CURVE = "Guidance curve and interval"
BY_HAND = "CFG by hand"
TWO_PROMPTS = "Two prompts, two scales"
BROWNIAN = "Brownian noise and a seed for each picture"
INPAINT, IMAGE_TO_IMAGE = "Inpaint", "Image to image"
EVERY = ("Every solver from one noise", "Every solver as a SAMPLER")
FIT, RECIPE = "Fit a plan - ten calls for twenty", "Load a recipe"
TOMORROW = "Save a run and load it tomorrow"
TWINS = {workflow.name: workflow.api for workflow in (describe() for describe in WORKFLOWS)}
ROW, GAP = 64, 8


def api(name):
    return json.loads((EXAMPLES / "api" / f"{TWINS[name]}.json").read_text(encoding="utf-8"))


def pixels(server, result):
    (file,) = result.files()
    return np.asarray(picture(server, file).convert("RGB"))


def test_every_example_has_its_api_twin_and_its_thumbnail():
    names = {path.stem for path in EXAMPLES.glob("*.json")}
    assert names == set(TWINS)
    assert {path.stem for path in EXAMPLES.glob("*.jpg")} == names
    assert {path.stem for path in (EXAMPLES / "api").glob("*.json")} == set(TWINS.values())


@pytest.mark.parametrize("name", sorted(TWINS))
def test_a_thumbnail_shows_something(name):
    assert is_drawn(np.asarray(Image.open(EXAMPLES / f"{name}.jpg").convert("RGB")))


def sheet(*, ground=255, places=(), line=()):
    """A picture of 200 times 272 pixels with places of one colour in it, and perhaps a line of 2 pixels."""
    drawing = Image.new("RGB", (272, 200), (ground,) * 3)
    pencil = ImageDraw.Draw(drawing)
    for x, y in places:
        pencil.rectangle((x, y, x + 63, y + 63), fill="white")
    if line:
        pencil.line(line, fill=(31, 119, 180), width=2)
    return np.asarray(drawing)


def test_a_blank_picture_shows_nothing():
    """Nor does a grid of blank pictures, or a ramp; one thin line is something."""
    grid = [(x, y) for x in range(0, 272, 72) for y in range(0, 200, 72)]
    assert not any(is_drawn(sheet(ground=level)) for level in (0, 127, 255))
    assert not is_drawn(sheet(ground=0, places=grid))
    assert not is_drawn(np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None], (200, 272, 3)))
    assert is_drawn(sheet(line=(10, 190, 100, 60, 260, 20)))
    assert is_drawn(sheet(ground=0, places=grid, line=(4, 4, 190, 140)))


def test_headless_run_with_the_official_client_makes_the_picture(server):
    done = run_with_client(server, EXAMPLES / "api" / f"{TWINS[FIRST]}.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "/view?filename=stepwise_" in done.stdout


def test_a_saved_picture_dropped_back_brings_its_workflow(editor, server, tmp_path):
    editor.drop(EXAMPLES / f"{FIRST}.json")
    (file,) = editor.queue().check().files()
    saved = tmp_path / "saved.png"
    saved.write_bytes(fetch(server, file))
    editor.new_workflow()
    editor.drop(saved)
    assert editor.missing_nodes() == set()
    again = editor.queue().check()
    assert np.array_equal(pixels(server, again), np.asarray(picture(server, file).convert("RGB")))


def smaller(name):
    """An example of two images, not ten, and of a hundred steps for a thousand: what takes a minute takes seconds."""
    prompt = api(name)
    for node in prompt.values():
        for known, value in {"batch_size": 2, "columns": 2, "labels": "3,7"}.items():
            if node["inputs"].get(known):
                node["inputs"][known] = value
        if node["inputs"].get("steps") == 1000:
            node["inputs"]["steps"] = 100
    return prompt


def rows_of(server, name, count):
    """The rows of the picture that an example makes, one for each run."""
    whole = pixels(server, run_prompt(server, smaller(name), patience=400).check())
    assert whole.shape[0] == count * ROW + (count - 1) * GAP
    return [whole[i * (ROW + GAP) :][:ROW].astype(float) for i in range(count)]


def apart(a, b):
    return float(np.abs(a - b).mean())


def test_four_samplers_side_by_side(server):
    rows = rows_of(server, SIDE_BY_SIDE, 4)
    assert all(row.std() > 30 for row in rows)
    assert min(apart(rows[i], rows[j]) for i in range(4) for j in range(i)) > 1, "two samplers made one picture"


@pytest.mark.parametrize(("name", "count"), [(PAUSE, 3), (FORK, 4), (HAND_OVER, 2)])
def test_examples_of_states(server, name, count):
    """One row of pictures for each run: all differ, but that the run gone on is the run in one piece."""
    rows = rows_of(server, name, count)
    equal = [(i, j) for i in range(count) for j in range(i) if np.array_equal(rows[i], rows[j])]
    assert equal == ([(2, 1)] if name == PAUSE else [])
    assert all(row.std() > 30 for row in rows)


def test_another_curve_gives_another_picture(server):
    rows, prompt = rows_of(server, CURVE, 2), smaller(CURVE)
    (drawn,) = (node for node in prompt.values() if node["class_type"] == "StepwiseDrawnCurveGuidance")
    drawn["inputs"]["curve"] = {"points": [[0.0, 1.0], [1.0, 1.0]], "interpolation": "linear"}
    other = pixels(server, run_prompt(server, prompt).check()).astype(float)
    assert np.array_equal(other[:ROW], rows[0])
    assert apart(other[ROW + GAP :], rows[1]) > 1


def test_more_steps_refine_the_picture_under_brownian_noise(server):
    few, many, few_independent, many_independent = rows_of(server, BROWNIAN, 4)
    assert apart(few, many) < 0.5 * apart(few_independent, many_independent)


def test_inpainting_keeps_what_is_not_masked(server):
    """The latent, number for number. Its pixels but for what the decoder mixes over the mask's edge."""
    prompt = smaller(INPAINT)
    (start, run) = (
        next(number for number, node in prompt.items() if node["class_type"] == kind)
        for kind in ("StepwiseKSampler", "StepwiseDEIS")
    )
    for number, name in ((start, "before"), (run, "after")):
        prompt[f"9{number}"] = {"class_type": "SaveLatent", "inputs": {"samples": [number, 0], "filename_prefix": name}}
    result = run_prompt(server, prompt, patience=400).check()
    saved = {file["filename"].split("_")[0]: file for file in result.files("latents")}
    first, last = (safetensors.torch.load(fetch(server, saved[name]))["latent_tensor"] for name in ("before", "after"))
    half = first.shape[-2] // 2
    assert torch.equal(first[..., :half, :], last[..., :half, :])
    whole = pixels(server, result).astype(float)
    before, after = whole[:ROW], whole[ROW + GAP :]
    changed = apart(before[ROW // 2 :], after[ROW // 2 :])
    assert changed > 10
    assert apart(before[: ROW // 4], after[: ROW // 4]) < changed / 20


def test_image_to_image_is_nearer_to_its_beginning_than_other_pictures_are(server):
    before, after = rows_of(server, IMAGE_TO_IMAGE, 2)
    assert 5 < apart(before, after) < apart(before, np.roll(before, ROW + GAP, axis=1))


def test_a_solver_and_its_sampler_object_make_one_picture(server):
    """In five steps: the longest memory is of four."""
    prompts = [smaller(name) for name in EVERY]
    for node in (node for prompt in prompts for node in prompt.values() if node["inputs"].get("steps") == 8):
        node["inputs"]["steps"] = 5
    one, other = (pixels(server, run_prompt(server, prompt, patience=400).check()) for prompt in prompts)
    assert np.array_equal(one, other)


ENABLE = """() => app.graph.nodes.filter(node => node.mode === 2).map(node => { node.mode = 0; return node.id })"""


def test_a_run_is_loaded_another_day(editor, server):
    """What the note says to do: switch the group on, and run."""
    editor.drop(EXAMPLES / f"{TOMORROW}.json")
    editor.queue().check()
    assert len(editor.page.evaluate(ENABLE)) == 5
    (file,) = [file for file in editor.queue().check().files() if file["type"] == "output"]
    prompt = api(TOMORROW)
    (whole,) = (node for node in prompt.values() if node["class_type"] == "StepwiseKSampler")
    whole["inputs"]["end_step"] = 10000
    result = run_prompt(server, prompt).check()
    (uncut,) = [file for file in result.files() if file["type"] == "temp"]
    assert np.array_equal(picture(server, file), picture(server, uncut))


def test_a_fitted_plan_is_saved_and_its_recipe_makes_the_same_picture(editor, server):
    """What the notes of both examples say to do: fit, then switch the group that loads the recipe on, and run."""
    result = run_prompt(server, api(FIT), patience=400).check()
    kinds = {number: node["class_type"] for number, node in api(FIT).items()}
    (report,) = next(output["text"] for number, output in result.outputs.items() if kinds[number] == "StepwiseFitPlan")
    medians = {name: float(value) for name, value in re.findall(r"^  (.+): ([\d.]+) / ", report, re.MULTILINE)}
    assert medians["fitted, 10 calls"] < 0.6 * medians["DPM++ 2M, 10 calls"]
    fitted = pixels(server, result)[:ROW]
    editor.drop(EXAMPLES / f"{RECIPE}.json")
    before = editor.queue().check().files()
    assert len(editor.page.evaluate(ENABLE)) == 6
    files = [file for file in editor.queue().check().files() if file not in before]
    assert any(np.array_equal(np.asarray(picture(server, file).convert("RGB")), fitted) for file in files)


def test_a_saved_state_is_listed_loaded_and_gone_on_from(server):
    """What the note of the example says to do: Load State in the place of the first part."""
    prompt = smaller(PAUSE)
    result = run_prompt(server, prompt).check()
    (saved,) = next(
        output["text"]
        for number, output in result.outputs.items()
        if prompt[number]["class_type"] == "StepwiseSaveState"
    )
    info = server.get("/object_info/StepwiseLoadState")["StepwiseLoadState"]["input"]["required"]
    assert saved in info["file"][1]["options"]
    second = next(node for node in prompt.values() if node["_meta"]["title"] == "From step 5 on")
    first = second["inputs"]["state"][0]
    prompt["99"] = {"class_type": "StepwiseLoadState", "inputs": {"file": saved}}
    for node in prompt.values():
        if node["inputs"].get("state", [None])[0] == first:
            node["inputs"]["state"] = ["99", 0]
    del prompt[first]
    assert np.array_equal(pixels(server, run_prompt(server, prompt).check()), pixels(server, result))


def test_guidance_by_hand_is_the_first_picture_and_reports_what_it_evaluates(server):
    result = run_prompt(server, smaller(BY_HAND)).check()
    assert np.array_equal(pixels(server, result), pixels(server, run_prompt(server, smaller(FIRST)).check()))
    assert report_of(result).startswith("20 model calls of the sampler: 40 of 40 predictions evaluated, 0 saved")


def test_a_second_prompt_that_fades_out_is_evaluated_for_a_part_of_the_run(server):
    made, possible = re.match(
        r"20 model calls of the sampler: (\d+) of (\d+) pred",
        report_of(run_prompt(server, api(TWO_PROMPTS)).check()),
    ).groups()
    assert int(made) < int(possible) == 60


def report_of(result):
    """The text of the node that previews the guider's report."""
    (text,) = {line for shown in result.outputs.values() for line in shown.get("text", ())}
    return text


def test_cancel_ends_a_long_run(server):
    prompt = api(FIRST)
    schedule = next(node for node in prompt.values() if node["class_type"] == "StepwiseKarrasSchedule")
    schedule["inputs"]["steps"] = 5000
    status, answer = server.post("/prompt", {"prompt": prompt})
    assert status == 200
    wait_until(lambda: progress_of(server, answer["prompt_id"]))
    server.post("/interrupt", {})
    entry = wait_until(lambda: server.get(f"/history/{answer['prompt_id']}").get(answer["prompt_id"]))
    assert "execution_interrupted" in [kind for kind, _ in entry["status"]["messages"]]


def progress_of(server, prompt_id):
    return any(job[1] == prompt_id for job in server.get("/queue")["queue_running"])


def wait_until(condition, patience=60.0):
    import time

    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.1)
    time.sleep(0.5)
    return value


def test_an_error_reaches_the_graph_at_its_node_in_the_artists_words(server):
    prompt = api(FIRST)
    number, schedule = next((n, node) for n, node in prompt.items() if node["class_type"] == "StepwiseKarrasSchedule")
    del schedule["inputs"]["model"]
    schedule["inputs"].update(sigma_min=20.0, sigma_max=10.0)
    result = run_prompt(server, prompt)
    assert result.error["node_id"] == number
    assert result.error["exception_message"].startswith(
        "Karras Schedule: sigma_min is 20, not between 0 and sigma_max = 10. Give a sigma_min above 0"
    )


def test_out_of_range_is_refused_before_anything_runs(server):
    prompt = api(FIRST)
    number, run = next((n, node) for n, node in prompt.items() if node["class_type"] == "StepwiseDPMpp2M")
    run["inputs"].update({"class_type": "StepwiseDDIM"})
    prompt[number] = {
        "class_type": "StepwiseDDIM",
        "inputs": {**run["inputs"], "eta": 1.5, "noise_kind": "independent", "noise_device": "cpu"},
    }
    result = run_prompt(server, prompt)
    assert [error["type"] for error in result.node_errors[number]["errors"]] == ["value_bigger_than_max"]


def test_template_browser_is_offered_every_example_with_its_thumbnail(server):
    """The routes that the browser reads: the list by pack, then each file by its name."""
    assert sorted(server.get("/api/workflow_templates")["stepwise"]) == sorted(TWINS)
    for name in TWINS:
        at = "/api/workflow_templates/stepwise/" + urllib.parse.quote(name)
        assert server.get(f"{at}.json") == json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
        assert server.read(f"{at}.jpg") == (EXAMPLES / f"{name}.jpg").read_bytes()


def test_plan_table_shows_its_text(server):
    prompt = {
        "1": {"class_type": "StepwiseDPMpp2MSampler", "inputs": {"time": "half_log_snr", "final_order": "falling"}},
        "2": {
            "class_type": "StepwiseKarrasSchedule",
            "inputs": {"steps": 4, "sigma_min": 0.03, "sigma_max": 14.6, "rho": 7.0},
        },
        "3": {"class_type": "StepwisePlanTable", "inputs": {"sampler": ["1", 0], "sigmas": ["2", 0], "path": "VE"}},
    }
    (text,) = run_prompt(server, prompt).check().outputs["3"]["text"]
    assert text.startswith("DPM++ 2M on VE, 4 steps, 4 model calls")
