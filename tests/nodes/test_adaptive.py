"""DPM Adaptive in the host: ComfyUI's own for one image, and every image of a batch as it is alone."""

import comfy.k_diffusion.sampling as host_sampling
import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from comfy_extras.nodes_apg import APG
from stepwise.nodes.host import adaptive
from stepwise.nodes.runs.files import from_bytes, to_bytes
from stepwise.samplers import FLOW, VE, start
from stepwise.samplers.adaptive import Controller, step_taken
from stepwise.samplers.exact import mixture
from stepwise.samplers.parameters import checked
from stepwise.samplers.solvers.dpm_adaptive import dpm_adaptive
from toy_models import call, nodes_by_id, prompt, refused, toy_model

NODE, STEPS = "StepwiseDPMAdaptive", 5
KINDS = pytest.mark.parametrize("kind", ["EPS", "FLOW"])
SETTINGS = (
    {},
    {"order": "2"},
    {"rtol": 0.01, "atol": 0.001},
    {"order": "2", "pcoeff": 0.3, "icoeff": 0.6, "dcoeff": 0.1},
    {"rtol": 0.02, "accept_safety": 0.95},
    {"h_init": 3.0},
)


def guider_of(kind="EPS", patch=lambda model: model, **more):
    model = patch(toy_model(kind))
    wired = {"positive": prompt(0.4), "negative": prompt(-0.3), "cfg": 3.0, **more}
    return call("StepwiseCFGGuider", model=model, **wired)[0]


def schedule_of(kind):
    return torch.linspace(1.0, 0.0, STEPS + 1) if kind == "FLOW" else call("StepwiseKarrasSchedule", steps=STEPS)[0]


def latents(*images):
    """Empty latents of these images of one batch, each unlike the others by its noise."""
    return {"samples": torch.zeros(len(images), 4, 8, 8), "batch_index": list(images)}


def run(kind="EPS", images=(0, 1, 2), guider=None, **params):
    guider = guider or guider_of(kind)
    begins = {"noise": call("StepwiseNoise")[0], "latent_image": latents(*images), "sigmas": schedule_of(kind)}
    return call(NODE, guider=guider, **begins, **params)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("path", [VE, FLOW])
def test_it_is_the_hosts_for_one_image(path, settings, differences):
    """In float64, where rounding moves no step: the same attempts accepted and rejected, and the same result."""
    high, low = (14.6, 0.03) if path is VE else (0.95, 0.03)
    data = mixture()
    x, denoiser = data.sample(path, high, 1), data.denoiser(path)
    params = checked(dpm_adaptive, {**settings, "levels": "core"})
    controller, plan = Controller.of(params), dpm_adaptive(path, (high, 0.5, low), **params)
    state, pace = start(x), controller.begin(high)
    for step in range(plan.steps):
        state, pace = step_taken(controller, plan, step, denoiser, state, pace)
    options = {name: int(value) if name == "order" else value for name, value in settings.items()}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        model = lambda x, sigma: denoiser(x, float(sigma[0]))  # noqa: E731
        ends = {"sigma_min": low, "sigma_max": high, "extra_args": {}, "disable": True}
        theirs, info = host_sampling.sample_dpm_adaptive(model, x, **ends, return_info=True, **options)
    finally:
        torch.set_default_dtype(before)
    assert (pace.accepted, pace.rejected, pace.calls) == (info["n_accept"], info["n_reject"], info["nfe"])
    off = ((state.x - theirs).norm() / theirs.norm()).item()
    differences(f"ComfyUI dpm_adaptive {settings or ''}= DPMAdaptive, {path!r}, float64", off)
    assert off < 1e-9


@KINDS
def test_in_the_hosts_nodes_too(kind, differences):
    guider, sigmas = guider_of(kind), schedule_of(kind)
    mine = call(f"{NODE}Sampler", levels="core")[0]
    theirs = core.KSamplerSelect.execute("dpm_adaptive").args[0]
    noise, advanced = core.RandomNoise.execute(7).args[0], core.SamplerCustomAdvanced
    a, b = (advanced.execute(noise, guider, each, sigmas, latents(0)).args[0] for each in (mine, theirs))
    off = ((a["samples"] - b["samples"]).norm() / b["samples"].norm()).item()
    differences(f"ComfyUI dpm_adaptive = DPMAdaptive, {kind}, float32", off)
    assert off < 1e-3


@KINDS
@pytest.mark.parametrize(
    "params", [{}, {"order": "2", "eta": 0.6}, {"levels": "core"}, {"levels": "core", "eta": 1.0}], ids=str
)
def test_an_image_alone_is_the_same_as_in_a_batch(kind, params):
    """Of steps that no other image has."""
    whole, _, state = run(kind, **params)
    for i in range(3):
        one, _, alone = run(kind, (i,), **params)
        assert torch.equal(one["samples"], whole["samples"][i : i + 1])
        assert alone.state.paces == state.state.paces[i : i + 1]
    assert len({pace.h for pace in state.state.paces}) == 3


def test_an_image_alone_is_the_same_with_a_network():
    """Of which one image is not to the bit what it is in a batch: here none is ever evaluated with others."""
    model = call("StepwiseDigitsModel")[0]
    positive, negative = (call("StepwiseDigit", labels=each)[0] for each in ("3,7,1", ""))
    guider = call("StepwiseCFGGuider", model=model, positive=positive, negative=negative, cfg=3.0)[0]

    def made(*images):
        samples = {"samples": torch.zeros(len(images), 1, 8, 8), "batch_index": list(images)}
        begins = {"noise": call("StepwiseNoise")[0], "latent_image": samples, "sigmas": schedule_of("EPS")}
        return call(NODE, guider=guider, **begins)[0]["samples"]

    whole = made(0, 1, 2)
    assert torch.equal(made(0), whole[:1])
    assert not torch.equal(whole[:1], whole[1:2])


@KINDS
@pytest.mark.parametrize("params", [{"levels": "core"}, {"levels": "core", "eta": 0.5, "order": "2"}], ids=str)
def test_beyond_a_level_it_goes_on_too(kind, params):
    """A cut where the images stand at levels of their own, through bytes."""
    whole, denoised, end = run(kind, **params)
    for cut in range(1, STEPS):
        made, _, state = run(kind, end_step=cut, **params)
        assert state.step == cut
        rest, final, after = call(NODE, guider=guider_of(kind), state=from_bytes(to_bytes(state, {})), **params)
        assert torch.equal(rest["samples"], whole["samples"])
        assert torch.equal(final["samples"], denoised["samples"])
        assert after.state.paces == end.state.paces
        assert made["samples"].isfinite().all()


def test_the_node_and_the_samplers_of_the_host_make_one_latent():
    guider, sigmas, noise = guider_of(), schedule_of("EPS"), call("StepwiseNoise")[0]
    sampler = call(f"{NODE}Sampler", eta=0.5)[0]
    other = core.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latents(0, 1, 2)).args[0]
    assert torch.equal(run(guider=guider, eta=0.5)[0]["samples"], other["samples"])


@pytest.mark.parametrize("ours", [True, False])
def test_momentum_is_of_each_image(ours):
    """Of our rule, whose memory is undone with a rejected attempt, and of ComfyUI's patch."""
    momentum = {"eta": 0.8, "norm_threshold": 4.0, "momentum": -0.6}
    patch = (lambda model: model) if ours else lambda model: APG.execute(model, **momentum).args[0]
    rule = {"rule": call("StepwiseAPGGuidance", **momentum)[0]} if ours else {}
    make = lambda: guider_of(patch=patch, **rule)  # noqa: E731
    whole, _, end = run(guider=make())
    assert not torch.equal(whole["samples"], run()[0]["samples"])
    for i in range(3):
        assert torch.equal(run(images=(i,), guider=make())[0]["samples"], whole["samples"][i : i + 1])
    _, _, cut = run(guider=make(), end_step=2)
    assert torch.equal(call(NODE, guider=make(), state=from_bytes(to_bytes(cut, {})))[0]["samples"], whole["samples"])
    assert end.state.paces[0].accepted > STEPS


def test_prompts_of_each_image_stay_with_it():
    each = [[torch.stack([torch.full((4, 8), value) for value in (0.4, -0.2, 0.8)]), {}]]
    whole = run(guider=guider_of(positive=each))[0]["samples"]
    for i, value in enumerate((0.4, -0.2, 0.8)):
        assert torch.equal(run(images=(i,), guider=guider_of(positive=prompt(value)))[0]["samples"], whole[i : i + 1])


def test_the_calls_of_each_image_are_on_the_face():
    guider, noise = guider_of(), call("StepwiseNoise")[0]
    begins = {"noise": noise, "latent_image": latents(0, 1), "sigmas": schedule_of("EPS"), "h_init": 3.0, "rtol": 0.01}
    made = nodes_by_id()[NODE].execute(guider=guider, start_step=0, end_step=10000, **begins)
    (shown,) = made.ui["stepwise_face"]
    first, second = made.args[2].state.paces
    assert shown["did"] == f"image 0: {first}; image 1: {second}"
    assert str(first) == f"{first.calls} model calls, {first.accepted} steps accepted and {first.rejected} rejected"


def test_a_network_is_asked_as_often_as_is_said():
    model = toy_model("EPS")
    network = model.model.diffusion_model
    guider = call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=1.0)[0]
    before = network.calls
    state = run(guider=guider)[2].state
    assert network.calls - before == sum(pace.calls for pace in state.paces)


def test_no_other_solver_goes_on_from_beyond_a_level():
    state = run(levels="core", end_step=2)[2]
    said = refused("StepwiseDPMpp2M", guider=guider_of(), state=state, on_mismatch="fork")
    assert "has an image at noise level" in said
    between = run(end_step=2)[2]
    assert call("StepwiseDPMpp2M", guider=guider_of(), state=between, on_mismatch="fork")[0]["samples"].isfinite().all()


def test_a_tolerance_of_nothing_is_told_on_the_node():
    with pytest.raises(ValueError, match=r"^DPM Adaptive: rtol is 0, with atol 0, and no step") as told:
        run(rtol=0.0, atol=0.0)
    assert "raise rtol and atol" in str(told.value).lower()


def test_a_prediction_that_is_not_finite_names_its_image():
    class Broken(torch.nn.Module):
        dtype = torch.float32

        def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **kwargs):
            return x * torch.where(x.mean() > self.limit, float("nan"), 0.5)

    module = Broken()
    module.limit = 1e9
    guider = call(
        "StepwiseCFGGuider", model=toy_model("EPS", module), positive=prompt(0.4), negative=prompt(-0.3), cfg=1.0
    )[0]
    run(guider=guider)
    module.limit = -1e9
    with pytest.raises(ValueError, match=r"not finite at step 1 of 5, sigma 14\.6\d*, image 0 of 0 to 2\."):
        run(guider=guider)


def test_an_onlooker_hears_of_the_whole_batch():
    heard = []

    class Looks:
        def begins(self, x, at): ...
        def opened(self): ...
        def stepped(self, step):
            heard.append(step)

        def predicted(self, name, value):
            heard.append((name, len(value)))

    each = adaptive.EachImage(Looks())
    for image in range(2):
        each.image = image
        for _ in range(3):
            each.predicted("positive", torch.full((1, 2), float(image)))
    each.stepped(type("Step", (), {"x": torch.zeros(2, 2)})())
    assert heard[0] == ("positive", 2)
