"""ComfyUI's own samplers with their arithmetic in float64, to tell where a difference to them comes from. The model and
what it is given stay in float32."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

# The functions of ComfyUI that are replaced: of which module, by their names.
FUNCTIONS = {
    "uni_pc": ("comfy.extra_samplers.uni_pc", "sample_unipc"),
    "uni_pc_bh2": ("comfy.extra_samplers.uni_pc", "sample_unipc_bh2"),
    "deis": ("comfy.k_diffusion.sampling", "sample_deis"),
}


@contextmanager
def default_type(kind: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def in_float64(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(model: Any, x: Tensor, sigmas: Tensor, *rest: Any, **named: Any) -> Tensor:
        def denoised(x: Tensor, sigma: Tensor, **given: Any) -> Tensor:
            with default_type(torch.float32):
                return model(x.float(), sigma.float(), **given).double()

        levels = sigmas.double()
        with default_type(torch.float64):
            made = function(denoised, x.double(), levels, *rest, **named).float()
        # uni_pc writes its own end into the levels, and the host reads it there.
        sigmas.copy_(levels)
        return made

    return run


@contextmanager
def exact(sampler: str, points: int = 10000) -> Iterator[None]:
    """ComfyUI's sampler in float64; `points` is how many DEIS sums its integrals over, 10000 as it is."""
    module, name = FUNCTIONS[sampler]
    import comfy.k_diffusion.deis as deis

    function = getattr(import_module(module), name)
    of_points = partial(deis.get_deis_coeff_list, N=points)
    with patch(f"{module}.{name}", in_float64(function)), patch.object(deis, "get_deis_coeff_list", of_points):
        yield
