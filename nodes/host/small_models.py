"""A genuine MODEL around any module."""

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
from torch import nn


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
