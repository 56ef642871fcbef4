"""Load State's warm_up: one call of the model that is thrown away, before the first of the rest."""

import logging

import folder_paths
import pytest
import torch
from comfy_extras.nodes_apg import APG
from stepwise.nodes.host import warm_up as host
from stepwise.nodes.runs.files import from_bytes, to_bytes
from toy_models import Latent4, Latent5D, SmoothNet, call, prompt, toy_model

STEPS, CUT = 5, 2


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return tmp_path


class Watched(SmoothNet):
    """Notes the size of what it is called with, and whether a patch was with it."""

    def __init__(self, channels=4):
        super().__init__(channels)
        self.seen = []

    def forward(self, x, timesteps, *args, **kwargs):
        self.seen.append((tuple(x.shape), "sample_sigmas" in kwargs["transformer_options"]))
        return super().forward(x, timesteps, *args, **kwargs)


def parts(network, shape=(2, 4, 24, 20), patch=lambda model: model, kind="EPS", form=Latent4, solver="DPMpp2MSDE"):
    """Runs a step node: a function of what it is given beside the guider."""
    model = patch(toy_model(kind, network, form()))
    prompts = {"positive": prompt(0.4), "negative": prompt(-0.3)}
    (guider,) = call("StepwiseCFGGuider", model=model, cfg=3.0, **prompts)
    (sigmas,) = call("StepwiseKarrasSchedule", model=model, steps=STEPS)
    (noise,) = call("StepwiseNoise", seed=3)
    start = {"noise": noise, "latent_image": {"samples": torch.zeros(*shape)}, "sigmas": sigmas}
    return lambda **given: call(
        f"Stepwise{solver}", guider=guider, **(given if "state" in given else {**start, **given})
    )


def loaded(state, **given):
    (file,) = call("StepwiseSaveState", state=state)
    return call("StepwiseLoadState", file=file, **given)[0]


def projected(model):
    """Remembers from call to call, out of anybody's sight."""
    return APG.execute(model, eta=0.8, norm_threshold=4.0, momentum=-0.6).args[0]


@pytest.mark.parametrize(
    ("shape", "form", "kind", "corner"),
    [
        ((2, 4, 24, 20), Latent4, "EPS", (1, 4, 16, 16)),
        ((1, 4, 8, 40), Latent4, "FLOW", (1, 4, 8, 16)),
        ((1, 4, 3, 8, 18), Latent5D, "FLOW", (1, 4, 3, 8, 16)),
    ],
)
@pytest.mark.parametrize("patch", [lambda model: model, projected], ids=["plain", "patched"])
def test_the_rest_is_the_same_after_one_call_that_comes_first(shape, form, kind, corner, patch):
    network = Watched(shape[1])
    step = parts(network, shape, patch, kind, form)
    whole = step()[0]["samples"]
    state = step(end_step=CUT)[2]
    network.seen.clear()
    plain = step(state=loaded(state))[0]["samples"]
    calls = list(network.seen)
    network.seen.clear()
    warmed = step(state=loaded(state, warm_up=True))
    assert torch.equal(plain, whole)
    assert torch.equal(warmed[0]["samples"], whole)
    assert network.seen == [(corner, False), *calls], "one call, alone and without the run's patches"
    assert all(with_patches for _, with_patches in calls)


def test_the_wish_is_for_the_next_part_only():
    network = Watched()
    step = parts(network)
    warm = loaded(step(end_step=CUT)[2], warm_up=True)
    assert warm.warm_up
    assert not from_bytes(to_bytes(warm, {})).warm_up, "no file has it"
    after = step(state=warm, end_step=CUT + 1)[2]
    assert not after.warm_up
    network.seen.clear()
    step(state=after)
    assert all(with_patches for _, with_patches in network.seen)


def test_a_run_that_stands_at_its_end_calls_nothing():
    network = Watched()
    step = parts(network)
    state = loaded(step()[2], warm_up=True)
    network.seen.clear()
    step(state=state)
    assert network.seen == []


class Sized:
    """An input of the model with a size of its own."""

    def __init__(self, cond):
        self.cond = cond

    def process_cond(self, batch_size, **_):
        return self


def test_a_model_that_is_told_the_size_of_the_latent_is_shown_all_of_it():
    x = torch.zeros(2, 4, 24, 20)
    assert not host.needs_all({"c_crossattn": Sized(torch.zeros(1, 77, 8))}, x)
    assert host.needs_all({"denoise_mask": Sized(torch.zeros(1, 1, 24, 20))}, x)
    assert host.needs_all({"latent_shapes": Sized([[1, 2]])}, x)


def test_a_guider_without_conditioning_is_named(caplog, monkeypatch):
    monkeypatch.setattr(logging.root.manager, "disable", logging.NOTSET)

    class Foreign:
        inner_model, conds = None, {}

    with caplog.at_level(logging.WARNING):
        host.warm_up(Foreign(), torch.zeros(1, 4, 8, 8), 1.0)
    assert "the guider Foreign shows no conditioning" in caplog.text
