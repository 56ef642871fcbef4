"""The shipped model Emoji in the real host: loading, words, codec, and pictures of what was asked for."""

import importlib
import json

import pytest
import torch


@pytest.fixture(scope="module")
def emoji():
    return importlib.import_module("stepwise.nodes.emoji")


@pytest.fixture(scope="module")
def weights(emoji):
    return importlib.import_module("stepwise.nodes.host.emoji")


KARRAS = ("dpmpp_2m", "karras")


def conditioning(emoji, prompt):
    return emoji.StepwiseEmojiPrompt.execute(prompt=prompt).result[0]


def sample(emoji, prompt, batch=1, steps=20, cfg=4.0, latent=None, denoise=1.0, variant="standard", names=KARRAS):
    """`[batch, 64, 64, 3]` pictures by the stock nodes alone, from seed 0."""
    import nodes

    model, vae = emoji.StepwiseEmojiModel.execute(variant=variant).result
    latent = latent or nodes.EmptyLatentImage().generate(64, 64, batch)[0]
    positive, negative = conditioning(emoji, prompt), conditioning(emoji, "")
    made = nodes.KSampler().sample(model, 0, steps, cfg, *names, positive, negative, latent, denoise=denoise)[0]
    return nodes.VAEDecode().decode(vae, made)[0]


def test_loads_as_a_model_of_the_host(emoji):
    import comfy.model_base
    import comfy.model_patcher
    import comfy.model_sampling
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    model, _ = emoji.StepwiseEmojiModel.execute(variant="standard").result
    assert isinstance(model, comfy.model_patcher.ModelPatcher)
    assert type(model.model) is comfy.model_base.BaseModel
    assert isinstance(model.model.diffusion_model, UNetModel)
    assert isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.V_PREDICTION)
    assert {p.dtype for p in model.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("variant", ["standard", "lcm"])
def test_the_host_can_load_it_anew(weights, variant):
    model = weights.emoji_model(variant)
    factory, arguments = model.cached_patcher_init
    again = factory(*arguments, disable_dynamic=True)
    assert again.model is not model.model
    for a, b in zip(model.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_weights_are_small_and_say_what_they_are(weights):
    files = [weights.DEMO / name for name in (weights.WEIGHTS, weights.LCM_WEIGHTS)]
    assert sum(file.stat().st_size for file in files) <= 16_000_000
    for name in (weights.WEIGHTS, weights.LCM_WEIGHTS):
        about = weights.read(name)[1]
        assert {"format", "description", "license", "seed"} <= about.keys()
        assert len(json.dumps(about)) < 100_000


@torch.inference_mode()
def test_stock_decode_undoes_encode(emoji):
    """A picture of the model comes back from the codec as it was, but for what 16 numbers a square cannot hold."""
    import nodes

    _, vae = emoji.StepwiseEmojiModel.execute(variant="standard").result
    picture = sample(emoji, "red apple")
    latent = nodes.VAEEncode().encode(vae, picture)[0]["samples"]
    assert latent.shape == (1, 16, 8, 8)
    again = nodes.VAEDecode().decode(vae, {"samples": latent})[0]
    assert (again - picture).square().mean().sqrt() < 0.04


def test_vae_refuses_latents_of_another_model(emoji):
    _, vae = emoji.StepwiseEmojiModel.execute(variant="standard").result
    with pytest.raises(ValueError, match="16 channels, this one has 4"):
        vae.decode(torch.zeros(1, 4, 8, 8))


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Red Apple", ["red", "apple"]),
        ("cat's  face!", ["cats", "face", "exclamation"]),
        ("pi\u00f1ata, 1st-place", ["pinata", "1st", "place"]),
        ("", []),
    ],
)
def test_words(weights, text, spoken):
    assert weights.words(text) == spoken


def test_the_reader_of_words_normalises_before_each_of_its_parts():
    """x + attention(norm(x)), then x + feedforward(norm(x))   (Xiong et al. 2020, On Layer Normalization in the
    Transformer Architecture, figure 1 b)."""
    from stepwise.nodes.host.emoji_networks import Text

    torch.manual_seed(0)
    text, numbers = Text(20, 6).eval(), torch.arange(6)[None]
    with torch.no_grad():
        x = text.table(numbers) + text.place
        for layer in text.layers:
            y = layer.norm1(x)
            x = x + layer.self_attn(y, y, y, need_weights=False)[0]
            x = x + layer.linear2(torch.nn.functional.gelu(layer.linear1(layer.norm2(x))))
        torch.testing.assert_close(text(numbers), text.norm(x), rtol=1e-5, atol=1e-5)


def test_each_line_is_a_prompt(emoji):
    context = conditioning(emoji, "cat face\nrocket")[0][0]
    assert context.shape == (2, 12, 128)
    for row, line in enumerate(["cat face", "rocket"]):
        torch.testing.assert_close(context[row], conditioning(emoji, line)[0][0][0], rtol=0, atol=1e-5)
    assert conditioning(emoji, " ")[0][0].shape == (1, 12, 128)


def test_unknown_words_are_named_with_the_nearest(emoji):
    with pytest.raises(ValueError, match=r"line 2 has the word 'rockett'.*nearest that it knows: rocket"):
        conditioning(emoji, "cat face\nrockett")


def test_a_prompt_that_is_too_long(emoji):
    with pytest.raises(ValueError, match="line 1 has 12 words and the Emoji model reads 11"):
        conditioning(emoji, "cat " * 12)


def test_missing_weights_name_the_cure(emoji, weights, monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "DEMO", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"emoji\.safetensors.*Install the pack again"):
        conditioning(emoji, "cat")


HEARTS = "red heart\ngreen heart\nblue heart"


def inked(picture):
    return picture.min(-1).values < 0.8


def test_colours_follow_the_words(emoji):
    """Of hearts that are asked for by colour, each has most of its colour where it is inked."""
    red, green, blue = sample(emoji, HEARTS, batch=3)
    for channel, picture in enumerate((red, green, blue)):
        assert picture[inked(picture)].mean(0).argmax() == channel


def test_four_lcm_steps_draw_what_twenty_steps_draw(emoji):
    """Of the same noise, the distilled model makes the picture of the same words, not of the others."""
    slow = sample(emoji, HEARTS, batch=3)
    fast = sample(emoji, HEARTS, batch=3, steps=4, cfg=1.0, variant="lcm", names=("lcm", "sgm_uniform"))
    distances = torch.cdist(fast.flatten(1), slow.flatten(1))
    assert distances.argmin(1).tolist() == [0, 1, 2]
    assert distances.diagonal().max() / fast[0].numel() ** 0.5 < 0.1


def test_the_preview_is_the_picture_in_small(emoji):
    """The host's preview of a latent explains more than half of how the mean colours of the squares differ."""
    import nodes

    model, vae = emoji.StepwiseEmojiModel.execute(variant="standard").result
    picture = sample(emoji, "red apple")
    latent = nodes.VAEEncode().encode(vae, picture)[0]["samples"]
    known = model.model.latent_format
    shown = latent.movedim(1, -1) @ torch.tensor(known.latent_rgb_factors) + torch.tensor(known.latent_rgb_factors_bias)
    small = torch.nn.functional.avg_pool2d(picture.movedim(-1, 1), 8).movedim(1, -1)
    left, all_of_it = ((shown + 1) / 2 - small).square().sum(), (small - small.mean((0, 1, 2))).square().sum()
    assert left < 0.5 * all_of_it


def test_too_much_guidance_ruins_the_picture(emoji):
    """Guidance 30 leaves marks on the white ground at the edge, where guidance 3 has next to none."""
    mild, wild = (sample(emoji, "cat face", cfg=cfg) for cfg in (3.0, 30.0))
    off_ground = [
        1 - torch.cat([picture[:, :, -4:].flatten(), picture[:, -4:].flatten()]).mean() for picture in (mild, wild)
    ]
    assert off_ground[1] > 2 * off_ground[0]


def test_image_to_image_keeps_the_ground(emoji):
    import nodes

    _, vae = emoji.StepwiseEmojiModel.execute(variant="standard").result
    apple = sample(emoji, "red apple")
    latent = nodes.VAEEncode().encode(vae, apple)[0]
    little, much = (sample(emoji, "green apple", latent=latent, denoise=denoise) for denoise in (0.2, 0.9))
    assert (little - apple).square().mean() < (much - apple).square().mean()


def test_another_size_works(emoji):
    import nodes

    latent = nodes.EmptyLatentImage().generate(128, 96, 1)[0]
    assert sample(emoji, "rocket", latent=latent, steps=4).shape == (1, 96, 128, 3)
