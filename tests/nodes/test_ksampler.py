"""KSampler (Stepwise): the separate nodes in one, bit for bit; and what it says where it cannot run."""

import re

import pytest
import torch
from comfy_extras import nodes_custom_sampler as core
from stepwise.nodes.host.schedulers import NAMES
from stepwise.samplers.registry import SCHEDULES, SOLVERS
from toy_models import call, prompt, refused, toy_model

import nodes as host_nodes

COMMON = {"seed": 7, "steps": 6, "cfg": 3.0, "denoise": 1.0, "start_step": 0, "end_step": 10000}
COMMON |= {"add_noise": "enable", "return_with_leftover_noise": "enable", "autosave_every": 0, "on_mismatch": "error"}


def inputs(model, **changes):
    latent = {"samples": torch.zeros(2, 4, 8, 8)}
    wired = {"model": model, "positive": prompt(0.4), "negative": prompt(-0.3), "latent_image": latent}
    chosen = {"solver": {"solver": "DPM++ 2M"}, "schedule": {"schedule": "Karras"}}
    return {**wired, **COMMON, **chosen, **changes}


def separate(model, solver, sigmas, **changes):
    """The same by the nodes for each thing."""
    (guider,) = call("StepwiseCFGGuider", model=model, positive=prompt(0.4), negative=prompt(-0.3), cfg=3.0)
    noise = core.RandomNoise.execute(7).args[0]
    latent = {"samples": torch.zeros(2, 4, 8, 8)}
    return call(f"Stepwise{solver}", guider=guider, noise=noise, latent_image=latent, sigmas=sigmas, **changes)


def equal(one, other):
    return all(torch.equal(a["samples"], b["samples"]) for a, b in zip(one[:2], other[:2], strict=True))


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.id)
def test_every_solver_is_that_of_its_own_node(solver):
    model = toy_model("EPS")
    (sigmas,) = call("StepwiseKarrasSchedule", model=model, steps=6)
    made = call("StepwiseKSampler", **inputs(model, solver={"solver": solver.name}))
    assert equal(made, separate(model, solver.id, sigmas))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.id)
def test_every_schedule_is_that_of_its_own_node(schedule):
    model = toy_model("EPS" if "VE" in schedule.paths else "FLOW")
    latent = {"latent": {"samples": torch.zeros(2, 4, 8, 8)}} if schedule.counts else {}
    (sigmas,) = call(f"Stepwise{schedule.id}Schedule", model=model, steps=6, denoise=0.8, **latent)
    made = call("StepwiseKSampler", **inputs(model, schedule={"schedule": schedule.name}, denoise=0.8))
    assert equal(made, separate(model, "DPMpp2M", sigmas))
    assert made[2].sigmas == tuple(sigmas.tolist())


@pytest.mark.parametrize("for_sampler", ["none", "uni_pc", "other"])
@pytest.mark.parametrize("scheduler", NAMES)
def test_by_name_is_schedule_by_name(scheduler, for_sampler):
    model = toy_model("FLOW")
    named = {"scheduler": scheduler, "for_sampler": for_sampler}
    (sigmas,) = call("StepwiseNamedSchedule", model=model, steps=6, denoise=0.8, **named)
    made = call("StepwiseKSampler", **inputs(model, schedule={"schedule": "By Name", **named}, denoise=0.8))
    assert made[2].sigmas == tuple(sigmas.tolist())
    assert equal(made, separate(model, "DPMpp2M", sigmas))


def test_by_name_ends_where_the_host_does_though_there_are_more_steps_than_asked_for():
    """ddim_uniform has 31 steps for 30; KSampler (Advanced) that ends at 30 ends there at level 0."""
    model, latent = toy_model("EPS"), {"samples": torch.zeros(2, 4, 8, 8)}
    given = (7, 30, 3.0, "euler", "ddim_uniform", prompt(0.4), prompt(-0.3), latent)
    (theirs,) = host_nodes.KSamplerAdvanced().sample(model, "enable", *given, 0, 30, "disable")
    chosen = {"schedule": "By Name", "scheduler": "ddim_uniform", "for_sampler": "other"}
    ours = call(
        "StepwiseKSampler",
        **inputs(model, solver={"solver": "Euler"}, schedule=chosen, steps=30, end_step=30)
        | {"return_with_leftover_noise": "disable"},
    )[0]
    torch.testing.assert_close(ours["samples"], theirs["samples"], rtol=1e-5, atol=1e-5)


def test_a_name_that_is_none_is_told():
    given = inputs(toy_model("EPS"), schedule={"schedule": "By Name", "scheduler": "swirl"})
    said = refused("StepwiseKSampler", **given)
    assert said.startswith("KSampler (Stepwise): schedule.scheduler is 'swirl'. Choose one of simple, sgm_uniform, ")


@pytest.mark.parametrize("denoise", [0.07, 0.33, 0.77])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.id)
def test_exact_denoise_belongs_to_the_schedule(schedule, denoise):
    """It is a setting of the schedule, and `denoise` stays the node's own; a schedule that has none says what to do."""
    model = toy_model("EPS" if "VE" in schedule.paths else "FLOW")
    chosen = {"schedule": schedule.name, "denoise_mode": "exact"}
    given = inputs(model, schedule=chosen, denoise=denoise)
    if schedule.id in ("LCM", "OptimalSteps"):
        said = refused("StepwiseKSampler", **given).removeprefix("KSampler (Stepwise): ")
        assert said.startswith(f"denoise_mode is 'exact', and {schedule.name} has no levels between those of its list.")
        assert re.search(r"Set it to tail, or take the schedule (Flow|Timestep)\.$", said)
        return
    latent = {"latent": {"samples": torch.zeros(2, 4, 8, 8)}} if schedule.counts else {}
    wanted = {"model": model, "steps": 6, "denoise": denoise, "denoise_mode": "exact", **latent}
    (sigmas,) = call(f"Stepwise{schedule.id}Schedule", **wanted)
    made = call("StepwiseKSampler", **given)
    assert made[2].sigmas == tuple(sigmas.tolist())
    assert equal(made, separate(model, "DPMpp2M", sigmas))


def test_the_latent_answers_how_many_tokens_there_are():
    """Also that of a state, which goes on with no other wired."""
    model = toy_model("FLOW")
    given = {"schedule": {"schedule": "LTXV"}, "latent_image": {"samples": torch.zeros(2, 4, 16, 24)}}
    whole = call("StepwiseKSampler", **inputs(model, **given))
    (sigmas,) = call("StepwiseLTXVSchedule", model=model, steps=6, tokens=16 * 24)
    assert whole[2].sigmas == tuple(sigmas.tolist())
    state = call("StepwiseKSampler", **inputs(model, **given, end_step=3))[2]
    rest = {**inputs(model, **given), "latent_image": None}
    assert equal(call("StepwiseKSampler", **rest, state=state), whole)


def test_settings_of_the_choices_arrive():
    model = toy_model("EPS")
    (sigmas,) = call("StepwiseKarrasSchedule", model=model, steps=6, rho=5.0, last_sigma="drop_penultimate")
    solver = {"solver": "DPM++ 2M SDE", "eta": 0.5, "solver_type": "heun", "noise_kind": "brownian", "s_noise": None}
    schedule = {"schedule": "Karras", "rho": 5.0, "last_sigma": "drop_penultimate"}
    made = call("StepwiseKSampler", **inputs(model, solver=solver, schedule=schedule))
    own = {"eta": 0.5, "solver_type": "heun", "noise_kind": "brownian"}
    assert equal(made, separate(model, "DPMpp2MSDE", sigmas, **own))


@pytest.mark.parametrize(("sampler", "solver"), [("dpmpp_2m", "DPM++ 2M"), ("euler", "Euler")])
def test_it_draws_the_picture_of_the_hosts_ksampler(sampler, solver):
    model = toy_model("EPS")
    given = (model, 7, 6, 3.0, sampler, "karras", prompt(0.4), prompt(-0.3), {"samples": torch.zeros(2, 4, 8, 8)})
    (theirs,) = host_nodes.KSampler().sample(*given)
    ours = call("StepwiseKSampler", **inputs(model, solver={"solver": solver}))[0]
    torch.testing.assert_close(ours["samples"], theirs["samples"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("solver", ["DPM++ 2M", "DPM++ 2M SDE", "UniPC"])
def test_it_stops_and_goes_on_whatever_the_seed_has_become(solver):
    model = toy_model("EPS")
    whole = call("StepwiseKSampler", **inputs(model, solver={"solver": solver}))
    half = call("StepwiseKSampler", **inputs(model, solver={"solver": solver}, end_step=3))
    rest = inputs(model, solver={"solver": solver}, seed=99)
    del rest["latent_image"]
    assert equal(call("StepwiseKSampler", **rest, state=half[2]), whole)


def test_leftover_noise_is_that_of_ksampler_advanced():
    model, advanced = toy_model("EPS"), host_nodes.KSamplerAdvanced()
    latent = {"samples": torch.zeros(2, 4, 8, 8)}
    for leftover in ("enable", "disable"):
        given = (model, "enable", 7, 6, 3.0, "euler", "karras", prompt(0.4), prompt(-0.3), latent, 0, 3, leftover)
        (theirs,) = advanced.sample(*given)
        changes = {"solver": {"solver": "Euler"}, "end_step": 3, "return_with_leftover_noise": leftover}
        ours = call("StepwiseKSampler", **inputs(model, **changes))[0]
        torch.testing.assert_close(ours["samples"], theirs["samples"], rtol=1e-5, atol=1e-5)


def test_a_latent_with_its_noise_goes_on_as_in_ksampler_advanced():
    model, advanced = toy_model("EPS"), host_nodes.KSamplerAdvanced()
    latent = {"samples": torch.zeros(2, 4, 8, 8)}
    shared = (7, 6, 3.0, "euler", "karras", prompt(0.4), prompt(-0.3))
    (cut,) = advanced.sample(model, "enable", *shared, latent, 0, 3, "enable")
    (theirs,) = advanced.sample(model, "disable", *shared, cut, 3, 10000, "disable")
    changes = {"solver": {"solver": "Euler"}, "start_step": 3, "add_noise": "disable", "latent_image": cut}
    ours = call("StepwiseKSampler", **inputs(model, **changes))[0]
    torch.testing.assert_close(ours["samples"], theirs["samples"], rtol=1e-5, atol=1e-5)


def test_one_prompt_is_enough_at_guidance_1():
    model = toy_model("EPS")
    alone = inputs(model, cfg=1.0)
    del alone["negative"]
    assert equal(call("StepwiseKSampler", **alone), call("StepwiseKSampler", **inputs(model, cfg=1.0)))
    with pytest.raises(
        ValueError, match=r"KSampler \(Stepwise\): negative is not wired, and cfg is 3\. .*set cfg to 1"
    ):
        call("StepwiseKSampler", **{**alone, "cfg": 3.0})


@pytest.mark.parametrize("value", ["dpmpp_2m", None, {"solver": "DPM++ 9M"}, 3])
def test_an_unknown_choice_is_answered_in_words(value):
    with pytest.raises(ValueError, match=r"KSampler \(Stepwise\): solver is .*Choose one of DPM\+\+ 2M, DDPM"):
        call("StepwiseKSampler", **inputs(toy_model("EPS"), solver=value))


# Every input that it has; a message names no other.
OWN = "model positive negative latent_image state seed steps cfg denoise start_step end_step add_noise"
OWN = {*OWN.split(), "return_with_leftover_noise", "autosave_every", "on_mismatch", "solver", "schedule"}
FOREIGN = ("sigmas", "GUIDER", "guider", "wire a schedule", " Schedule")
NO_NEGATIVE = {"negative": None, "cfg": 1.0, "solver": {"solver": "DPM++ 2M", "cfg_pp": True}}
MISUSED = {
    "one step too far": ({"start_step": 7}, "start_step is 7, and the schedule has the steps 0 to 5. Lower it"),
    "an end before the start": ({"start_step": 4, "end_step": 2}, "end_step is 2, and the run begins at step 4"),
    "an end at level 0 before the start": (
        {"start_step": 4, "end_step": 2, "return_with_leftover_noise": "disable"},
        "end_step is 2, and the run begins at step 4. Raise it",
    ),
    "no latent": ({"latent_image": None}, "latent_image is not wired. Wire it, or wire a state"),
    "cfg_pp with one prompt": (NO_NEGATIVE, "negative is not wired, and solver.cfg_pp needs its prediction. Wire"),
    "a solver that flow models do not have": (
        {"kind": "FLOW", "solver": {"solver": "DDPM", "variance": "large"}, "schedule": {"schedule": "Flow"}},
        "solver.variance is 'large', which flow models do not have",
    ),
    "two settings that contradict": (
        {"solver": {"solver": "Restart", "t_min": 3.0, "t_max": 2.0}},
        "solver.t_max is 2. Give a value above t_min",
    ),
    "more steps than there are": (
        {"schedule": {"schedule": "Timestep"}, "steps": 1001},
        "steps is 1001, and there are 1000 noise levels",
    ),
    "an offset that leaves the table": (
        {"schedule": {"schedule": "Timestep", "steps_offset": 1}, "steps": 1000},
        "schedule.steps_offset is 1, and",
    ),
    "a curve that rises": (
        {"schedule": {"schedule": "Curve", "curve": {"points": [[0, 0], [1, 1]], "interpolation": "linear"}}},
        "schedule.curve ",
    ),
    "a flow schedule": ({"schedule": {"schedule": "Flow"}}, "model is no flow model, and this schedule"),
    "no flow schedule": ({"kind": "FLOW", "schedule": {"schedule": "VP"}}, "model is a flow model, and this schedule"),
    "a wrong setting": ({"solver": {"solver": "DPM-Solver", "order": "x"}}, "solver.order is 'x'. Choose one of"),
}
MISUSED_STATES = {
    "more steps": ({"steps": 7}, "schedule is not the schedule that the state was made on. Choose schedule, its"),
    "another start": ({"start_step": 2}, "start_step is 2, and the state stands at step 3 of a run from step 1"),
    "an end behind": ({"end_step": 2}, "end_step is 2, and the state stands at step 3. Raise it"),
    "another solver": ({"solver": {"solver": "Euler"}}, "state was made by DPM++ 2M"),
    "another family": ({"kind": "FLOW", "schedule": {"schedule": "Flow"}}, "state comes from a model on the VE path"),
    "level 0 in the middle": (
        {"return_with_leftover_noise": "disable", "end_step": 5},
        "return_with_leftover_noise is disable, which ends the schedule at step 5, and that of the state has 6. Set it "
        "to enable, or set on_mismatch to fork.",
    ),
}


def answered(changes, **more):
    model = toy_model(changes.get("kind", "EPS"))
    given = inputs(model, **{**more, **{name: value for name, value in changes.items() if name != "kind"}})
    said = refused("StepwiseKSampler", **given)
    assert not [name for name in FOREIGN if name in said.removeprefix("KSampler (Stepwise): ")]
    assert re.match(r"KSampler \(Stepwise\): (\w+)", said)[1] in OWN
    return said.removeprefix("KSampler (Stepwise): ")


@pytest.mark.parametrize("name", MISUSED)
def test_it_speaks_of_its_own_inputs(name):
    changes, said = MISUSED[name]
    assert answered(changes).startswith(said)


@pytest.mark.parametrize("name", MISUSED_STATES)
def test_it_speaks_of_its_own_inputs_with_a_state(name):
    changes, said = MISUSED_STATES[name]
    state = call("StepwiseKSampler", **inputs(toy_model("EPS"), start_step=1, end_step=3))[2]
    assert answered(changes, state=state).startswith(said)


def test_a_part_that_ended_at_level_0_is_told_to_whoever_goes_on_from_it():
    ended = {"end_step": 3, "return_with_leftover_noise": "disable"}
    state = call("StepwiseKSampler", **inputs(toy_model("EPS"), **ended))[2]
    said = answered({}, state=state)
    assert "with return_with_leftover_noise at enable there" in said
    # All settings as they were: there is nothing left to do.
    again = call("StepwiseKSampler", **inputs(toy_model("EPS"), **ended), state=state)
    assert again[2].step == again[2].steps == 3


def test_a_fork_may_end_at_level_0():
    model = toy_model("EPS")
    state = call("StepwiseKSampler", **inputs(model, end_step=3))[2]
    changes = {"end_step": 5, "return_with_leftover_noise": "disable", "on_mismatch": "fork"}
    *_, held = call("StepwiseKSampler", **inputs(model, **changes), state=state)
    assert (held.step, held.steps, held.sigmas[-1]) == (5, 5, 0.0)
    assert held.sigmas[:5] == state.sigmas[:5]


def test_a_start_step_may_stay_as_it_was_with_a_state():
    model = toy_model("EPS")
    whole = call("StepwiseKSampler", **inputs(model, start_step=1))
    state = call("StepwiseKSampler", **inputs(model, start_step=1, end_step=3))[2]
    for start_step in (0, 1, 3):
        assert equal(call("StepwiseKSampler", **inputs(model, start_step=start_step), state=state), whole)


def test_the_log_speaks_of_its_inputs_too(caplog):
    with caplog.at_level("WARNING"):
        call("StepwiseKSampler", **inputs(toy_model("EPS"), denoise=0.3))
    (said,) = [each for each in caplog.messages if "latent_image is empty" in each]
    assert said.startswith("Stepwise: schedule[0] is ")
    assert said.endswith("Set denoise to 1 and start_step to 0, or begin from a picture.")


def test_what_stands_first_and_what_the_model_answers():
    (node,) = [each for each in nodes_of() if each.GET_SCHEMA().node_id == "StepwiseKSampler"]
    *_, solver, schedule = node.GET_SCHEMA().inputs
    assert (solver.options[0].key, schedule.options[0].key) == ("DPM++ 2M", "Karras")
    shown = {option.key: {each.id for each in option.inputs} for option in schedule.options}
    assert shown["Karras"] == {"rho", "last_sigma", "denoise_mode"}
    answered = {"steps", "denoise", "sigma_min", "sigma_max", "beta_start", "tokens"}
    assert not any(answered & names for names in shown.values())


def nodes_of():
    from stepwise.nodes import all_nodes

    return all_nodes()
