"""Guided runs of a network that sees each value by itself, and counts what it is asked."""

import torch
from torch import nn
from toy_models import Latent4, Latent5D, call, prompt, toy_model


class PixelNet(nn.Module):
    """Each value by itself, so that the network is the same for one image and for a batch, bit for bit."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.dtype = torch.float32
        self.evaluated = []

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **kwargs):
        self.evaluated.append(len(x))
        shown = context.float().mean(dim=(1, 2)).view(-1, *[1] * (x.ndim - 1))
        return 0.6 * x + 0.3 * torch.tanh(2.0 * x) * shown + 0.2 * torch.sin(3.0 * shown)


def model_of(kind="EPS", dims=2):
    return toy_model(kind, PixelNet(), Latent5D() if dims == 3 else Latent4())


def guider_of(model, rule=(), cfg=5.0):
    given = {"model": model, "positive": prompt(0.4), "negative": prompt(-0.3), "cfg": cfg, "rule": rule}
    return call("StepwiseCFGGuider", **given)[0]


class Given:
    """Starting noise that is given."""

    seed = 11

    def __init__(self, noise):
        self.noise = noise

    def generate_noise(self, latent):
        return self.noise


def run(guider, noise, sigmas, solver="DPMpp2M", **params):
    latent = {"samples": torch.zeros_like(noise)}
    return call(f"Stepwise{solver}", guider=guider, noise=Given(noise), latent_image=latent, sigmas=sigmas, **params)


def noise_of(dims=2, batch=3):
    shape = (batch, 4, 5, 6) if dims == 2 else (batch, 4, 2, 5, 6)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def evaluated(model):
    return model.model.diffusion_model.evaluated
