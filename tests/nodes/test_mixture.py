"""The mixture as a MODEL of the host: its predictions are the formula's, in every family, and go where models go."""

import sys
from dataclasses import replace

import comfy.samplers
import numpy as np
import pytest
import torch
from comfy_extras.nodes_custom_sampler import BasicScheduler, CFGGuider, RandomNoise, SamplerCustomAdvanced
from stepwise.nodes.host.models import path_of, sampling_of
from stepwise.nodes.shared.ways import MARK, ways_of_latent
from stepwise.samplers.exact import mixture, relative_rms
from toy_models import call, nodes_by_id, refused

from nodes import ConditioningAverage

FAMILIES = pytest.mark.parametrize("family", ["EPS", "V", "FLOW"])


def made(family="EPS", **inputs):
    return call("StepwiseMixtureModel", family=family, **inputs)


def predicted(model, prompt, x, sigma):
    """What the host's model predicts."""
    context = prompt[0][0].expand(len(x), -1, -1)
    return model.model.apply_model(x, torch.full((len(x),), sigma), c_crossattn=context)


def drawn(dimensions, batch=2, seed=1):
    return torch.randn(batch, dimensions, 3, 4, generator=torch.Generator().manual_seed(seed))


def exact(data, path, x, sigma):
    rows = x.movedim(1, -1).reshape(-1, x.shape[1]).double()
    return data.denoised(path, rows, sigma).reshape(len(x), 3, 4, -1).movedim(-1, 1)


@FAMILIES
@pytest.mark.parametrize("sigma", [0.04, 0.33, 0.97])
@pytest.mark.parametrize("dimensions", [2, 5])
def test_predictions_are_the_formulas_between_the_timesteps_too(family, sigma, dimensions):
    model, positive, negative, _ = made(family, dimensions=dimensions, seed=3, prompt="0, 2")
    path, data = path_of(sampling_of(model)), mixture(6, dimensions, 3)
    x = drawn(dimensions)
    for prompt, expected in ((negative, data), (positive, data.part([0, 2]))):
        found = predicted(model, prompt, x, sigma)
        assert relative_rms(found, exact(expected, path, x, sigma)) < 2e-6


@pytest.mark.parametrize("family", ["EPS", "V"])
def test_beyond_the_table_it_is_exact_too(family):
    model, _, everything, _ = made(family)
    path, data = path_of(sampling_of(model)), mixture(6, 2)
    for sigma in (0.005, 40.0):
        x = drawn(2) * (1.0 + sigma)
        assert relative_rms(predicted(model, everything, x, sigma), exact(data, path, x, sigma)) < 1e-4


@FAMILIES
def test_rounded_it_knows_a_thousand_levels(family):
    """At the levels of its table it is exact, and between two of them it is not."""
    model, _, everything, _ = made(family, rounded_timesteps=True)
    sampling, x = sampling_of(model), drawn(2)
    path, data = path_of(sampling), mixture(6, 2)
    low, high = sampling.sigmas[500:502].tolist()
    assert relative_rms(predicted(model, everything, x, low), exact(data, path, x, low)) < 2e-6
    middle = (low * high) ** 0.5
    assert relative_rms(predicted(model, everything, x, middle), exact(data, path, x, middle)) > 1e-4


def test_a_level_for_each_image():
    model, _, everything, _ = made("EPS")
    x, context = drawn(2), everything[0][0].expand(2, -1, -1)
    both = model.model.apply_model(x, torch.tensor([0.5, 3.0]), c_crossattn=context)
    for i, sigma in enumerate((0.5, 3.0)):
        assert torch.equal(both[i : i + 1], predicted(model, everything, x[i : i + 1], sigma))


def test_prompts_that_the_host_mixes_mix_the_components():
    model, first, everything, _ = made("EPS", components=2, prompt="0")
    mixed = ConditioningAverage().addWeighted(first, everything, 0.5)[0]
    x, data = drawn(2), mixture(2, 2)
    weights = data.weights * torch.tensor([1.0, 0.5])
    expected = type(data)(data.means, data.variances, weights / weights.sum())
    sampling = sampling_of(model)
    found = predicted(model, mixed, x, 1.0)
    assert relative_rms(found, exact(expected, path_of(sampling), x, 1.0)) < 2e-6


def sampled(family, name="dpmpp_2m", **inputs):
    """A run by the host's own nodes, from an empty latent of four channels."""
    model, positive, negative, _ = made(family, **inputs)
    guider = CFGGuider.execute(model, positive, negative, 1.0).args[0]
    sigmas = BasicScheduler.execute(model, "normal", 60, 1.0).args[0]
    sampler = comfy.samplers.sampler_object(name)
    latent = {"samples": torch.zeros(1, 4, 32, 32)}
    return SamplerCustomAdvanced.execute(RandomNoise.execute(5).args[0], guider, sampler, sigmas, latent).args[0]


@FAMILIES
def test_the_hosts_nodes_sample_the_data(family):
    """Mean and covariance of 1024 values are those of the mixture's two components, at five deviations."""
    values = sampled(family, prompt="1,4")["samples"].movedim(1, -1).reshape(-1, 2).double()
    data = mixture(6, 2).part([1, 4])
    mean = data.weights @ data.means
    apart = data.means - mean
    covariance = (data.weights * data.variances).sum() * torch.eye(2) + apart.T @ (data.weights[:, None] * apart)
    bound = 5.0 / len(values) ** 0.5
    assert values.shape == (1024, 2)
    assert ((values.mean(0) - mean).abs() < bound * covariance.diagonal().sqrt()).all()
    assert ((values.T.cov() - covariance).abs() < 2.0 * bound * covariance.diagonal().max()).all()


def test_an_image_alone_is_as_in_a_batch():
    model, _, everything, _ = made("EPS")
    x = drawn(2, batch=4)
    assert torch.equal(predicted(model, everything, x, 1.0)[2:3], predicted(model, everything, x[2:3], 1.0))


@FAMILIES
def test_the_picture_shows_the_density_and_the_run(family):
    """Where the data are, it is brighter; with a run, dots of the ends' colour lie in it; nothing else changes."""
    plain = made(family)[3]
    assert plain.shape == (1, 512, 512, 3)
    (sampler,) = call("StepwiseHeunSampler")
    model = made(family)[0]
    sigmas = BasicScheduler.execute(model, "normal", 12, 1.0).args[0]
    before = sigmas.clone()
    run = made(family, sampler=sampler, sigmas=sigmas)[3]
    assert torch.equal(sigmas, before)
    assert torch.equal(run, made(family, sampler=sampler, sigmas=sigmas)[3])
    orange = (run[0] - torch.tensor([0xE6, 0x9F, 0x00]) / 255.0).abs().amax(-1) < 0.05
    assert orange.sum() > 200
    # The ends lie where the density is.
    bright = plain[0].mean(-1)
    assert bright[orange].mean() > 1.5 * bright.mean()


def test_a_run_in_both_families_ends_in_the_same_places():
    """EPS and V are one model in two parametrisations."""
    (sampler,) = call("StepwiseHeunSampler")
    given = {"sampler": sampler, "sigmas": torch.tensor([10.0, 3.0, 1.0, 0.3, 0.1, 0.0])}
    one, other = (np.asarray(made(family, **given)[3]) for family in ("EPS", "V"))
    assert np.abs(one - other).mean() < 1e-3


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"prompt": "0, x"}, "Mixture Model: prompt[1] is 'x'"),
        ({"prompt": "6"}, "Mixture Model: prompt[0] is '6', and the components are numbered from 0 to 5"),
        ({"prompt": "2-9", "components": 4}, "Mixture Model: prompt[0] is '2-9'"),
        ({"sigmas": torch.tensor([1.0, 0.0])}, "Mixture Model: sampler is not wired, and sigmas is"),
        ({"sampler": comfy.samplers.sampler_object("euler")}, "Mixture Model: sigmas is not wired, and sampler is"),
        (
            {
                "family": "FLOW",
                "sampler": comfy.samplers.sampler_object("euler"),
                "sigmas": torch.tensor([14.0, 1.0, 0.0]),
            },
            "Mixture Model: sigmas[0] is 14",
        ),
    ],
)
def test_refusals_name_input_and_index(inputs, said):
    assert refused("StepwiseMixtureModel", **inputs).startswith(said)


def test_a_conditioning_of_another_mixture_and_a_latent_of_another_model_are_refused():
    model, _, _, _ = made("EPS")
    other = made("EPS", components=3)[2]
    with pytest.raises(ValueError, match="has 6 components, and this conditioning is one for 3"):
        predicted(model, other, drawn(2), 1.0)
    with pytest.raises(ValueError, match="has 2 dimensions"):
        predicted(model, made("EPS")[2], drawn(4), 1.0)


@pytest.fixture
def no_plot(monkeypatch):
    """matplotlib takes longer than all else here."""
    module = sys.modules[nodes_by_id()["StepwiseTrajectory"].__module__]
    monkeypatch.setattr(module, "plotted", lambda *_: np.zeros((8, 8, 3)))


STARTS, SEED = 12, 7
LEVELS = {
    "EPS": [10.0, 3.0, 1.0, 0.3, 0.1, 0.0],
    "V": [10.0, 3.0, 1.0, 0.3, 0.1, 0.0],
    "FLOW": [1.0, 0.9, 0.6, 0.2, 0.0],
}


def trajectory_on(family, sampler, sigmas, cfg=1.0, shape=(1, STARTS), images=1, **given):
    """Trajectory under the host's guider: x and denoised."""
    model, positive, negative, _ = made(family, prompt="0, 2")
    guider = CFGGuider.execute(model, positive, negative, cfg).args[0]
    inputs = {"guider": guider, "sampler": sampler, "sigmas": torch.tensor(sigmas)}
    inputs |= {"noise": RandomNoise.execute(SEED).args[0], "latent_image": {"samples": torch.zeros(images, 2, *shape)}}
    return call("StepwiseTrajectory", **inputs, filename_prefix="", **given)[3:5]


def drawn_over(family, **inputs):
    return made(family, prompt="0, 2", **{"size": 256, **inputs})[3]


@FAMILIES
@pytest.mark.parametrize("name", ["euler", "ours", "dpmpp_2m"])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.usefixtures("no_plot")
def test_a_trajectory_is_drawn_as_the_nodes_own_run(family, name, cfg):
    """One model call a step: where the model is called are then the ends of the steps. Own runs begin from the noise
    that RandomNoise makes of the same seed."""
    sampler = call("StepwiseDPMpp2MSampler")[0] if name == "ours" else comfy.samplers.sampler_object(name)
    sigmas = LEVELS[family]
    x, denoised = trajectory_on(family, sampler, sigmas, cfg)
    own = drawn_over(family, sampler=sampler, sigmas=torch.tensor(sigmas), cfg=cfg, starts=STARTS)
    plain, ways = drawn_over(family), drawn_over(family, trajectory=x)
    assert (own - plain).abs().mean() > 2e-3
    assert (ways - own).abs().mean() < 1e-4
    assert (drawn_over(family, trajectory=denoised) - own).abs().mean() > 2e-3


@FAMILIES
@pytest.mark.usefixtures("no_plot")
def test_every_image_and_position_is_a_value(family):
    """A batch of pictures is as many values; `starts` of them are drawn. The first image is the run's alone."""
    sampler, sigmas = comfy.samplers.sampler_object("euler"), LEVELS[family]
    batch, _ = trajectory_on(family, sampler, sigmas, shape=(2, STARTS // 2), images=3)
    alone = [drawn_over(family, trajectory=batch, starts=count) for count in (STARTS, 3 * STARTS, 1024)]
    assert torch.equal(alone[1], alone[2])
    assert (alone[0] - alone[1]).abs().mean() > 1e-3


@pytest.mark.usefixtures("no_plot")
def test_the_kept_steps_are_drawn_with_the_beginning():
    """A straight line from the beginning to the last of one kept step."""
    sampler, sigmas = comfy.samplers.sampler_object("euler"), LEVELS["EPS"]
    whole, kept = (trajectory_on("EPS", sampler, sigmas, steps=steps)[0] for steps in ("all", "5"))
    assert len(kept["samples"]) == 1
    places = [[way.numpy() for way in ways_of_latent("x", each, mixture(6, 2), STARTS)] for each in (whole, kept)]
    assert len(places[0]) == 6
    assert len(places[1]) == 2
    assert np.array_equal(places[0][0], places[1][0])
    assert np.array_equal(places[0][-1], places[1][-1])


@pytest.mark.usefixtures("no_plot")
def test_a_run_in_parts_is_drawn_part_by_part():
    sampler = call("StepwiseHeunSampler")[0]
    model, positive, negative, _ = made("EPS")
    inputs = {"guider": CFGGuider.execute(model, positive, negative, 1.0).args[0], "sampler": sampler}
    begins = {"noise": RandomNoise.execute(SEED).args[0], "latent_image": {"samples": torch.zeros(1, 2, 1, STARTS)}}
    begins |= {"sigmas": torch.tensor(LEVELS["EPS"])}
    whole = call("StepwiseTrajectory", **inputs, **begins, filename_prefix="")[3]
    first = call("StepwiseTrajectory", **inputs, **begins, filename_prefix="", end_step=2)
    second = call("StepwiseTrajectory", **inputs, state=first[2], filename_prefix="")
    in_one, *parts = (ways_of_latent("x", each, mixture(6, 2), STARTS) for each in (whole, first[3], second[3]))
    assert all(map(torch.equal, in_one, [*parts[0], *parts[1][1:]]))
    assert torch.equal(parts[0][-1], parts[1][0])


@pytest.mark.usefixtures("no_plot")
def test_what_is_no_trajectory_is_refused():
    x, _ = trajectory_on("EPS", comfy.samplers.sampler_object("euler"), LEVELS["EPS"])
    cure = "Wire x or denoised of Trajectory, with no node between."
    for latent in ({"samples": x["samples"]}, {**x, "samples": x["samples"][1:]}, {**x, "samples": x["samples"] + 0.0}):
        message = refused("StepwiseMixtureModel", family="EPS", trajectory=latent)
        assert message == f"Mixture Model: trajectory does not hold the steps of a run. {cure}"
    message = refused("StepwiseMixtureModel", family="EPS", trajectory=x, dimensions=3)
    assert message.startswith("Mixture Model: trajectory has values of 2 numbers, and this mixture has 3. Run")
    run = {"sampler": comfy.samplers.sampler_object("euler"), "sigmas": torch.tensor(LEVELS["EPS"])}
    message = refused("StepwiseMixtureModel", family="EPS", trajectory=x, **run)
    assert message.startswith("Mixture Model: trajectory is wired, and sampler is. Wire one of them")


@pytest.mark.parametrize("other", [{"seed": 1}, {"components": 5}])
@pytest.mark.usefixtures("no_plot")
def test_a_trajectory_over_other_data_is_refused(other):
    """The ways would lie over a density that the run has not seen. Another family has the same data."""
    x, _ = trajectory_on("EPS", comfy.samplers.sampler_object("euler"), LEVELS["EPS"])
    message = refused("StepwiseMixtureModel", family="EPS", trajectory=x, **other)
    assert message.startswith(
        "Mixture Model: trajectory is a run on a mixture of another seed or other components, and"
    )
    assert message.endswith("Run Trajectory on the model of a Mixture Model with these settings.")
    assert torch.equal(drawn_over("FLOW", trajectory=x), drawn_over("EPS", trajectory=x))


@pytest.mark.usefixtures("no_plot")
def test_a_trajectory_of_another_model_is_refused():
    model = call("StepwiseDigitsModel")[0]
    (positive,) = call("StepwiseDigit", labels="3")
    inputs = {"guider": CFGGuider.execute(model, positive, positive, 1.0).args[0], "sigmas": torch.tensor([2.0, 0.0])}
    inputs |= {"noise": RandomNoise.execute(1).args[0], "latent_image": {"samples": torch.zeros(1, 1, 8, 8)}}
    x = call("StepwiseTrajectory", sampler=call("StepwiseEulerSampler")[0], **inputs, filename_prefix="")[3]
    two = {"samples": x["samples"].expand(1, 2, 8, 8)}
    two[MARK] = replace(x[MARK], samples=two["samples"])
    message = refused("StepwiseMixtureModel", family="EPS", trajectory=two)
    assert message.startswith(
        "Mixture Model: trajectory is a run on another model, and the picture would show this one"
    )
