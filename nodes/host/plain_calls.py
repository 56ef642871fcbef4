"""The host's model on several plain conditionings, prepared once per run instead of at every call.

The host makes a batch of the same conditionings anew at every model call, and sums weighted outputs as if each of them
had a mask. Where nothing asks for that, one `apply_model` says the same in a fraction of the memory traffic.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.patcher_extension
import comfy.samplers
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .progress import KEY
from .roles import roles_and_leaves
from .transfer import sent_all

Conds = Sequence[Mapping[str, Any]]

# What the host's evaluation looks at in a conditioning besides the model's own inputs.
SPECIAL = frozenset(
    {"area", "control", "default", "gligen", "hooks", "mask", "strength", "timestep_end", "timestep_start"}
)
# What it looks at in the model options.
TAKEN_OVER = frozenset(
    {"context_handler", "model_function_wrapper", "multigpu_clones", "sampler_calc_cond_batch_function"}
)
# What it looks at when it makes one prediction of two.
CFG_PATCHES = ("sampler_pre_cfg_function", "sampler_cfg_function", "sampler_post_cfg_function")


def is_plain(conds: Sequence[Conds], model_options: Mapping[str, Any]) -> bool:
    """Whether the host, given these, would do no more than call its model on one batch and combine."""
    return (
        all(len(cond) == 1 and SPECIAL.isdisjoint(cond[0]) for cond in conds)
        and TAKEN_OVER.isdisjoint(model_options)
        and not any(model_options.get(name) for name in CFG_PATCHES)
        and not wrappers(WrappersMP.CALC_COND_BATCH, model_options)
    )


def is_touched(patcher: Any, model_options: Mapping[str, Any]) -> bool:
    """Whether anybody but the host's own code sees what the model is given, and so may write to it."""
    options = model_options.get("transformer_options", {})
    ours = {"sample_sigmas", "wrappers"}
    return (
        any(value for name, value in options.items() if name not in ours)
        or any(wrappers(kind, model_options) for kind in options.get("wrappers", {}))
        or any(name.startswith("diffusion_model") for name in patcher.object_patches)
        or bool(patcher.injections)
    )


def wrappers(kind: str, model_options: Mapping[str, Any]) -> list[Any]:
    """Those of others: Stepwise's own write to nothing."""
    held = model_options.get("transformer_options", {}).get("wrappers", {}).get(kind, {})
    return [wrapper for key, found in held.items() if key != KEY for wrapper in found]


@dataclass(frozen=True)
class Batch:
    """Conditionings that share one model call: their indices in the order of the batch, and the model's inputs."""

    indices: tuple[int, ...]
    inputs: Mapping[str, Any]
    uuids: tuple[Any, ...]


class Prepared:
    """The batches of one run, each made when it is first needed, on the device. Where there is no conditioning is None.

    Which conditionings share a batch is the host's own rule (equal shapes, and the memory that is free), but it is
    asked once: within a run the batches, and so the rounding, stay the same.
    """

    def __init__(self, model: Any, conds: Sequence[Conds | None], x: Tensor, roles: Sequence[int]):
        self.model, self.shape, self.roles = model, x.shape, roles
        self.conds = [cond and cond[0] for cond in conds]
        self.inputs: dict[int, dict[str, Any]] = {}
        self.batches: dict[tuple[int, ...], tuple[Batch, ...]] = {}

    def fits(self, conds: Sequence[Conds | None], x: Tensor) -> bool:
        """Whether these are still the conditionings and the size that it was made for."""
        return x.shape == self.shape and all(a is (b and b[0]) for a, b in zip(self.conds, conds, strict=True))

    def __call__(
        self, x: Tensor, timestep: Tensor, model_options: Mapping[str, Any], needed: tuple[int, ...]
    ) -> dict[int, Tensor]:
        """The model's denoised prediction for each conditioning whose index is `needed`."""
        if needed not in self.batches:
            self.batches[needed] = tuple(self.grouped(needed, x))
        self.model.current_patcher.prepare_state(timestep, model_options)
        found: dict[int, Tensor] = {}
        for batch in self.batches[needed]:
            predictions = self.called(batch, x, timestep, model_options).chunk(len(batch.indices))
            found.update(zip(batch.indices, predictions, strict=True))
        return found

    def called(self, batch: Batch, x: Tensor, timestep: Tensor, model_options: Mapping[str, Any]) -> Tensor:
        # A new dict at every call, as the host gives: models and patches write into it.
        options = comfy.patcher_extension.merge_nested_dicts(
            self.model.current_patcher.apply_hooks(hooks=None),
            model_options.get("transformer_options", {}),
            copy_dict1=False,
        )
        options |= {**roles_and_leaves(batch.indices, self.roles), "uuids": list(batch.uuids), "sigmas": timestep}
        count = len(batch.indices)
        # A patch may write to what it is given. A model that wrote to x would already be wrong under the host, which
        # reads it afterwards.
        touched = is_touched(self.model.current_patcher, model_options)
        inputs = copied(batch.inputs) if touched else batch.inputs
        shared = len(x) == 1 and not touched
        return self.model.apply_model(
            repeated(x, count, shared), repeated(timestep, count, shared), **inputs, transformer_options=options
        )

    def grouped(self, needed: Sequence[int], x: Tensor) -> list[Batch]:
        """The batches that the host would make, in its order."""
        for index in needed:
            if index not in self.inputs:
                given = self.conds[index]["model_conds"]
                self.inputs[index] = {k: v.process_cond(batch_size=len(x), area=None) for k, v in given.items()}
        waiting, made = list(needed), list[Batch]()
        while waiting:
            alike = [i for i in waiting if comfy.samplers.cond_equal_size(self.inputs[i], self.inputs[waiting[0]])]
            alike.reverse()
            parts = (alike[: len(alike) // n] for n in range(1, len(alike) + 1))
            free = self.model.current_patcher.get_free_memory(x.device)
            chosen = next((part for part in parts if self.memory(part, x) * 1.5 < free), alike[:1])
            waiting = [index for index in waiting if index not in chosen]
            made.append(self.batch(chosen, x))
        return made

    def memory(self, indices: Sequence[int], x: Tensor) -> float:
        shapes = defaultdict(list)
        for index in indices:
            for name, value in self.inputs[index].items():
                shapes[name].append(value.size())
        return self.model.memory_required([len(indices) * len(x), *x.shape[1:]], cond_shapes=shapes)

    def batch(self, indices: Sequence[int], x: Tensor) -> Batch:
        inputs = comfy.samplers.cond_cat([self.inputs[index] for index in indices])
        at_hand = {name: sent_all(value, x.device) for name, value in inputs.items()}
        return Batch(tuple(indices), at_hand, tuple(self.conds[index]["uuid"] for index in indices))


def copied(value: Any) -> Any:
    """Tensors of one's own in the place of those in an input of the model."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, Mapping):
        return {name: copied(item) for name, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def repeated(tensor: Tensor, count: int, shared: bool) -> Tensor:
    """`count` of it in one batch: without a copy where they may share their memory."""
    if shared:
        return tensor.expand(count, *tensor.shape[1:])
    return tensor.repeat(count, *(1 for _ in tensor.shape[1:]))
