"""The same seed gives the same picture as the host's own samplers."""

import comfy.samplers
import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from toy_models import Latent5D, call, prompt, toy_model

import nodes as host_nodes

STEPS = 12


def schedule(model):
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)


def core_picture(sampler_name, model, cfg, sigmas, latent, seed=7):
    guider = core.CFGGuider.execute(model, prompt(0.4), prompt(-0.3), cfg).args[0]
    noise = core.RandomNoise.execute(seed).args[0]
    sampler = core.KSamplerSelect.execute(sampler_name).args[0]
    return core.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent).args


def our_inputs(model, cfg, latent, seed=7):
    (guider,) = call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=cfg)
    return {"guider": guider, "noise": core.RandomNoise.execute(seed).args[0], "latent_image": latent}


def empty(size=8, batch=1):
    return {"samples": torch.zeros(batch, 4, size, size)}


def relative(a, b):
    return ((a - b).square().mean().sqrt() / b.square().mean().sqrt()).item()


PAIRS = [("StepwiseDPMpp2M", {}, "dpmpp_2m"), ("StepwiseEuler", {}, "euler"), ("StepwiseDDIM", {"eta": 0.0}, "ddim")]
FLOW_PAIRS = [("StepwiseDPMpp2M", {"time": "log_sigma"}, "dpmpp_2m"), *PAIRS[1:]]
CASES = [
    *[(kind, *pair) for kind in ("EPS", "V_PREDICTION", "EDM") for pair in PAIRS],
    *[("FLOW", *pair) for pair in FLOW_PAIRS],
    *[(kind, "StepwiseDPMSolver", {"order": "2"}, "dpm_2") for kind in ("EPS", "V_PREDICTION")],
]


@pytest.mark.parametrize(("cfg", "bound"), [(1.0, 1e-5), (7.5, 1e-4)])
@pytest.mark.parametrize(("kind", "node", "params", "name"), CASES, ids=lambda v: str(v))
def test_same_seed_same_picture_as_core(kind, node, params, name, cfg, bound, differences):
    model = toy_model(kind)
    sigmas = schedule(model)
    theirs, _ = core_picture(name, model, cfg, sigmas, empty())
    ours, _, _ = call(node, **our_inputs(model, cfg, empty()), sigmas=sigmas, **params)
    off = relative(ours["samples"], theirs["samples"])
    differences(f"ComfyUI {name}, {kind}, guidance {cfg:g}", off)
    assert off < bound


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
def test_lcm_equals_core_when_it_is_given_the_same_noise(kind, monkeypatch):
    """Core draws the noise of the whole batch from its global generator, so ours is made to hand out the same."""
    from stepwise.nodes.host import sampler as host

    model = toy_model(kind)
    sigmas = schedule(model)
    theirs, _ = core_picture("lcm", model, 1.0, sigmas, empty())
    generator = torch.Generator().manual_seed(7 + 1)

    def core_draws(address, like):
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    monkeypatch.setattr(host, "in_sampler_noise", lambda *_: core_draws)
    ours, _, _ = call("StepwiseLCM", **our_inputs(model, 1.0, empty()), sigmas=sigmas)
    assert relative(ours["samples"], theirs["samples"]) < 1e-5


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
def test_half_log_snr_differs_from_core_on_flow_only(kind):
    model = toy_model(kind)
    sigmas = schedule(model)
    inputs = our_inputs(model, 1.0, empty())
    papers, _, _ = call("StepwiseDPMpp2M", **inputs, sigmas=sigmas, time="half_log_snr")
    cores, _, _ = call("StepwiseDPMpp2M", **inputs, sigmas=sigmas, time="log_sigma")
    assert torch.equal(papers["samples"], cores["samples"]) == (kind == "EPS")


def solver_ids():
    from stepwise.samplers.registry import SOLVERS

    return [solver.id for solver in SOLVERS]


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
@pytest.mark.parametrize("solver", solver_ids())
def test_sampler_node_in_cores_sampler_equals_the_step_node(solver, kind):
    model = toy_model(kind)
    sigmas = schedule(model)
    inputs = our_inputs(model, 3.0, empty(batch=2))
    output, denoised, _ = call(f"Stepwise{solver}", **inputs, sigmas=sigmas)
    (sampler,) = call(f"Stepwise{solver}Sampler")
    theirs = core.SamplerCustomAdvanced.execute(
        inputs["noise"], inputs["guider"], sampler, sigmas, inputs["latent_image"]
    ).args
    assert torch.equal(output["samples"], theirs[0]["samples"])
    assert torch.equal(denoised["samples"], theirs[1]["samples"])
    generic = call("StepwiseSample", **inputs, sampler=sampler, sigmas=sigmas)
    assert torch.equal(output["samples"], generic[0]["samples"])


def test_step_node_runs_a_foreign_sampler_as_core_does():
    model = toy_model("EPS")
    sigmas = schedule(model)
    theirs, _ = core_picture("heun", model, 3.0, sigmas, empty())
    heun = core.KSamplerSelect.execute("heun").args[0]
    guider = core.CFGGuider.execute(model, prompt(0.4), prompt(-0.3), 3.0).args[0]
    inputs = {**our_inputs(model, 3.0, empty()), "guider": guider}
    ours, _, state = call("StepwiseSample", **inputs, sampler=heun, sigmas=sigmas)
    assert torch.equal(ours["samples"], theirs["samples"])
    assert state.state is None


def test_5d_latent_keeps_its_shape_and_equals_core():
    model = toy_model("FLOW", latent_format=Latent5D())
    sigmas = schedule(model)
    latent = {"samples": torch.zeros(1, 4, 3, 8, 8)}
    theirs, _ = core_picture("euler", model, 4.0, sigmas, latent)
    ours, _, _ = call("StepwiseEuler", **our_inputs(model, 4.0, latent), sigmas=sigmas)
    assert ours["samples"].shape == (1, 4, 3, 8, 8)
    assert relative(ours["samples"], theirs["samples"]) < 1e-5


def test_packed_latents_keep_their_parts_and_equal_core():
    from comfy.nested_tensor import NestedTensor

    model = toy_model("FLOW", module=Packed(), latent_format=Latent5D())
    sigmas = schedule(model)
    latent = {"samples": NestedTensor([torch.zeros(1, 4, 2, 6, 6), torch.zeros(1, 4, 5, 3)])}
    theirs, their_x0 = core_picture("euler", model, 4.0, sigmas, latent)
    ours, x0, state = call("StepwiseEuler", **our_inputs(model, 4.0, latent), sigmas=sigmas)
    for a, b in ((ours, theirs), (x0, their_x0)):
        for mine, cores in zip(a["samples"].unbind(), b["samples"].unbind(), strict=True):
            assert mine.shape == cores.shape
            assert relative(mine, cores) < 1e-5
    finished = call("StepwiseEuler", guider=our_inputs(model, 4.0, latent)["guider"], state=state)
    assert [t.shape for t in finished[1]["samples"].unbind()] == [t.shape for t in x0["samples"].unbind()]


class Packed(torch.nn.Module):
    dtype = torch.float32

    def forward(self, x, timesteps, context=None, **kwargs):
        return 0.7 * x + 0.2 * torch.tanh(x) + 0.1 * context.mean()


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
def test_inpaint_mask_keeps_the_masked_part_and_equals_core(kind):
    model = toy_model(kind)
    sigmas = schedule(model)
    picture = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1.0
    latent = {"samples": picture, "noise_mask": mask}
    theirs, _ = core_picture("dpmpp_2m" if kind == "EPS" else "euler", model, 3.0, sigmas, latent)
    node = "StepwiseDPMpp2M" if kind == "EPS" else "StepwiseEuler"
    ours, _, _ = call(node, **our_inputs(model, 3.0, latent), sigmas=sigmas)
    assert relative(ours["samples"], theirs["samples"]) < 1e-4
    assert torch.allclose(ours["samples"][..., :4], picture[..., :4], atol=1e-5)
    assert not torch.allclose(ours["samples"][..., 4:], picture[..., 4:], atol=1e-2)


def test_rescale_cfg_patch_of_core_works_under_our_samplers():
    from comfy_extras.nodes_model_advanced import RescaleCFG

    plain = toy_model("V_PREDICTION")
    patched = RescaleCFG().patch(plain, 0.7)[0]
    sigmas = schedule(plain)
    theirs, _ = core_picture("dpmpp_2m", patched, 7.5, sigmas, empty())
    ours, _, _ = call("StepwiseDPMpp2M", **our_inputs(patched, 7.5, empty()), sigmas=sigmas)
    without, _, _ = call("StepwiseDPMpp2M", **our_inputs(plain, 7.5, empty()), sigmas=sigmas)
    assert relative(ours["samples"], theirs["samples"]) < 1e-4
    assert relative(without["samples"], theirs["samples"]) > 1e-2


def test_guidance_1_does_no_unconditional_model_call_unless_a_patch_wants_it():
    calls = {}
    for name, cfg, option in (
        ("one", 1.0, {}),
        ("patched", 1.0, {"disable_cfg1_optimization": True}),
        ("seven", 7.0, {}),
    ):
        model = toy_model("EPS")
        rows = []
        model.model_options.update(option)
        model.set_model_unet_function_wrapper(
            lambda apply, args, rows=rows: (
                rows.append(len(args["input"])),
                apply(args["input"], args["timestep"], **args["c"]),
            )[1]
        )
        call("StepwiseEuler", **our_inputs(model, cfg, empty()), sigmas=schedule(model))
        calls[name] = sum(rows)
    assert calls == {"one": STEPS, "patched": 2 * STEPS, "seven": 2 * STEPS}


def test_stock_ksampler_and_our_schedule_agree_on_karras():
    model = toy_model("EPS")
    (ours,) = call("StepwiseKarrasSchedule", steps=STEPS, model=model)
    theirs = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "karras", STEPS)
    assert torch.allclose(ours, theirs, rtol=2e-6, atol=0)
    latent = host_nodes.common_ksampler(model, 7, STEPS, 4.0, "dpmpp_2m", "karras", prompt(0.4), prompt(-0.3), empty())[
        0
    ]
    mine, _, _ = call("StepwiseDPMpp2M", **our_inputs(model, 4.0, empty()), sigmas=ours)
    assert relative(mine["samples"], latent["samples"]) < 1e-4
