"""Every node of ComfyUI that takes a MODEL and gives one, under CFG Guider (Stepwise) and under ComfyUI's CFGGuider.

    python benchmarks/sweep.py

Prints, for each node, the largest relative difference of a run of three steps on four miniature models, over guidance 1
and 4 and a batch of one and of two. A dash: ComfyUI itself cannot run the node on that model. Some minutes.
"""

import argparse
import asyncio
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import torch
from stepwise.tools.generate.markdown import table
from stepwise.tools.measure.host import load_host, node
from torch import Tensor, nn

STEPS = 3
SCALES, BATCHES = (1.0, 4.0), (1, 2)
FILE, FAMILY = "needs a file, and only changes weights", "needs a model patch of its own family, from a file"
# Not run, and why.
LEFT_OUT = {
    "ARVideoI2V": "needs the VAE of its own video model",
    "AnimaLLLiteApply": FAMILY,
    "HypernetworkLoader": "needs a file of a hypernetwork; it is an attention patch like those that are run",
    "LTXVReferenceAudio": "needs an audio VAE",
    "LoraLoader": FILE,
    "LoraLoaderBypass": FILE,
    "LoraLoaderBypassModelOnly": FILE,
    "LoraLoaderModelOnly": FILE,
    "QwenImageDiffsynthControlnet": FAMILY,
    "SUPIRApply": FAMILY,
    "TorchCompileModel": "compiles for half a minute; tried by hand",
    "TripoSplatSamplingPreview": "needs the VAE of its own 3D model",
    "USOStyleReference": FAMILY,
    "WanInfiniteTalkToVideo": FAMILY,
    "WanUni3CControlnetApply": FAMILY,
    "ZImageFunControlnet": FAMILY,
}
# Where the default of an input would leave the model as it is, or is of another size.
INPUTS: dict[str, dict[str, Any]] = {
    "APG": {"norm_threshold": 0.5, "momentum": 0.3},
    "CFGOverride": {"cfg": 2.0},
    "ContextWindowsManual": {"context_length": 4, "context_overlap": 1, "dim": 2},
    "FreSca": {"scale_low": 0.7, "scale_high": 1.4, "freq_cutoff": 2},
    "PatchModelAddDownscale": {"block_number": 1},
    "ScaleROPE": {"scale_x": 1.2, "scale_y": 1.2},
    "SkipLayerGuidanceDiT": {"double_layers": "0", "single_layers": "0", "start_percent": 0.0, "end_percent": 1.0},
    "SkipLayerGuidanceDiTSimple": {"double_layers": "0", "single_layers": "0", "start_percent": 0.0},
    "SkipLayerGuidanceSD3": {"layers": "0", "start_percent": 0.0, "end_percent": 1.0},
    "TomePatchModel": {"ratio": 0.5},
    "UNetCrossAttentionMultiply": {"q": 1.2, "v": 1.1},
    "UNetSelfAttentionMultiply": {"q": 1.2, "v": 1.1},
}


def weighted(network: nn.Module, seed: int) -> nn.Module:
    """With random weights: the host leaves them uninitialised."""
    generator = torch.Generator().manual_seed(seed)
    for each in (*network.parameters(), *network.buffers()):
        each.data = 0.1 * torch.randn(each.shape, generator=generator)
    return network


def unet(seed: int) -> nn.Module:
    from stepwise.nodes.host.digits import build_unet

    return weighted(build_unet(), seed)


SETTINGS = {"dtype": torch.float32, "device": "cpu"}


def flux(seed: int) -> nn.Module:
    import comfy.ops
    from comfy.ldm.flux.model import Flux

    class Miniature(Flux):
        def forward(self, x: Tensor, timestep: Tensor, context: Tensor, **kwargs: Any) -> Tensor:
            return super().forward(x, timestep, context, y=x.new_ones(len(x), 8), **kwargs)

    sizes = {"in_channels": 4, "out_channels": 4, "vec_in_dim": 8, "context_in_dim": 64, "hidden_size": 64}
    shape = {"mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 1, "axes_dim": [8, 12, 12]}
    rest = {"theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": False, "txt_ids_dims": []}
    return weighted(Miniature(**sizes, **shape, **rest, **SETTINGS, operations=comfy.ops.disable_weight_init), seed)


def sd3(seed: int) -> nn.Module:
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper

    class Miniature(OpenAISignatureMMDITWrapper):
        def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, **kwargs: Any) -> Tensor:
            return super().forward(x, timesteps, context=context, y=x.new_ones(len(x), 8), **kwargs)

    embedder = {"target": "torch.nn.Linear", "params": {"in_features": 64, "out_features": 128}}
    sizes = {"input_size": 8, "in_channels": 4, "depth": 2, "adm_in_channels": 8, "pos_embed_max_size": 8}
    rest = {"num_patches": 64, "context_embedder_config": embedder}
    return weighted(Miniature(**sizes, **rest, **SETTINGS, operations=comfy.ops.disable_weight_init), seed)


SD_BETAS = {"beta_schedule": "linear", "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000}
# The network, the host's name of its family, its sampling settings, and the channels of its latent.
MODELS: dict[str, tuple[Callable[[int], nn.Module], str, dict[str, Any], int]] = {
    "UNet, EPS": (unet, "EPS", SD_BETAS, 1),
    "UNet, v": (unet, "V_PREDICTION", SD_BETAS, 1),
    "SD3, flow": (sd3, "FLOW", {"shift": 3.0}, 4),
    "Flux": (flux, "FLUX", {"shift": 1.15}, 4),
}


@cache
def model(name: str, seed: int = 0) -> Any:
    from comfy.latent_formats import LatentFormat
    from comfy.model_base import ModelType
    from stepwise.nodes.host.small_models import host_model

    make, family, settings, channels = MODELS[name]
    form = LatentFormat()
    form.latent_channels = channels
    return host_model(make(seed), ModelType[family], form, settings)


@cache
def nodes() -> dict[str, Any]:
    """The nodes of ComfyUI, its extras too, that take a MODEL and give one."""
    import nodes as core

    asyncio.run(core.init_builtin_extra_nodes())
    found = core.NODE_CLASS_MAPPINGS.items()
    return {id: each for id, each in sorted(found) if "MODEL" in each.RETURN_TYPES and "MODEL" in kinds(each).values()}


def declared(each: Any) -> dict[str, Any]:
    inputs = each.INPUT_TYPES()
    return {**inputs.get("required", {}), **inputs.get("optional", {})}


def kinds(each: Any) -> dict[str, Any]:
    return {name: given[0] for name, given in declared(each).items()}


def made_inputs(id: str, name: str) -> dict[str, Any]:
    """What the node is given: models, small made-up inputs, and the defaults of its widgets."""
    models = iter((model(name), model(name, 1)))
    given: dict[str, Any] = {}
    for key, (kind, *options) in declared(nodes()[id]).items():
        settings = options[0] if options else {}
        if kind == "MODEL":
            given[key] = next(models)
        elif kind == "CONDITIONING":
            given[key] = words(3)
        elif kind == "LATENT":
            given[key] = {"samples": torch.zeros(1, MODELS[name][3], 8, 8)}
        elif kind == "LATENT_OPERATION":
            given[key] = lambda latent, **_: 0.8 * latent
        elif kind == "LORA_MODEL":
            given[key] = lora(name)
        elif isinstance(kind, list):
            given[key] = settings.get("default", kind[0])
        else:
            given[key] = settings.get("default", (settings.get("options") or [None])[0])
    return {**given, **INPUTS.get(id, {})}


def lora(name: str) -> dict[str, Tensor]:
    """One of rank 1, on the first matrix of the network that has a square half."""
    weights = model(name).model.diffusion_model.state_dict()
    key, weight = next((k, w) for k, w in weights.items() if w.ndim == 2 and k.endswith("weight"))
    base = f"diffusion_model.{key.removesuffix('.weight')}"
    up, down = torch.ones(weight.shape[0], 1), torch.ones(1, weight.shape[1])
    return {f"{base}.lora_up.weight": 0.05 * up, f"{base}.lora_down.weight": 0.05 * down}


def patched(id: str, name: str) -> Any:
    """The model that the node gives."""
    each = nodes()[id]
    function = getattr(each if hasattr(each, "define_schema") else each(), each.FUNCTION)
    result = function(**made_inputs(id, name))
    found = getattr(result, "args", getattr(result, "result", result))
    return found[list(each.RETURN_TYPES).index("MODEL")]


def words(seed: int) -> list[Any]:
    return [[torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(seed)), {}]]


def guider(whose: str, patcher: Any, scale: float) -> Any:
    import comfy.samplers

    if whose == "ours":
        inputs = {"model": patcher, "positive": words(1), "negative": words(2), "cfg": scale}
        return node("StepwiseCFGGuider", **inputs)[0]
    host = comfy.samplers.CFGGuider(patcher)
    host.set_conds(words(1), words(2))
    host.set_cfg(scale)
    return host


def run(whose: str, patcher: Any, scale: float, batch: int) -> Tensor:
    """Three steps of ComfyUI's Euler."""
    import comfy.samplers

    sampling = patcher.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", STEPS).clone()
    channels = patcher.get_model_object("latent_format").latent_channels
    noise = torch.randn(batch, channels, 8, 8, generator=torch.Generator().manual_seed(5))
    sampler = comfy.samplers.sampler_object("euler")
    return guider(whose, patcher, scale).sample(
        noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=1
    )


def difference(id: str, name: str, scale: float, batch: int) -> float | None:
    """The largest relative difference of the two runs; None where ComfyUI cannot make the patch or its own run.

    The patch is made for each run: some of them remember.
    """
    try:
        theirs = run("host", patched(id, name), scale, batch)
    except Exception:
        return None
    if not theirs.isfinite().all():
        return None
    found = run("ours", patched(id, name), scale, batch)
    return ((found - theirs).abs().max() / theirs.abs().max()).item()


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    load_host()
    lines = []
    for id in nodes():
        if id in LEFT_OUT:
            lines.append([id, f"left out: {LEFT_OUT[id]}", *[""] * (len(MODELS) - 1)])
            continue
        worst = []
        for name in MODELS:
            found = [difference(id, name, scale, batch) for scale, batch in product(SCALES, BATCHES)]
            known = [each for each in found if each is not None]
            worst.append(f"{max(known):.0e}" if known else "-")
        lines.append([id, *worst])
    print(table(["Node", *MODELS], lines))


if __name__ == "__main__":
    main()
