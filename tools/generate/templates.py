"""How many of the templates that ComfyUI brings along use only samplers and schedules that have a twin here.

They are read from the installed package, subgraphs included.
"""

import json
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from .markdown import table
from .twins import COMFYUI, NOT_COMFYUI, SCHEDULERS

# What a node of ComfyUI that takes noise levels away from a formula of its own has here.
SCHEDULE_NODES = {
    "KarrasScheduler": "Karras",
    "ExponentialScheduler": "Exponential",
    "PolyexponentialScheduler": "Polyexponential",
    "LaplaceScheduler": "Laplace",
    "VPScheduler": "VP",
    "BetaSamplingScheduler": "Beta",
    "SDTurboScheduler": "Timestep",
    "AlignYourStepsScheduler": "AlignYourSteps",
    "OptimalStepsScheduler": "OptimalSteps",
    "Flux2Scheduler": "Flux2",
    "LTXVScheduler": "LTXV",
    "ManualSigmas": "ParseSigmas",
}
# Nodes whose name is the sampler.
SAMPLER_NODES = {
    "SamplerEulerAncestral": "euler_ancestral",
    "SamplerLMS": "lms",
    "SamplerDPMPP_2M_SDE": "dpmpp_2m_sde",
    "SamplerDPMPP_3M_SDE": "dpmpp_3m_sde",
    "SamplerDPMPP_SDE": "dpmpp_sde",
    "SamplerDPMPP_2S_Ancestral": "dpmpp_2s_ancestral",
    "SamplerER_SDE": "er_sde",
    "SamplerEulerCFGpp": "euler_cfg_pp",
    "SamplerSASolver": "sa_solver",
    "SamplerSEEDS2": "seeds_2",
    "SamplerDPMAdaptative": "dpm_adaptive",
    "SamplerLCMUpscale": "lcm_upscale",
}
NAMED = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "KSamplerSelect", "BasicScheduler")


def nodes_of(graph: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from graph.get("nodes", ())
    for inner in graph.get("definitions", {}).get("subgraphs", ()):
        yield from inner.get("nodes", ())


def used(graph: dict[str, Any], samplers: set[str], schedulers: set[str]) -> tuple[set[str], set[str]]:
    """The samplers and the schedules that a graph names."""
    found: tuple[set[str], set[str]] = (set(), set())
    for node in nodes_of(graph):
        kind, values = node.get("type"), node.get("widgets_values") or ()
        texts = {each for each in values if isinstance(each, str)}
        if kind in NAMED:
            found[0].update(texts & samplers)
            found[1].update(texts & schedulers)
        if kind in SAMPLER_NODES:
            found[0].add(SAMPLER_NODES[kind])
        if kind in SCHEDULE_NODES or (str(kind).endswith("Scheduler") and kind != "BasicScheduler"):
            found[1].add(kind)
    return found


def section() -> str:
    """The numbers, and what is missing."""
    twins = {twin.name for twin in COMFYUI}
    samplers = twins | {name for one in NOT_COMFYUI for name in one.names}
    schedulers = {levels.name for levels in SCHEDULERS}
    folder = files("comfyui_workflow_templates_json") / "templates"
    graphs = [json.loads(file.read_text(encoding="utf-8")) for file in folder.iterdir() if file.name.endswith(".json")]
    every = [used(graph, samplers, schedulers) for graph in graphs if "nodes" in graph]
    naming = [each for each in every if each[0]]
    known = schedulers | set(SCHEDULE_NODES)
    rows = [
        ("There are", len(every)),
        ("name a sampler", len(naming)),
        ("of these, only samplers with a twin", sum(each[0] <= twins for each in naming)),
        ("of these, only samplers and schedules with a twin", sum(a <= twins and b <= known for a, b in naming)),
    ]
    missing = Counter(name for a, b in naming for name in (a - twins) | (b - known))
    without = ", ".join(f"`{name}` in {count}" for name, count in sorted(missing.items()))
    return table(("ComfyUI's templates", "Number"), rows) + (f"\nWithout a twin: {without}.\n" if missing else "")
