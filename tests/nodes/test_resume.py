"""A run that is cut and goes on is the uncut run, bit for bit: every solver, every step, in memory and through disk."""

import logging
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import comfy.hooks
import comfy.model_patcher
import comfy.nested_tensor
import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from comfy_extras.nodes_apg import APG
from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from comfy_extras.nodes_model_advanced import RescaleCFG
from stepwise.nodes.host import sampler as host
from stepwise.nodes.runs.files import from_bytes, to_bytes
from stepwise.samplers import Path
from stepwise.samplers.registry import SOLVERS
from toy_models import Latent4, Latent5D, MixtureNet, SmoothNet, call, prompt, toy_model

STEPS = 5


def drawn(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def hard_mask(*size):
    mask = torch.ones(1, 1, *size)
    mask[..., : size[-1] // 2] = 0.0
    return mask


def soft_mask(*size):
    return torch.linspace(0.0, 1.0, size[-1]).expand(1, 1, *size).clone()


def nested(*parts):
    return comfy.nested_tensor.NestedTensor(parts)


def rescaled(model):
    return RescaleCFG().patch(model, 0.7)[0]


def differential(model):
    return DifferentialDiffusion.execute(model).args[0]


def projected(model):
    """With momentum: what it remembers is part of the result from the second step on."""
    return APG.execute(model, eta=0.8, norm_threshold=4.0, momentum=-0.6).args[0]


def timed(prompts):
    """Prompts that act on parts of the whole schedule: which part depends on its ends, not on a cut."""
    early, late = (
        [[each[0][0], {"start_percent": a, "end_percent": b}]]
        for each, a, b in ((prompts, 0.0, 0.45), (prompt(-0.8), 0.45, 1.0))
    )
    return early + late


@dataclass
class Condition:
    """What a run is made under beside its solver."""

    latent: dict[str, Any]
    format: Any = Latent4
    channels: int = 4
    cfg: float = 3.0
    patch: Any = lambda model: model
    prompts: Any = lambda prompts: prompts
    kinds: tuple[str, ...] = ("EPS", "FLOW")
    noise: dict[str, Any] = field(default_factory=dict)
    noise_kind: str = "independent"
    module: Any = lambda kind, channels: SmoothNet(channels)


CONDITIONS = {
    "plain": Condition({"samples": torch.zeros(1, 4, 8, 8)}),
    "guidance 1": Condition({"samples": torch.zeros(1, 4, 8, 8)}, cfg=1.0),
    "batch of 3": Condition({"samples": torch.zeros(3, 4, 8, 8)}),
    "hard mask": Condition({"samples": drawn(2, 4, 8, 8), "noise_mask": hard_mask(8, 8)}),
    "soft mask": Condition({"samples": drawn(2, 4, 8, 8), "noise_mask": soft_mask(8, 8)}),
    "mask on an empty latent": Condition({"samples": torch.zeros(1, 4, 8, 8), "noise_mask": hard_mask(8, 8)}),
    "video": Condition({"samples": drawn(1, 4, 3, 8, 8), "noise_mask": hard_mask(3, 8, 8)}, Latent5D),
    "video and sound": Condition(
        {"samples": nested(drawn(2, 4, 3, 4, 4), drawn(2, 2, 10, seed=4)), "noise_mask": hard_mask(3, 4, 4)},
        channels=1,
    ),
    "rescaled guidance": Condition({"samples": torch.zeros(2, 4, 8, 8)}, patch=rescaled),
    "projected guidance with momentum": Condition({"samples": torch.zeros(2, 4, 8, 8)}, patch=projected),
    "differential diffusion": Condition(
        {"samples": drawn(1, 4, 8, 8), "noise_mask": soft_mask(8, 8)}, patch=differential
    ),
    "prompts by time": Condition({"samples": torch.zeros(1, 4, 8, 8)}, prompts=timed),
    "seeds of their own and a variation": Condition(
        {"samples": torch.zeros(3, 4, 8, 8), "batch_index": [2, 0, 1]},
        noise={"seeds": "5, 3, 2", "variation_seed": 1, "variation_strength": 0.3},
    ),
    "brownian noise": Condition({"samples": torch.zeros(2, 4, 8, 8)}, noise_kind="brownian"),
    "brownian noise, video and sound": Condition(
        {"samples": nested(drawn(1, 4, 3, 4, 4), drawn(1, 2, 10, seed=4))}, channels=1, noise_kind="brownian"
    ),
    "the model that comes with the pack": Condition(
        {"samples": drawn(2, 1, 8, 8), "noise_mask": hard_mask(8, 8)}, kinds=("DIGITS",)
    ),
    "a perfect model of a mixture": Condition(
        {"samples": torch.zeros(2, 4, 8, 8)}, module=lambda kind, channels: MixtureNet(kind, channels * 64)
    ),
    "v prediction": Condition({"samples": torch.zeros(1, 4, 8, 8)}, kinds=("V_PREDICTION", "EDM")),
}


def schedule_of(kind):
    return torch.linspace(1.0, 0.0, STEPS + 1) if kind == "FLOW" else call("StepwiseKarrasSchedule", steps=STEPS)[0]


def begun(kind, condition):
    """A guider, and what a run under `condition` begins with."""
    if kind == "DIGITS":
        model = call("StepwiseDigitsModel")[0]
        positive, negative = (call("StepwiseDigit", labels=labels)[0] for labels in ("3,7", ""))
    else:
        model = condition.patch(toy_model(kind, condition.module(kind, condition.channels), condition.format()))
        positive, negative = condition.prompts(prompt(0.4)), prompt(-0.3)
    guider = call("StepwiseCFGGuider", model=model, positive=positive, negative=negative, cfg=condition.cfg)[0]
    noise = call("StepwiseNoise", **condition.noise)[0] if condition.noise else core.RandomNoise.execute(7).args[0]
    return guider, {"noise": noise, "latent_image": condition.latent}


def components_of(samples):
    return samples.unbind() if samples.is_nested else [samples]


def same(one, other):
    pairs = zip(components_of(one["samples"]), components_of(other["samples"]), strict=True)
    return all(torch.equal(a, b) for a, b in pairs) and one.keys() == other.keys()


@pytest.fixture
def fixed_memory(monkeypatch):
    """The host groups prompts by free memory: here there is always as much."""
    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda self, device: 1 << 33)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("solver", [pytest.param(solver, id=solver.id) for solver in SOLVERS])
def test_a_run_cut_at_any_step_and_gone_on_is_the_uncut_run(solver, condition, fixed_memory, proved):
    for kind, setting in chosen(solver, condition):
        cut_everywhere(solver, setting, kind, CONDITIONS[condition], proved)


def chosen(solver, condition):
    """Which settings of a solver meet which kinds of model. Alone each meets each. Under another condition one without
    noise and one with do, each on one kind, and with the next solver and under the next condition on the other one: so
    every solver meets every condition, and both meet every kind."""

    def able(setting):
        return [kind for kind in CONDITIONS[condition].kinds if ("FLOW" if kind == "FLOW" else "VE") in setting.paths]

    if condition == "plain":
        return [(kind, setting) for setting in solver.settings for kind in able(setting)]
    firsts = {setting.noise: setting for setting in reversed(solver.settings)}
    if CONDITIONS[condition].noise_kind != "independent":
        firsts.pop(False, None)
    place = SOLVERS.index(solver) + list(CONDITIONS).index(condition)
    return [
        (kinds[(place + number) % len(kinds)], setting)
        for number, setting in enumerate(firsts.values())
        if (kinds := able(setting))
    ]


def cut_everywhere(solver, setting, kind, condition, proved):
    """A run that is cut at every step is the uncut one, and so is what goes on from a cut to the end. Under the plain
    condition the parts are run from memory, and from each cut it goes on through bytes on a new MODEL; under others
    every part begins so, and it goes on from one cut."""
    node, sigmas = f"Stepwise{solver.id}", schedule_of(kind)
    guider, inputs = begun(kind, condition)
    params = dict(setting.params) | ({"noise_kind": condition.noise_kind} if solver.stochastic else {})
    whole, denoised, _ = call(node, guider=guider, **inputs, sigmas=sigmas, **params)

    def goes_on(guider, state):
        rest, final, _ = call(node, guider=guider, state=state, **params)
        assert same(rest, whole)
        assert same(final, denoised)
        proved(1)

    state = None
    for cut in range(1, STEPS + 1):
        beginning = {**inputs, "sigmas": sigmas} if state is None else {"state": state}
        end, last, state = call(node, guider=guider, **beginning, end_step=cut, **params)
        assert state.step == cut
        other, read = begun(kind, condition)[0], from_bytes(to_bytes(state, {}))
        if condition is CONDITIONS["plain"]:
            goes_on(other, read)
        else:
            guider, state = other, read
        if cut == STEPS // 2:
            goes_on(guider, state)
    assert same(end, whole)
    assert same(last, denoised)
    proved(1)


@pytest.mark.parametrize("solver", [pytest.param(each, id=each.id) for each in SOLVERS if each.controller is None])
def test_our_sampler_goes_on_from_between_any_two_model_calls(solver, fixed_memory, monkeypatch, proved):
    """The nodes stop between steps; the Sampler object under them takes up a state from inside a step too. Adaptive
    steps have no such states: what an attempt has made so far is not kept."""
    node = f"Stepwise{solver.id}"
    for kind, path in (("EPS", Path.VE), ("FLOW", Path.FLOW)):
        guider, inputs = begun(kind, CONDITIONS["plain"])
        for setting in solver.settings:
            if path.value not in setting.paths:
                continue
            states, sigmas = [], schedule_of(kind)
            with monkeypatch.context() as patch:
                patch.setattr(host, "run", partial(host.run, watch=states.append))
                whole, _, end = call(node, guider=guider, **inputs, sigmas=sigmas, **setting.params)
            plan = host.make_plan(solver, setting.params, path, sigmas.tolist())
            assert [state.index for state in states] == list(range(1, len(plan.stages) + 1))
            for state in states[:-1]:
                held = replace(end, state=state, step=plan.stages[state.index].step)
                assert same(call(node, guider=guider, state=held, **setting.params)[0], whole)
                proved(1)


def test_a_run_leaves_the_memory_of_a_patch_as_it_found_it():
    """ComfyUI's own APG begins anew only when the noise level rises: after a run of one step it would not."""
    condition = CONDITIONS["projected guidance with momentum"]
    guider, inputs = begun("EPS", condition)
    sigmas = schedule_of("EPS")
    whole = call("StepwiseDPMpp2M", guider=guider, **inputs, sigmas=sigmas)[0]
    call("StepwiseDPMpp2M", guider=guider, **inputs, sigmas=sigmas, end_step=1)
    again = call("StepwiseDPMpp2M", guider=guider, **inputs, sigmas=sigmas)[0]
    assert same(again, whole)


def test_a_patch_that_remembers_matters_and_is_in_the_state():
    """The test above would pass too if momentum did nothing."""
    condition = CONDITIONS["projected guidance with momentum"]
    guider, inputs = begun("EPS", condition)
    _, _, state = call("StepwiseDPMpp2M", guider=guider, **inputs, sigmas=schedule_of("EPS"), end_step=2)
    assert [name.split()[-1] for name in state.patches] == ["prev_sigma", "running_avg"]
    whole = call("StepwiseDPMpp2M", guider=guider, state=state)[0]
    forgot = call("StepwiseDPMpp2M", guider=guider, state=replace(state, patches={}))[0]
    assert not same(whole, forgot)


@pytest.mark.parametrize("cache", [EasyCacheNode, LazyCacheNode])
def test_a_cache_that_cannot_be_carried_is_named_when_the_run_goes_on(cache, caplog):
    guider, inputs = begun("EPS", CONDITIONS["plain"])
    _, _, state = call("StepwiseDPMpp2M", guider=guider, **inputs, sigmas=schedule_of("EPS"), end_step=2)
    patched = Condition({}, patch=lambda model: cache.execute(model, 0.2, 0.15, 0.95, False).args[0])
    with caplog.at_level(logging.WARNING):
        call("StepwiseDPMpp2M", guider=guider, state=state)
        assert "begins anew in every part" not in caplog.text
        call("StepwiseDPMpp2M", guider=begun("EPS", patched)[0], state=state)
    assert (
        f"{cache.__name__.removesuffix('Node')} on this model or its prompts begins anew in every part" in caplog.text
    )


def test_a_hook_that_counts_steps_is_named_when_the_run_goes_on(caplog):
    hooks = comfy.hooks.create_hook_lora({}, 1.0, 1.0)
    hooks.hooks[0].hook_keyframe.add(comfy.hooks.HookKeyframe(1.0, guarantee_steps=3))

    def hooked(prompts):
        return [[prompts[0][0], {"hooks": hooks}]]

    guider, inputs = begun("EPS", Condition(CONDITIONS["plain"].latent, prompts=hooked))
    _, _, state = call("StepwiseDPMpp2M", guider=guider, **inputs, sigmas=schedule_of("EPS"), end_step=2)
    with caplog.at_level(logging.WARNING):
        call("StepwiseDPMpp2M", guider=guider, state=state)
    assert "a hook whose keyframes have guarantee_steps on this model or its prompts begins anew" in caplog.text


def test_memory_that_cannot_be_read_is_named(caplog):
    """A patch of another pack that remembers an object of its own."""
    remembers = object()

    def patch(args):
        nonlocal remembers
        remembers = object()
        return args["denoised"]

    def patched(model):
        model = model.clone()
        model.set_model_sampler_post_cfg_function(patch)
        return model

    guider, inputs = begun("EPS", Condition(CONDITIONS["plain"].latent, patch=patched))
    with caplog.at_level(logging.WARNING):
        call("StepwiseDPMpp2M", guider=guider, **inputs, sigmas=schedule_of("EPS"))
    assert "patch remembers cannot be carried in a state" in caplog.text


def test_memory_that_becomes_unreadable_is_left_out():
    """Text at first, an object later: the run goes on, and its state can be written."""
    remembers = ""

    def patch(args):
        nonlocal remembers
        remembers = object()
        return args["denoised"]

    def patched(model):
        model = model.clone()
        model.set_model_sampler_post_cfg_function(patch)
        return model

    guider, inputs = begun("EPS", Condition(CONDITIONS["plain"].latent, patch=patched))
    state = call("StepwiseDPMpp2M", guider=guider, **inputs, sigmas=schedule_of("EPS"), end_step=2)[2]
    assert from_bytes(to_bytes(state, {})).patches == {}
    assert remembers == ""


@pytest.mark.parametrize(("kind", "sigma"), [("EPS", 1.0), ("EPS", 8.0), ("FLOW", 0.3), ("FLOW", 0.9)])
def test_the_perfect_model_of_a_mixture_is_one(kind, sigma):
    """Through the host it predicts what the mixture's own formula does, shifted by the prompt."""
    module = MixtureNet(kind, 256)
    model = toy_model(kind, module, Latent4())
    sampling = model.get_model_object("model_sampling")
    level = (
        sampling.sigma(sampling.timestep(torch.tensor([sigma]))).expand(2) if kind == "EPS" else torch.full((2,), sigma)
    )
    x, context = drawn(2, 4, 8, 8), torch.full((2, 4, 8), 0.4)
    found = model.model.apply_model(x, level, c_crossattn=context)
    alpha = module.path.alpha(float(level[0]))
    exact = module.data.denoised(module.path, x.double() - alpha * 0.4, float(level[0])) + 0.4
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)
