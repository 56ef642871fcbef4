"""Our GUIDER beside the host's: the same predictions, from the plain path where conditioning is plain and from the
host's own wherever it is not."""

import inspect
import re

import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_custom_sampler import BasicGuider
from guided_models import CONDITIONINGS, SHAPES, TAKEN_OVER, context_windows, guiders, largest, model_of, predicted
from stepwise.nodes.host import plain_calls
from toy_models import call, prompt, refused


@pytest.fixture
def plain_path_calls(monkeypatch):
    """How many model calls took the plain path."""
    calls, inner = [], plain_calls.Prepared.called
    monkeypatch.setattr(plain_calls.Prepared, "called", lambda self, *args: (calls.append(1), inner(self, *args))[1])
    return calls


@pytest.mark.parametrize("cfg", [7.0, 1.0, 0.5])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "EDM", "FLOW", "FLUX"])
def test_the_plain_path_predicts_what_the_host_does(kind, shape, cfg, plain_path_calls, differences):
    model = model_of(kind, len(SHAPES[shape]) - 2)
    ours, host = guiders(model, prompt(0.4), prompt(-0.3), cfg)
    theirs = predicted(host, SHAPES[shape])
    assert not plain_path_calls
    found = predicted(ours, SHAPES[shape])
    assert len(plain_path_calls) == 1
    off = largest(found, theirs)
    differences("ComfyUI's CFGGuider, one call", off)
    assert off < 1e-6


@pytest.mark.parametrize("feature", [None, "area", "mask"])
def test_one_conditioning_on_both_sides_is_the_hosts_too(feature):
    model = model_of()
    both = prompt(0.4) if feature is None else CONDITIONINGS[feature](model, prompt(0.4))
    ours, host = guiders(model, both, both, 7.0)
    assert largest(predicted(ours), predicted(host)) < 1e-6


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


@pytest.mark.parametrize("cfg", [7.0, 1.0])
@pytest.mark.parametrize("feature", CONDITIONINGS)
def test_special_conditioning_goes_the_hosts_way(feature, cfg, plain_path_calls):
    model = model_of()
    plain, _ = guiders(model, prompt(0.4), prompt(-0.3), cfg)
    without = predicted(plain)
    plain_path_calls.clear()
    special = CONDITIONINGS[feature](model, prompt(0.4))
    ours, host = guiders(model, special, prompt(-0.3), cfg)
    found = predicted(ours)
    assert torch.equal(found, predicted(host))
    assert not plain_path_calls
    if feature != "gligen":
        assert largest(found, without) > 1e-3


@pytest.mark.parametrize("cfg", [7.0, 1.0])
@pytest.mark.parametrize("feature", TAKEN_OVER, ids=lambda feature: feature.__name__)
def test_what_takes_over_the_hosts_evaluation_gets_it(feature, cfg, plain_path_calls):
    model = model_of()
    plain, _ = guiders(model, prompt(0.4), prompt(-0.3), cfg)
    without = predicted(plain)
    plain_path_calls.clear()
    patched = model.clone()
    feature(patched)
    ours, host = guiders(patched, prompt(0.4), prompt(-0.3), cfg)
    found = predicted(ours)
    assert torch.equal(found, predicted(host))
    assert not plain_path_calls
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
def test_wrappers_run_on_the_lean_path_and_may_write_to_their_input(where, wrapper, kind, shape, plain_path_calls):
    model = model_of(kind)
    without = predicted(guiders(model, prompt(0.4), prompt(-0.3), 7.0)[0], SHAPES[shape])
    plain_path_calls.clear()
    patched = model.clone()
    patched.add_wrapper(where, wrapper)
    ours, host = guiders(patched, prompt(0.4), prompt(-0.3), 7.0)
    found = predicted(ours, SHAPES[shape])
    assert len(plain_path_calls) == 1
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
    assert conds - {"mask_strength", "model_conds", "uuid"} == plain_calls.SPECIAL
    options = set(re.findall(r"""\bmodel_options(?:\.get\(|\[)["'](\w+)["']""", text))
    options |= set(re.findall(r"""["'](\w+)["'] in model_options""", text))
    known = {"transformer_options", "disable_cfg1_optimization", *plain_calls.CFG_PATCHES, *plain_calls.TAKEN_OVER}
    assert options == known


# One prompt


def test_without_a_negative_prompt_the_positive_is_all_and_cores_basic_guider_agrees():
    """On the plain path and, with a condition that only the host evaluates, on its own."""
    for positive in (prompt(0.4), CONDITIONINGS["area"](model_of(), prompt(0.4))):
        model = model_of()
        (ours,) = call("StepwiseCFGGuider", model=model, positive=positive, cfg=1.0)
        theirs = BasicGuider.execute(model, positive).args[0]
        assert largest(predicted(ours), predicted(theirs)) < 1e-6
        assert len(watched(model, ours)) == len(watched(model, theirs)) == 1


def test_without_a_negative_prompt_a_scale_or_a_rule_is_refused_with_the_cure():
    message = refused("StepwiseCFGGuider", model=model_of(), positive=prompt(0.4), cfg=7.0)
    assert message == (
        "CFG Guider (Stepwise): cfg is 7, and there is no negative prompt to guide away from. Set it to 1, or wire "
        "what the picture should not be, or an empty prompt, into negative."
    )
    (rule,) = call("StepwiseIntervalGuidance")
    message = refused("StepwiseCFGGuider", model=model_of(), positive=prompt(0.4), cfg=1.0, rule=rule)
    assert message.startswith("CFG Guider (Stepwise): rule changes guidance, and there is no negative prompt")
