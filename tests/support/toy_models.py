"""Small models inside the real host: smooth, quick, and different for every prompt."""

from functools import cache

import comfy.latent_formats
import pytest
import torch
from comfy.model_base import ModelType
from stepwise.nodes.host.exact import ExactNetwork
from stepwise.nodes.host.small_models import host_model
from stepwise.samplers.exact import mixture
from torch import nn

SD_BETAS = {"beta_schedule": "linear", "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000}


class SmoothNet(nn.Module):
    """A fixed random network, mild enough that float32 rounding is not amplified over a run."""

    def __init__(self, channels: int, dims: int = 2):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mix = nn.Parameter(torch.randn(channels, channels, generator=generator) / channels**0.5)
        self.dtype = torch.float32
        self.dims = dims
        self.calls = 0

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **kwargs):
        self.calls += 1
        shape = (-1,) + (1,) * (x.ndim - 1)
        prompt = context.float().mean(dim=(1, 2)).view(shape)
        time = timesteps.float().view(shape) / 1000.0
        mixed = torch.einsum("bc...,cd->bd...", torch.tanh(x), self.mix)
        return 0.6 * x + 0.3 * mixed * (1.0 - 0.5 * time + 0.5 * prompt) + 0.2 * prompt


class MixtureNet(ExactNetwork):
    """What a perfect network would predict for data from a mixture of Gaussians that the prompt shifts, a value of it
    for each image: for models of the EPS and the FLOW family."""

    def __init__(self, kind: str, pixels: int):
        super().__init__(kind, channels=4)
        self.data = mixture(components=4, dimensions=pixels)

    def denoised(self, x, sigma, context):
        shift = context.mean(dim=(1, 2)).view(-1, *[1] * (x.ndim - 1))
        return self.data.denoised(self.path, x - self.path.alpha(sigma) * shift, sigma) + shift


class Latent4(comfy.latent_formats.LatentFormat):
    latent_channels = 4


class Latent5D(comfy.latent_formats.LatentFormat):
    latent_channels = 4
    latent_dimensions = 3


def toy_model(kind: str = "EPS", module: nn.Module | None = None, latent_format=None):
    """A MODEL of the host: EPS, V_PREDICTION, EDM, FLOW, FLUX or FLOW_COSMOS."""
    settings = {
        "FLOW": {"shift": 3.0},
        "FLUX": {"shift": 1.15},
        "FLOW_COSMOS": {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5},
        "EDM": {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5},
    }.get(kind, SD_BETAS)
    latent_format = latent_format or Latent4()
    module = module or SmoothNet(latent_format.latent_channels)
    return host_model(module, ModelType[kind], latent_format, settings)


def prompt(value: float):
    """CONDITIONING whose only content is one number."""
    return [[torch.full((1, 4, 8), value), {}]]


@cache
def nodes_by_id():
    from stepwise.nodes import all_nodes

    return {node.define_schema().node_id: node for node in all_nodes()}


@cache
def defaults(node_id: str):
    found = {}
    for declared in nodes_by_id()[node_id].define_schema().inputs:
        if getattr(declared, "default", None) is not None:
            found[declared.id] = declared.default
        elif getattr(declared, "options", None):
            found[declared.id] = declared.options[0]
    return found


def call(node_id: str, **inputs):
    """The outputs of one of our nodes, executed as the host does, with the defaults of its schema filled in."""
    return nodes_by_id()[node_id].execute(**{**defaults(node_id), **inputs}).args


def refused(node_id: str, **inputs) -> str:
    """The message with which a node refuses its inputs."""
    with pytest.raises(ValueError, match=r"\. [A-Z]") as caught:
        call(node_id, **inputs)
    return str(caught.value)


def sample(through: str, solver: str, inputs, sigmas):
    """A run by our step node, or by the host's own sampling node with our SAMPLER."""
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

    if through == "step node":
        return call(f"Stepwise{solver}", **inputs, sigmas=sigmas)[0]
    (sampler,) = call(f"Stepwise{solver}Sampler")
    return SamplerCustomAdvanced.execute(
        inputs["noise"], inputs["guider"], sampler, sigmas, inputs["latent_image"]
    ).args[0]


THROUGH = ("step node", "core's sampler")
