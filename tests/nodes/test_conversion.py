"""The table of the conversion is as generated; a graph and what becomes of it give one latent: a seeded part of the
grid of benchmarks/convert.py, and every sampler that adds noise, given the same noise."""

import random
from collections import Counter

import comfy.k_diffusion.sampling as host_sampling
import parity
import pytest
import torch
from stepwise.benchmarks import _conversions as graphs
from stepwise.benchmarks import convert, convert_rounding
from stepwise.convert import converted
from stepwise.convert.table import table
from stepwise.nodes.host import sampler as host
from stepwise.tools.generate import conversion, generated, markdown

SEED, PART = 14, 160
CASES = [case for case in graphs.grid() if not convert.refused(case)]
NOISY = [name for name, row in table()["samplers"].items() if row.get("noise")]
NAMED = [name for name, row in table()["samplers"].items() if "id" in row]
# Compared where their two draws are composed as ours: tests/nodes/test_parity_solvers.py.
COMPOSED = ("dpmpp_sde", "dpmpp_sde_gpu")


def test_the_table_is_as_generated():
    assert generated.faults(conversion.files()) == []


def test_the_classes_in_the_docs_are_those_of_the_templates():
    text = convert.PAGE.read_text(encoding="utf-8")
    assert text == markdown.filled(text, convert.class_table(), "classes")


def test_the_grid_has_every_sampler_scheduler_and_family(note):
    """Of the host's, where a conversion claims the picture; LMS on linear_quadratic it does not."""
    kinds = Counter((case.sampler, case.family) for case in CASES)
    assert len(CASES) > 3000
    assert set(kinds) == {(name, family) for name in graphs.deterministic() for family in graphs.FAMILIES}
    named = {case.name.split(",")[0] for case in CASES}
    expected = {f"KSampler {a} {b}" for a in graphs.deterministic() for b in graphs.schedulers()}
    assert expected - named == {"KSampler lms linear_quadratic"}
    note(f"graphs of the grid of conversions: {len(CASES)}, of which {PART} are run here")


@pytest.mark.parametrize("case", random.Random(SEED).sample(CASES, PART), ids=lambda case: case.name)
def test_a_graph_and_what_becomes_of_it_give_one_latent(case, differences):
    off = convert.difference(case)
    differences(f"converted, {'guidance' if case.cfg > 1.0 else 'no guidance'}, to {case.bound:g}", off)
    assert off <= case.bound


@pytest.fixture
def one_noise(monkeypatch):
    """The same noise for an interval, in ComfyUI's samplers and in ours."""

    def of_the_host(x, *_, **__):
        return lambda s, t: parity.drawn(s, t, x)

    monkeypatch.setattr(host_sampling, "default_noise_sampler", of_the_host)
    monkeypatch.setattr(host_sampling, "BrownianTreeNoiseSampler", of_the_host)
    source = lambda address, like: parity.drawn(address.sigma_from, address.sigma_to, like)  # noqa: E731
    monkeypatch.setattr(host, "in_sampler_noise", lambda *_: source)


@pytest.mark.parametrize("family", graphs.FAMILIES)
@pytest.mark.parametrize("sampler", [name for name in NOISY if name not in COMPOSED])
def test_a_sampler_that_adds_noise_does_the_same_with_the_same_noise(sampler, family, one_noise, differences):
    """As KSampler and as Sampler Custom Advanced."""
    cfg = 5.0 if sampler.endswith("cfg_pp") else 1.0
    given = convert.given_to(graphs.Case("", family, {}, cfg, sampler))
    for graph in (
        graphs.ksampler(sampler, "simple", cfg),
        graphs.custom_advanced(sampler, cfg, graphs.basic(sampler)),
    ):
        made, report = converted(graph)
        assert {each.kind for each in report.entries if each.sampling} == {"same law"}
        off = parity.relative(convert.run(made, given), convert.run(graph, given))
        differences(f"converted, noise added, to {table()['samplers'][sampler]['bound']:g}", off)
        assert off < table()["samplers"][sampler]["bound"]


@pytest.mark.parametrize("families", convert_rounding.FAMILIES.values(), ids=convert_rounding.FAMILIES)
@pytest.mark.parametrize("sampler", ["uni_pc", "uni_pc_bh2", "deis"])
def test_the_largest_differences_are_of_comfyuis_own_arithmetic(sampler, families, differences):
    """With that made exact ComfyUI's sampler is nearer to ours than to itself as it runs, by four times or more."""
    count, off = convert_rounding.worst(sampler, graphs.STEPS, families)
    assert count == 12
    differences(f"converted, {sampler}, ComfyUI's arithmetic made exact", off.ours_exact)
    assert off.ours_exact < off.theirs / 4.0
    assert off.ours < 1.2 * off.theirs


# Settings that no name has, as the nodes that make a SAMPLER take them.
SETTINGS = {
    "SamplerEulerAncestral": {"eta": 0.6, "s_noise": 0.9},
    "SamplerDPMPP_2S_Ancestral": {"eta": 0.6, "s_noise": 0.9},
    "SamplerDPMPP_2M_SDE": {"solver_type": "heun", "eta": 0.6, "s_noise": 0.9, "noise_device": "cpu"},
    "SamplerDPMPP_3M_SDE": {"eta": 0.6, "s_noise": 0.9, "noise_device": "cpu"},
    "SamplerSEEDS2": {"solver_type": "phi_2", "eta": 0.6, "s_noise": 0.9, "r": 0.4},
    "SamplerER_SDE": {"solver_type": "ER-SDE", "max_stage": 3, "eta": 1.0, "s_noise": 0.9},
    "SamplerLMS": {"order": 3},
    "SamplerSASolver": {
        "model": graphs.link("model"),
        "eta": 0.6,
        "s_noise": 0.9,
        "predictor_order": 2,
        "corrector_order": 3,
        "use_pece": True,
        "simple_order_2": False,
        "sde_start_percent": 0.2,
        "sde_end_percent": 0.8,
    },
}


FOREIGN = "SamplerOfAnotherPack"
# Those that stay ComfyUI's there: tests/samplers/test_convert.py.
NEEDS_ITS_LEVELS = ("uni_pc", "uni_pc_bh2", "lms")
SINGLE = [name for name in NAMED if name not in (*NEEDS_ITS_LEVELS, *COMPOSED) and not name.endswith("cfg_pp")]


@pytest.fixture
def another_pack(monkeypatch):
    """A node of another pack that runs a SAMPLER, as Sampler Custom Advanced does."""
    classes = convert.classes_of_nodes()
    monkeypatch.setitem(classes, FOREIGN, classes["SamplerCustomAdvanced"])


def foreign(name, cfg, sampler):
    graph = graphs.custom_advanced(name, cfg, graphs.basic(name), sampler=sampler)
    graph["end"]["class_type"] = FOREIGN
    return graph


def check_foreign(graph, family, name, cfg, differences):
    """Its SAMPLER is ours, all else as it was, and it makes the same picture."""
    made, report = converted(graph)
    assert made["sampler"]["class_type"] == f"Stepwise{table()['samplers'][name]['id']}Sampler"
    assert {key: node for key, node in made.items() if graph[key] != node} == {"sampler": made["sampler"]}
    assert not report.left
    case = graphs.Case("", family, {}, cfg, name)
    given = convert.given_to(case)
    off = parity.relative(convert.run(made, given), convert.run(graph, given))
    differences(f"converted, a SAMPLER for another node, to {case.bound:g}", off)
    assert off <= case.bound


@pytest.mark.parametrize("family", graphs.FAMILIES)
@pytest.mark.parametrize("name", SINGLE)
def test_a_sampler_for_a_node_of_another_pack_is_ours_and_does_the_same(
    name, family, one_noise, another_pack, differences
):
    for cfg in graphs.SCALES if name not in NOISY else (1.0,):
        check_foreign(foreign(name, cfg, ("KSamplerSelect", {"sampler_name": name})), family, name, cfg, differences)


@pytest.mark.parametrize("family", ["EPS", "FLOW"])
@pytest.mark.parametrize("kind", [kind for kind in SETTINGS if kind not in ("SamplerLMS", "SamplerSASolver")])
def test_the_settings_of_a_sampler_node_go_over_to_ours(kind, family, one_noise, another_pack, differences):
    name = table()["sampler_twins"][kind]["name"]
    check_foreign(foreign(name, 1.0, (kind, SETTINGS[kind])), family, name, 1.0, differences)


def test_every_sampler_node_has_settings_here():
    """But for the one whose sampler is compared elsewhere."""
    assert set(SETTINGS) == set(table()["sampler_twins"]) - {"SamplerDPMPP_SDE"}


@pytest.mark.parametrize("family", ["EPS", "FLOW"])
@pytest.mark.parametrize("kind", SETTINGS)
def test_the_settings_of_a_sampler_node_go_over(kind, family, one_noise, differences):
    row = table()["sampler_twins"][kind]
    graph = graphs.custom_advanced(row["name"], 1.0, graphs.basic(row["name"]), sampler=(kind, SETTINGS[kind]))
    made, report = converted(graph)
    assert not report.left
    given = convert.given_to(graphs.Case("", family, {}, 1.0, row["name"]))
    off = parity.relative(convert.run(made, given), convert.run(graph, given))
    differences(f"converted, {kind}", off)
    assert off < table()["samplers"][row["name"]]["bound"]


def patched(graph, family):
    """The graph on a model whose noise levels a node says."""
    kind, inputs = {
        "EPS": ("ModelSamplingDiscrete", {"sampling": "eps", "zsnr": False}),
        "FLOW": ("ModelSamplingSD3", {"shift": 2.0}),
    }[family]
    patch = {"class_type": kind, "inputs": {**inputs, "model": ["model", 0]}}
    for node in graph.values():
        node["inputs"] = {**node["inputs"], **({"model": ["patch", 0]} if "model" in node["inputs"] else {})}
    return {**graph, "patch": patch}


@pytest.mark.parametrize("asked", [False, True], ids=["of itself", "asked for"])
@pytest.mark.parametrize("family", ["EPS", "FLOW"])
@pytest.mark.parametrize("sampler", ["euler", "ddim", "dpmpp_2m"])
def test_two_parts_joined_are_the_picture_where_the_report_says_so(sampler, family, asked, differences):
    """Euler and DDIM remember nothing; DPM++ 2M does, and is joined only when asked for, to the run in one piece."""
    pair = patched(graphs.pair(sampler, "normal", 1.0, 3), family)
    made, report = converted(pair, join=asked)
    joined = "state" in made["end"]["inputs"]
    assert joined == (asked or sampler != "dpmpp_2m")
    changes = joined and sampler == "dpmpp_2m"
    assert ("the picture is another one" in report.text()) == changes
    given = convert.given_to(graphs.Case("", family, {}, 1.0, sampler))
    whole = patched(graphs.advanced(sampler, "normal", 1.0, (0, 10000)), family) if changes else pair
    off = parity.relative(convert.run(made, given), convert.run(whole, given))
    differences(f"converted, two parts joined, {sampler}", off)
    assert off < 1e-5


def test_flipped_levels_are_those_of_flip_sigmas():
    levels = graphs.custom_advanced("euler", 1.0, graphs.BASIC)
    flipped = {"class_type": "FlipSigmas", "inputs": {"sigmas": ["sigmas", 0]}}
    step = {"class_type": "StepwiseEuler", "inputs": {"sigmas": ["flipped", 0]}}
    graph = {"sigmas": levels["sigmas"], "flipped": flipped, "step": step}
    made, _ = converted(graph)
    assert made["flipped"]["class_type"] == "StepwiseReverseSigmas"
    for family in graphs.FAMILIES:
        given = {"model": convert.model(family)}
        assert torch.equal(*(convert.outputs_of(each, given, "flipped")[0] for each in (graph, made)))
