"""A MODEL that is told another noise level than that of the step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...samplers.detail import told_level
from .models import path_of
from .progress import KEY


@dataclass(frozen=True)
class Told:
    """Wraps a model call. It keeps nothing, so that a run goes on as if it had not been cut."""

    params: Mapping[str, Any]

    def __call__(self, executor: Any, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Any:
        path = path_of(executor.class_obj.model_sampling)
        return executor(x, told_level(t, path, **self.params), *args, **kwargs)


def with_detail(model: Any, params: Mapping[str, Any]) -> Any:
    """A clone of the MODEL that is `told`."""
    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, Told(params))
    return clone
