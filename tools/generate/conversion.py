"""Writes convert/table.json: what the conversion of workflows knows of nodes, samplers and schedulers.

python -m tools.generate.conversion            with .dev/env, from the root
python -m tools.generate.conversion --check    fails when the committed file differs

The schemas are those of the nodes, ours and ComfyUI's; the samplers and schedulers are the twins that docs/names.md
lists, where one row of settings holds on every family of models, since a workflow does not say which it has.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from ..environment.folders import ROOT
from ..environment.inprocess import load_comfyui
from . import generated
from .generated import Files
from .graph import is_widget
from .markdown import filled
from .markdown import table as rows
from .names import settings
from .node_twins import ADVICE, AMPLIFIED, MASKED_NOISE, NODES, SAMPLERS, TO_ZERO
from .twins import BOTH, COMFYUI, NOT_COMFYUI, SCHEDULERS, Levels, Twin
from .workflows import info_of

FILE, PAGE = ROOT / "convert" / "table.json", ROOT / "docs" / "convert.md"
# Nodes of ComfyUI's that take the steps, or belong to one that does.
CORE = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced", "KSamplerSelect", "RandomNoise")
OURS = ("StepwiseKSampler", "StepwiseSample", "StepwiseCFGGuider", "StepwiseNamedSchedule")
KEPT = ("min", "max", "advanced")
EVERY_FAMILY = Levels("", "").models
# Largest relative difference to the namesake, where a row names no larger one: tests/nodes/test_names.py.
BOUND = 1e-5
# A few levels on which two settings that are one on a path give one plan.
LEVELS = (14.6, 9.0, 5.0, 2.0, 1.0, 0.4, 0.1, 0.0)


def spec(inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The inputs of a node in the editor's order; those of a choice under `choices`."""
    found = []
    for group in ("required", "optional"):
        for name, (kind, *rest) in inputs.get(group, {}).items():
            options = {"options": kind} if isinstance(kind, list) else dict(rest[0] if rest else {})
            kind = "COMBO" if isinstance(kind, list) else kind
            one: dict[str, Any] = {"name": name, "type": kind}
            if group == "optional":
                one["optional"] = True
            if is_widget(kind, options):
                one |= widget(kind, options)
            found.append(one)
    return found


def widget(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    choices = options.get("options") or []
    made: dict[str, Any] = {"widget": True}
    made |= {name: options[name] for name in KEPT if options.get(name) is not None}
    if kind == "COMFY_DYNAMICCOMBO_V3":
        made["default"] = choices[0]["key"]
        made["choices"] = [{"key": each["key"], "inputs": spec(each["inputs"])} for each in choices]
        return made
    if choices:
        made["options"] = list(choices)
    made["default"] = options["default"] if "default" in options else choices[0] if choices else ""
    if options.get("control_after_generate"):
        made["control"] = True
    return made


def node(kind: str, info: dict[str, Any]) -> dict[str, Any]:
    outputs = [list(each) for each in zip(info["output_name"], info["output"], strict=True)]
    return {"title": info["display_name"] or kind, "inputs": spec(info["input"]), "outputs": outputs}


def one_row(twins: list[Twin]) -> Twin | None:
    """The row that holds on both paths: one that says so, or that of flow models, where its settings give the plan of
    the other row's on the other path. None where there is none."""
    from stepwise.samplers import VE
    from stepwise.samplers.registry import SOLVERS

    plans = {each.id: each.plan for each in SOLVERS}

    def plan(twin: Twin) -> Any:
        return plans[twin.ours](VE, LEVELS, **twin.params)

    for twin in twins:
        if twin.paths == BOTH:
            return twin
    others = [twin for twin in twins if "VE" in twin.paths]
    flow = [twin for twin in twins if "FLOW" in twin.paths]
    return next((twin for twin in flow if any(plan(twin) == plan(other) for other in others)), None)


def samplers() -> dict[str, Any]:
    """Of each name of the host's: the solver and its settings, whether the picture or only its law is the same, and how
    far off it may be; or why there is none."""
    from stepwise.samplers import FLOW, VE
    from stepwise.samplers.registry import SOLVERS

    solvers = {each.id: each for each in SOLVERS}
    made: dict[str, Any] = {}
    for name in dict.fromkeys(twin.name for twin in COMFYUI):
        rows = [twin for twin in COMFYUI if twin.name == name and not twin.options]
        row = one_row(rows)
        if row is None:
            made[name] = {"left": "it has a twin on some families of models only, and a workflow does not say which"}
            continue
        if row.alone:
            made[name] = {"left": f"{solvers[row.ours].name} is the same for one image, and not for a batch"}
            continue
        solver, levels = solvers[row.ours], {VE: LEVELS, FLOW: (1.0, 0.7, 0.3, 0.0)}
        noisy = any(solver.plan(path, levels[path], **row.params).adds_noise for path in levels)
        params = {**row.params, **({"noise_device": "gpu"} if noisy and name.endswith("_gpu") else {})}
        bound = max(BOUND, *(each.bound for each in rows if each.ours == row.ours))
        made[name] = {"id": solver.id, "name": solver.name, "params": params, "noise": noisy, "bound": bound}
        made[name] |= {"to_zero": True} if name in TO_ZERO else {}
        made[name] |= {"masked_noise": True} if name in MASKED_NOISE else {}
    for single in NOT_COMFYUI:
        made |= {name: {"left": f"no solver of Stepwise takes its steps. {single.why}"} for name in single.names}
    return made


def schedulers() -> dict[str, Any]:
    """Of each name of the host's that one row has for every family: the schedule and its settings."""
    from stepwise.samplers.registry import SCHEDULES

    names = {each.id: each.name for each in SCHEDULES}
    whole = [twin for twin in SCHEDULERS if twin.models == EVERY_FAMILY and not twin.note]
    return {twin.name: {"name": names[twin.ours], "params": dict(twin.params)} for twin in whole}


def row_of(twin: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(twin).items() if value and name != "kind"}


def table(infos: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    from stepwise.nodes.host.schedulers import NAMES, WITHOUT_PENULTIMATE
    from stepwise.nodes.ksampler import BY_NAME
    from stepwise.samplers.registry import GUIDANCE

    rules = {each.id: each.name for each in GUIDANCE}
    return {
        "samplers": samplers(),
        "schedulers": schedulers(),
        "by_name": BY_NAME,
        "names": list(NAMES),
        "without_penultimate": list(WITHOUT_PENULTIMATE),
        "node_twins": {twin.kind: row_of(twin) for twin in NODES},
        "sampler_twins": {twin.kind: row_of(twin) for twin in SAMPLERS},
        "amplified": [list(each) for each in AMPLIFIED],
        "advice": {kind: rules[rule] for kind, rule in ADVICE.items()},
        "nodes": {kind: node(kind, info) for kind, info in infos.items()},
    }


def kinds() -> list[str]:
    """The nodes that the table has to know."""
    solvers = dict.fromkeys(each["id"] for each in samplers().values() if "id" in each)
    steps = [f"Stepwise{name}{suffix}" for name in solvers for suffix in ("", "Sampler")]
    twins = [kind for twin in NODES for kind in (twin.kind, twin.ours)]
    return list(dict.fromkeys([*CORE, *OURS, *steps, *twins, *(twin.kind for twin in SAMPLERS)]))


def written(made: Mapping[str, Any]) -> str:
    """JSON with a line for each thing that has a name."""
    parts = []
    for name, value in made.items():
        if isinstance(value, dict):
            rows = ",\n  ".join(f"{json.dumps(key)}: {json.dumps(each)}" for key, each in value.items())
            parts.append(f" {json.dumps(name)}: {{\n  {rows}\n }}")
        else:
            parts.append(f" {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def page(made: Mapping[str, Any]) -> str:
    """The tables of docs/convert.md that are of the table alone."""
    text = PAGE.read_text(encoding="utf-8")
    named, titles = made["samplers"].items(), {kind: each["title"] for kind, each in made["nodes"].items()}
    of_samplers = [
        (
            f"`{name}`",
            f"**{row['name']}**",
            settings(row["params"]),
            "same law" if row["noise"] else "same picture",
            f"{row['bound']:g}",
        )
        for name, row in named
        if "id" in row
    ]
    of_nodes = [(kind, titles[row["ours"]]) for kind, row in made["node_twins"].items()]
    solver = {name: f"{row['name']} Sampler" for name, row in named if "id" in row}
    makers = [(kind, solver[row["name"]]) for kind, row in made["sampler_twins"].items()]
    left: dict[str, list[str]] = {}
    for name, row in named:
        if "left" in row:
            left.setdefault(row["left"], []).append(f"`{name}`")
    lines = "".join(f"- {', '.join(names)}: {why}{'' if why.endswith('.') else '.'}\n" for why, names in left.items())
    text = filled(text, rows(("ComfyUI", "Stepwise"), [*of_nodes, *makers]), "nodes")
    text = filled(text, rows(("Sampler", "Solver", "Settings", "Class", "To"), of_samplers), "samplers")
    return filled(text, lines, "left")


def files() -> Files:
    """Needs ComfyUI in the process."""
    from stepwise.nodes import all_nodes

    import nodes as host_nodes

    classes = {each.define_schema().node_id: each for each in all_nodes()}
    if "KSamplerSelect" not in host_nodes.NODE_CLASS_MAPPINGS:
        asyncio.run(host_nodes.init_builtin_extra_nodes())
    infos = {kind: info_of(kind, classes.get(kind) or host_nodes.NODE_CLASS_MAPPINGS[kind]) for kind in kinds()}
    made = table(infos)
    return {FILE: written(made), PAGE: page(made)}


def main() -> None:
    folders = load_comfyui()
    made = files()
    folders.cleanup()
    generated.main(made)


if __name__ == "__main__":
    main()
