"""The shipped model Digits: a genuine ComfyUI MODEL and VAE, small enough to live in the repository."""

import re
from pathlib import Path

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.ops
import comfy.sd
import comfy.supported_models_base
import safetensors.torch
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_base import ModelType
from comfy_api.latest import io
from safetensors import safe_open
from torch import Tensor, nn

DEMO = Path(__file__).resolve().parent.parent / "demo"
WEIGHTS = {"standard": "digits.safetensors", "lcm": "digits_lcm.safetensors"}
UNET = "unet."
LABELS = "labels"
NO_CLASS = 10
TOKENS, CONTEXT = 4, 64
# Stable Diffusion's: betas linear in their square root from 0.00085 to 0.012 over 1000 steps.
SAMPLING = {"beta_schedule": "linear", "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000}


class DigitsLatent(comfy.latent_formats.LatentFormat):
    """Latent = ink in [-1, 1], one channel; the model sees it with mean 0 and variance 1 over the training split."""

    latent_channels = 1
    spacial_downscale_ratio = 8
    MEAN, STD = -0.3892, 0.7522

    def __init__(self):
        self.latent_rgb_factors = [[self.STD] * 3]
        self.latent_rgb_factors_bias = [self.MEAN] * 3

    def process_in(self, latent: Tensor) -> Tensor:
        return (latent - self.MEAN) / self.STD

    def process_out(self, latent: Tensor) -> Tensor:
        return latent * self.STD + self.MEAN


class DigitsPixels(nn.Module):
    """The codec of the VAE: a latent value is a square of 8 x 8 grey pixels, and encoding inverts decoding."""

    def decode(self, samples: Tensor, **_) -> Tensor:
        if samples.shape[1] != 1:
            raise ValueError(
                f"The VAE of StepwiseDigitsModel decodes latents of 1 channel, this one has {samples.shape[1]}: "
                "wire a latent that was sampled with the Digits model."
            )
        return nn.functional.interpolate(samples, scale_factor=8, mode="nearest-exact").expand(-1, 3, -1, -1)

    def encode(self, pixels: Tensor, **_) -> Tensor:
        return nn.functional.avg_pool2d(pixels.mean(1, keepdim=True), 8)


class LCMSampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    """Epsilon prediction under the boundary condition of a latent consistency model.

        denoised = c_skip x_t + c_out x_0,   x_t = x / sqrt(1 + sigma^2),   x_0 = x - sigma epsilon
        c_skip = d^2 / ((10 t)^2 + d^2),   c_out = 10 t / sqrt((10 t)^2 + d^2),   d = 0.5

    Luo et al. 2023, arXiv:2310.04378, equation 9 and appendix; t is the trained timestep in 0..999.
    """

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        x_0 = super().calculate_denoised(sigma, model_output, model_input)
        broadcast = (-1,) + (1,) * (model_input.ndim - 1)
        time = 10.0 * self.timestep(sigma).reshape(broadcast)
        x_t = model_input / (1.0 + sigma.reshape(broadcast).square()).sqrt()
        return (0.25 * x_t + time * (time.square() + 0.25).sqrt() * x_0) / (time.square() + 0.25)


def build_unet(dtype: torch.dtype = torch.float32, operations=comfy.ops.disable_weight_init, device=None) -> UNetModel:
    """The host's own UNet at 1.43 million parameters, so that every attention and block patch acts on it.

    Two levels of 64 channels with one residual block each, transformers at the lower level and in the middle.
    The host's layers come uninitialised: load weights, or initialise them.
    """
    return UNetModel(
        image_size=8,
        in_channels=1,
        out_channels=1,
        model_channels=64,
        num_res_blocks=[1, 1],
        channel_mult=(1, 1),
        transformer_depth=[0, 1],
        transformer_depth_middle=1,
        transformer_depth_output=[0, 0, 1, 1],
        use_spatial_transformer=True,
        use_linear_in_transformer=True,
        num_head_channels=32,
        context_dim=CONTEXT,
        legacy=False,
        dtype=dtype,
        device=device,
        operations=operations,
    )


def host_model(
    module: nn.Module,
    model_type: ModelType = ModelType.EPS,
    latent_format: comfy.latent_formats.LatentFormat | None = None,
    sampling_settings: dict | None = None,
    *,
    model_sampling: type[nn.Module] | None = None,
    manual_cast_dtype: torch.dtype | None = None,
    disable_dynamic: bool = False,
) -> comfy.model_patcher.ModelPatcher:
    """A genuine MODEL around any module.

    `module` needs a `dtype` and `forward(x, timesteps, context=None, control=None, transformer_options={}, **kwargs)`;
    x arrives as `model_type` scales it, timesteps as its sampling object gives them. `latent_format` (default: four
    channels, unscaled) names the channels of the latent. `model_sampling`, a class made from the host's model
    configuration, takes the place of the one that the host chooses for `model_type`.
    """
    latent_format = latent_format or comfy.latent_formats.LatentFormat()
    config = comfy.supported_models_base.BASE(
        {"disable_unet_model_creation": True, "in_channels": latent_format.latent_channels}
    )
    config.latent_format = latent_format
    config.sampling_settings = dict(sampling_settings or {})
    config.manual_cast_dtype = manual_cast_dtype
    offload = comfy.model_management.unet_offload_device()
    model = comfy.model_base.BaseModel(config, model_type=model_type, device=offload)
    model.diffusion_model = module.to(offload).eval().requires_grad_(False)
    if model_sampling is not None:
        model.model_sampling = model_sampling(config)
    comfy.model_management.archive_model_dtypes(module)
    patcher = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    return patcher(model, load_device=comfy.model_management.get_torch_device(), offload_device=offload)


def digits_model(variant: str, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The MODEL of `variant`, "standard" or "lcm". Float32 wherever the host was not told otherwise."""
    load_device = comfy.model_management.get_torch_device()
    dtype = comfy.model_management.unet_dtype(device=load_device, supported_dtypes=[torch.float32])
    cast = comfy.model_management.unet_manual_cast(dtype, load_device, [torch.float32])
    unet = build_unet(dtype, comfy.ops.pick_operations(dtype, cast))
    tensors = safetensors.torch.load_file(weights_file(variant))
    unet.load_state_dict({name.removeprefix(UNET): t.to(dtype) for name, t in tensors.items() if name != LABELS})
    model = host_model(
        unet,
        ModelType.EPS,
        DigitsLatent(),
        SAMPLING,
        model_sampling=LCMSampling if variant == "lcm" else None,
        manual_cast_dtype=cast,
        disable_dynamic=disable_dynamic,
    )
    # With this the host can load the model anew, for a second GPU or without dynamic memory.
    model.cached_patcher_init = (digits_model, (variant,))
    return model


def digits_vae() -> comfy.sd.VAE:
    """The host's VAE around `DigitsPixels`: one for pixel space, with another codec, ratio and number of channels."""
    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.float32)
    vae.first_stage_model = DigitsPixels()
    vae.patcher = comfy.model_patcher.ModelPatcher(
        vae.first_stage_model, load_device=vae.device, offload_device=comfy.model_management.vae_offload_device()
    )
    vae.latent_channels = 1
    vae.downscale_ratio = vae.upscale_ratio = 8
    return vae


def weights_file(variant: str) -> Path:
    path = DEMO / WEIGHTS[variant]
    if not path.is_file():
        raise FileNotFoundError(
            f"The weights of the Digits model are missing: {path.name} belongs in the folder demo of the pack. "
            "Install the pack again, or make them with demo/train.py."
        )
    return path


def parse_labels(text: str) -> list[int]:
    """ "3" -> [3], "0,1,2" -> [0, 1, 2], "0-3" -> [0, 1, 2, 3], "7 0-2" -> [7, 0, 1, 2], "" -> [NO_CLASS]."""
    entries = re.sub(r"\s*-\s*", "-", text).replace(",", " ").split()
    labels = []
    for index, entry in enumerate(entries, start=1):
        match = re.fullmatch(r"([0-9])(?:-([0-9]))?", entry)
        if match is None:
            raise ValueError(
                f"StepwiseDigit, labels: entry {index} is '{entry}', which is neither a digit nor a range of digits. "
                "Write digits 0 to 9 with commas between them (3 or 0,1,2), a range (0-9), "
                "or leave it empty for no class."
            )
        first, last = int(match[1]), int(match[2] or match[1])
        labels.extend(range(first, last + 1) if first <= last else range(first, last - 1, -1))
    return labels or [NO_CLASS]


def label_embeddings(labels: list[int]) -> Tensor:
    """The context of each label, `[len(labels), 4, 64]`; both variants share one table."""
    with safe_open(weights_file("standard"), framework="pt") as file:
        return file.get_tensor(LABELS)[labels].float()


def image_grid(images: Tensor, columns: int, gap: int) -> Tensor:
    """`[B, H, W, C]` -> `[1, rows * (H + gap) - gap, columns * (W + gap) - gap, C]`, row by row; empty places are 0."""
    count, height, width, channels = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    grid = images.new_zeros(rows * columns, height + gap, width + gap, channels)
    grid[:count, :height, :width] = images
    grid = grid.view(rows, columns, height + gap, width + gap, channels).transpose(1, 2)
    grid = grid.reshape(1, rows * (height + gap), columns * (width + gap), channels)
    return grid[:, : grid.shape[1] - gap, : grid.shape[2] - gap]


class StepwiseDigitsModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StepwiseDigitsModel",
            display_name="Digits Model",
            category="stepwise/demo",
            description="A tiny diffusion model of handwritten digits that comes with the pack: nothing to download, "
            "seconds per picture on any computer. Use it with an Empty Latent Image of 64 x 64.",
            search_aliases=["demo model", "mnist", "tiny model", "test model"],
            inputs=[
                io.Combo.Input(
                    "variant",
                    options=list(WEIGHTS),
                    default="standard",
                    tooltip="standard: for every sampler, from 10 steps. "
                    "lcm: distilled for the LCM sampler, 4 to 8 steps, cfg 1 to 2.",
                ),
            ],
            outputs=[io.Model.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, variant: str) -> io.NodeOutput:
        return io.NodeOutput(digits_model(variant), digits_vae())


class StepwiseDigit(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StepwiseDigit",
            display_name="Digit",
            category="stepwise/demo",
            description="Says which digits the Digits Model draws: the place of a text prompt.",
            search_aliases=["digit prompt", "class label", "digits conditioning"],
            inputs=[
                io.String.Input(
                    "labels",
                    default="0-9",
                    placeholder="empty = no class",
                    tooltip="One digit (3), several (0,1,2) or a range (0-9). Image 1 of the batch gets the first, "
                    "image 2 the second, and so on, from the start again when the batch is longer. "
                    "Empty means no class: use it as the negative.",
                ),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, labels: str) -> io.NodeOutput:
        return io.NodeOutput([[label_embeddings(parse_labels(labels)), {}]])


class StepwiseImageGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StepwiseImageGrid",
            display_name="Image Grid",
            category="stepwise/demo",
            description="Puts the images of a batch side by side in one picture, pixel for pixel.",
            search_aliases=["contact sheet", "collage", "batch to image", "montage"],
            inputs=[
                io.Image.Input("images", tooltip="A batch of images."),
                io.Int.Input("columns", default=10, min=1, max=1024, tooltip="How many images stand in one row."),
                io.Int.Input("gap", default=8, min=0, max=1024, tooltip="Black pixels between two images."),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, images: Tensor, columns: int, gap: int) -> io.NodeOutput:
        return io.NodeOutput(image_grid(images, columns, gap))


NODES = [StepwiseDigitsModel, StepwiseDigit, StepwiseImageGrid]
