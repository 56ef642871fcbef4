"""Workflows converted to Stepwise's nodes: how many of ComfyUI's templates, and how near the pictures are.

    python benchmarks/convert.py               the templates by class, and the grid: some minutes
    python benchmarks/convert.py --templates   the templates alone: seconds

The grid: every sampler of ComfyUI with a deterministic twin, on every scheduler, on four families of models with and
without guidance; denoise, parts of a schedule, leftover noise, no noise, masks; the schedule nodes; Sampler Custom and
Sampler Custom Advanced. Each graph and what becomes of it are both run, and their latents compared, rms over rms.
"""

import argparse
import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any

import torch
from stepwise.convert import converted
from stepwise.convert.table import table as known
from stepwise.tools.generate.markdown import table
from stepwise.tools.measure.host import load_host

FAMILIES = ("EPS", "V_PREDICTION", "FLOW", "FLUX")
SCALES = (1.0, 5.0)
# Few, where differences are largest; DEIS in as many as its row is measured at: ComfyUI's sums are coarser in fewer.
STEPS, OF_DEIS = 8, 12
Graph = dict[str, dict[str, Any]]


# The templates of the pinned packages.


def templates() -> dict[str, dict[str, Any]]:
    """The graphs that ComfyUI's own packages bring, read where they are installed."""
    folder = files("comfyui_workflow_templates_json") / "templates"
    read = {each.name: json.loads(each.read_text(encoding="utf-8")) for each in folder.iterdir() if suits(each.name)}
    return {name: graph for name, graph in sorted(read.items()) if isinstance(graph, dict) and "nodes" in graph}


def suits(name: str) -> bool:
    return name.endswith(".json")


def classes() -> tuple[int, Counter[str], Counter[str]]:
    """How many graphs there are, how many of their sampling nodes are of each class, and why others are left."""
    counts, why = Counter[str](), Counter[str]()
    graphs = templates()
    for graph in graphs.values():
        _, report = converted(graph)
        counts += report.classes
        why.update(each.why for each in report.left if each.sampling)
    return len(graphs), counts, why


# The grid.


@dataclass(frozen=True)
class Case:
    """A graph in the API's form, with a node for what is given: the model, two prompts and a latent."""

    name: str
    family: str
    graph: Graph
    cfg: float
    sampler: str
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bound(self) -> float:
        """That of the sampler's row, or of guidance, which multiplies what the two predictions differ by."""
        return max(known()["samplers"][self.sampler]["bound"], 1e-4 if self.cfg > 1.0 else 1e-5)


def link(name: str, slot: int = 0) -> list[Any]:
    return [name, slot]


GIVEN = {
    "model": "UNETLoader",
    "positive": "CLIPTextEncode",
    "negative": "CLIPTextEncode",
    "latent": "EmptyLatentImage",
}
WIRES = {"model": link("model"), "positive": link("positive"), "negative": link("negative")}


def graph_of(**nodes: tuple[str, dict[str, Any]]) -> Graph:
    made = {name: {"class_type": kind, "inputs": {}} for name, kind in GIVEN.items()}
    return made | {name: {"class_type": kind, "inputs": dict(inputs)} for name, (kind, inputs) in nodes.items()}


def steps(sampler: str) -> int:
    return OF_DEIS if sampler == "deis" else STEPS


def ksampler(sampler: str, scheduler: str, cfg: float, **changes: Any) -> Graph:
    inputs = {**WIRES, "latent_image": link("latent"), "seed": 7, "steps": steps(sampler), "cfg": cfg, "denoise": 1.0}
    return graph_of(end=("KSampler", {**inputs, "sampler_name": sampler, "scheduler": scheduler, **changes}))


def advanced(sampler: str, scheduler: str, cfg: float, window: tuple[int, int], **changes: Any) -> Graph:
    inputs = {**WIRES, "latent_image": link("latent"), "noise_seed": 7, "steps": steps(sampler), "cfg": cfg}
    inputs |= {"sampler_name": sampler, "scheduler": scheduler, "start_at_step": window[0], "end_at_step": window[1]}
    inputs |= {"add_noise": "enable", "return_with_leftover_noise": "enable"}
    return graph_of(end=("KSamplerAdvanced", {**inputs, **changes}))


def pair(sampler: str, scheduler: str, cfg: float, cut: int) -> Graph:
    first = advanced(sampler, scheduler, cfg, (0, cut))["end"]
    second = advanced(sampler, scheduler, cfg, (cut, 10000), add_noise="disable", return_with_leftover_noise="disable")
    second["end"]["inputs"]["latent_image"] = link("first")
    return {**second, "first": first}


def custom(sampler: str, cfg: float, sigmas: tuple[str, dict[str, Any]], **others: Any) -> Graph:
    inputs = {**WIRES, "latent_image": link("latent"), "add_noise": True, "noise_seed": 7, "cfg": cfg}
    inputs |= {"sampler": link("sampler"), "sigmas": link("sigmas")}
    maker = ("KSamplerSelect", {"sampler_name": sampler})
    return graph_of(end=("SamplerCustom", inputs | others), sampler=maker, sigmas=sigmas)


def custom_advanced(name: str, cfg: float, levels: tuple[str, dict[str, Any]], /, **others: Any) -> Graph:
    inputs = {name: link(name) for name in ("guider", "noise", "sampler", "sigmas")}
    made = {
        "guider": ("CFGGuider", {**WIRES, "cfg": cfg}),
        "noise": ("RandomNoise", {"noise_seed": 7}),
        "sampler": ("KSamplerSelect", {"sampler_name": name}),
        "sigmas": levels,
        "end": ("SamplerCustomAdvanced", {**inputs, "latent_image": link("latent")}),
    }
    return graph_of(**{**made, **others})


def basic(sampler: str) -> tuple[str, dict[str, Any]]:
    inputs = {"model": link("model"), "scheduler": "simple", "steps": steps(sampler), "denoise": 1.0}
    return "BasicScheduler", inputs


BASIC = basic("euler")
RANGE = {"steps": STEPS, "sigma_max": 0.97, "sigma_min": 0.03}
# Nodes that give noise levels, with inputs on which every family can run them.
LEVELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"BasicScheduler {name}, denoise {denoise:g}": (
            "BasicScheduler",
            {"model": link("model"), "scheduler": name, "steps": STEPS, "denoise": denoise},
        )
        for name in ("normal", "sgm_uniform", "ddim_uniform", "beta")
        for denoise in (1.0, 0.6)
    },
    "KarrasScheduler": ("KarrasScheduler", {**RANGE, "rho": 5.0}),
    "ExponentialScheduler": ("ExponentialScheduler", RANGE),
    "PolyexponentialScheduler": ("PolyexponentialScheduler", {**RANGE, "rho": 1.3}),
    "BetaSamplingScheduler": (
        "BetaSamplingScheduler",
        {"model": link("model"), "steps": STEPS, "alpha": 0.5, "beta": 0.7},
    ),
    "OptimalStepsScheduler": ("OptimalStepsScheduler", {"model_type": "FLUX", "steps": STEPS, "denoise": 1.0}),
    "Flux2Scheduler": ("Flux2Scheduler", {"steps": STEPS, "width": 512, "height": 512}),
    "LTXVScheduler": (
        "LTXVScheduler",
        {
            "steps": STEPS,
            "max_shift": 2.05,
            "base_shift": 0.95,
            "stretch": True,
            "terminal": 0.1,
            "latent": link("latent"),
        },
    ),
    "ManualSigmas": ("ManualSigmas", {"sigmas": "0.98, .7, 0.4,0.15, 0.0"}),
}
# Of Stable Diffusion's range, for its families alone.
OF_VE = {
    "AlignYourStepsScheduler": ("AlignYourStepsScheduler", {"model_type": "SD1", "steps": STEPS, "denoise": 1.0}),
    "VPScheduler": ("VPScheduler", {"steps": STEPS, "beta_d": 19.0, "beta_min": 0.2, "eps_s": 0.002}),
}


def deterministic() -> list[str]:
    """The samplers whose conversion claims the picture."""
    return [name for name, row in known()["samplers"].items() if "id" in row and not row["noise"]]


def schedulers() -> list[str]:
    return known()["names"][:9]


def grid() -> Iterator[Case]:
    """Every combination, the small ones first."""
    few = ("euler", "ddim", "heun", "dpmpp_2m", "uni_pc", "res_multistep", "deis", "dpm_2")
    for family, cfg in product(FAMILIES, SCALES):

        def case(name: str, sampler: str, graph: Graph, family: str = family, cfg: float = cfg, **given: Any) -> Case:
            return Case(f"{name}, {family}, cfg {cfg:g}", family, graph, cfg, sampler, given)

        for sampler, scheduler in product(deterministic(), schedulers()):
            yield case(f"KSampler {sampler} {scheduler}", sampler, ksampler(sampler, scheduler, cfg))
        for sampler, scheduler, denoise in product(few, ("simple", "karras", "normal"), (0.87, 0.5, 0.3)):
            made = ksampler(sampler, scheduler, cfg, denoise=denoise)
            yield case(f"KSampler {sampler} {scheduler}, denoise {denoise:g}", sampler, made, picture=True)
        for sampler, window, leftover, noise in product(
            few, ((0, 4), (2, 10000), (2, 5), (1, 4)), ("enable", "disable"), ("enable", "disable")
        ):
            options = {"return_with_leftover_noise": leftover, "add_noise": noise}
            made = advanced(sampler, "simple", cfg, window, **options)
            said = f"KSamplerAdvanced {sampler} {window}, leftover {leftover}, noise {noise}"
            yield case(said, sampler, made, picture=noise == "disable")
        for sampler, cut in product(few, (1, 3)):
            yield case(f"two KSamplerAdvanced {sampler} cut at {cut}", sampler, pair(sampler, "normal", cfg, cut))
        for sampler in (name for name in few if name != "ddim"):
            made = ksampler(sampler, "normal", cfg, denoise=0.8)
            yield case(f"KSampler {sampler} with a mask", sampler, made, picture=True, mask=True)
        yield from of_custom_nodes(family, cfg, case)


def of_custom_nodes(family: str, cfg: float, case: Any) -> Iterator[Case]:
    for sampler in deterministic():
        if not sampler.endswith("cfg_pp") or cfg > 1.0:
            yield case(f"SamplerCustomAdvanced {sampler}", sampler, custom_advanced(sampler, cfg, basic(sampler)))
        yield case(f"SamplerCustom {sampler}", sampler, custom(sampler, cfg, basic(sampler)))
    for name, levels in {**LEVELS, **(OF_VE if family in FAMILIES[:2] else {})}.items():
        yield case(f"euler on {name}", "euler", custom_advanced("euler", cfg, levels))
    first = ("SetFirstSigma", {"sigmas": link("basic"), "sigma": 0.995})
    yield case("euler on SetFirstSigma", "euler", custom_advanced("euler", cfg, first, basic=LEVELS["ManualSigmas"]))
    cut = ("SplitSigmas", {"sigmas": link("basic"), "step": 2})
    made = custom_advanced("dpmpp_2m", cfg, cut, basic=BASIC)
    made["end"]["inputs"]["sigmas"] = link("sigmas", 1)
    yield case("dpmpp_2m on the end of SplitSigmas", "dpmpp_2m", made)
    made = custom_advanced("euler", cfg, BASIC, noise=("DisableNoise", {}))
    yield case("euler with DisableNoise", "euler", made, picture=True)
    yield case("SamplerCustom without noise", "heun", custom("heun", cfg, BASIC, add_noise=False), picture=True)
    lms = custom_advanced("lms", cfg, BASIC, sampler=("SamplerLMS", {"order": 3}))
    yield case("SamplerLMS of order 3", "lms", lms)


# Running a graph.


@cache
def model(family: str) -> Any:
    load_host()
    from stepwise.tests.support.toy_models import toy_model

    return toy_model(family)


@cache
def classes_of_nodes() -> dict[str, Any]:
    load_host()
    from stepwise.nodes import all_nodes

    import nodes as core

    asyncio.run(core.init_builtin_extra_nodes())
    return {**core.NODE_CLASS_MAPPINGS, **{each.define_schema().node_id: each for each in all_nodes()}}


def given_to(case: Case) -> dict[str, Any]:
    """The model, the prompts and the latent: two empty ones, or two pictures, masked or not."""
    generator = torch.Generator().manual_seed(3)
    latent: dict[str, Any] = {"samples": torch.zeros(2, 4, 8, 8)}
    if case.given.get("picture"):
        latent["samples"] = torch.randn(2, 4, 8, 8, generator=generator)
    if case.given.get("mask"):
        latent["noise_mask"] = (torch.rand(2, 1, 8, 8, generator=generator) > 0.5).float()
    prompts = {name: [[torch.full((1, 4, 8), value), {}]] for name, value in (("positive", 0.4), ("negative", -0.3))}
    return {"model": model(case.family), "latent": latent, **prompts}


def nested(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a choice under its name, as the host hands them over."""
    choices = {name.split(".")[0] for name in inputs if "." in name}
    made: dict[str, Any] = {name: value for name, value in inputs.items() if "." not in name}
    for choice in choices:
        rest = {name.split(".", 1)[1]: value for name, value in inputs.items() if name.startswith(f"{choice}.")}
        made[choice] = {choice: inputs[choice], **rest}
    return made


@torch.inference_mode()
def run(graph: Graph, given: Mapping[str, Any], end: str = "end") -> torch.Tensor:
    """The latent that comes out at the node `end`."""

    @cache
    def outputs(name: str) -> tuple[Any, ...]:
        if name in given:
            return (given[name],)
        made = classes_of_nodes()[graph[name]["class_type"]]
        inputs = {each: value_of(value) for each, value in graph[name]["inputs"].items()}
        if hasattr(made, "define_schema"):
            return made.execute(**nested(inputs)).args
        return getattr(made(), made.FUNCTION)(**inputs)

    def value_of(value: Any) -> Any:
        return outputs(value[0])[value[1]] if isinstance(value, list) else value

    return outputs(end)[0]["samples"].clone()


def difference(case: Case) -> float:
    """Of the converted graph from the original one, rms over rms; the conversion must claim the picture."""
    made, report = converted(case.graph)
    kinds = {each.kind for each in report.entries if each.sampling}
    if kinds != {"same picture"}:
        raise ValueError(f"{case.name} is {kinds}: {report.text()}")
    given = given_to(case)
    theirs, ours = run(case.graph, given), run(made, given)
    return ((ours - theirs).square().mean().sqrt() / theirs.square().mean().sqrt()).item()


def refused(case: Case) -> bool:
    """Whether it is left, as it has to be where it cannot be the same."""
    return bool(converted(case.graph)[1].left)


def show_templates() -> None:
    number, counts, why = classes()
    every = sum(counts.values())
    rows = [(name, count, f"{100 * count / every:.1f} %") for name, count in counts.most_common()]
    print(f"{number} templates, {every} nodes that sample\n")
    print(table(("Class", "Nodes", "Of all"), rows))
    print(table(("Left since", "Nodes"), why.most_common()))


def main() -> None:
    parser = argparse.ArgumentParser(prog="convert", description=__doc__)
    parser.add_argument("--templates", action="store_true", help="the templates alone")
    known_arguments = parser.parse_args()
    show_templates()
    if known_arguments.templates:
        return
    worst: dict[str, tuple[float, str]] = defaultdict(lambda: (0.0, ""))
    left = above = ran = 0
    for case in grid():
        if refused(case):
            left += 1
            continue
        off = difference(case)
        ran += 1
        above += not off <= case.bound
        if not off <= case.bound:
            print(f"above its bound: {case.name}: {off:.2e}")
        key = f"{'guidance' if case.cfg > 1 else 'no guidance'}, bound {case.bound:g}"
        worst[key] = max(worst[key], (off, case.name))
    print(f"{ran} graphs run both ways, {left} left, {above} above their bound\n")
    print(
        table(
            ("Runs", "Largest difference", "Which"), [(key, f"{off:.1e}", name) for key, (off, name) in worst.items()]
        )
    )


if __name__ == "__main__":
    main()
