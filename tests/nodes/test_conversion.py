"""The table of the conversion is as generated; a graph and what becomes of it give one latent: a seeded part of the
grid of benchmarks/convert.py, and every sampler that adds noise, given the same noise."""

import random
import subprocess
import sys
from collections import Counter

import comfy.k_diffusion.sampling as host_sampling
import parity
import pytest
from stepwise.benchmarks import convert
from stepwise.convert.table import table
from stepwise.nodes.host import sampler as host
from stepwise.tools.environment.folders import ROOT

SEED, PART = 14, 160
CASES = [case for case in convert.grid() if not convert.refused(case)]
NOISY = [name for name, row in table()["samplers"].items() if row.get("noise")]
# Compared where their two draws are composed as ours: tests/nodes/test_parity_solvers.py.
COMPOSED = ("dpmpp_sde", "dpmpp_sde_gpu")


def test_the_table_is_as_generated():
    command = [sys.executable, "-m", "tools.generate.conversion", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_grid_has_every_sampler_scheduler_and_family(note):
    """Of the host's, where a conversion claims the picture; LMS on linear_quadratic it does not."""
    kinds = Counter((case.sampler, case.family) for case in CASES)
    assert len(CASES) > 3000
    assert set(kinds) == {(name, family) for name in convert.deterministic() for family in convert.FAMILIES}
    named = {case.name.split(",")[0] for case in CASES}
    expected = {f"KSampler {a} {b}" for a in convert.deterministic() for b in convert.schedulers()}
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


@pytest.mark.parametrize("family", convert.FAMILIES)
@pytest.mark.parametrize("sampler", [name for name in NOISY if name not in COMPOSED])
def test_a_sampler_that_adds_noise_does_the_same_with_the_same_noise(sampler, family, one_noise, differences):
    """As KSampler and as Sampler Custom Advanced."""
    cfg = 5.0 if sampler.endswith("cfg_pp") else 1.0
    given = convert.given_to(convert.Case("", family, {}, cfg, sampler))
    for graph in (convert.ksampler(sampler, "simple", cfg), convert.custom_advanced(sampler, cfg, convert.BASIC)):
        made, report = convert.converted(graph)
        assert {each.kind for each in report.entries if each.sampling} == {"same law"}
        off = parity.relative(convert.run(made, given), convert.run(graph, given))
        differences(f"converted, noise added, to {table()['samplers'][sampler]['bound']:g}", off)
        assert off < max(table()["samplers"][sampler]["bound"], 1e-4)
