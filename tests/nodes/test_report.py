"""The report on ComfyUI's own samplers, run by its guider on its models: what is known to be wrong there shows."""

import json
from functools import cache
from itertools import pairwise

import comfy.samplers
import pytest
import torch
from stepwise.nodes.host.exact import HostSampler
from stepwise.nodes.report import name_of
from stepwise.samplers import FLOW, VE
from stepwise.samplers.exact import findings
from stepwise.samplers.exact.report import ERROR, RIGHT, WRONG
from toy_models import call


def core(name):
    return HostSampler(comfy.samplers.sampler_object(name))


@cache
def points(name, path):
    return [findings.error_of(core(name), path, steps) for steps in findings.COUNTS]


@pytest.mark.parametrize("path", [VE, FLOW])
def test_heunpp2_is_of_order_1_at_three_calls(path):
    found = points("heunpp2", path)
    assert findings.order_of(found) == pytest.approx(1.0, abs=0.1)
    assert findings.calls_a_step(found) == 3.0


def test_uni_pc_is_of_order_2_and_writes_into_its_callers_sigmas():
    assert findings.order_of(points("uni_pc", VE)) == pytest.approx(2.0, abs=0.35)
    assert findings.writes(core("uni_pc"), VE) == [findings.STEPS]
    assert findings.writes(core("euler"), VE) == []


def test_ipndm_v_is_of_a_lower_order_than_four():
    assert findings.order_of(points("ipndm_v", VE)) < 2.0


def test_res_multistep_ancestral_has_another_noise_level_on_flow_models():
    assert findings.level_off(core("res_multistep_ancestral"), FLOW) > 0.1
    assert abs(findings.level_off(core("res_multistep_ancestral"), VE)) < findings.BY_CHANCE


def test_a_batch_changes_the_noise_of_ancestral_samplers_and_not_of_ours():
    assert findings.alone_apart(core("euler_ancestral"), VE) > 0.1
    (ours,) = call("StepwiseEulerAncestralSampler")
    assert findings.alone_apart(HostSampler(ours), VE) == 0.0


@pytest.mark.parametrize("path", [VE, FLOW])
def test_the_hosts_model_is_as_exact_as_the_formula(path):
    """ComfyUI's own Euler on the model, and Euler's step written down here, on the formula in float64."""
    from stepwise.samplers.exact.problems import BOTTOM, MIXTURE, TOP, grid, positions, row, started

    x, _ = started(path)
    sigmas, denoiser = grid(path, 20), positions(MIXTURE, path)
    noise, latent = findings.start_of(x, path, TOP[path])
    made = core("euler")(path, denoiser, noise, latent, row(sigmas), 0) * path.alpha(BOTTOM)
    for s, t in pairwise(sigmas):
        x = x + (x - denoiser(x, s)) * (t - s) / s
    torch.testing.assert_close(made.double(), x, rtol=1e-5, atol=1e-5)


def test_the_global_generator_is_left_as_it_was():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    findings.again_apart(core("euler_ancestral"), VE)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_node_reports_on_our_sampler():
    (sampler,) = call("StepwiseDPMpp2MSampler")
    text, plot, data = call("StepwiseSamplerReport", sampler=sampler, families="VE", width=512, height=384)
    assert text.startswith("DPM++ 2M: nothing of")
    assert plot.shape == (1, 384, 512, 3)
    assert 0.0 <= plot.min() < plot.max() <= 1.0
    read = json.loads(data)
    found = {each["what"]: each for each in read["findings"]}
    assert found["order"]["values"] == pytest.approx(2.0, abs=0.15)
    assert found["alone is in a batch"]["verdict"] == RIGHT
    assert [each["steps"] for each in read["errors"]["VE"]] == list(findings.COUNTS)


def test_the_node_reports_the_error_of_a_sampler_that_raises():
    def sample_broken(model, x, sigmas, extra_args=None, callback=None, disable=None):
        raise RuntimeError("no GPU <b>today</b>")

    text, plot, data = call("StepwiseSamplerReport", sampler=comfy.samplers.KSAMPLER(sample_broken), families="FLOW")
    assert text.startswith("broken: ")
    assert text.count("RuntimeError: no GPU <b>today</b>") >= 7
    assert {each["verdict"] for each in json.loads(data)["findings"]} <= {ERROR, WRONG, ""}
    assert plot.shape[0] == 1


def test_names_of_samplers():
    assert name_of(comfy.samplers.sampler_object("dpmpp_2m")) == "dpmpp_2m"
    assert name_of(comfy.samplers.sampler_object("dpm_fast")) == "dpm_fast"
    assert name_of(call("StepwiseUniPCSampler")[0]) == "UniPC"
