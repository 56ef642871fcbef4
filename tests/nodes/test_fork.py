"""A state under other settings: refused, or forked with a word about what was dropped."""

import logging

import comfy.model_patcher
import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from stepwise.samplers.registry import SOLVERS
from toy_models import Latent4, SmoothNet, call, prompt, refused, toy_model

STEPS = 6


def guider_of(kind="EPS", positive=0.4, cfg=3.0, **options):
    model = toy_model(kind, **options)
    return call("StepwiseCFGGuider", model=model, positive=prompt(positive), negative=prompt(-0.3), cfg=cfg)[0]


def noise_of(seed):
    return core.RandomNoise.execute(seed).args[0]


def sigmas_of(steps=STEPS):
    return call("StepwiseKarrasSchedule", steps=steps)[0]


def cut(step=3, solver="DPMpp2M", **params):
    begins = {"noise": noise_of(7), "latent_image": {"samples": torch.zeros(1, 4, 8, 8)}, "sigmas": sigmas_of()}
    return call(f"Stepwise{solver}", guider=guider_of(), **begins, end_step=step, **params)[2]


class Given:
    """Starting noise that makes a fresh run begin exactly at `x`, as a NOISE."""

    def __init__(self, x, sigma, seed=7):
        self.seed, self.noise = seed, x / sigma

    def generate_noise(self, latent):
        return self.noise


def rounded(one, other):
    """Equal up to float32 rounding: dividing x by sigma and multiplying again costs some."""
    return ((one - other).norm() / other.norm()).item() < 1e-6


def test_another_solver_goes_on_from_the_present_x_as_if_it_began_there(caplog):
    state, sigmas = cut(3), sigmas_of()
    with caplog.at_level(logging.WARNING):
        forked, _, after = call("StepwiseUniPC", guider=guider_of(), state=state, on_mismatch="fork")
    assert "state was made by DPM++ 2M (time = half_log_snr, final_order = falling" in caplog.text
    assert ", and this is UniPC (order = 3, " in caplog.text
    assert "UniPC begins anew from the present x, without the history of DPM++ 2M." in caplog.text
    begins = {"noise": Given(state.state.x, float(sigmas[3])), "latent_image": {"samples": torch.zeros(1, 4, 8, 8)}}
    anew = call("StepwiseUniPC", guider=guider_of(), **begins, sigmas=sigmas[3:])[0]
    assert rounded(forked["samples"], anew["samples"])
    assert (after.solver, after.step, after.sigmas) == ("UniPC", STEPS, state.sigmas)


@pytest.mark.parametrize("then", ["UniPC", "DPMppSDE", "Restart", "LMS"])
def test_a_fork_can_be_cut_again_and_goes_on_exactly(then):
    """The step where the new solver began is part of the state, in memory and on disk."""
    from stepwise.nodes.runs.files import from_bytes, to_bytes

    whole = call(f"Stepwise{then}", guider=guider_of(), state=cut(2), on_mismatch="fork")[0]
    state = call(f"Stepwise{then}", guider=guider_of(), state=cut(2), on_mismatch="fork", end_step=4)[2]
    assert (state.solver_step, state.step) == (2, 4)
    for held in (state, from_bytes(to_bytes(state, {}))):
        rest = call(f"Stepwise{then}", guider=guider_of(), state=held)[0]
        assert torch.equal(rest["samples"], whole["samples"])


def test_what_looks_at_the_schedule_sees_the_whole_of_it_after_a_fork():
    seen = []

    class Watching(SmoothNet):
        def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **kwargs):
            seen.append(transformer_options["sample_sigmas"].tolist())
            return super().forward(x, timesteps, context)

    call("StepwiseUniPC", guider=guider_of(module=Watching(4)), state=cut(3), on_mismatch="fork")
    assert seen
    assert all(sigmas == sigmas_of().tolist() for sigmas in seen)


def test_progress_of_a_fork_counts_in_the_whole_schedule(monkeypatch):
    import latent_preview

    seen = []
    monkeypatch.setattr(
        latent_preview,
        "prepare_callback",
        lambda model, steps, x0: lambda step, denoised, x, total: seen.append((step, total)),
    )
    call("StepwiseUniPC", guider=guider_of(), state=cut(3), on_mismatch="fork")
    assert seen[-3:] == [(3, STEPS), (4, STEPS), (5, STEPS)]


OTHER_SEED = "noise has the seed 8, and the state was made with 7"


@pytest.mark.parametrize("solver", ["DPMpp2MSDE", "DPMpp2M"])
def test_the_seed_of_a_state_counts_whatever_noise_is_wired(solver, caplog):
    """ComfyUI's RandomNoise has another one after every run: that is said once, and is no error."""
    state = cut(3, solver)
    plain = call(f"Stepwise{solver}", guider=guider_of(), state=state)
    with caplog.at_level(logging.WARNING):
        same = call(f"Stepwise{solver}", guider=guider_of(), state=state, noise=noise_of(7))
        assert OTHER_SEED not in caplog.text
        other = call(f"Stepwise{solver}", guider=guider_of(), state=state, noise=noise_of(8))
    assert caplog.text.count(f"{OTHER_SEED}, which counts.") == 1
    for made in (same, other):
        assert torch.equal(made[0]["samples"], plain[0]["samples"])
        assert made[2].seeds == plain[2].seeds == (7,)


def test_strict_refuses_another_seed_and_what_error_refuses():
    state = cut(3)
    message = refused("StepwiseDPMpp2M", guider=guider_of(), state=state, noise=noise_of(8), on_mismatch="strict")
    assert message == (
        f"DPM++ 2M: {OTHER_SEED}. Leave noise unwired, set on_mismatch to error, where the state's counts, or set "
        "on_mismatch to fork."
    )
    call("StepwiseDPMpp2M", guider=guider_of(), state=state, noise=noise_of(7), on_mismatch="strict")
    for on_mismatch in ("error", "strict"):
        message = refused("StepwiseEuler", guider=guider_of(), state=state, on_mismatch=on_mismatch)
        assert message.startswith("Euler: state was made by DPM++ 2M")


def test_a_fork_with_another_seed_changes_only_the_noise_that_is_still_to_come(caplog):
    state = cut(3, "DPMpp2MSDE")
    plain = call("StepwiseDPMpp2MSDE", guider=guider_of(), state=state)[0]
    with caplog.at_level(logging.WARNING):
        other = call("StepwiseDPMpp2MSDE", guider=guider_of(), state=state, noise=noise_of(8), on_mismatch="fork")[0]
    assert "noise that the sampler adds from here on is of the new seed; the starting noise stays." in caplog.text
    assert not torch.equal(other["samples"], plain["samples"])
    quiet = cut(3)
    deterministic = [
        call("StepwiseDPMpp2M", guider=guider_of(), state=quiet, noise=noise_of(seed), on_mismatch="fork")[0]
        for seed in (7, 8)
    ]
    assert torch.equal(*(each["samples"] for each in deterministic))


def test_another_schedule_is_taken_up_below_the_present_level(caplog):
    state, finer = cut(3), sigmas_of(15)
    with caplog.at_level(logging.WARNING):
        forked, _, after = call("StepwiseEuler", guider=guider_of(), state=state, sigmas=finer, on_mismatch="fork")
    level = state.sigmas[3]
    below = [sigma for sigma in finer.tolist() if sigma < level]
    assert after.sigmas == (*state.sigmas[:4], *below)
    assert f"the run goes on with the levels of the new schedule below the present one, {level:.6g}." in caplog.text
    begins = {"noise": Given(state.state.x, level), "latent_image": {"samples": torch.zeros(1, 4, 8, 8)}}
    anew = call("StepwiseEuler", guider=guider_of(), **begins, sigmas=torch.tensor([level, *below]))[0]
    assert rounded(forked["samples"], anew["samples"])


def test_a_schedule_with_nothing_below_is_refused_even_by_a_fork():
    state = cut(5)
    message = refused(
        "StepwiseDPMpp2M", guider=guider_of(), state=state, sigmas=torch.tensor([14.0, 9.0]), on_mismatch="fork"
    )
    assert message.startswith("DPM++ 2M: sigmas has no level below the present one")
    end = cut(STEPS)
    message = refused("StepwiseEuler", guider=guider_of(), state=end, on_mismatch="fork")
    assert message.startswith("Euler: state stands at the end of its schedule, where nothing is left to do")


def test_four_guidances_fork_from_one_state_and_none_changes_it():
    state = cut(3)
    before = state.state.x.clone()
    made = [call("StepwiseDPMpp2M", guider=guider_of(cfg=cfg), state=state)[0]["samples"] for cfg in (1, 3, 5, 7, 3)]
    assert torch.equal(made[1], made[4])
    assert all(not torch.equal(made[i], made[j]) for i in range(4) for j in range(i))
    assert torch.equal(state.state.x, before)


class Other4(Latent4):
    """Four channels as well, with another meaning."""


@pytest.mark.parametrize("on_mismatch", ["error", "fork"])
def test_a_model_of_another_family_is_refused_always(on_mismatch):
    state = cut(3)
    for guider, problem in (
        (guider_of("FLOW"), "comes from a model on the VE path, and this model is on FLOW"),
        (
            guider_of(latent_format=Other4()),
            "comes from a model with latents of 4 channels (Latent4), and this one has 4 channels (Other4)",
        ),
    ):
        message = refused("StepwiseDPMpp2M", guider=guider, state=state, on_mismatch=on_mismatch)
        assert message == f"DPM++ 2M: state {problem}. Take a model of the same family."


def test_a_high_noise_model_hands_over_to_a_low_noise_model():
    """Another model of the family, another prediction type: x means the same, and the history is used."""
    state = cut(3)
    low = guider_of("V_PREDICTION", positive=-0.2, cfg=1.0)
    handed = call("StepwiseDPMpp2M", guider=low, state=state)[2]
    assert handed.step == STEPS
    assert handed.model["sampling"] != ""


def test_a_foreign_sampler_cannot_go_on_from_a_state():
    heun = core.KSamplerSelect.execute("heun").args[0]
    message = refused("StepwiseSample", guider=guider_of(), sampler=heun, state=cut(3), on_mismatch="fork")
    assert message.startswith("Sample (Stepwise): sampler is not one of Stepwise, so it cannot go on from a state.")


def test_end_step_before_the_state_is_refused():
    message = refused("StepwiseDPMpp2M", guider=guider_of(), state=cut(3), end_step=2)
    assert message == "DPM++ 2M: end_step is 2, and the state stands at step 3. Raise it above that step."


def test_a_plan_of_another_version_is_told_and_can_be_forked():
    from dataclasses import replace

    state = replace(cut(3), plan="0" * 32)
    message = refused("StepwiseDPMpp2M", guider=guider_of(), state=state)
    assert "state was made by another version of Stepwise, whose DPM++ 2M takes other steps. Finish it" in message
    assert call("StepwiseDPMpp2M", guider=guider_of(), state=state, on_mismatch="fork")[2].step == STEPS


def test_a_parameter_that_is_newer_than_the_state_has_its_default():
    from dataclasses import replace

    state = cut(3)
    older = replace(state, params={name: value for name, value in state.params.items() if name != "final_order"})
    rest = [call("StepwiseDPMpp2M", guider=guider_of(), state=each)[0]["samples"] for each in (state, older)]
    assert torch.equal(*rest)
    message = refused("StepwiseDPMpp2M", guider=guider_of(), state=older, final_order="first")
    assert "state was made by DPM++ 2M (final_order = falling), and this is DPM++ 2M (final_order = first)." in message


def test_a_resume_that_cannot_repeat_the_groups_of_prompts_says_so(monkeypatch, caplog):
    """The host evaluates both prompts together where memory allows, and one after the other where not."""
    free = []
    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda self, device: free[-1])
    free.append(1 << 33)
    together = cut(3)
    assert [len(group) for group in together.batching] == [2]
    free.append(0)
    apart = cut(3)
    assert [len(group) for group in apart.batching] == [1, 1]
    with caplog.at_level(logging.WARNING):
        call("StepwiseDPMpp2M", guider=guider_of(), state=apart)
        assert "evaluated its prompts" not in caplog.text
        call("StepwiseDPMpp2M", guider=guider_of(cfg=1.0), state=together)
        assert "evaluated its prompts" not in caplog.text
        call("StepwiseDPMpp2M", guider=guider_of(), state=together)
    assert caplog.text.count("evaluated its prompts together, this part evaluates them in groups of 1 and 1") == 1


# A schedule that ComfyUI's SplitSigmas has split


def split(solver, cut, **params):
    """Both halves through two step nodes, each given its half, and the run in one piece."""
    begins = {"noise": noise_of(7), "latent_image": {"samples": torch.zeros(2, 4, 8, 8)}}
    high, low = core.SplitSigmas.execute(sigmas_of(), cut).args
    whole = call(f"Stepwise{solver}", guider=guider_of(), **begins, sigmas=sigmas_of(), **params)
    state = call(f"Stepwise{solver}", guider=guider_of(), **begins, sigmas=high, **params)[2]
    return whole, {"guider": guider_of(), "state": state, "sigmas": low, **params}


def said(node, inputs):
    """The message with which a node refuses, and nothing; or no message, and what the node makes."""
    try:
        return "", call(node, **inputs)
    except ValueError as error:
        return str(error), None


@pytest.mark.parametrize("solver", [solver.id for solver in SOLVERS])
def test_two_halves_of_a_split_schedule_are_the_whole_where_the_solver_does_not_look_ahead(solver, proved):
    """For the others the second node says so and names the cure, or does the same: never anything else."""
    for setting in next(each.settings for each in SOLVERS if each.id == solver):
        for cut in (1, 3, STEPS - 1):
            whole, second = split(solver, cut, **setting.params)
            message, made = said(f"Stepwise{solver}", second)
            if message:
                assert setting.looks_ahead
                assert "sigmas goes on where the state's schedule ends, and" in message
                assert f"stop it with end_step {cut}; leave sigmas unwired and start_step 0 in the second" in message
                continue
            rest, denoised, state = made
            assert torch.equal(rest["samples"], whole[0]["samples"])
            assert torch.equal(denoised["samples"], whole[1]["samples"])
            assert state.sigmas == tuple(sigmas_of().tolist())
            proved(1)


def test_the_first_half_may_lie_on_disk_and_the_second_be_cut_again():
    from stepwise.nodes.runs.files import from_bytes, to_bytes

    whole, second = split("DPMpp2M", 2)
    second["state"] = from_bytes(to_bytes(second["state"], {}))
    state = call("StepwiseDPMpp2M", **second, end_step=4)[2]
    rest = call("StepwiseDPMpp2M", guider=guider_of(), state=from_bytes(to_bytes(state, {})))[0]
    assert torch.equal(rest["samples"], whole[0]["samples"])


def test_a_solver_that_looks_ahead_can_fork_there_without_its_history(caplog):
    _, second = split("DPMpp3M", STEPS - 1)
    assert "DPM++ 3M: sigmas goes on where the state's schedule ends" in refused("StepwiseDPMpp3M", **second)
    with caplog.at_level(logging.WARNING):
        state = call("StepwiseDPMpp3M", **second, on_mismatch="fork")[2]
    assert state.step == STEPS
    assert "without the history of the first part" in caplog.text


def test_a_fork_to_more_steps_keeps_the_history_where_it_fits():
    """The same solver on a finer end: its remembered prediction is that of the step just made."""
    state, finer = cut(3), sigmas_of(15)
    forked = call("StepwiseDPMpp2M", guider=guider_of(), state=state, sigmas=finer, on_mismatch="fork")[0]
    joined = torch.tensor([*state.sigmas[:4], *(s for s in finer.tolist() if s < state.sigmas[3])])
    begins = {"noise": noise_of(7), "latent_image": {"samples": torch.zeros(1, 4, 8, 8)}, "sigmas": joined}
    whole = call("StepwiseDPMpp2M", guider=guider_of(), **begins)[0]
    assert torch.equal(forked["samples"], whole["samples"])
