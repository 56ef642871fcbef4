"""Our GUIDER beside the host's: the same predictions, from the lean path where conditioning is plain and from the
host's own wherever it is not."""

import inspect
import re

import comfy.context_windows
import comfy.controlnet
import comfy.hooks
import comfy.model_patcher
import comfy.samplers
import node_helpers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from stepwise.nodes import lean
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


@pytest.fixture
def lean_calls(monkeypatch):
    """How many model calls took the lean path."""
    calls, inner = [], lean.Prepared.called
    monkeypatch.setattr(lean.Prepared, "called", lambda self, *args: (calls.append(1), inner(self, *args))[1])
    return calls


@pytest.mark.parametrize("cfg", [7.0, 1.0, 0.5])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "EDM", "FLOW", "FLUX"])
def test_the_lean_path_predicts_what_the_host_does(kind, shape, cfg, lean_calls, differences):
    model = model_of(kind, len(SHAPES[shape]) - 2)
    ours, host = guiders(model, prompt(0.4), prompt(-0.3), cfg)
    theirs = predicted(host, SHAPES[shape])
    assert not lean_calls
    found = predicted(ours, SHAPES[shape])
    assert len(lean_calls) == 1
    off = largest(found, theirs)
    differences("ComfyUI's CFGGuider, one call", off)
    assert off < 1e-6


def watched(model, guider, shape=(2, 4, 8, 8)):
    seen = model.model.diffusion_model.seen
    seen.clear()
    predicted(guider, shape)
    return list(seen)


@pytest.mark.parametrize("memory", ["plenty", "for one"])
@pytest.mark.parametrize("tokens", [(4, 4), (4, 12), (4, 6), (4, 20)], ids=str)
@pytest.mark.parametrize("cfg", [7.0, 1.0])
def test_the_model_is_called_as_the_host_calls_it(cfg, tokens, memory, monkeypatch):
    """The same batches in the same order: equal lengths, lengths that the host repeats, lengths it does not, and too
    little memory for two."""
    model = model_of()
    monkeypatch.setattr(model.model, "memory_required", lambda shape, **_: 1.0 if shape[0] <= 2 else 1e30)
    if memory == "plenty":
        monkeypatch.setattr(model.model, "memory_required", lambda shape, **_: 1.0)
    prompts = [
        [[torch.randn(1, n, 8, generator=torch.Generator().manual_seed(n + i)), {}]] for i, n in enumerate(tokens)
    ]
    ours, host = guiders(model, *prompts, cfg)
    for key, conds in host.original_conds.items():
        for cond, other in zip(conds, ours.original_conds[key], strict=True):
            other["uuid"] = cond["uuid"]
    theirs, found = watched(model, host), watched(model, ours)
    assert len(found) == len(theirs) == (1 if cfg == 1.0 or (memory == "plenty" and tokens[1] != 20) else 2)
    for (x, t, context, options), (x_h, t_h, context_h, options_h) in zip(found, theirs, strict=True):
        assert options[:2] == options_h[:2]
        for one, other in ((x, x_h), (t, t_h), (context, context_h), (options[2], options_h[2])):
            assert torch.equal(one, other)


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


@pytest.mark.parametrize("cfg", [7.0, 1.0])
@pytest.mark.parametrize("feature", CONDITIONINGS)
def test_special_conditioning_goes_the_hosts_way(feature, cfg, lean_calls):
    model = model_of()
    plain, _ = guiders(model, prompt(0.4), prompt(-0.3), cfg)
    without = predicted(plain)
    lean_calls.clear()
    special = CONDITIONINGS[feature](model, prompt(0.4))
    ours, host = guiders(model, special, prompt(-0.3), cfg)
    found = predicted(ours)
    assert torch.equal(found, predicted(host))
    assert not lean_calls
    if feature != "gligen":
        assert largest(found, without) > 1e-3


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


@pytest.mark.parametrize("cfg", [7.0, 1.0])
@pytest.mark.parametrize("feature", TAKEN_OVER, ids=lambda feature: feature.__name__)
def test_what_takes_over_the_hosts_evaluation_gets_it(feature, cfg, lean_calls):
    model = model_of()
    plain, _ = guiders(model, prompt(0.4), prompt(-0.3), cfg)
    without = predicted(plain)
    lean_calls.clear()
    patched = model.clone()
    feature(patched)
    ours, host = guiders(patched, prompt(0.4), prompt(-0.3), cfg)
    found = predicted(ours)
    assert torch.equal(found, predicted(host))
    assert not lean_calls
    if feature is not context_windows:
        assert largest(found, without) > 1e-3


def apply_wrapper(executor, x, *args, **kwargs):
    x *= 1.1
    return executor(x, *args, **kwargs)


def network_input_wrapper(executor, x, *args, **kwargs):
    x += 0.1
    return executor(x, *args, **kwargs)


def guidance_wrapper(executor, *args, **kwargs):
    executor.class_obj.cfg = 2.0
    return executor(*args, **kwargs)


@pytest.mark.parametrize("shape", ["one", "batch"])
@pytest.mark.parametrize("kind", ["EPS", "FLUX"])
@pytest.mark.parametrize(
    ("where", "wrapper"),
    [
        (WrappersMP.APPLY_MODEL, apply_wrapper),
        (WrappersMP.DIFFUSION_MODEL, network_input_wrapper),
        (WrappersMP.PREDICT_NOISE, guidance_wrapper),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_wrappers_run_on_the_lean_path_and_may_write_to_their_input(where, wrapper, kind, shape, lean_calls):
    model = model_of(kind)
    without = predicted(guiders(model, prompt(0.4), prompt(-0.3), 7.0)[0], SHAPES[shape])
    lean_calls.clear()
    patched = model.clone()
    patched.add_wrapper(where, wrapper)
    ours, host = guiders(patched, prompt(0.4), prompt(-0.3), 7.0)
    found = predicted(ours, SHAPES[shape])
    assert len(lean_calls) == 1
    assert largest(found, predicted(host, SHAPES[shape])) < 1e-6
    if where != WrappersMP.DIFFUSION_MODEL:
        assert largest(found, without) > 1e-3


def test_the_lists_of_what_is_special_are_the_hosts():
    """Every key of a conditioning and of the model options that the host's evaluation reads is known here: this fails
    when a new version of the host reads another one."""
    evaluation = [
        comfy.samplers.get_area_and_mult,
        comfy.samplers._calc_cond_batch,
        comfy.samplers._calc_cond_batch_outer,
        comfy.samplers.calc_cond_batch,
        comfy.samplers.finalize_default_conds,
        comfy.samplers.sampling_function,
        comfy.samplers.cfg_function,
    ]
    text = "\n".join(map(inspect.getsource, evaluation))
    conds = set(re.findall(r"""\bconds(?:\.get\(|\[)["'](\w+)["']""", text))
    conds |= set(re.findall(r"""["'](\w+)["'] (?:not )?in (?:conds|x)\b""", text))
    assert conds - {"mask_strength", "model_conds", "uuid"} == lean.SPECIAL
    options = set(re.findall(r"""\bmodel_options(?:\.get\(|\[)["'](\w+)["']""", text))
    options |= set(re.findall(r"""["'](\w+)["'] in model_options""", text))
    known = {"transformer_options", "disable_cfg1_optimization", *lean.CFG_PATCHES, *lean.TAKEN_OVER}
    assert options == known
