"""The graphs that a conversion is tried on: each sampler, scheduler and part of a schedule, in the API's form."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from stepwise.convert.table import table as known

FAMILIES = ("EPS", "V_PREDICTION", "FLOW", "FLUX")
SCALES = (1.0, 5.0)
# Few, where differences are largest; this one in as many as its row is measured at: ComfyUI is coarser in fewer.
STEPS, OF_THE_ROW = 8, {"dpmpp_2s_ancestral": 12}
Graph = dict[str, dict[str, Any]]


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
    return OF_THE_ROW.get(sampler, STEPS)


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
