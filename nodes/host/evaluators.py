"""Predictions of another MODEL than the guider's, or of a model whose layers are perturbed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import torch

from ...samplers.parameters import InputError
from .models import path_of, sampling_of
from .plain_calls import CFG_PATCHES

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Perturbation:
    """Layers that a model call goes past.

    attention: in these blocks of a U-Net self-attention hands on its values, without looking at others.
    layers: these blocks of a transformer hand on what they are given.
    """

    attention: tuple[tuple[str, int], ...] = ()
    layers: tuple[tuple[Literal["double_block", "single_block"], int], ...] = ()

    def options(self, options: Options) -> dict[str, Any]:
        """Model options with it; the given ones are left as they are."""
        changed = {**options, "transformer_options": options.get("transformer_options", {})}
        replace = comfy.model_patcher.set_model_options_patch_replace
        for name, function, places in (("attn1", values_alone, self.attention), ("dit", handed_on, self.layers)):
            for block, number in places:
                changed = replace(changed, function, name, block, number)
        return changed


def values_alone(q: Any, k: Any, v: Any, extra_options: Any, mask: Any = None) -> Any:
    return v


def handed_on(args: Any, extra_options: Any) -> Any:
    return args


@dataclass(frozen=True)
class Evaluator:
    """What evaluates a prediction in the place of the guider's own model. One that has the same is the same."""

    model: Any = None
    perturbation: Perturbation | None = None

    @property
    def name(self) -> str:
        parts = (("another model", self.model), ("perturbed", self.perturbation))
        return ", ".join(said for said, held in parts if held is not None)


def check_alike(model: Any, other: Any) -> None:
    """Raises InputError where the predictions of two models cannot be combined: they must mean the same latents at the
    same noise levels, and ComfyUI must be able to hold the weights of both."""
    ours, theirs = sampling_of(model), sampling_of(other)
    if path_of(ours) is not path_of(theirs):
        flow = {True: "a flow model", False: "no flow model"}
        problem = (
            f"is {flow[path_of(theirs).value == 'FLOW']}, and the guider's is {flow[path_of(ours).value == 'FLOW']}"
        )
        raise InputError("model", problem, "take two models of one family")
    forms = [each.get_model_object("latent_format") for each in (model, other)]
    if type(forms[0]) is not type(forms[1]) or forms[0].latent_channels != forms[1].latent_channels:
        problem = (
            f"has latents of another kind ({type(forms[1]).__name__}) than the guider's ({type(forms[0]).__name__})"
        )
        raise InputError("model", problem, "take two models that share a VAE")
    tables = [table_of(each) for each in (ours, theirs)]
    if tables[0].shape != tables[1].shape or not torch.allclose(*tables, rtol=1e-6):
        problem = "has other noise levels than the guider's model"
        raise InputError("model", problem, "send both through the same node that sets them, such as ModelSamplingSD3")
    if other.model is model.model and not same_weights(model, other):
        problem = "is the guider's own model with other weights, such as a LoRA, and ComfyUI keeps one set for both"
        raise InputError("model", problem, "load it with a second loader, and patch that one")


def table_of(sampling: Any) -> torch.Tensor:
    table = getattr(sampling, "sigmas", None)
    ends = [float(sampling.sigma_min), float(sampling.sigma_max)]
    return torch.tensor(ends) if table is None else table.detach().float().cpu()


def same_weights(a: Any, b: Any) -> bool:
    """Whether two clones of a model differ in no more than their options."""
    return (
        a.patches_uuid == b.patches_uuid
        and a.object_patches == b.object_patches
        and a.injections.keys() == b.injections.keys()
    )


@dataclass
class Other:
    """Another model in a run: its inner model, its own options, and its conditionings by their keys in the guider."""

    inner: Any
    options: Options
    conds: Mapping[str, Any]


class Others:
    """The models of a run beside the guider's own, loaded for all of it."""

    def __init__(self, own: Any, models: Iterable[Any]):
        self.own, self.models = own, tuple(dict.fromkeys(models))
        self.ready: dict[Any, Other] = {}

    @property
    def loaded(self) -> list[Any]:
        """Those with weights of their own, which are loaded, made ready and cleaned up."""
        return [model for model in self.models if model.model is not self.own.model]

    def declared(self, conds: Mapping[str, list[dict[str, Any]]]) -> None:
        """Has the host load them together with the guider's model, as it does what a conditioning asks for."""
        first = next((cond for cond in conds.values() if cond), None)
        if first and self.loaded:
            first[0] = {**first[0], "additional_models": [*first[0].get("additional_models", []), *self.loaded]}

    def prepared(
        self,
        conds: Mapping[Any, dict[str, Any]],
        noise: torch.Tensor,
        latent: torch.Tensor,
        device: Any,
        sigmas: torch.Tensor,
        *given: Any,
        latent_shapes: Sequence[Any] | None,
    ) -> None:
        """`conds` are those of each model, as the host hands them to `inner_sample`; `given` are mask and seed."""
        mask, seed = given
        for model in self.models:
            inner = model.model
            if model in self.loaded:
                model.pre_run()
            options = comfy.model_patcher.create_model_options_clone(model.model_options)
            options = {name: value for name, value in options.items() if name not in CFG_PATCHES}
            options["transformer_options"] = {**options.get("transformer_options", {}), "sample_sigmas": sigmas}
            comfy.sampler_helpers.prepare_model_patcher(model, conds[model], options)
            comfy.samplers.cast_to_load_options(options, device=device, dtype=model.model_dtype())
            image = latent
            if image is not None and torch.count_nonzero(image) > 0:
                image = inner.process_latent_in(image)
            made = comfy.samplers.process_conds(
                inner, noise, conds[model], device, image, mask, seed, latent_shapes=latent_shapes
            )
            self.ready[model] = Other(inner, options, made)

    def cleaned(self) -> None:
        self.ready.clear()
        for model in self.loaded:
            model.cleanup()
