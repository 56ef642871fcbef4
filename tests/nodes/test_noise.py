"""Seeds of images in the real host: where a picture starts from, and what is added to it on the way."""

import math

import comfy.nested_tensor
import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from stepwise.samplers.registry import SOLVERS
from toy_models import Latent5D, SmoothNet, call, prompt, refused, toy_model

STEPS = 4
NOISY = [
    pytest.param(solver.id, dict(setting.params), setting.paths, id=f"{solver.id}-{i}")
    for solver in SOLVERS
    for i, setting in enumerate(solver.settings)
    if setting.noise
]
KINDS = ("independent", "brownian")


class ImageByImage(SmoothNet):
    """Independent of the batch, since it never sees one."""

    def forward(self, x, timesteps, context=None, **kwargs):
        each = zip(x.split(1), timesteps.split(1), context.split(1), strict=True)
        return torch.cat([super(ImageByImage, self).forward(*one, **kwargs) for one in each])


def guider_of(kind, cfg=1.0):
    model = toy_model(kind, ImageByImage(4))
    return call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=cfg)[0]


def schedule_of(kind):
    return torch.linspace(1.0, 0.0, STEPS + 1) if kind == "FLOW" else call("StepwiseKarrasSchedule", steps=STEPS)[0]


def empty(batch, *shape):
    return {"samples": torch.zeros(batch, *(shape or (4, 5, 7)))}


def random(seed):
    return core.RandomNoise.execute(seed).args[0]


def noise_of(**inputs):
    return call("StepwiseNoise", **inputs)[0]


def components_of(samples):
    return samples.unbind() if samples.is_nested else [samples]


def image(samples, i):
    return [part[i : i + 1] for part in components_of(samples)]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def nested(*parts):
    return comfy.nested_tensor.NestedTensor(parts)


FORMS = {
    "image": lambda batch: {"samples": torch.zeros(batch, 4, 5, 7)},
    "video": lambda batch: {"samples": torch.zeros(batch, 4, 3, 5, 7)},
    "video and sound": lambda batch: {"samples": nested(torch.zeros(batch, 4, 3, 5, 7), torch.zeros(batch, 2, 11))},
    "half precision": lambda batch: {"samples": torch.zeros(batch, 4, 5, 7, dtype=torch.float16)},
}


# The starting noise


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seeds", [[7, 8, 9], [2**64 - 1, 0, 1], [7, 17, 27], [5, 5, 10**18]])
def test_an_image_starts_from_what_core_gives_for_its_seed_alone(form, seeds):
    steps = {7: 1, 17: 10, 0: 1}
    listed = {"seeds": ", ".join(map(str, seeds))} if seeds[1] not in (8, 0, 17) else {}
    noise = noise_of(seed=seeds[0], seed_step=steps.get(seeds[1], 1), **listed)
    made = noise.generate_noise(FORMS[form](3))
    for i, seed in enumerate(seeds):
        assert equal(image(made, i), components_of(random(seed).generate_noise(FORMS[form](1))))
    assert noise.seed == seeds[0]
    assert [part.shape for part in components_of(made)] == [
        part.shape for part in components_of(FORMS[form](3)["samples"])
    ]


def test_the_images_of_an_earlier_batch_keep_their_seeds():
    whole = noise_of(seed=7).generate_noise(empty(5))
    part = noise_of(seed=7).generate_noise({**empty(3), "batch_index": [3, 0, 3]})
    assert torch.equal(part, whole[[3, 0, 3]])
    listed = noise_of(seeds="4\n8;15 16,23").generate_noise({**empty(2), "batch_index": [4, 1]})
    assert torch.equal(listed[:1], random(23).generate_noise(empty(1)))


@pytest.mark.parametrize("form", FORMS)
def test_a_variation_is_spherical_interpolation_between_the_two_seeds(form):
    """At the angle between independent noises, 90 degrees, which theirs is to within a few. The ends are the seeds."""
    latent = FORMS[form](2)
    for strength, seed in ((0.0, 7), (1.0, 100)):
        made = noise_of(seed=7, variation_seed=100, variation_strength=strength).generate_noise(latent)
        assert equal(image(made, 1), components_of(random(seed + 1).generate_noise(FORMS[form](1))))
    made = noise_of(seed=7, variation_seed=100, variation_strength=0.3).generate_noise(latent)
    for part, a, b in zip(
        image(made, 1), *(components_of(random(s).generate_noise(FORMS[form](1))) for s in (8, 101)), strict=True
    ):
        a, b, part = a.double().flatten(), b.double().flatten(), part.double().flatten()
        angle = math.acos(a @ b / (a.norm() * b.norm()))
        slerp = (math.sin(0.7 * angle) * a + math.sin(0.3 * angle) * b) / math.sin(angle)
        assert (part - slerp).norm() < 0.5 * abs(angle - math.pi / 2.0) * slerp.norm() + 1e-3 * slerp.norm()


def test_seed_step_0_gives_every_image_one_seed_and_a_variation_of_its_own():
    made = noise_of(seed=7, seed_step=0, variation_seed=100, variation_strength=0.5).generate_noise(empty(2))
    base, others = random(7).generate_noise(empty(1)), [random(100 + i).generate_noise(empty(1)) for i in (0, 1)]
    for i, other in enumerate(others):
        assert torch.allclose(made[i : i + 1], (base + other) * 0.5**0.5, atol=1e-6)


def test_making_noise_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    noise_of(seed=7).generate_noise(empty(3))
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_that_cannot_be_used_are_named():
    assert refused("StepwiseNoise", seeds="7, x8") == (
        "Noise (Stepwise): seeds[1] is 'x8'. Write whole numbers from 0 to 2^64 - 1, such as 7, 12, 100."
    )
    assert "seeds[0] is '-1'" in refused("StepwiseNoise", seeds="-1")
    assert f"seeds[2] is '{2**64}'" in refused("StepwiseNoise", seeds=f"1 2 {2**64}")
    with pytest.raises(ValueError, match=r"seeds has 2 numbers, and there is an image 2, counted from 0"):
        noise_of(seeds="7, 8").generate_noise(empty(3))
    inputs = {"guider": guider_of("EPS"), "latent_image": empty(3), "sigmas": schedule_of("EPS")}
    assert "seeds has 2 numbers" in refused("StepwiseDDPM", **inputs, noise=noise_of(seeds="7, 8"))


# The noise of the samplers


def sampled(solver, params, kind, noise, latent, noise_kind="independent", **inputs):
    guider = inputs.pop("guider", None) or guider_of(kind)
    given = {"guider": guider, "noise": noise, "latent_image": latent, "sigmas": schedule_of(kind)}
    return call(f"Stepwise{solver}", **given, **params, noise_kind=noise_kind, **inputs)[0]["samples"]


@pytest.mark.parametrize("noise_kind", KINDS)
@pytest.mark.parametrize(("solver", "params", "paths"), NOISY)
def test_an_image_alone_is_the_image_in_a_batch_of_8_and_in_another_order(solver, params, paths, noise_kind):
    """Through the step nodes, bit for bit, on images of 140 numbers, no multiple of a vector register."""
    seeds, order = [11, 7, 2**64 - 1, 0, 5, 12, 13, 10**18], [3, 1, 4, 7, 5, 0, 2, 6]
    for kind in {"VE": ("EPS",), "FLOW": ("FLOW",)}.get(paths[0] if len(paths) == 1 else "", ("EPS", "FLOW")):
        guider = guider_of(kind)

        def made(seeds, kind=kind, guider=guider):
            noise = noise_of(seeds=", ".join(map(str, seeds)))
            return sampled(solver, params, kind, noise, empty(len(seeds)), noise_kind, guider=guider)

        together = made(seeds)
        assert torch.equal(made([seeds[i] for i in order]), together[order])
        for i in (0, 2, 7):
            assert torch.equal(made([seeds[i]]), together[i : i + 1])


@pytest.mark.parametrize(("solver", "params", "paths"), NOISY)
def test_in_cores_sampler_node_consecutive_seeds_are_images_of_their_own(solver, params, paths):
    kind = "EPS" if "VE" in paths else "FLOW"
    (sampler,) = call(f"Stepwise{solver}Sampler", **params)
    guider, sigmas = guider_of(kind, cfg=3.0), schedule_of(kind)

    def made(seed, batch):
        run = core.SamplerCustomAdvanced.execute(noise_of(seed=seed), guider, sampler, sigmas, empty(batch))
        return run.args[0]["samples"]

    together = made(40, 8)
    for i in (0, 3, 7):
        assert torch.equal(made(40 + i, 1), together[i : i + 1])
    step_node = sampled(solver, params, kind, noise_of(seed=40), empty(8), guider=guider)
    assert torch.equal(step_node, together)


@pytest.mark.parametrize("noise_kind", KINDS)
def test_lists_places_and_variations_reach_the_samplers_noise(noise_kind):
    guider = guider_of("EPS")

    def made(noise, latent):
        return sampled("DDPM", {}, "EPS", noise, latent, noise_kind, guider=guider)

    varied = {"variation_seed": 50, "variation_strength": 0.2}
    whole = made(noise_of(seed=7, **varied), empty(4))
    assert torch.equal(made(noise_of(seed=7, **varied), {**empty(2), "batch_index": [3, 1]}), whole[[3, 1]])
    alone = {"seeds": "9", "variation_seed": 52, "variation_strength": 0.2}
    assert torch.equal(made(noise_of(**alone), empty(1)), whole[2:3])
    plain = made(noise_of(seed=7), empty(4))
    near, far = (made(noise_of(seed=7, variation_seed=50, variation_strength=s), empty(4)) for s in (1e-4, 0.5))
    assert (near - plain).abs().max() < 0.05 * (far - plain).abs().max()
    assert torch.equal(
        made(noise_of(seed=7, variation_seed=50, variation_strength=1.0), empty(1)), made(noise_of(seed=50), empty(1))
    )


class Given:
    """A NOISE of another pack: one tensor and a seed."""

    def __init__(self, seed, noise):
        self.seed, self.noise = seed, noise

    def generate_noise(self, latent):
        return self.noise


def test_under_any_other_noise_image_i_has_seed_plus_its_place():
    start = torch.randn(4, 4, 5, 7, generator=torch.Generator().manual_seed(1))
    whole = sampled("DDPM", {}, "EPS", Given(7, start), empty(4))
    part = sampled("DDPM", {}, "EPS", Given(7, start[[2, 0]]), {**empty(2), "batch_index": [2, 0]})
    assert torch.equal(part, whole[[2, 0]])
    assert torch.equal(sampled("DDPM", {}, "EPS", Given(10, start[3:]), empty(1)), whole[3:])


@pytest.mark.parametrize("noise_kind", KINDS)
def test_the_components_of_a_packed_latent_have_streams_of_their_own(noise_kind):
    """The video of a run with sound gets the noise of a run without, on a model that treats numbers one by one."""

    class EachNumber(torch.nn.Module):
        dtype = torch.float32

        def forward(self, x, timesteps, context=None, **kwargs):
            return 0.7 * x + 0.2 * torch.tanh(x)

    model = toy_model("FLOW", EachNumber(), Latent5D())
    guider = call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(0.4), cfg=1.0)[0]
    video, sound = torch.zeros(2, 4, 3, 4, 4), torch.zeros(2, 2, 10)

    def made(samples):
        return sampled("DDPM", {}, "FLOW", noise_of(seed=3), {"samples": samples}, noise_kind, guider=guider)

    both = made(nested(video, sound)).unbind()
    assert torch.equal(both[0], made(video))
    for i in (0, 1):
        noise = noise_of(seed=3 + i)
        one = sampled("DDPM", {}, "FLOW", noise, {"samples": nested(video[:1], sound[:1])}, noise_kind, guider=guider)
        assert equal(one.unbind(), [part[i : i + 1] for part in both])


@pytest.mark.parametrize(("solver", "params", "paths"), NOISY)
def test_a_run_on_a_brownian_path_cut_at_any_step_is_the_uncut_run(solver, params, paths):
    """With a list of seeds and a variation."""
    for kind in ("EPS", "FLOW") if "FLOW" in paths else ("EPS",):
        shared = {**params, "noise_kind": "brownian"}
        noise = noise_of(seeds="3, 900", variation_seed=5, variation_strength=0.3)
        inputs = {"noise": noise, "latent_image": empty(2), "sigmas": schedule_of(kind)}
        guider = guider_of(kind)
        whole = call(f"Stepwise{solver}", guider=guider, **inputs, **shared)[0]["samples"]
        for cut in range(1, STEPS):
            state = call(f"Stepwise{solver}", guider=guider, **inputs, **shared, end_step=cut)[2]
            rest = call(f"Stepwise{solver}", guider=guider, state=state, **shared)[0]["samples"]
            assert torch.equal(rest, whole), f"cut at {cut}"


def test_a_part_of_another_kind_of_noise_is_refused_and_other_seeds_by_strict():
    guider, sigmas = guider_of("EPS"), schedule_of("EPS")
    begun = {"guider": guider, "noise": noise_of(seeds="3, 4"), "latent_image": empty(2), "sigmas": sigmas}
    state = call("StepwiseDDPM", **begun, end_step=2)[2]
    go_on = {"guider": guider, "state": state}
    assert "noise_kind = brownian" in refused("StepwiseDDPM", **go_on, noise_kind="brownian")
    message = refused("StepwiseDDPM", **go_on, noise=noise_of(seeds="3, 9"), on_mismatch="strict")
    assert "noise has the seed 3, 9, and the state was made with 3, 4" in message
    assert "3, 4, 0.2 of the way to 6, 7" in str(
        call("StepwiseDDPM", **{**begun, "noise": noise_of(seeds="3, 4", variation_seed=6, variation_strength=0.2)})[
            2
        ].image_seeds
    )
