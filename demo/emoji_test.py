"""The shipped model Emoji in the real host: loading, words, codec, and pictures of what was asked for."""

import importlib
import json

import pytest
import torch


@pytest.fixture(scope="module")
def emoji():
    module = importlib.import_module("stepwise.nodes.emoji")
    if not module.WEIGHTS.is_file():
        pytest.skip("the weights of the Emoji model are not there")
    return module


@pytest.fixture(scope="module")
def vocabulary(emoji):
    return emoji.Vocabulary(emoji.read("text")[1]["words"].split())


def conditioning(emoji, prompt):
    return emoji.StepwiseEmojiPrompt.execute(prompt=prompt).result[0]


def sample(emoji, prompt, batch=1, steps=20, cfg=4.0, latent=None, denoise=1.0):
    """`[batch, 64, 64, 3]` pictures by the stock nodes alone, from seed 0."""
    import nodes

    model, vae = emoji.StepwiseEmojiModel.execute().result
    latent = latent or nodes.EmptyLatentImage().generate(64, 64, batch)[0]
    positive, negative = conditioning(emoji, prompt), conditioning(emoji, "")
    made = nodes.KSampler().sample(
        model, 0, steps, cfg, "dpmpp_2m", "karras", positive, negative, latent, denoise=denoise
    )[0]
    return nodes.VAEDecode().decode(vae, made)[0]


def test_loads_as_a_model_of_the_host(emoji):
    import comfy.model_base
    import comfy.model_patcher
    import comfy.model_sampling
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    model, _ = emoji.StepwiseEmojiModel.execute().result
    assert isinstance(model, comfy.model_patcher.ModelPatcher)
    assert type(model.model) is comfy.model_base.BaseModel
    assert isinstance(model.model.diffusion_model, UNetModel)
    assert isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.V_PREDICTION)
    assert {p.dtype for p in model.model.parameters()} == {torch.float32}


def test_the_host_can_load_it_anew(emoji):
    model = emoji.emoji_model()
    factory, arguments = model.cached_patcher_init
    again = factory(*arguments, disable_dynamic=True)
    assert again.model is not model.model
    for a, b in zip(model.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_weights_are_small_and_say_what_they_are(emoji):
    assert emoji.WEIGHTS.stat().st_size <= 16_000_000
    about = emoji.read("text")[1]
    assert {"format", "description", "license", "seed", "steps", "words"} <= about.keys()
    assert len(json.dumps(about)) < 100_000


@torch.inference_mode()
def test_stock_decode_undoes_encode(emoji):
    """A picture of the model comes back from the codec as it was, but for what 16 numbers a square cannot hold."""
    import nodes

    _, vae = emoji.StepwiseEmojiModel.execute().result
    picture = sample(emoji, "red apple")
    latent = nodes.VAEEncode().encode(vae, picture)[0]["samples"]
    assert latent.shape == (1, 16, 8, 8)
    again = nodes.VAEDecode().decode(vae, {"samples": latent})[0]
    assert (again - picture).square().mean().sqrt() < 0.06


def test_vae_refuses_latents_of_another_model(emoji):
    _, vae = emoji.StepwiseEmojiModel.execute().result
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
def test_words(emoji, text, spoken):
    assert emoji.words(text) == spoken


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


def test_missing_weights_name_the_cure(emoji, monkeypatch, tmp_path):
    monkeypatch.setattr(emoji, "WEIGHTS", tmp_path / "emoji.safetensors")
    with pytest.raises(FileNotFoundError, match=r"emoji\.safetensors.*Install the pack again"):
        conditioning(emoji, "cat")


def test_colours_follow_the_words(emoji):
    """Of hearts that are asked for by colour, each has most of its colour where it is inked."""
    red, green, blue = sample(emoji, "red heart\ngreen heart\nblue heart", batch=3)
    for channel, picture in enumerate((red, green, blue)):
        inked = picture[picture.min(-1).values < 0.8]
        assert inked.mean(0).argmax() == channel


def test_image_to_image_keeps_the_ground(emoji):
    import nodes

    _, vae = emoji.StepwiseEmojiModel.execute().result
    apple = sample(emoji, "red apple")
    latent = nodes.VAEEncode().encode(vae, apple)[0]
    little, much = (sample(emoji, "green apple", latent=latent, denoise=denoise) for denoise in (0.2, 0.9))
    assert (little - apple).square().mean() < (much - apple).square().mean()


def test_another_size_works(emoji):
    import nodes

    latent = nodes.EmptyLatentImage().generate(128, 96, 1)[0]
    assert sample(emoji, "rocket", latent=latent, steps=4).shape == (1, 96, 128, 3)
