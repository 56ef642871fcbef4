"""Runs of ComfyUI's samplers beside ours: one schedule, one starting noise, and one noise for each interval."""

import inspect
import zlib

import comfy.k_diffusion.sampling as host_sampling
import comfy.samplers
import torch
from stepwise.nodes.host import sampler as host
from toy_models import call, prompt

STEPS = 12


def schedule(model):
    """A schedule of the host; on flow models it begins at 1."""
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)


def key(s, t):
    """An interval under a name that float32 and float64 agree on."""
    return f"{float(s):.4g} {float(t):.4g}"


def drawn(s, t, like):
    generator = torch.Generator().manual_seed(zlib.crc32(key(s, t).encode()))
    return torch.randn(like.shape, generator=generator)


def core_noise(x):
    return lambda s, t: drawn(s, t, x)


class Start:
    """The same starting noise for both, and no noise of the host's own."""

    seed = 7

    def generate_noise(self, latent):
        return torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(7))


def guider_of(model, cfg):
    return call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=cfg)[0]


def core_run(name, model, sigmas, options, cfg, noise_sampler):
    latent = torch.zeros(2, 4, 8, 8)
    function = getattr(host_sampling, f"sample_{name}", None)
    # Of those that choose their levels the host's wrapper takes no noise.
    takes_noise = function is not None and {"noise_sampler", "sigmas"} <= inspect.signature(function).parameters.keys()
    given = {"noise_sampler": noise_sampler(latent)} if takes_noise else {}
    extra = {**options, **given}
    sampler = comfy.samplers.ksampler(name, extra) if extra else comfy.samplers.sampler_object(name)
    return guider_of(model, cfg).sample(Start().generate_noise({"samples": latent}), latent, sampler, sigmas, seed=7)


def our_run(solver, model, sigmas, params, cfg, monkeypatch):
    source = lambda address, like: drawn(address.sigma_from, address.sigma_to, like)  # noqa: E731
    monkeypatch.setattr(host, "in_sampler_noise", lambda *_: source)
    inputs = {"noise": Start(), "latent_image": {"samples": torch.zeros(2, 4, 8, 8)}, "sigmas": sigmas}
    return call(f"Stepwise{solver}", guider=guider_of(model, cfg), **inputs, **params)[0]["samples"]


def relative(a, b):
    return ((a - b).square().mean().sqrt() / b.square().mean().sqrt()).item()
