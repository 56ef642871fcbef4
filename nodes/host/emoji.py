"""The shipped model Emoji: a genuine ComfyUI MODEL and VAE of latent diffusion from words, small enough to ship."""

import json
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import torch
from comfy.model_base import ModelType
from safetensors import safe_open
from torch import Tensor

from ...samplers.parameters import quoted
from .emoji_networks import CHANNELS, RATIO, SAMPLING, Codec, EmojiLatent, EmojiLCMSampling, Text, build_unet, changed
from .emoji_words import TOKENS, Vocabulary, words
from .small_models import host_model, host_vae

DEMO = Path(__file__).resolve().parents[2] / "demo"
WEIGHTS, LCM_WEIGHTS = "emoji.safetensors", "emoji_lcm.safetensors"
VARIANTS = ["standard", "lcm"]


def read(file: str, part: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights whose names begin with `part` ("unet.", "text." or "codec.") in float32, and the file's own words."""
    path = DEMO / file
    if not path.is_file():
        raise FileNotFoundError(
            f"The weights of the Emoji model are missing: {file} belongs in the folder demo of the pack. "
            "Install the pack again, or make them with demo/emoji_train.py."
        )
    with safe_open(path, framework="pt") as weights:
        names = [name for name in weights.keys() if name.startswith(part)]  # noqa: SIM118
        return {name.removeprefix(part): weights.get_tensor(name).float() for name in names}, weights.metadata()


def emoji_codec() -> Codec:
    codec = Codec()
    # How many batches the normalisation saw is of no use here and not in the file.
    codec.load_state_dict(read(WEIGHTS, "codec.")[0], strict=False)
    return codec.eval().requires_grad_(False)


def emoji_model(variant: str, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The MODEL of `variant`, "standard" or "lcm": v prediction. Float32 wherever the host was not told otherwise."""
    load_device = comfy.model_management.get_torch_device()
    dtype = comfy.model_management.unet_dtype(device=load_device, supported_dtypes=[torch.float32])
    cast = comfy.model_management.unet_manual_cast(dtype, load_device, [torch.float32])
    unet = build_unet(dtype, comfy.ops.pick_operations(dtype, cast))
    weights, about = read(WEIGHTS, "unet.")
    if variant == "lcm":
        weights = changed(weights, read(LCM_WEIGHTS)[0])
    unet.load_state_dict({name: tensor.to(dtype) for name, tensor in weights.items()})
    latent_format = EmojiLatent()
    latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias = json.loads(about["rgb"])
    model = host_model(
        unet,
        ModelType.V_PREDICTION,
        latent_format,
        SAMPLING,
        model_sampling=EmojiLCMSampling if variant == "lcm" else None,
        manual_cast_dtype=cast,
        disable_dynamic=disable_dynamic,
    )
    # With this the host can load the model anew, for a second GPU or without dynamic memory.
    model.cached_patcher_init = (emoji_model, (variant,))
    return model


def emoji_vae() -> comfy.sd.VAE:
    return host_vae(emoji_codec(), CHANNELS, RATIO)


def parse_prompts(text: str, vocabulary: Vocabulary) -> list[list[int]]:
    """One row of word numbers a line; no line at all is one empty prompt."""
    return [prompt_numbers(line, index, vocabulary) for index, line in enumerate(text.strip().splitlines() or [""], 1)]


def prompt_numbers(line: str, index: int, vocabulary: Vocabulary) -> list[int]:
    prompt = words(line)
    for word in prompt:
        if word not in vocabulary.number:
            near = vocabulary.nearest(word)
            raise ValueError(
                f"StepwiseEmojiPrompt, prompt: line {index} has the word {quoted(word)}, which the Emoji model never "
                "saw. "
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
    weights, about = read(WEIGHTS, "text.")
    vocabulary = Vocabulary(about["words"].split())
    side = Text(len(vocabulary), TOKENS)
    side.load_state_dict(weights)
    return side.eval()(torch.tensor(parse_prompts(text, vocabulary)))
