"""ComfyUI in this process: its nodes and this pack's as functions, and workflows run without a server."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ..environment.inprocess import load_comfyui


@cache
def load_host() -> Any:
    """Imports ComfyUI, quiet and on one thread: for a worker process that has not imported it yet.

    Returns the host's own folder, which lives as long as this is remembered.
    """
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    folder = load_comfyui()
    import comfy.utils

    comfy.utils.PROGRESS_BAR_ENABLED = False
    return folder


@cache
def node_classes() -> dict[str, Any]:
    """The nodes of this pack and those of ComfyUI that the examples use, by id."""
    from comfy_extras import nodes_custom_sampler
    from stepwise.nodes import all_nodes

    import nodes as core

    ours = {node.define_schema().node_id: node for node in all_nodes()}
    named = ("BasicScheduler", "CFGGuider", "KSamplerSelect", "RandomNoise", "SamplerCustomAdvanced")
    return {**core.NODE_CLASS_MAPPINGS, **{name: getattr(nodes_custom_sampler, name) for name in named}, **ours}


def execute(kind: str, inputs: dict[str, Any]) -> tuple[Any, ...]:
    """The outputs of a node of either API."""
    made = node_classes()[kind]
    return made.execute(**inputs).args if hasattr(made, "execute") else getattr(made(), made.FUNCTION)(**inputs)


def node(kind: str, /, **given: Any) -> tuple[Any, ...]:
    """The outputs of a node of this pack; an input that is not given has the default of its widget."""
    inputs = {}
    for declared in node_classes()[kind].define_schema().inputs:
        if getattr(declared, "default", None) is not None:
            inputs[declared.id] = declared.default
        elif getattr(declared, "options", None):
            inputs[declared.id] = declared.options[0]
    return execute(kind, {**inputs, **given})


@dataclass(frozen=True)
class Guided:
    """A MODEL with what guides it. `rules` are rules of guidance, by registry id and with their parameters; with
    `perturbed` the negative prediction is that of the positive prompt under this perturbation, and with `weaker` it is
    that of this other model."""

    model: Any
    positive: Any
    negative: Any
    cfg: float
    rules: Sequence[tuple[str, Mapping[str, Any]]] = ()
    perturbed: str = ""
    weaker: Any = None

    def guider(self) -> Any:
        chain: Any = ()
        for rule, settings in self.rules:
            (chain,) = node(f"Stepwise{rule}Guidance", rule=chain, **settings)
        if not self.perturbed and self.weaker is None:
            given = {"model": self.model, "positive": self.positive, "negative": self.negative, "cfg": self.cfg}
            return node("StepwiseCFGGuider", **given, rule=chain)[0]
        worse = {"model": self.weaker}
        if self.perturbed:
            (worse["perturbation"],) = node("StepwisePerturbation", kind=self.perturbed)
        positive, negative = (
            node("StepwisePrediction", conditioning=self.positive, **given)[0] for given in ({}, worse)
        )
        (combined,) = node("StepwiseCFGCombine", positive=positive, negative=negative, scale=self.cfg, rule=chain)
        return node("StepwiseGuider", model=self.model, prediction=combined)[0]

    @torch.inference_mode()
    def sample(
        self,
        solver: str,
        schedule: str,
        steps: int,
        seed: int,
        latent: Tensor,
        params: Mapping[str, Any] = MappingProxyType({}),
    ) -> tuple[Tensor, int]:
        """The final latents, and the evaluations of the network, counted there, for all of them together."""
        (sigmas,) = node(f"Stepwise{schedule}Schedule", model=self.model, steps=steps)
        (noise,) = execute("RandomNoise", {"noise_seed": seed})
        run = {"guider": self.guider(), "noise": noise, "latent_image": {"samples": latent}, "sigmas": sigmas, **params}
        evaluated = []
        networks = [each.model.diffusion_model for each in (self.model, self.weaker) if each is not None]
        count = lambda *call: evaluated.append(len(call[-1]))  # noqa: E731
        hooks = [network.register_forward_hook(count) for network in networks]
        try:
            output = node(f"Stepwise{solver}", **run)[0]
        finally:
            for hook in hooks:
                hook.remove()
        return output["samples"].clone(), sum(evaluated)


@torch.inference_mode()
def run_workflow(graph: Mapping[str, Any]) -> Tensor:
    """The picture `[H, W, 3]` that the one SaveImage of a workflow in API form would save."""

    @cache
    def outputs(key: str) -> tuple[Any, ...]:
        return execute(graph[key]["class_type"], inputs_of(key))

    def inputs_of(key: str) -> dict[str, Any]:
        given = graph[key]["inputs"].items()
        return {name: outputs(value[0])[value[1]] if isinstance(value, list) else value for name, value in given}

    (save,) = (key for key, entry in graph.items() if entry["class_type"] == "SaveImage")
    return inputs_of(save)["images"][0].clone()
