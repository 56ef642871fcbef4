"""Patches and guiders of others that remember, in every way that plain Python has: carried, or named, and never both
forgotten and kept quiet about."""

import functools
import logging
import time
from collections import deque
from dataclasses import dataclass, replace
from types import SimpleNamespace

import comfy.samplers
import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from comfy_extras.nodes_apg import APG
from comfy_extras.nodes_mahiro import Mahiro
from comfy_extras.nodes_model_advanced import RescaleCFG
from comfy_extras.nodes_tomesd import TomePatchModel
from stepwise.nodes.host.looking import MOST_OBJECTS, Walk, is_leaf
from stepwise.nodes.host.patch_memory import OF_THE_HOST, PatchMemory
from stepwise.nodes.runs.files import from_bytes, to_bytes
from stepwise.samplers import checkpoint
from toy_models import call, prompt, toy_model

STEPS = 5


def moved(memory, x):
    """A running average, and what comes of it: any patch with momentum."""
    now = x if memory is None else 0.6 * memory + 0.4 * x
    return now, x + 0.3 * (x - now)


# Ways to remember: each makes a function of the prediction, with a memory of its own.


def variable():
    last = None

    def patch(x):
        nonlocal last
        last, x = moved(last, x)
        return x

    return patch


def variable_that_is_empty_at_first():
    def patch(x):
        nonlocal last
        try:
            last, x = moved(last, x)
        except NameError:
            last = x
        return x

    if STEPS < 0:
        last = None
    return patch


def list_in_a_closure():
    seen = []

    def patch(x):
        now, x = moved(seen[-1] if seen else None, x)
        seen[:] = [*seen[-1:], now]
        return x

    return patch


def list_that_loses_an_item():
    """One for each model call; after the run it holds them all again."""
    left = [0.5, 0.6, 0.7, 0.8, 0.9]

    def patch(x):
        return x * (left.pop() if left else 0.4)

    return patch


def deque_in_a_closure():
    seen = deque(maxlen=2)

    def patch(x):
        now, x = moved(seen[-1] if seen else None, x)
        seen.append(now)
        return x

    return patch


def dictionary_in_a_closure():
    memory = {"count": 0}

    def patch(x):
        memory["count"] += 1
        memory["average"], x = moved(memory.get("average"), x)
        return x * (1.0 + 0.01 * memory["count"])

    return patch


def dictionary_that_loses_a_key():
    memory = {"first": True}

    def patch(x):
        first = memory.pop("first", False)
        return x if first else 0.7 * x

    return patch


def dictionary_by_numbers():
    memory = {0: {"average": None}, 1: None}

    def patch(x):
        for key in memory:
            inner = memory[key] or {"average": None}
            inner["average"], x = moved(inner["average"], x)
            memory[key] = {"average": inner["average"], (key, "size"): x.shape, "levels": {1, 2}}
        return x

    return patch


class Remembering:
    def __init__(self):
        self.average, self.steps = None, 0

    def __call__(self, x):
        self.average, x = moved(self.average, x)
        self.steps += 1
        return x * (1.0 + 0.01 * self.steps)

    @property
    def untouchable(self):
        raise AssertionError("a property was read")


class Slotted:
    __slots__ = ("average", "never")

    def __call__(self, x):
        self.average, x = moved(getattr(self, "average", None), x)
        return x


def method_of_an_object():
    return Remembering().__call__


def object_behind_a_partial():
    owner = Remembering()
    return functools.partial(lambda owner, x: owner(x), owner)


def object_within_a_lambda():
    holder = SimpleNamespace(inside=[(Remembering(),)])
    return lambda x: holder.inside[0][0](x)


def attributes_of_a_function():
    def patch(x):
        patch.average, x = moved(getattr(patch, "average", None), x)
        return x

    return patch


def default_argument():
    def patch(x, memory={}):  # noqa: B006
        memory["average"], x = moved(memory.get("average"), x)
        return x

    return patch


def default_of_a_keyword():
    def patch(x, *, memory={}):  # noqa: B006
        memory["average"], x = moved(memory.get("average"), x)
        return x

    return patch


def written_into():
    average, count = torch.zeros(1, 4, 8, 8), torch.zeros(())

    def patch(x):
        average.mul_(0.6).add_(x, alpha=0.4)
        count.add_(1)
        return x + 0.3 * (x - average) * count

    return patch


def numbers_of_numpy():
    import numpy

    memory = {"average": numpy.float64(0.0)}

    def patch(x):
        memory["average"] = memory["average"] * 0.5 + numpy.float64(1.0)
        return x * float(1.0 - 0.05 * memory["average"])

    return patch


WAYS = [
    variable,
    variable_that_is_empty_at_first,
    list_in_a_closure,
    list_that_loses_an_item,
    deque_in_a_closure,
    dictionary_in_a_closure,
    dictionary_that_loses_a_key,
    dictionary_by_numbers,
    Remembering,
    Slotted,
    method_of_an_object,
    object_behind_a_partial,
    object_within_a_lambda,
    attributes_of_a_function,
    default_argument,
    default_of_a_keyword,
    written_into,
    numbers_of_numpy,
]


def guided(model, cfg=3.0):
    return call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=cfg)[0]


def after_guidance(patch):
    model = toy_model()
    model.set_model_sampler_post_cfg_function(lambda args: patch(args["denoised"]))
    return guided(model)


class TeaCache:
    """As the pack of that name: two of three calls answer with the last residual."""

    def __init__(self):
        self.calls, self.residual, self.distance = 0, {}, 0.0

    def __call__(self, apply_model, args):
        x, kind = args["input"], len(args["cond_or_uncond"])
        self.calls += 1
        self.distance += float(self.calls) / 7
        if self.calls % 3 != 1 and kind in self.residual:
            return x + self.residual[kind]
        out = apply_model(x, args["timestep"], **args["c"])
        self.residual[kind] = out - x
        return out


def as_wrapper():
    model = toy_model()
    model.set_model_unet_function_wrapper(TeaCache())
    return guided(model)


def as_wrapper_of_another_model():
    other = toy_model()
    other.set_model_unet_function_wrapper(TeaCache())
    positive = call("StepwisePrediction", conditioning=prompt(0.4))[0]
    negative = call("StepwisePrediction", conditioning=prompt(-0.3), model=other)[0]
    expression = call("StepwiseCFGCombine", positive=positive, negative=negative, scale=3.0)[0]
    return call("StepwiseGuider", model=toy_model(), prediction=expression)[0]


class ForeignGuider(comfy.samplers.CFGGuider):
    """Guidance with momentum, kept on the guider itself."""

    def __init__(self, model):
        super().__init__(model)
        self.average, self.history, self.cache = None, [], {}

    def predict_noise(self, *args, **kwargs):
        found = super().predict_noise(*args, **kwargs)
        self.average, found = moved(self.average, found)
        self.history = [*self.history[-1:], float(len(self.history))]
        self.cache["last"] = found
        return found


def foreign_guider():
    guider = ForeignGuider(toy_model())
    guider.set_conds(prompt(0.4), prompt(-0.3))
    guider.set_cfg(3.0)
    return guider


GUIDERS = {way.__name__: functools.partial(lambda way: after_guidance(way()), way) for way in WAYS}
GUIDERS |= {"model_function_wrapper": as_wrapper, "a guider of another pack": foreign_guider}
GUIDERS |= {"the same of another model": as_wrapper_of_another_model}

# Their memory is a collection that only grows: what is in it stays, as under the host's sampler.
GROWS = {
    "list_in_a_closure",
    "deque_in_a_closure",
    "attributes_of_a_function",
    "default_argument",
    "default_of_a_keyword",
}


def sigmas_of():
    return call("StepwiseKarrasSchedule", steps=STEPS)[0]


def run(guider, solver="DPMpp2M", **params):
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    inputs = {"noise": core.RandomNoise.execute(7).args[0], "latent_image": latent, "sigmas": sigmas_of()}
    return call(f"Stepwise{solver}", guider=guider, **({} if "state" in params else inputs), **params)


@pytest.mark.parametrize("inference", [True, False], ids=["as the host runs nodes", "outside of it"])
@pytest.mark.parametrize("way", GUIDERS)
def test_a_run_cut_anywhere_under_a_patch_that_remembers_is_the_uncut_run(way, inference, caplog, proved):
    """Bit for bit, through bytes, on patches made anew and on the same ones; nothing is named."""
    make = GUIDERS[way]
    with torch.inference_mode(inference), caplog.at_level(logging.WARNING):
        whole = run(make())[0]["samples"]
        for cut in range(1, STEPS) if inference else [2]:
            guider = make()
            state = from_bytes(to_bytes(run(guider, end_step=cut)[2], {}))
            assert state.patches
            assert torch.equal(run(make(), state=state)[0]["samples"], whole), f"cut at {cut}"
            assert torch.equal(run(guider, state=state)[0]["samples"], whole), f"cut at {cut}"
            proved(2)
        state = run(make(), end_step=2)[2]
        assert not torch.equal(run(make(), state=replace(state, patches={}))[0]["samples"], whole)
    assert "cannot be carried" not in caplog.text
    assert state.forgotten == ()


@pytest.mark.parametrize("way", [way for way in GUIDERS if way not in GROWS])
def test_a_run_leaves_no_trace(way):
    guider = GUIDERS[way]()
    whole = run(guider)[0]["samples"]
    run(guider, end_step=2)
    assert torch.equal(run(guider)[0]["samples"], whole)


@pytest.mark.parametrize("collection", [list, dict])
def test_what_a_patch_collects_is_there_after_the_run_as_under_the_hosts_sampler(collection):
    """Packs that draw attention maps or traces read it then."""
    seen = collection()

    def patch(x):
        if collection is list:
            seen.append(float(x.mean()))
        else:
            seen[len(seen)] = float(x.mean())
        return x

    run(after_guidance(patch))
    assert len(seen) == STEPS


@pytest.mark.parametrize("way", ["written_into", "list_in_a_closure"])
def test_a_state_that_somebody_holds_is_never_written_into(way):
    state = run(GUIDERS[way](), end_step=2)[2]
    before = to_bytes(state, {})
    first = run(GUIDERS[way](), state=state)[0]["samples"]
    assert checkpoint.marks_of(to_bytes(state, {}))["digest"] == checkpoint.marks_of(before)["digest"]
    assert torch.equal(run(GUIDERS[way](), state=state)[0]["samples"], first)


def test_without_a_pack_that_remembers_nothing_is_carried_or_named(caplog):
    """Core's own patches without memory, its guiders, and ToMe, which keeps a function made anew in each call."""
    patches = (
        lambda model: TomePatchModel.execute(model, 0.3).args[0],
        lambda model: RescaleCFG().patch(model, 0.7)[0],
        lambda model: Mahiro.execute(model).args[0],
    )
    with caplog.at_level(logging.WARNING):
        for patch in patches:
            state = run(guided(patch(toy_model())), end_step=3)[2]
            assert (state.patches, state.forgotten) == ({}, ())
        basic = core.BasicGuider.execute(toy_model(), prompt(0.4)).args[0]
        dual = core.DualCFGGuider.execute(toy_model(), prompt(0.4), prompt(0.1), prompt(-0.3), 3.0, 2.0, "regular")
        for guider in (basic, dual.args[0]):
            state = run(guider, end_step=3)[2]
            assert (state.patches, state.forgotten) == ({}, ())
    assert "cannot be carried" not in caplog.text


def test_a_function_made_anew_in_each_call_is_not_named(caplog):
    """The way of ToMe, on a network that has no attention: the merging function is kept for the unmerging one."""
    unmerge = None

    def patch(x):
        nonlocal unmerge
        factor = x.new_tensor(0.5)

        def unmerge(value):
            return value * factor

        return unmerge(2.0 * x)

    with caplog.at_level(logging.WARNING):
        state = run(after_guidance(patch), end_step=3)[2]
    assert (state.patches, state.forgotten) == ({}, ())
    assert "cannot be carried" not in caplog.text


def large():
    memory = {"cache": None}

    def patch(x):
        memory["cache"] = x.new_zeros(9, *x.shape[1:])
        return x

    return patch


def an_object():
    owner = SimpleNamespace(cache=None)

    def patch(x):
        owner.cache = object()
        return x

    return patch


def large_and_written_into():
    buffer = torch.zeros(9, 4, 8, 8)

    def patch(x):
        buffer.add_(1.0)
        return x

    return patch


@pytest.mark.parametrize("way", [large, an_object, large_and_written_into])
def test_what_cannot_be_carried_is_named_once_in_the_log_and_in_the_state(way, caplog):
    with caplog.at_level(logging.WARNING):
        state = run(after_guidance(way()), autosave_every=0, end_step=4)[2]
    lines = [record.getMessage() for record in caplog.records if "cannot be carried in a state" in record.getMessage()]
    assert len(lines) == 1
    assert len(state.forgotten) == 1
    assert state.forgotten[0] in lines[0]
    (text, _) = call("StepwiseInspectState", state=from_bytes(to_bytes(state, {})))
    assert f"not carried: {state.forgotten[0]}" in text.splitlines()


def test_eight_latents_are_carried(caplog):
    def exactly():
        memory = {"cache": None}

        def patch(x):
            memory["cache"] = x.expand(8, -1, -1, -1).clone()
            return x

        return patch

    state = run(after_guidance(exactly()), end_step=2)[2]
    ((_, cache),) = next(iter(state.patches.values()))["now"]
    assert cache.shape == (8, 4, 8, 8)
    assert state.forgotten == ()


def test_cells_of_0_1_0_are_found_by_their_names():
    """What version 0.1.0 called the variables of ComfyUI's APG, value by name."""
    model = APG.execute(toy_model(), eta=0.8, norm_threshold=4.0, momentum=-0.6).args[0]
    state = run(guided(model), end_step=2)[2]
    assert set(state.patches) == {
        "sampler_pre_cfg_function.0 APG.execute.<locals>.pre_cfg_function prev_sigma",
        "sampler_pre_cfg_function.0 APG.execute.<locals>.pre_cfg_function running_avg",
    }
    assert all(isinstance(value, torch.Tensor) for value in state.patches.values())


def test_the_host_sets_on_its_guider_what_is_passed_over_there():
    """What a foreign guider is looked at for leaves out the host's part, and that is all of the host's part."""
    seen = set()

    class Spy(comfy.samplers.CFGGuider):
        def predict_noise(self, *args, **kwargs):
            seen.update(vars(self))
            return super().predict_noise(*args, **kwargs)

    guider = Spy(toy_model())
    guider.set_conds(prompt(0.4), prompt(-0.3))
    run(guider, end_step=1)
    assert seen <= OF_THE_HOST


@dataclass
class Chained:
    next: object = None


def test_the_walk_is_bounded_and_ends(note, caplog):
    """Rings, deep chains and broad containers: no recursion, each object once, and no more than so many."""
    ring = {"a": []}
    ring["a"].append(ring)
    walk = Walk()
    assert len(list(walk.places(ring))) == 2
    assert walk.complete
    hurried = Walk(seconds=-1.0)
    assert not list(hurried.places(ring))
    assert not hurried.complete
    chain, broad = None, [[] for _ in range(2 * MOST_OBJECTS)]
    for _ in range(2 * MOST_OBJECTS):
        chain = Chained(chain)
    for patch in (broad, chain):
        began = time.process_time()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            memory = PatchMemory({"sampler_post_cfg_function": [patch]})
            memory.now()
        took = time.process_time() - began
        assert memory.objects <= MOST_OBJECTS
        assert len(memory.forgotten) == 1
        assert "objects of the patches cannot be carried" in caplog.text
        note(f"memory of patches: {memory.objects} objects looked at twice in {1000 * took:.0f} ms")
        assert took < 2.0


def test_a_plain_run_looks_at_little_and_never_at_the_network(note):
    """An object of the model's own, or a prompt, would be thousands."""
    model = APG.execute(toy_model(), eta=0.8, norm_threshold=4.0, momentum=-0.6).args[0]
    model.model_options["transformer_options"]["owner"] = {
        "model": model,
        "network": model.model,
        "prompt": prompt(1.0),
    }
    memory = PatchMemory(model.model_options)
    note(f"memory of patches: {memory.objects} objects within reach of ComfyUI's APG")
    assert memory.objects < 60


def test_prompts_are_known_as_nodes_hand_them_on_and_as_guiders_keep_them():
    """Nothing is looked for in them; what only looks like them is entered."""
    tensor = torch.zeros(1)
    for one in ([tensor, {}], (tensor, {}), [None, {}], {"model_conds": {}}):
        assert is_leaf([one])
    for other in ([tensor, tensor], ["text", {}], [tensor, {}, {}], [tensor], {}, tensor):
        assert not is_leaf([other])
    assert not is_leaf([])
    assert not is_leaf([[tensor, {}], tensor])
