"""Writes docs/names.md, and the two tables of docs/ksampler.md, from the tables of twins.

python -m tools.generate.names
python -m tools.generate.names --check    fails when the committed file differs
"""

from collections.abc import Mapping, Sequence

from ..environment.folders import ROOT
from . import generated, templates
from .diffusers_twins import DIFFUSERS, NOT_DIFFUSERS
from .generated import Files
from .markdown import filled, table
from .twins import (
    BOTH,
    COMFYUI,
    DISCRETE,
    EDM,
    FLOW,
    FLOWS,
    K_DIFFUSION,
    NOT_COMFYUI,
    RES4LYF,
    SCHEDULERS,
    VE,
    Single,
    Twin,
)

PAGE, KSAMPLER = ROOT / "docs" / "names.md", ROOT / "docs" / "ksampler.md"
FAMILIES = {DISCRETE: "Stable Diffusion 1, 2 and XL", DISCRETE + EDM: "all but flow", FLOWS: "flow"}
MODELS = {BOTH: "all", VE: "all but flow", FLOW: "flow only"}

INTRODUCTION = """\
# Which one is it?

One solver goes by many names. Here is what to choose in Stepwise for a sampler that you know from ComfyUI, k-diffusion
or diffusers. Settings that are not named stay at their defaults.

Each row is a test: both are run on one schedule from one starting noise, with the same added noise where there is any,
and compared. Noise is drawn differently in each program, so a seed alone does not give the same picture where noise is
added; without added noise it does in ComfyUI.
"""
OF_COMFYUI = """\
## ComfyUI and k-diffusion

Largest relative difference 1e-5, guidance included, where the note says nothing else. `_gpu` draws the noise on the
device.

On flow models ComfyUI moves the first level of samplers that need a finite log-SNR a little below 1; `first_level` core
does the same.

The names in the last column are functions of k-diffusion, in the copy that ComfyUI carries; they are meant for models
other than flow.
"""
OF_DIFFUSERS = """\
## diffusers

After every model call of a run the difference is below 1e-9 with diffusers computed in float64, and below 1e-4
as it is, in float32. The schedule is the scheduler's own or given to both.
"""
WITHOUT = "### Without a twin\n"
OF_RES4LYF = """\
## RES4LYF

Its samplers have many settings; the rows are for those that its examples use. They are compared with the formulas,
written out a second time in tests/samplers/test_exponential.py, not with its code.
"""
TEMPLATES = """\
### In the templates that come with it
"""


def settings(values: Mapping[str, object]) -> str:
    shown = {name: f"{value:g}" if isinstance(value, float) else value for name, value in values.items()}
    return ", ".join(f"`{name}` {value}" for name, value in shown.items())


def solver_name(solver: str) -> str:
    from stepwise.samplers.registry import SOLVERS

    return next(entry.name for entry in SOLVERS if entry.id == solver)


def without(singles: Sequence[Single]) -> str:
    return "".join(f"- {', '.join(one.names)}: {one.why}\n" for one in singles)


def of_k_diffusion(twin: Twin) -> str:
    if twin.name == "dpmpp_2m_sde_heun":
        return "`sample_dpmpp_2m_sde`, `solver_type` heun"
    return f"`sample_{twin.name}`" if twin.name in K_DIFFUSION and "VE" in twin.paths else ""


def page() -> str:
    hosts = [
        (
            f"`{twin.name}`" + (f", {settings(twin.options)}" if twin.options else ""),
            f"**{solver_name(twin.ours)}**",
            settings(twin.params),
            MODELS[twin.paths],
            twin.note,
            of_k_diffusion(twin),
        )
        for twin in COMFYUI
    ]
    theirs = [
        (
            twin.name.removesuffix("Scheduler"),
            settings(twin.options),
            f"**{solver_name(twin.ours)}**",
            settings(twin.params),
            MODELS[twin.paths],
            twin.note,
        )
        for twin in DIFFUSERS
    ]
    res4lyf = [(f"`{name}`", f"**{ours}**", settings(params), note) for name, ours, params, note in RES4LYF]
    parts = [
        INTRODUCTION,
        OF_COMFYUI,
        table(("ComfyUI", "Stepwise", "Settings", "Models", "Note", "k-diffusion"), hosts),
        WITHOUT,
        without(NOT_COMFYUI),
        TEMPLATES,
        templates.section(),
        OF_RES4LYF,
        table(("RES4LYF", "Stepwise", "Settings", "Note"), res4lyf),
        OF_DIFFUSERS,
        table(("Scheduler", "Its options", "Stepwise", "Settings", "Models", "Note"), theirs),
        WITHOUT,
        without(NOT_DIFFUSERS),
    ]
    return "\n".join(parts)


def ksampler_samplers() -> str:
    """KSampler's own names, without options that it does not show."""
    rows = [
        (f"`{twin.name}`", f"**{solver_name(twin.ours)}**", settings(twin.params), MODELS[twin.paths])
        for twin in COMFYUI
        if not twin.options
    ]
    return table(("`sampler_name`", "`solver`", "Its settings", "Models"), rows)


def ksampler_schedulers() -> str:
    from stepwise.samplers.registry import SCHEDULES

    names = {entry.id: entry.name for entry in SCHEDULES}
    rows = [
        (
            f"`{twin.name}`",
            f"**{names[twin.ours]}**",
            settings(twin.params),
            FAMILIES.get(twin.models, "all"),
            twin.note,
        )
        for twin in SCHEDULERS
    ]
    return table(("`scheduler`", "`schedule`", "Its settings", "Models", "Note"), rows)


def files() -> Files:
    text = filled(KSAMPLER.read_text(encoding="utf-8"), ksampler_samplers(), "samplers")
    return {PAGE: page(), KSAMPLER: filled(text, ksampler_schedulers(), "schedulers")}


if __name__ == "__main__":
    generated.main(files())
