"""The node of a model whose predictions are exact."""

from typing import Any

import torch
from comfy_api.latest import io

from ..samplers import Path
from ..samplers.exact import mixture
from ..samplers.parameters import InputError
from ..samplers.schedules.checks import check_sigmas
from .host.exact import KINDS, Watching
from .host.levels import read_sigmas, snapped
from .host.mixtures import conditioning_of, mixture_model, parse_components
from .host.models import path_of, sampling_of
from .shared.density import density_picture, in_scale
from .shared.messages import named
from .shared.ways import ways_of_latent

NAME, TRAJECTORY = "Mixture Model", "trajectory"


class StepwiseMixtureModel(io.ComfyNode):
    """A mixture of Gaussians as a MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseMixtureModel",
            display_name=NAME,
            category="stepwise/demo",
            description="A model without a network: its data are a mixture of Gaussians, whose best prediction is "
            "known exactly at every noise level. What a run on it gets wrong is the sampler's own error.",
            search_aliases=["gaussian mixture", "exact model", "toy model", "analytic", "2d", "trajectories"],
            inputs=[
                io.Combo.Input(
                    "family",
                    options=list(KINDS),
                    tooltip="What the model predicts: EPS the noise, V the velocity, both on Stable Diffusion's noise "
                    "levels; FLOW the velocity of a rectified flow, as SD3, Flux and Wan, without a shift.",
                ),
                io.Int.Input(
                    "components", default=6, min=1, max=64, tooltip="How many Gaussians the data are mixed of."
                ),
                io.Int.Input(
                    "dimensions",
                    default=2,
                    min=2,
                    max=64,
                    tooltip="Numbers in a value: the channels of the latent. Each position of the latent is a value of "
                    "its own, so an Empty Latent Image of 256 x 256 holds 1024 of them.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate=False,
                    tooltip="Decides where the Gaussians lie.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    placeholder="empty = all components",
                    tooltip="The components that positive asks for: numbers from 0 (0, 2) or ranges (1-3). Empty is "
                    "all of them. negative is always all of them.",
                ),
                io.Boolean.Input(
                    "rounded_timesteps",
                    default=False,
                    advanced=True,
                    tooltip="As trained models of the EPS and V families: the nearest of a thousand timesteps stands "
                    "for the noise level, which puts a floor under the error of every sampler. Off, the prediction is "
                    "exact at every level.",
                ),
                io.Sampler.Input(
                    "sampler", optional=True, tooltip="With sigmas: a run to draw in the picture. Any SAMPLER."
                ),
                io.Sigmas.Input("sigmas", optional=True, tooltip="The schedule of the run in the picture."),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=False,
                    tooltip="Guidance of the run in the picture, from all components towards those of the prompt.",
                ),
                io.Int.Input(
                    "starts",
                    default=48,
                    min=1,
                    max=1024,
                    tooltip="Values in the run in the picture; of a trajectory at most so many.",
                ),
                io.Int.Input(
                    "start_seed",
                    default=7,
                    min=0,
                    max=2**32 - 1,
                    tooltip="Decides where the run begins, and its noise.",
                ),
                io.Int.Input(
                    "size", default=512, min=64, max=4096, step=8, advanced=True, tooltip="Of the picture, in pixels."
                ),
                io.Combo.Input("theme", options=["dark", "light"], advanced=True, tooltip="The ground of the picture."),
                io.Latent.Input(
                    TRAJECTORY,
                    optional=True,
                    tooltip="x of Trajectory: a run to draw in the picture, on the model of a second Mixture Model "
                    "with the same settings. denoised: the predictions instead.",
                ),
            ],
            outputs=[
                io.Model.Output("model", tooltip="The model, for any node that takes a MODEL."),
                io.Conditioning.Output("positive", tooltip="The components of the prompt."),
                io.Conditioning.Output("negative", tooltip="All components."),
                io.Image.Output(
                    "image",
                    tooltip="The density of the data in their first two dimensions, and over it the ways of the run.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        family,
        components,
        dimensions,
        seed,
        prompt,
        rounded_timesteps,
        cfg,
        starts,
        start_seed,
        size,
        theme,
        sampler=None,
        sigmas=None,
        trajectory=None,
    ) -> io.NodeOutput:
        model = mixture_model(components, dimensions, seed, family, rounded_timesteps)
        data = mixture(components, dimensions, seed)
        with named(NAME):
            asked = parse_components(prompt, components)
            levels = levels_of(sampler, sigmas, path_of(sampling_of(model)))
            ways = [] if trajectory is None else ways_of_latent(TRAJECTORY, trajectory, data, starts)
            if levels and ways:
                raise InputError(TRAJECTORY, "is wired, and sampler is", "wire one of them: the picture has one run")
        prompts = conditioning_of(asked, components), conditioning_of((), components)
        if levels:
            shape = (1, dimensions, 1, starts)
            ways = ways_of(model, *prompts, cfg, sampler, torch.tensor(levels), shape, start_seed)
        image = torch.from_numpy(density_picture(data, asked, ways, size, theme).copy())[None] / 255.0
        return io.NodeOutput(model, *prompts, image)


def levels_of(sampler: Any, sigmas: Any, path: Path) -> tuple[float, ...]:
    """The checked noise levels of the run in the picture; none where nothing is wired for one."""
    levels = () if sigmas is None else snapped(path, read_sigmas(sigmas))
    if sigmas is not None:
        check_sigmas(path, levels)
    if (sampler is None) != (sigmas is None):
        missing, there = ("sampler", "sigmas") if sampler is None else ("sigmas", "sampler")
        raise InputError(missing, f"is not wired, and {there} is", "wire both for a run in the picture, or neither")
    return levels


def ways_of(
    model: Any,
    positive: Any,
    negative: Any,
    cfg: float,
    sampler: Any,
    sigmas: torch.Tensor,
    shape: tuple[int, ...],
    seed: int,
) -> list[torch.Tensor]:
    """Where each value of a run stands at every model call and at its end: `[P, D]`, in the scale of `in_scale`."""
    guider = Watching(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    last = float(sigmas[-1])
    end = guider.sample(noise, torch.zeros(shape), sampler, sigmas, disable_pbar=True, seed=seed)
    path = path_of(sampling_of(model))
    seen = [in_scale(path, x, sigma) for x, sigma in guider.seen]
    return [each[0].flatten(1).T for each in (*seen, in_scale(path, end.cpu() * path.alpha(last), last))]


NODES = [StepwiseMixtureModel]
