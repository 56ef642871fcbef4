"""What benchmarks/gpu.py samples: toy networks that treat every number for itself, one that costs nothing, and the
architectures of SD1.5, SDXL and Flux with random weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch
from comfy.latent_formats import LatentFormat
from comfy.model_base import ModelType
from stepwise.nodes.host.small_models import host_model
from torch import Tensor, nn

DEVICE = comfy.model_management.get_torch_device()
SD_BETAS = {"beta_schedule": "linear", "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000}
# ComfyUI stumbles over models that are collected while it counts those that are loaded.
ALIVE: list[Any] = []
SETTINGS = {"EPS": SD_BETAS, "FLOW": {"shift": 3.0}, "FLUX": {"shift": 1.15}}


class PerElement(nn.Module):
    """Every number for itself, and not linear: what an image becomes does not depend on its batch.

    `watch` is told of every call, and may change what comes out of it.
    """

    def __init__(self):
        super().__init__()
        self.dtype, self.nothing = torch.float32, nn.Parameter(torch.zeros(1))
        self.watch: Callable[[Tensor], Tensor] = lambda out: out

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, **_: Any) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 1))
        time = timesteps.reshape(shape).float() / 1000.0
        prompt = context.flatten(1)[:, :1].reshape(shape).float()
        return self.watch(torch.tanh(1.3 * x + 0.2 * prompt) * (0.7 + 0.3 * time) + 0.05 * torch.sin(3.0 * x))


class Free(nn.Module):
    """Returns a tensor that is there already, and tells when it is called."""

    def __init__(self):
        super().__init__()
        self.dtype, self.nothing = torch.float32, nn.Parameter(torch.zeros(1))
        self.prediction = torch.zeros(0)

    def forward(self, x: Tensor, timesteps: Tensor, context: Any = None, **_: Any) -> Tensor:
        if self.prediction.shape[1:] != x.shape[1:] or len(self.prediction) < len(x):
            self.prediction = torch.ones_like(x)
        return self.prediction[: len(x)]


@dataclass
class Subject:
    """A MODEL with its prompts, and the latents that it samples."""

    model: Any
    shape: Sequence[int]
    cfg: float
    positive: Any
    negative: Any
    flow: bool

    def __post_init__(self) -> None:
        ALIVE.append(self.model)

    @property
    def network(self) -> nn.Module:
        return self.model.model.diffusion_model


def toy(
    kind: str, shape: Sequence[int] = (1, 4, 16, 16), network: nn.Module | None = None, cpu: bool = False, cfg=4.0
) -> Subject:
    form = LatentFormat()
    form.latent_channels, form.latent_dimensions = shape[1], len(shape) - 2
    model = host_model(network or PerElement(), ModelType[kind], form, SETTINGS[kind])
    if cpu:
        place = torch.device("cpu")
        model = comfy.model_patcher.ModelPatcher(model.model.to(place), load_device=place, offload_device=place)
    prompts = [[[torch.full((1, 4, 8), value), {"pooled_output": torch.full((1, 8), value)}]] for value in (0.4, -0.3)]
    return Subject(model, shape, cfg, *prompts, flow=kind != "EPS")


def filled(module: nn.Module, scale: float = 0.7) -> None:
    """Random weights, the same in every process on one device."""
    generator = torch.Generator(device=DEVICE).manual_seed(0)
    for name, weight in module.named_parameters():
        if weight.ndim >= 2:
            weight.data.normal_(std=scale / max(1, weight[0].numel()) ** 0.5, generator=generator)
        else:
            weight.data.fill_(1.0 if name.endswith(("weight", "scale")) else 0.0)


def built(family: Any, config: dict[str, Any], dtype: torch.dtype) -> Any:
    """A MODEL of the host of a known architecture, all of it on the device."""
    made = family(dict(config))
    made.set_inference_dtype(dtype, None)
    made.unet_config["dtype"] = dtype
    with torch.device(DEVICE):
        model = made.get_model({}, device=DEVICE)
    model.to(DEVICE)
    filled(model.diffusion_model)
    model.diffusion_model.eval().requires_grad_(False)
    comfy.model_management.archive_model_dtypes(model.diffusion_model)
    return comfy.model_patcher.ModelPatcher(model, load_device=DEVICE, offload_device=DEVICE)


def prompt(tokens: int, width: int, seed: int, pooled: int = 0, **extra: Any) -> Any:
    generator = torch.Generator().manual_seed(seed)
    given = {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}
    return [[torch.randn(1, tokens, width, generator=generator), {**given, **extra}]]


UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_temporal_attention": False,
}


def sd15(small: bool = False) -> Subject:
    """Stable Diffusion 1.5 in float16, 512 x 512."""
    config = {
        **UNET,
        "model_channels": 32 if small else 320,
        "num_res_blocks": [2] * 4,
        "channel_mult": [1, 2, 4, 4],
        "num_heads": 8,
        "num_head_channels": -1,
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1] * 9 + [0] * 3,
        "transformer_depth_middle": 1,
        "context_dim": 64 if small else 768,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
    }
    model = built(comfy.supported_models.SD15, config, torch.float32 if small else torch.float16)
    shape = (1, 4, 8, 8) if small else (1, 4, 64, 64)
    prompts = (prompt(8 if small else 77, config["context_dim"], seed) for seed in (1, 2))
    return Subject(model, shape, 7.0, *prompts, flow=False)


def sdxl(small: bool = False) -> Subject:
    """SDXL in float16, 1024 x 1024."""
    config = {
        **UNET,
        "model_channels": 32 if small else 320,
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4],
        "num_heads": -1,
        "num_head_channels": 16 if small else 64,
        "transformer_depth": [0, 0, 1, 1, 1, 1] if small else [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1] if small else [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "transformer_depth_middle": 1 if small else 10,
        "context_dim": 64 if small else 2048,
        "use_linear_in_transformer": True,
        "num_classes": "sequential",
        "adm_in_channels": 2816,
    }
    model = built(comfy.supported_models.SDXL, config, torch.float32 if small else torch.float16)
    shape = (1, 4, 8, 8) if small else (1, 4, 128, 128)
    prompts = (prompt(8 if small else 77, config["context_dim"], seed, 1280) for seed in (1, 2))
    return Subject(model, shape, 7.0, *prompts, flow=False)


def flux(small: bool = False) -> Subject:
    """Flux (12 billion weights) in bfloat16, 1024 x 1024, guidance embedded."""
    config = {
        "image_model": "flux",
        "in_channels": 16,
        "out_channels": 16,
        "vec_in_dim": 768,
        "context_in_dim": 64 if small else 4096,
        "hidden_size": 128 if small else 3072,
        "mlp_ratio": 4.0,
        "num_heads": 1 if small else 24,
        "depth": 1 if small else 19,
        "depth_single_blocks": 1 if small else 38,
        "axes_dim": [16, 56, 56],
        "theta": 10000,
        "patch_size": 2,
        "qkv_bias": True,
        "guidance_embed": True,
        "txt_ids_dims": [],
    }
    model = built(comfy.supported_models.Flux, config, torch.float32 if small else torch.bfloat16)
    shape = (1, 16, 16, 16) if small else (1, 16, 128, 128)
    tokens = 16 if small else 256
    prompts = (prompt(tokens, config["context_in_dim"], seed, 768, guidance=3.5) for seed in (1, 2))
    return Subject(model, shape, 1.0, *prompts, flow=True)
