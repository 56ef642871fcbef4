"""The shipped model Digits in the real host: loading, conditioning, codec, and pictures that read as their label."""

import importlib
import itertools
import math

import pytest
import torch


@pytest.fixture(scope="module")
def demo():
    return importlib.import_module("stepwise.nodes.demo")


@pytest.fixture(scope="module")
def digits():
    return importlib.import_module("stepwise.nodes.host.digits")


@pytest.fixture(scope="module")
def referee():
    return importlib.import_module("stepwise.demo.classifier")


@pytest.fixture(scope="module")
def judge(referee):
    return referee.train_classifier(seed=0)


@pytest.fixture(scope="module", params=["standard", "lcm"])
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def loaded(demo, variant):
    return demo.StepwiseDigitsModel.execute(variant=variant).result


def conditioning(demo, labels):
    return demo.StepwiseDigit.execute(labels=labels).result[0]


def sample(demo, variant, labels, batch, steps, sampler, scheduler, cfg, negative=""):
    """`[batch, 64, 64, 3]` pictures by the stock nodes alone, from seed 0."""
    import nodes

    model, vae = demo.StepwiseDigitsModel.execute(variant=variant).result
    positive, negative = conditioning(demo, labels), conditioning(demo, negative)
    empty = nodes.EmptyLatentImage().generate(64, 64, batch)[0]
    latent = nodes.KSampler().sample(model, 0, steps, cfg, sampler, scheduler, positive, negative, empty)[0]
    return nodes.VAEDecode().decode(vae, latent)[0]


def small(pictures):
    """Pictures of the VAE as the referee wants them, `[B, 1, 8, 8]`."""
    return pictures[:, ::8, ::8, :1].movedim(-1, 1)


def test_loads_as_a_model_of_the_host(loaded, demo):
    import comfy.model_base
    import comfy.model_patcher
    import comfy.model_sampling

    model, _ = loaded
    assert isinstance(model, comfy.model_patcher.ModelPatcher)
    assert type(model.model) is comfy.model_base.BaseModel
    sampling = model.get_model_object("model_sampling")
    assert isinstance(sampling, comfy.model_sampling.EPS)
    # Stable Diffusion's betas, summed here in float64.
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).log().cumsum(0).exp()
    torch.testing.assert_close(sampling.sigmas.double(), ((1 - kept) / kept).sqrt(), rtol=1e-5, atol=0)
    assert {p.dtype for p in model.model.parameters()} == {torch.float32}


def test_the_host_can_load_it_anew(loaded):
    model, _ = loaded
    factory, arguments = model.cached_patcher_init
    again = factory(*arguments, disable_dynamic=True)
    assert again.model is not model.model
    for a, b in zip(model.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_weights_are_small_and_say_what_they_are(digits):
    from safetensors import safe_open

    tables = []
    for variant in digits.WEIGHTS:
        path = digits.weights_file(variant)
        assert path.stat().st_size < 3_000_000
        with safe_open(path, framework="pt") as file:
            assert {"format", "description", "license", "seed"} <= file.metadata().keys()
            tables.append(file.get_tensor(digits.LABELS))
    assert torch.equal(*tables)


def test_latents_of_the_data_have_unit_variance(digits, referee):
    (images, _), _ = referee.load_split()
    ink = images * 2 - 1
    latent_format = digits.DigitsLatent()
    x = latent_format.process_in(ink)
    assert abs(x.mean()) < 1e-3
    assert abs(x.std() - 1) < 1e-3
    torch.testing.assert_close(latent_format.process_out(x), ink)


def test_preview_shows_the_picture(loaded, referee):
    import latent_preview
    import numpy

    model, _ = loaded
    (images, _), _ = referee.load_split()
    latent_format = model.get_model_object("latent_format")
    previewer = latent_preview.Latent2RGBPreviewer(
        latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias
    )
    preview = previewer.decode_latent_to_preview(latent_format.process_in(images[:1] * 2 - 1))
    seen = torch.tensor(numpy.array(preview)).movedim(-1, 0) / 255
    torch.testing.assert_close(seen, images[0].expand(3, -1, -1), rtol=0, atol=1 / 254)


@torch.inference_mode()
def test_stock_decode_and_encode_are_inverse(loaded, referee):
    import nodes

    _, vae = loaded
    (images, _), _ = referee.load_split()
    samples = images[:5] * 2 - 1
    pictures = nodes.VAEDecode().decode(vae, {"samples": samples})[0]
    assert pictures.shape == (5, 64, 64, 3)
    torch.testing.assert_close(small(pictures), images[:5])
    torch.testing.assert_close(nodes.VAEEncode().encode(vae, pictures)[0]["samples"], samples, rtol=0, atol=1e-6)
    tiled = nodes.VAEDecodeTiled().decode(vae, {"samples": samples}, 64, 16)[0]
    torch.testing.assert_close(tiled, pictures, rtol=0, atol=1e-6)
    back = nodes.VAEEncodeTiled().encode(vae, pictures, 64, 16)[0]["samples"]
    torch.testing.assert_close(back, samples, rtol=0, atol=1e-6)


def test_vae_refuses_latents_of_another_model(loaded):
    _, vae = loaded
    with pytest.raises(ValueError, match="1 channel, this one has 4"):
        vae.decode(torch.zeros(1, 4, 8, 8))


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("3", [3]),
        (" 0, 1,2 ", [0, 1, 2]),
        ("7 7 1", [7, 7, 1]),
        ("0-9", list(range(10))),
        ("4 - 2, 9", [4, 3, 2, 9]),
        ("", [10]),
        ("  ", [10]),
    ],
)
def test_labels(demo, text, labels):
    assert demo.parse_labels(text) == labels
    context = conditioning(demo, text)[0][0]
    assert context.shape == (len(labels), 4, 64)
    assert context.dtype == torch.float32


@pytest.mark.parametrize(("text", "entry", "index"), [("12", "12", 1), ("1, cat", "cat", 2), ("-1", "-1", 1)])
def test_labels_that_are_no_digits(demo, text, entry, index):
    with pytest.raises(ValueError, match=rf"StepwiseDigit, labels: entry {index} is '{entry}'.*Write digits"):
        demo.StepwiseDigit.execute(labels=text)


def test_missing_weights_name_the_cure(demo, digits, monkeypatch, tmp_path):
    monkeypatch.setattr(digits, "DEMO", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"digits\.safetensors.*Install the pack again"):
        demo.StepwiseDigit.execute(labels="3")


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_each_image_of_a_batch_gets_its_own_class(demo, variant, cfg):
    """Image i of "0-9" is the image that label i gives alone from the same noise, in a longer batch too."""
    import comfy.sample

    model, _ = demo.StepwiseDigitsModel.execute(variant=variant).result
    noise = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))

    def run(labels, noise):
        return comfy.sample.sample(
            model,
            noise,
            4,
            cfg,
            "euler",
            "karras",
            conditioning(demo, labels),
            conditioning(demo, ""),
            torch.zeros_like(noise),
            seed=0,
            disable_pbar=True,
        )

    together = run("0-9", noise)
    for i in range(12):
        torch.testing.assert_close(together[i : i + 1], run(str(i % 10), noise[i : i + 1]), rtol=0, atol=1e-4)


def test_one_negative_serves_the_whole_batch(demo):
    one = sample(demo, "standard", "0-4", 5, 4, "euler", "karras", 3.0, negative="9")
    five = sample(demo, "standard", "0-4", 5, 4, "euler", "karras", 3.0, negative="9,9,9,9,9")
    torch.testing.assert_close(one, five, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("variant", "steps", "sampler", "scheduler", "cfg"),
    [
        ("standard", 10, "dpmpp_2m", "karras", 2.0),
        ("lcm", 4, "lcm", "sgm_uniform", 1.0),
        ("lcm", 8, "lcm", "sgm_uniform", 1.5),
        ("flow", 15, "euler", "simple", 2.0),
    ],
)
def test_pictures_read_as_their_label(demo, referee, judge, variant, steps, sampler, scheduler, cfg):
    pictures = sample(demo, variant, "0-9", 50, steps, sampler, scheduler, cfg)
    assert pictures.shape == (50, 64, 64, 3)
    assert referee.accuracy(judge, small(pictures), torch.arange(10).repeat(5)) >= 0.9


def test_no_class_draws_any_digit(demo, judge):
    pictures = sample(demo, "standard", "", 50, 10, "dpmpp_2m", "karras", 1.0)
    assert len(judge(small(pictures)).argmax(1).unique()) >= 7


def test_pictures_are_not_copies(demo, referee):
    """Few samples are nearer to the training images than all but 5 % of the held-out images are."""
    (train, _), (test, _) = referee.load_split()

    def distance(images):
        return torch.cdist(images.flatten(1), train.flatten(1)).min(1).values

    samples = small(sample(demo, "standard", "0-9", 50, 10, "dpmpp_2m", "karras", 1.0))
    assert (distance(samples) < distance(test).quantile(0.05)).float().mean() < 0.25


def test_euler_takes_the_same_steps_on_the_flow_variant(demo, digits):
    """s / (1 - s) is the noise level of the time s; (1 - s) x_0 + s n is (1 - s) (x_0 + sigma n)."""
    sigmas = digits.trained_levels()[[-40, -150, -350, -600, -850]].double()
    times = sigmas / (1.0 + sigmas)
    clean = torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = clean + sigmas[0] * torch.randn(clean.shape, dtype=clean.dtype, generator=torch.Generator().manual_seed(1))
    context = conditioning(demo, "3,8")[0][0]

    def run(variant, x, levels):
        model, _ = demo.StepwiseDigitsModel.execute(variant=variant).result
        import comfy.model_management

        comfy.model_management.load_models_gpu([model])
        for s, t in itertools.pairwise(levels):
            denoised = model.model.apply_model(x.float(), s.float().expand(2), c_crossattn=context)
            x = t / s * x + (1.0 - t / s) * denoised.double()
        return x

    flow = run("flow", x * (1.0 - times[0]), times)
    torch.testing.assert_close(flow / (1.0 - times[-1]), run("standard", x, sigmas), rtol=0, atol=2e-4)


def test_lcm_is_the_identity_at_its_boundary(demo):
    """At timestep 0 a consistency model returns its own input, whatever the network says."""
    model, _ = demo.StepwiseDigitsModel.execute(variant="lcm").result
    sampling = model.get_model_object("model_sampling")
    x, output = torch.randn(2, 3, 1, 8, 8)
    sigma = sampling.sigma_min.expand(3)
    expected = x / math.sqrt(1 + float(sampling.sigma_min) ** 2)
    assert torch.equal(sampling.calculate_denoised(sigma, output, x), sampling.calculate_denoised(sigma, x, x))
    torch.testing.assert_close(sampling.calculate_denoised(sigma, output, x), expected)


@pytest.mark.parametrize("model_type", ["EPS", "V_PREDICTION", "FLOW", "EDM", "V_PREDICTION_EDM"])
def test_host_model_denoises_with_any_module(demo, model_type):
    """A network that knows the clean picture's law N(0, 0) makes the host's denoised prediction vanish."""
    import comfy.latent_formats
    from comfy.model_base import ModelType

    class PointMass(torch.nn.Module):
        dtype = torch.float32

        def forward(self, x, timesteps, **_):
            sigma = sampling.sigma(timesteps).view(-1, 1, 1, 1)
            scaled = x * (sigma**2 + sampling.sigma_data**2) ** 0.5 if model_type != "FLOW" else x
            return {
                "EPS": scaled / sigma,
                "V_PREDICTION": scaled / (sigma * (sigma**2 + 1) ** 0.5),
                "FLOW": scaled / sigma,
                "EDM": -scaled / (sigma * (sigma**2 + 1) ** 0.5),
                "V_PREDICTION_EDM": scaled / (sigma * (sigma**2 + 1) ** 0.5),
            }[model_type]

    model = demo.host_model(PointMass(), ModelType[model_type], comfy.latent_formats.LatentFormat())
    sampling = model.get_model_object("model_sampling")
    sigma = sampling.sigmas[[10, 500, 990]]
    x = torch.randn(3, 4, 8, 8)
    assert model.model.apply_model(x, sigma).abs().max() < 1e-3


def test_grid_keeps_every_pixel(demo):
    images = torch.rand(7, 4, 5, 3)
    grid = demo.StepwiseImageGrid.execute(images=images, columns=3, gap=2).result[0]
    assert grid.shape == (1, 3 * 4 + 2 * 2, 3 * 5 + 2 * 2, 3)
    for i, image in enumerate(images):
        top, left = i // 3 * 6, i % 3 * 7
        assert torch.equal(grid[0, top : top + 4, left : left + 5], image)
    torch.testing.assert_close(grid.sum(), images.sum())


def test_grid_is_no_wider_than_its_images(demo):
    assert demo.StepwiseImageGrid.execute(images=torch.rand(2, 4, 5, 3), columns=10, gap=0).result[0].shape[2] == 10


def test_referee_reads_what_it_has_not_seen(referee, judge):
    train, test = referee.load_split()
    assert len(train[0]) == 1437
    assert len(test[0]) == 360
    assert referee.accuracy(judge, *test) >= 0.965


def test_referee_is_a_function_of_its_seed(referee, judge):
    before = torch.get_rng_state()
    again = referee.train_classifier(seed=0)
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(judge.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_frechet_distance_of_gaussians(referee):
    """Closed forms: a shift by v costs |v|^2; scaling a centred set by s costs (1 - s)^2 times its variance."""
    features = torch.randn(500, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    features -= features.mean(0)
    assert referee.frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    assert referee.frechet_distance(features, features + 2) == pytest.approx(24)
    assert referee.frechet_distance(features, 3 * features) == pytest.approx(4 * torch.cov(features.T).trace().item())
