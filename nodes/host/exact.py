"""A genuine MODEL whose predictions come from a formula, and any SAMPLER run on it."""

from collections.abc import Callable
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
# Of x, one noise level for the batch, and the context `[B, tokens, width]` or None.
Formula = Callable[[Tensor, float, Tensor | None], Tensor]


class Between:
    """Beside the host's table of noise levels: the timestep between two rows, which the host rounds to one of them.

    Log-linear in the level, as the host goes from a timestep to its level, and beyond both ends.
    """

    def timestep(self, sigma: Tensor) -> Tensor:
        return place_in(self.log_sigmas.double(), sigma.double().log())  # type: ignore[attr-defined]


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


class ExactNetwork(nn.Module):
    """What a perfect network of the kind would predict where `formula` gives the clean image.

    EPS: (x - D) / sigma. FLOW: the same, the velocity eps - x_0. V: (x / (sigma^2 + 1) - D) sqrt(sigma^2 + 1) / sigma,
    which is alpha eps - sigma x_0 in the variance-preserving scale (Salimans and Ho 2022, section 4). The host scales x
    before it calls the network; that is undone here, and the noise level found from the timestep.
    """

    def __init__(self, kind: str, formula: Formula, channels: int):
        super().__init__()
        self.kind, self.formula, self.channels = kind, formula, channels
        self.dtype = torch.float32
        # The host counts the bytes of a network, and divides by them.
        self.nothing = nn.Parameter(torch.zeros(1))
        levels = comfy.model_sampling.ModelSamplingDiscrete(sampling_config()).log_sigmas.double()
        self.register_buffer("levels", levels, persistent=False)

    @property
    def path(self) -> Path:
        return FLOW if self.kind == "FLOW" else VE

    def sigma(self, timestep: float) -> float:
        """The noise level of a timestep, between the rows of the table and beyond its ends as `Between` has it."""
        if self.kind == "FLOW":
            return max(timestep / 1000.0, 1e-6)
        table = self.levels
        low = min(max(int(timestep // 1), 0), len(table) - 2)
        return float((table[low] + (timestep - low) * (table[low + 1] - table[low])).exp())

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
        sigma = self.sigma(timestep)
        scale = 1.0 if self.kind == "FLOW" else (sigma * sigma + 1.0) ** 0.5
        noisy = x.detach().cpu().double() * scale
        denoised = self.formula(noisy, sigma, None if context is None else context.detach().cpu().double())
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
        self.denoiser: Denoiser | None = None
        self.models: dict[tuple[Path, int], Any] = {}

    def model(self, path: Path, channels: int) -> Any:
        if (path, channels) not in self.models:
            kind = "FLOW" if path is FLOW else "EPS"
            self.models[path, channels] = exact_model(ExactNetwork(kind, self.asked, channels))
        return self.models[path, channels]

    def asked(self, x: Tensor, sigma: float, context: Tensor | None) -> Tensor:
        """A call for one conditioning, or for two that are the same."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        assert self.denoiser is not None
        half = len(x) // 2
        if len(x) == 2 * self.images and torch.equal(x[:half], x[half:]):
            once = self.denoiser(x[:half], sigma)
            return torch.cat([once, once])
        return self.denoiser(x, sigma)

    def __call__(
        self, path: Path, denoiser: Denoiser, noise: Tensor, latent: Tensor, sigmas: Tensor, seed: int
    ) -> Tensor:
        self.denoiser, self.images = denoiser, len(noise)
        guider = Unguided(self.model(path, noise.shape[1]))
        same = [[torch.zeros(1, 1, 1), {}]]
        guider.set_conds(same, same)
        guider.set_cfg(1.0)
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
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
