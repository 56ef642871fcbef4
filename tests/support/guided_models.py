"""Guiders of the host and ours on one small model, and what its features ask of both."""

import comfy.context_windows
import comfy.controlnet
import comfy.hooks
import comfy.model_patcher
import comfy.samplers
import node_helpers
import torch
from comfy.patcher_extension import WrappersMP
from toy_models import Latent4, Latent5D, SmoothNet, call, prompt, toy_model

SHAPES = {"one": (1, 4, 8, 8), "batch": (3, 4, 8, 8), "video": (2, 4, 3, 8, 8)}


class Watched(SmoothNet):
    """Notes what it is called with; adds what a ControlNet gives."""

    def __init__(self, dims=2):
        super().__init__(4, dims)
        self.seen = []

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **kwargs):
        names = ("cond_or_uncond", "uuids", "sigmas")
        self.seen.append((x.clone(), timesteps.clone(), context.clone(), [transformer_options[k] for k in names]))
        out = super().forward(x, timesteps, context, control, transformer_options, **kwargs)
        return out if control is None else out + control["middle"][0]


class OneCall(comfy.samplers.Sampler):
    """A sampler that makes one model call."""

    def sample(self, guider, sigmas, extra_args, callback, noise, *_, **__):
        self.x = noise * sigmas[0]
        self.denoised = guider(self.x, sigmas[:1].expand(len(noise)), **extra_args)
        return self.denoised


def model_of(kind="EPS", dims=2):
    return toy_model(kind, Watched(dims), Latent5D() if dims == 3 else Latent4())


def guiders(model, positive, negative, cfg):
    """Ours and the host's."""
    host = comfy.samplers.CFGGuider(model)
    host.set_conds(positive, negative)
    host.set_cfg(cfg)
    return call("StepwiseCFGGuider", model=model, positive=positive, negative=negative, cfg=cfg)[0], host


def predicted(guider, shape=(1, 4, 8, 8), sigma=0.7):
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    sampler = OneCall()
    guider.sample(noise, torch.zeros(shape), sampler, torch.tensor([sigma, 0.0]))
    return sampler.denoised


def largest(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


class Middle(comfy.controlnet.ControlBase):
    """A ControlNet whose answer is a constant."""

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        return {"middle": [torch.full_like(x_noisy, 0.1)], "output": [], "input": []}


def half():
    mask = torch.zeros(1, 8, 8)
    mask[:, :4] = 1.0
    return mask


def hooked(model, conditioning):
    hook = comfy.hooks.WeightHook(strength_model=1.0)
    hook.weights = {"diffusion_model.mix": ("diff", (torch.full((4, 4), 0.05),))}
    hook.need_weight_init = False
    group = comfy.hooks.HookGroup()
    group.add(hook)
    return comfy.hooks.set_hooks_for_conditioning(conditioning, group)


def valued(**values):
    return lambda model, conditioning: node_helpers.conditioning_set_values(conditioning, values)


class Gligen(torch.nn.Module):
    """What the host asks of one: its patch is given to the network, which here has no place for it."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def set_position(self, shape, positions, device):
        self.asked += 1
        return lambda x, options: x

    set_empty = set_position


def with_gligen(model, conditioning):
    gligen = comfy.model_patcher.ModelPatcher(Gligen(), torch.device("cpu"), torch.device("cpu"))
    return node_helpers.conditioning_set_values(conditioning, {"gligen": ("position", gligen, [])})


# What a conditioning may carry, and whether the picture shows it: gligen has no effect on this network.
CONDITIONINGS = {
    "area": valued(area=(4, 8, 0, 0), strength=0.7),
    "percentage area": valued(area=("percentage", 0.5, 1.0, 0.5, 0.0), strength=1.0),
    "mask": valued(mask=half(), mask_strength=0.8),
    "strength": lambda model, conditioning: [
        *node_helpers.conditioning_set_values(conditioning, {"strength": 0.5}),
        *prompt(0.9),
    ],
    "time range": valued(start_percent=0.0, end_percent=0.01),
    "control": valued(control=Middle(), control_apply_to_uncond=False),
    "control for both": valued(control=Middle(), control_apply_to_uncond=True),
    "hooks": hooked,
    "gligen": with_gligen,
    "default": lambda model, conditioning: [
        *node_helpers.conditioning_set_values(conditioning, {"mask": half()}),
        *node_helpers.conditioning_set_values(prompt(0.9), {"default": True}),
    ],
    "two of them": lambda model, conditioning: [*conditioning, *prompt(0.9)],
}


def batch_function(model):
    def evaluate(args):
        out = comfy.samplers.calc_cond_batch(
            *(args[name] for name in ("model", "conds", "input", "sigma", "model_options"))
        )
        return [0.5 * value for value in out]

    model.set_model_sampler_calc_cond_batch_function(evaluate)


def pre_cfg(model):
    model.set_model_sampler_pre_cfg_function(lambda args: [0.9 * args["conds_out"][0], *args["conds_out"][1:]])


def cfg_function(model):
    model.set_model_sampler_cfg_function(lambda args: args["uncond"] + 2.0 * (args["cond"] - args["uncond"]))


def post_cfg(model):
    model.set_model_sampler_post_cfg_function(lambda args: 0.5 * args["denoised"] + 0.1 * args["cond_denoised"])


def both_always(model):
    model.set_model_sampler_post_cfg_function(
        lambda args: args["denoised"] + args["uncond_denoised"], disable_cfg1_optimization=True
    )


def network_wrapper(model):
    model.set_model_unet_function_wrapper(lambda apply, args: 0.5 * apply(args["input"], args["timestep"], **args["c"]))


def batch_wrapper(model):
    model.add_wrapper(WrappersMP.CALC_COND_BATCH, lambda executor, *args: [0.5 * out for out in executor(*args)])


def context_windows(model):
    handler = comfy.context_windows.IndexListContextHandler(
        comfy.context_windows.get_matching_context_schedule(comfy.context_windows.ContextSchedules.STATIC_STANDARD),
        comfy.context_windows.get_matching_fuse_method(comfy.context_windows.ContextFuseMethods.FLAT),
        context_length=4,
        context_overlap=1,
        dim=2,
    )
    model.model_options["context_handler"] = handler


TAKEN_OVER = (
    batch_function,
    pre_cfg,
    cfg_function,
    post_cfg,
    both_always,
    network_wrapper,
    batch_wrapper,
    context_windows,
)
