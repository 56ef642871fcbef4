"""A genuine MODEL around any module, a genuine VAE around any codec, and the sampling of a latent consistency model."""

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.ops
import comfy.sd
import comfy.supported_models_base
import torch
from comfy.model_base import ModelType
from torch import Tensor, nn


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


def host_vae(codec: nn.Module, channels: int, ratio: int) -> comfy.sd.VAE:
    """The host's VAE around `codec`: one for pixel space, with another codec, number of channels and ratio."""
    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.float32)
    vae.first_stage_model = codec
    vae.patcher = comfy.model_patcher.ModelPatcher(
        codec, load_device=vae.device, offload_device=comfy.model_management.vae_offload_device()
    )
    vae.latent_channels = channels
    vae.downscale_ratio = vae.upscale_ratio = ratio
    return vae


def consistent(x_t: Tensor, x_0: Tensor, timestep: Tensor) -> Tensor:
    """The prediction under the boundary condition of a latent consistency model: x_t itself at timestep 0.

        c_skip x_t + c_out x_0,   c_skip = d^2 / ((10 t)^2 + d^2),   c_out = 10 t / sqrt((10 t)^2 + d^2),   d = 0.5

    Luo et al. 2023, arXiv:2310.04378, equation 9 and appendix; t is the trained timestep in 0..999, which broadcasts.
    """
    time = 10.0 * timestep
    return (0.25 * x_t + time * (time.square() + 0.25).sqrt() * x_0) / (time.square() + 0.25)


class LatentConsistency:
    """Beside the host's sampling and prediction classes: their x_0 under the boundary condition of `consistent`."""

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        x_0 = super().calculate_denoised(sigma, model_output, model_input)  # type: ignore[misc]
        broadcast = (-1,) + (1,) * (model_input.ndim - 1)
        x_t = model_input / (1.0 + sigma.reshape(broadcast).square()).sqrt()
        return consistent(x_t, x_0, self.timestep(sigma).reshape(broadcast))  # type: ignore[attr-defined]


def place_in(table: Tensor, values: Tensor) -> Tensor:
    """The place of each value in an ascending table, linear between its rows and beyond its ends."""
    above = torch.searchsorted(table, values.to(table).contiguous()).clamp(1, len(table) - 1)
    low, high = table[above - 1], table[above]
    return above - 1 + (values.to(table) - low) / (high - low)
