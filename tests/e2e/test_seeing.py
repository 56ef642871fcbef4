"""What the examples of looking at a run show, on the real server."""

import asyncio
import csv
import io
import json
import statistics
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import numpy as np
from PIL import Image
from stepwise.tests.e2e.harness import fetch, picture, run_prompt
from stepwise.tests.e2e.test_workflows import EXAMPLES, api, rows_of

BY_HAND, STRIPS = "DPM++ 2M taken apart", "DDPM beside DDIM, step by step"
STEPS, IMAGES, SIDE = 20, 3, 64


def test_dpmpp_2m_taken_apart_is_its_node(server):
    by_hand, one_node = rows_of(server, BY_HAND, 2)
    assert np.array_equal(by_hand, one_node)
    assert by_hand.std() > 30


def test_filmstrips_figures_and_files(server):
    """What the note says: DDIM goes nearly straight, DDPM does not."""
    prompt = api(STRIPS)
    looks = {number: node for number, node in prompt.items() if node["class_type"] == "StepwiseTrajectory"}
    for node in looks.values():
        node["inputs"]["filename_prefix"] = f"seeing/{node['_meta']['title']}"
    result = run_prompt(server, prompt, patience=400).check()
    turns = {}
    for number, node in looks.items():
        title, (text,) = node["_meta"]["title"], result.outputs[number]["text"]
        assert text.startswith(f"{STEPS} steps, {STEPS} model calls")
        assert len(text.splitlines()) == 2 + STEPS * IMAGES
        name = {"filename": f"{title}_00001_.csv", "subfolder": "seeing", "type": "output"}
        rows = list(csv.DictReader(io.StringIO(fetch(server, name).decode())))
        assert len(rows) == STEPS * IMAGES
        assert float(rows[-1]["sigma_reached"]) == 0.0
        turns[title] = statistics.median(float(row["turn_degrees"] or "nan") for row in rows[IMAGES:])
    assert turns["DDIM"] < 30 < 60 < turns["DDPM"], turns
    (saved,) = [file for file in result.files() if file["type"] == "output"]
    strips = np.asarray(picture(server, saved).convert("RGB")).astype(float)
    above, below = strips[: len(strips) // 2 - 4], strips[len(strips) // 2 + 4 :]
    assert above.shape == below.shape
    assert above.shape[1] == 10 * (SIDE + 4) + 4
    assert np.abs(above - below).mean() > 1


def test_live_previews_show_every_image(server):
    """On a client's own websocket, as the page has one: of one node the first image, of the other a grid of three."""
    prompt = api(STRIPS)
    (noise,) = (node for node in prompt.values() if node["class_type"] == "RandomNoise")
    # Another one than in other tests: what comes from the cache has no previews.
    noise["inputs"]["noise_seed"] = 8
    # In a thread of its own: the browser's tests have a loop that runs in this one.
    with ThreadPoolExecutor(1) as pool:
        drawn = pool.submit(asyncio.run, previews_of(server, prompt)).result()
    # Three of four places are taken. On white ground no picture has a black quarter of its own.
    free = [each[each.shape[0] * 9 // 16 :, each.shape[1] * 9 // 16 :].max() < 30 for each in drawn]
    assert {True, False} == set(free)
    grids = [each for each, is_grid in zip(drawn, free, strict=True) if is_grid]
    height, width = (side // 2 for side in grids[-1].shape[:2])
    first, second, third = grids[-1][:height, :width], grids[-1][:height, width:], grids[-1][height:, :width]
    assert min(np.abs(one - other).mean() for one, other in ((first, second), (first, third), (second, third))) > 10


async def previews_of(server, prompt):
    """The previews that a run sends."""
    drawn = []
    asked = {"prompt": prompt, "client_id": "grid", "extra_data": {"preview_method": "latent2rgb"}}
    at = f"http://127.0.0.1:{server.port}"
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{at}/ws?clientId=grid") as socket:
        async with session.post(f"{at}/prompt", json=asked) as response:
            assert response.status == 200
        async for frame in socket:
            if frame.type == aiohttp.WSMsgType.BINARY:
                # The picture stands behind numbers that say what it is.
                start = frame.data.find(b"\xff\xd8\xff")
                if start >= 0:
                    seen = Image.open(io.BytesIO(frame.data[start:])).convert("RGB")
                    drawn.append(np.asarray(seen).astype(float))
            elif (told := json.loads(frame.data))["type"] in ("execution_success", "execution_error"):
                assert told["type"] == "execution_success", told
                return drawn
    raise AssertionError("the server closed the socket")


ASKED = "async () => (await app.graphToPrompt()).workflow.extra.stepwise_previews ?? null"


def test_the_option_under_edit_goes_with_the_workflow(editor):
    """What the page sends with a prompt is what it saves."""
    editor.drop(EXAMPLES / f"{BY_HAND}.json")
    assert editor.page.evaluate(ASKED) is None
    editor.command("Stepwise.PreviewEveryImage")
    assert editor.page.evaluate(ASKED) == "every image"
    editor.command("Stepwise.PreviewEveryImage")
    assert editor.page.evaluate(ASKED) is None
    assert editor.errors_of_pack() == []
