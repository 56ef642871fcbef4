"""Live previews of every image of a batch: an option of the run, which leaves the host as it is."""

from types import SimpleNamespace

import comfy.latent_formats
import comfy.utils
import latent_preview
import numpy as np
import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from stepwise.nodes.host.previews import EVERY_IMAGE, FIRST_IMAGE, MOST_IMAGES, grid_of
from toy_models import call, nodes_by_id, prompt, toy_model

STEPS = 3


@pytest.fixture
def sent(monkeypatch):
    """What the bar is sent at each step, under the host's previewer of colours."""
    found = []
    monkeypatch.setattr(latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.Latent2RGB)
    monkeypatch.setattr(
        comfy.utils.ProgressBar,
        "update_absolute",
        lambda self, value, total=None, preview=None: found.append((value, total, preview)),
    )
    return found


def run_of(batch, node="StepwiseTrajectory", **inputs):
    latent_format = comfy.latent_formats.SD15()
    model = toy_model(latent_format=latent_format)
    (guider,) = call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=3.0)
    given = {"noise": core.RandomNoise.execute(7).args[0], "latent_image": {"samples": torch.zeros(batch, 4, 8, 8)}}
    given |= {"sigmas": call("StepwiseKarrasSchedule", steps=STEPS)[0], "sampler": call("StepwiseEulerSampler")[0]}
    return call(node, guider=guider, **given, **inputs)


def pixels(preview):
    return np.asarray(preview[1])


def test_the_grid_has_the_host_preview_of_every_image(sent):
    run_of(5, filename_prefix="", previews=EVERY_IMAGE)
    grids = sent.copy()
    assert [(value, total) for value, total, _ in grids] == [(step, STEPS) for step in (1, 2, 3)]
    kind, picture, longest = grids[-1][2]
    assert (kind, longest) == ("JPEG", latent_preview.MAX_PREVIEW_RESOLUTION)
    assert picture.size == (3 * 8, 2 * 8)
    sent.clear()
    run_of(5, filename_prefix="", previews=FIRST_IMAGE)
    assert np.array_equal(pixels(grids[-1][2])[:8, :8], pixels(sent[-1][2]))
    tiles = [pixels(grids[-1][2])[8 * (i // 3) :][:8, 8 * (i % 3) :][:, :8] for i in range(6)]
    assert not tiles[5].any()
    assert min(np.abs(tiles[i].astype(float) - tiles[j]).max() for i in range(5) for j in range(i)) > 0


def test_the_default_is_the_hosts_own(sent):
    run_of(2, node="StepwiseSample")
    plain = [pixels(each[2]) for each in sent]
    sent.clear()
    run_of(2, filename_prefix="")
    assert all(np.array_equal(a, pixels(b[2])) for a, b in zip(plain, sent, strict=True))


@pytest.mark.parametrize(
    ("workflow", "columns"),
    [({"extra": {"stepwise_previews": "every image"}}, 2), ({"extra": {"stepwise_previews": "none"}}, 1), ([], 1)],
)
def test_a_workflow_asks_for_it_of_every_step_node(sent, monkeypatch, workflow, columns):
    hidden = SimpleNamespace(unique_id="1", prompt={}, extra_pnginfo={"workflow": workflow})
    monkeypatch.setattr(nodes_by_id()["StepwiseSample"], "hidden", hidden, raising=False)
    run_of(4, node="StepwiseSample")
    assert sent[-1][2][1].size == (8 * columns, 8 * columns)


class Numbered:
    """A previewer that draws the first image in the colour that its latent says."""

    def decode_latent_to_preview_image(self, kind, x0):
        return kind, latent_preview.Image.new("RGB", (4, 2), (int(x0[0].mean()), 0, 0)), 512


def test_images_stand_row_by_row_and_not_too_many():
    kind, picture, longest = grid_of(Numbered(), torch.arange(100.0).view(-1, 1, 1, 1))
    assert (kind, longest, picture.size) == ("JPEG", 512, (8 * 4, 8 * 2))
    reds = np.asarray(picture)[::2, ::4, 0].reshape(-1)
    assert reds.tolist() == list(range(MOST_IMAGES))


def test_nothing_is_written_to_the_host(sent):
    before = {name: id(value) for name, value in vars(latent_preview).items()}
    run_of(3, filename_prefix="", previews=EVERY_IMAGE)
    assert {name: id(value) for name, value in vars(latent_preview).items()} == before
