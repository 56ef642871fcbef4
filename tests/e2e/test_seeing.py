"""What the examples of looking at a run show, on the real server."""

import asyncio
import csv
import io
import json
import statistics

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
    result = run_prompt(server, prompt, patience=400).check()
    turns, kept = {}, []
    for number, node in prompt.items():
        if node["class_type"] != "StepwiseTrajectory":
            continue
        (text,) = result.outputs[number]["text"]
        assert text.startswith(f"{STEPS} steps, {STEPS} model calls")
        assert len(text.splitlines()) == 2 + STEPS * IMAGES
        kept.append(node["_meta"]["title"])
        name = {"filename": f"trajectory_{len(kept):05}_.csv", "subfolder": "stepwise", "type": "output"}
        rows = list(csv.DictReader(io.StringIO(fetch(server, name).decode())))
        assert len(rows) == STEPS * IMAGES
        assert float(rows[-1]["sigma_reached"]) == 0.0
        turns[node["_meta"]["title"]] = statistics.median(float(row["turn_degrees"] or "nan") for row in rows[IMAGES:])
    assert turns["DDIM"] < 30 < 60 < turns["DDPM"], turns
    (saved,) = [file for file in result.files() if file["type"] == "output"]
    strips = np.asarray(picture(server, saved).convert("RGB")).astype(float)
    above, below = strips[: len(strips) // 2 - 4], strips[len(strips) // 2 + 4 :]
    assert above.shape == below.shape
    assert above.shape[1] == 10 * (SIDE + 4) + 4
    assert np.abs(above - below).mean() > 1


def test_live_previews_show_every_image(server):
    """On a client's own websocket, as the page has one: of one node the first image, of the other a grid of three."""
    first, grid = sorted(asyncio.run(previews_of(server, api(STRIPS))))
    assert grid == (2 * first[0], 2 * first[1])


async def previews_of(server, prompt):
    """The sizes of the previews that a run sends."""
    sizes = set()
    asked = {"prompt": prompt, "client_id": "grid", "extra_data": {"preview_method": "latent2rgb"}}
    at = f"http://127.0.0.1:{server.port}"
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{at}/ws?clientId=grid") as socket:
        async with session.post(f"{at}/prompt", json=asked) as response:
            assert response.status == 200
        async for frame in socket:
            if frame.type == aiohttp.WSMsgType.BINARY:
                # The picture stands behind numbers that say what it is.
                start = frame.data.find(b"\xff\xd8\xff")
                sizes |= {Image.open(io.BytesIO(frame.data[start:])).size} if start >= 0 else set()
            elif (told := json.loads(frame.data))["type"] in ("execution_success", "execution_error"):
                assert told["type"] == "execution_success", told
                return sizes
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
