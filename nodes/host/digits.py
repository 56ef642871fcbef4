"""The shipped model Digits: a genuine ComfyUI MODEL and VAE, small enough to live in the repository."""

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
from safetensors import safe_open
from torch import Tensor, nn

from .small_models import LatentConsistency, host_model, host_vae, place_in

DEMO = Path(__file__).resolve().parents[2] / "demo"
WEIGHTS = {"standard": "digits.safetensors", "lcm": "digits_lcm.safetensors"}
# The standard weights once more, for the flow family of models.
FLOW = "flow"
VARIANTS = (*WEIGHTS, FLOW)
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


class LCMSampling(LatentConsistency, comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    """Epsilon prediction under the boundary condition of a latent consistency model."""


class AsFlow(nn.Module):
    """A network of the EPS family as one of the rectified-flow family: the same model in other coordinates.

        x = (1 - s) x_0 + s n = (1 - s) (x_0 + sigma n),   sigma = s / (1 - s)

    So the denoised image of x at time s is that of x / (1 - s) at the noise level sigma. The network sees the picture
    scaled to variance 1, which is the same in both. Above the highest level that it was trained on it is asked there.
    """

    def __init__(self, unet: nn.Module, table: Tensor):
        super().__init__()
        self.unet = unet
        self.dtype = unet.dtype
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, **rest) -> Tensor:
        """The velocity n - x_0 at the time `timesteps` / 1000."""
        time = (timesteps / 1000.0).reshape(-1, *(1,) * (x.ndim - 1)).to(x)
        sigma = (time / (1.0 - time)).clamp(max=float(self.table[-1]))
        scaled = x / (time.square() + (1.0 - time).square()).sqrt()
        epsilon = self.unet(scaled, self.index(sigma.flatten()), context=context, **rest)
        denoised = scaled * (1.0 + sigma.square()).sqrt() - sigma * epsilon
        return (x - denoised) / time

    def index(self, sigma: Tensor) -> Tensor:
        """The place of each level in the table, log-linear between its rows."""
        return place_in(self.table.log(), sigma.log()).clamp(0.0, len(self.table) - 1)


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


def digits_model(variant: str, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The MODEL of a variant. Float32 wherever the host was not told otherwise."""
    load_device = comfy.model_management.get_torch_device()
    dtype = comfy.model_management.unet_dtype(device=load_device, supported_dtypes=[torch.float32])
    cast = comfy.model_management.unet_manual_cast(dtype, load_device, [torch.float32])
    unet = build_unet(dtype, comfy.ops.pick_operations(dtype, cast))
    tensors = safetensors.torch.load_file(weights_file(variant))
    unet.load_state_dict({name.removeprefix(UNET): t.to(dtype) for name, t in tensors.items() if name != LABELS})
    flow = variant == FLOW
    model = host_model(
        AsFlow(unet, trained_levels()) if flow else unet,
        ModelType.FLOW if flow else ModelType.EPS,
        DigitsLatent(),
        {"shift": 1.0} if flow else SAMPLING,
        model_sampling=LCMSampling if variant == "lcm" else None,
        manual_cast_dtype=cast,
        disable_dynamic=disable_dynamic,
    )
    # With this the host can load the model anew, for a second GPU or without dynamic memory.
    model.cached_patcher_init = (digits_model, (variant,))
    return model


def trained_levels() -> Tensor:
    """The noise levels that the network was trained on, lowest first."""
    config = comfy.supported_models_base.BASE({})
    config.sampling_settings = SAMPLING
    return comfy.model_sampling.ModelSamplingDiscrete(config).sigmas


def digits_vae() -> comfy.sd.VAE:
    return host_vae(DigitsPixels(), channels=1, ratio=8)


def weights_file(variant: str) -> Path:
    path = DEMO / WEIGHTS["standard" if variant == FLOW else variant]
    if not path.is_file():
        raise FileNotFoundError(
            f"The weights of the Digits model are missing: {path.name} belongs in the folder demo of the pack. "
            "Install the pack again, or make them with demo/train.py."
        )
    return path


def label_embeddings(labels: list[int]) -> Tensor:
    """The context of each label, `[len(labels), 4, 64]`; both variants share one table."""
    with safe_open(weights_file("standard"), framework="pt") as file:
        return file.get_tensor(LABELS)[labels].float()
