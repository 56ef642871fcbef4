"""Workflows converted to Stepwise's nodes: how many of ComfyUI's templates, and how near the pictures are: the
tables of docs/convert.md.

    python benchmarks/convert.py               the templates by class, and the grid: some minutes
    python benchmarks/convert.py --templates   the templates alone: seconds
    python benchmarks/convert.py --sampler deis   the grid of one sampler alone, printed and not written
    python benchmarks/convert.py --keep FILE   what is measured is kept, and a run that was stopped goes on from it

The grid: every sampler of ComfyUI with a deterministic twin, on every scheduler, on four families of models with and
without guidance; denoise, parts of a schedule, leftover noise, no noise, masks; the schedule nodes; Sampler Custom and
Sampler Custom Advanced. Each graph and what becomes of it are both run, and their latents compared, rms over rms.
"""

import argparse
import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from stepwise.benchmarks._conversions import Case, Graph, grid
from stepwise.convert import converted
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate import generated
from stepwise.tools.generate.markdown import filled, table
from stepwise.tools.measure.host import load_host

PAGE = ROOT / "docs" / "convert.md"


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


# The grid: a graph and what becomes of it, both run.


@cache
def model(family: str) -> Any:
    from stepwise.tests.support.toy_models import toy_model

    return toy_model(family)


@cache
def classes_of_nodes() -> dict[str, Any]:
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


def run(graph: Graph, given: Mapping[str, Any]) -> torch.Tensor:
    """The latent that comes out at the end."""
    return outputs_of(graph, given, "end")[0]["samples"].clone()


@torch.inference_mode()
def outputs_of(graph: Graph, given: Mapping[str, Any], end: str) -> tuple[Any, ...]:
    """What comes out at a node."""

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

    return outputs(end)


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


def class_table() -> str:
    """The templates by class, and why nodes are left, for docs/convert.md."""
    number, counts, why = classes()
    every = sum(counts.values())
    by_class = [(name, count, f"{100 * count / every:.1f} %") for name, count in counts.most_common()]
    head = (f"Of {every} nodes that sample, in {number} graphs", "Nodes", "Of all")
    return f"{table(head, by_class)}\n{table(('Left since', 'Nodes'), why.most_common())}"


def differences(sampler: str, keep: Path | None) -> Iterator[tuple[Case, float]]:
    """Of each graph of the grid, or of one sampler in it; what `keep` has is not measured again."""
    lines = keep.read_text(encoding="utf-8").splitlines() if keep and keep.exists() else []
    kept = {name: off for line in lines for name, off in [json.loads(line)]}
    for case in grid():
        if sampler not in ("", case.sampler) or refused(case):
            continue
        if case.name not in kept:
            kept[case.name] = difference(case)
            if keep:
                with keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([case.name, kept[case.name]]) + "\n")
        yield case, kept[case.name]


def grid_table(sampler: str = "", keep: Path | None = None) -> str:
    """The largest differences of the grid, or of one sampler in it, for docs/convert.md; fails where one is above its
    bound."""
    worst: dict[str, tuple[float, str]] = defaultdict(lambda: (0.0, ""))
    counts, above = Counter[str](), list[str]()
    for case, off in differences(sampler, keep):
        if not off <= case.bound:
            above.append(f"{case.name}: {off:.2e}, above its bound of {case.bound:g}")
        key = f"{'with' if case.cfg > 1 else 'without'} guidance, to {case.bound:g}"
        counts[key] += 1
        worst[key] = max(worst[key], (off, case.name))
    if above:
        raise SystemExit("\n".join(above))
    rows = [(key, counts[key], f"{off:.1e}", name) for key, (off, name) in sorted(worst.items())]
    return table((f"{sum(counts.values())} graphs", "Runs", "Largest difference", "Of"), rows)


def write(name: str, text: str) -> None:
    print(text)
    generated.write({PAGE: filled(PAGE.read_text(encoding="utf-8"), text, name)})


def main() -> None:
    parser = argparse.ArgumentParser(prog="convert", description=__doc__)
    parser.add_argument("--templates", action="store_true", help="the templates alone")
    parser.add_argument("--sampler", help="the grid of this sampler alone, printed and not written")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keeps what is measured, and goes on from it")
    known_arguments = parser.parse_args()
    if known_arguments.sampler:
        load_host()
        print(grid_table(known_arguments.sampler, known_arguments.keep))
        return
    write("classes", class_table())
    if not known_arguments.templates:
        load_host()
        write("grid", grid_table(keep=known_arguments.keep))


if __name__ == "__main__":
    main()
