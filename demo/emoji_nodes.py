"""The shipped model Emoji: a genuine ComfyUI MODEL and VAE of latent diffusion from words, small enough to ship."""

from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import torch
from comfy.model_base import ModelType
from comfy_api.latest import io
from safetensors import safe_open
from torch import Tensor

from ..demo.emoji_net import CHANNELS, RATIO, SAMPLING, Codec, EmojiLatent, Text, build_unet
from ..demo.emoji_words import TOKENS, Vocabulary, words
from .demo import host_model

WEIGHTS = Path(__file__).resolve().parent.parent / "demo" / "emoji.safetensors"


def read(part: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights of `part` ("unet", "text" or "codec") in float32, and what the file says of itself."""
    if not WEIGHTS.is_file():
        raise FileNotFoundError(
            f"The weights of the Emoji model are missing: {WEIGHTS.name} belongs in the folder demo of the pack. "
            "Install the pack again, or make them with demo/emoji_train.py."
        )
    with safe_open(WEIGHTS, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(f"{part}.")]  # noqa: SIM118
        return {name.removeprefix(f"{part}."): file.get_tensor(name).float() for name in names}, file.metadata()


def emoji_codec() -> Codec:
    codec = Codec()
    codec.load_state_dict(read("codec")[0])
    return codec.eval().requires_grad_(False)


def emoji_model(disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The MODEL: v prediction. Float32 wherever the host was not told otherwise."""
    load_device = comfy.model_management.get_torch_device()
    dtype = comfy.model_management.unet_dtype(device=load_device, supported_dtypes=[torch.float32])
    cast = comfy.model_management.unet_manual_cast(dtype, load_device, [torch.float32])
    unet = build_unet(dtype, comfy.ops.pick_operations(dtype, cast))
    unet.load_state_dict({name: tensor.to(dtype) for name, tensor in read("unet")[0].items()})
    latent_format = EmojiLatent()
    # The preview is the mean colour of each square of 8 x 8 pixels, as the linear part of the codec has it.
    linear = emoji_codec().linear
    latent_format.latent_rgb_factors = linear.weight.mean((2, 3)).tolist()
    latent_format.latent_rgb_factors_bias = linear.bias.tolist()
    model = host_model(
        unet,
        ModelType.V_PREDICTION,
        latent_format,
        SAMPLING,
        manual_cast_dtype=cast,
        disable_dynamic=disable_dynamic,
    )
    # With this the host can load the model anew, for a second GPU or without dynamic memory.
    model.cached_patcher_init = (emoji_model, ())
    return model


def emoji_vae() -> comfy.sd.VAE:
    """The host's VAE around `Codec`: one for pixel space, with another codec, ratio and number of channels."""
    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.float32)
    vae.first_stage_model = emoji_codec()
    vae.patcher = comfy.model_patcher.ModelPatcher(
        vae.first_stage_model, load_device=vae.device, offload_device=comfy.model_management.vae_offload_device()
    )
    vae.latent_channels = CHANNELS
    vae.downscale_ratio = vae.upscale_ratio = RATIO
    return vae


def parse_prompts(text: str, vocabulary: Vocabulary) -> list[list[int]]:
    """One row of word numbers a line; no line at all is one empty prompt."""
    return [prompt_numbers(line, index, vocabulary) for index, line in enumerate(text.strip().splitlines() or [""], 1)]


def prompt_numbers(line: str, index: int, vocabulary: Vocabulary) -> list[int]:
    prompt = words(line)
    for word in prompt:
        if word not in vocabulary.number:
            near = vocabulary.nearest(word)
            raise ValueError(
                f"StepwiseEmojiPrompt, prompt: line {index} has the word '{word}', which the Emoji model never saw. "
                + (f"The nearest that it knows: {', '.join(near)}." if near else "It knows no similar word.")
                + " It knows the words of the emoji's English names and keywords."
            )
    if len(prompt) >= TOKENS:
        raise ValueError(
            f"StepwiseEmojiPrompt, prompt: line {index} has {len(prompt)} words and the Emoji model reads "
            f"{TOKENS - 1}. Shorten it, or give each picture of the batch a line of its own."
        )
    return vocabulary.numbers(prompt)


@torch.no_grad()
def prompt_context(text: str) -> Tensor:
    """The context of each line, `[lines, 12, 128]`."""
    weights, about = read("text")
    vocabulary = Vocabulary(about["words"].split())
    side = Text(len(vocabulary), TOKENS)
    side.load_state_dict(weights)
    return side.eval()(torch.tensor(parse_prompts(text, vocabulary)))


class StepwiseEmojiModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StepwiseEmojiModel",
            display_name="Emoji Model",
            category="stepwise/demo",
            description="A small latent diffusion model that draws emoji from words and comes with the pack: nothing "
            "to download, seconds per picture on any computer. Use it with an Empty Latent Image of 64 x 64.",
            search_aliases=["demo model", "emoji", "tiny model", "text to image"],
            inputs=[],
            outputs=[io.Model.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(emoji_model(), emoji_vae())


class StepwiseEmojiPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StepwiseEmojiPrompt",
            display_name="Emoji Prompt",
            category="stepwise/demo",
            description="Says in words what the Emoji Model draws: the place of CLIP Text Encode.",
            search_aliases=["emoji text", "emoji conditioning", "prompt"],
            inputs=[
                io.String.Input(
                    "prompt",
                    default="cat face",
                    multiline=True,
                    placeholder="empty = anything",
                    tooltip="The name of an emoji (red apple) or words near it. With several lines image 1 of the "
                    "batch gets the first, image 2 the second, and so on, from the start again when the batch is "
                    "longer. Empty means anything: use it as the negative.",
                ),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, prompt: str) -> io.NodeOutput:
        return io.NodeOutput([[prompt_context(prompt), {}]])


NODES = [StepwiseEmojiModel, StepwiseEmojiPrompt]
