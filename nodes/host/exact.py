"""A genuine MODEL whose predictions come from a formula, and any SAMPLER run on it."""

import math
from abc import ABC, abstractmethod
from typing import Any

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.samplers
import torch
from comfy.model_base import ModelType
from torch import Tensor, nn

from ...samplers import FLOW, VE, Path
from ...samplers.exact.mixture import Denoiser
from .small_models import host_model, place_in

KINDS = ("EPS", "V", "FLOW")
# Stable Diffusion's noise levels for EPS and V; a flow model's as they are, without a shift.
SD = {"beta_schedule": "linear", "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000}
TYPES = {"EPS": ModelType.EPS, "V": ModelType.V_PREDICTION, "FLOW": ModelType.FLOW}


class Between:
    """Beside the host's table of noise levels: the timestep between two rows, which the host rounds to one of them.

    Log-linear in the level, as the host goes from a timestep to its level, and beyond both ends.
    """

    def timestep(self, sigma: Tensor) -> Tensor:
        # In float64, which not every device has.
        table, wanted = self.log_sigmas.cpu().double(), sigma.cpu().double().log()  # type: ignore[attr-defined]
        return place_in(table, wanted).float().to(sigma.device)


class EPSBetween(Between, comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    """Epsilon prediction at any noise level."""


class VBetween(Between, comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
    """V prediction at any noise level."""


class RoundedFlow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
    """A flow model that knows a thousand times and no other."""

    def timestep(self, sigma: Tensor) -> Tensor:
        return super().timestep(sigma).round()


SAMPLINGS: dict[tuple[str, bool], type[nn.Module] | None] = {
    ("EPS", False): EPSBetween,
    ("V", False): VBetween,
    ("FLOW", True): RoundedFlow,
}


class ExactNetwork(nn.Module, ABC):
    """What a perfect network of the kind would predict where `denoised` gives the clean image.

    EPS: (x - D) / sigma. FLOW: the same, the velocity eps - x_0. V: (x / (sigma^2 + 1) - D) sqrt(sigma^2 + 1) / sigma,
    which is alpha eps - sigma x_0 in the variance-preserving scale (Salimans and Ho 2022, section 4). The host scales x
    before it calls the network; that is undone here, and the noise level found from the timestep.
    """

    def __init__(self, kind: str, channels: int):
        super().__init__()
        self.kind, self.channels = kind, channels
        self.dtype = torch.float32
        # The host counts the bytes of a network, and divides by them.
        self.nothing = nn.Parameter(torch.zeros(1))
        self.levels: list[float] = comfy.model_sampling.ModelSamplingDiscrete(sampling_config()).log_sigmas.tolist()

    @abstractmethod
    def denoised(self, x: Tensor, sigma: float, context: Tensor | None) -> Tensor:
        """The clean image of x `[B, ...]` at one noise level, with the context `[B, tokens, width]`, in float64."""

    @property
    def path(self) -> Path:
        return FLOW if self.kind == "FLOW" else VE

    def sigma(self, timestep: float) -> float:
        """The noise level of a timestep, between the rows of the table and beyond its ends as `Between` has it."""
        if self.kind == "FLOW":
            return max(timestep / 1000.0, 1e-6)
        table = self.levels
        low = min(max(int(timestep // 1), 0), len(table) - 2)
        return math.exp(table[low] + (timestep - low) * (table[low + 1] - table[low]))

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, control=None, transformer_options=None, **_
    ) -> Tensor:
        if x.shape[1] != self.channels:
            raise ValueError(
                f"The model of StepwiseMixtureModel has {self.channels} dimensions, which are the channels of its "
                f"latents, and this latent has {x.shape[1]}: wire an Empty Latent Image, which takes the number of the "
                "model, or a latent that this model made."
            )
        levels = timesteps.tolist()
        if len(set(levels)) == 1:
            return self.predicted(x, levels[0], context)
        # A level for each image.
        rows = [None] * len(x) if context is None else list(context.split(1))
        parts = zip(x.split(1), levels, rows, strict=True)
        return torch.cat([self.predicted(*each) for each in parts])

    def predicted(self, x: Tensor, timestep: float, context: Tensor | None) -> Tensor:
        # For runs without a progress bar, which is where the host looks for Cancel.
        comfy.model_management.throw_exception_if_processing_interrupted()
        sigma = self.sigma(timestep)
        scale = 1.0 if self.kind == "FLOW" else (sigma * sigma + 1.0) ** 0.5
        noisy = x.detach().cpu().double() * scale
        denoised = self.denoised(noisy, sigma, None if context is None else context.detach().cpu().double())
        if self.kind == "V":
            found = (noisy / (scale * scale) - denoised) * (scale / sigma)
        else:
            found = (noisy - denoised) / sigma
        return found.to(x)


def sampling_config() -> Any:
    config = comfy.supported_models_base.BASE({})
    config.sampling_settings = dict(SD)
    return config


def exact_model(network: ExactNetwork, rounded: bool = False, disable_dynamic: bool = False) -> Any:
    """The MODEL of a network; rounded, it knows its thousand timesteps alone, as trained models do."""
    latent = comfy.latent_formats.LatentFormat()
    latent.latent_channels = network.channels
    settings = {"shift": 1.0} if network.kind == "FLOW" else SD
    return host_model(
        network,
        TYPES[network.kind],
        latent,
        settings,
        model_sampling=SAMPLINGS.get((network.kind, rounded)),
        disable_dynamic=disable_dynamic,
    )


class AskingNetwork(ExactNetwork):
    """Asks a denoiser that is given it for each run, of so many `images`."""

    denoiser: Denoiser
    images = 0

    def denoised(self, x: Tensor, sigma: float, context: Tensor | None) -> Tensor:
        """A call for one conditioning, or for two that are the same."""
        half = len(x) // 2
        if len(x) == 2 * self.images and torch.equal(x[:half], x[half:]):
            once = self.denoiser(x[:half], sigma)
            return torch.cat([once, once])
        return self.denoiser(x, sigma)


class Unguided(comfy.samplers.CFGGuider):
    """ComfyUI's guider at guidance 1, which asks the model at once: half the time of a call is preparing prompts that
    there are none of. Where a sampler wants more than the prediction, as with CFG++, it goes the host's way."""

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Any = None, seed: int | None = None) -> Tensor:
        model_options = model_options or {}
        if any(name.startswith("sampler_") for name in model_options):
            return super().predict_noise(x, timestep, model_options, seed)
        options = {**model_options.get("transformer_options", {}), "sigmas": timestep, "cond_or_uncond": [0]}
        return self.inner_model.apply_model(x, timestep, transformer_options=options)


class HostSampler:
    """A SAMPLER as a function, as `samplers.exact.problems.Sampler` describes it: run by ComfyUI's guider on a genuine
    model of the EPS family, or on FLOW of the flow family, at guidance 1.

    The global generator is seeded as RandomNoise seeds it, and is afterwards as it was.
    """

    def __init__(self, sampler: Any):
        self.sampler = sampler
        self.models: dict[tuple[Path, int], tuple[Any, AskingNetwork]] = {}

    def model(self, path: Path, channels: int) -> tuple[Any, "AskingNetwork"]:
        if (path, channels) not in self.models:
            network = AskingNetwork("FLOW" if path is FLOW else "EPS", channels)
            self.models[path, channels] = exact_model(network), network
        return self.models[path, channels]

    def __call__(
        self, path: Path, denoiser: Denoiser, noise: Tensor, latent: Tensor, sigmas: Tensor, seed: int
    ) -> Tensor:
        model, network = self.model(path, noise.shape[1])
        network.denoiser, network.images = denoiser, len(noise)
        guider = Unguided(model)
        same = [[torch.zeros(1, 1, 1), {}]]
        guider.set_conds(same, same)
        guider.set_cfg(1.0)
        device = comfy.model_management.get_torch_device()
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.inference_mode():
            torch.manual_seed(seed)
            made = guider.sample(noise, latent, self.sampler, sigmas, disable_pbar=True, seed=seed)
        return made.cpu().clone()


class Watching(comfy.samplers.CFGGuider):
    """ComfyUI's guider, which keeps what its model is asked: x on the CPU, and the noise level."""

    def __init__(self, model: Any):
        super().__init__(model)
        self.seen: list[tuple[Tensor, float]] = []

    def predict_noise(self, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.seen.append((x.detach().cpu().clone(), float(timestep.flatten()[0])))
        return super().predict_noise(x, timestep, *args, **kwargs)
