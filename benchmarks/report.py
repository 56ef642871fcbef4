"""What Sampler Report says of all of ComfyUI's samplers and of this pack's: the tables of docs/report.md.

    python benchmarks/report.py                      about 10 minutes on one core; fills what stands between the marks
    python benchmarks/report.py heunpp2 uni_pc       prints the reports of these, whole, and writes nothing
    python benchmarks/report.py --group ours         one of the two tables alone, core or ours
    python benchmarks/report.py --json FOLDER        puts the JSON of every report there too
    python benchmarks/report.py --page FOLDER        the tables from the JSON that lies there
    python benchmarks/report.py --packs FOLDER       loads the packs in a folder of custom nodes, and reports on the
                                                     names that they add to ComfyUI's list; writes nothing

The same samplers, on the same machine, give the same tables.
"""

import argparse
import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path as File
from typing import Any

from stepwise.samplers.registry import SOLVERS
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate import generated
from stepwise.tools.generate.markdown import filled, table
from stepwise.tools.measure.host import load_host, node

PAGE = ROOT / "docs" / "report.md"
HEAD = ("sampler", "calls", "order", "at 24 calls", "level", "law", "alone", "again", "SIGMAS")
# Of ComfyUI's samplers whose settings say what the name alone does not.
WITH_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpmpp_2m_sde, eta 0": ("dpmpp_2m_sde", {"eta": 0.0}),
    "dpmpp_3m_sde, eta 0": ("dpmpp_3m_sde", {"eta": 0.0}),
    "er_sde, no noise": ("er_sde", {"noise_scaler": lambda x: x, "s_noise": 0.0}),
}


def cores() -> Iterator[tuple[str, Any]]:
    import comfy.samplers

    for name in comfy.samplers.SAMPLER_NAMES:
        # Drawn on another device, and else the same.
        if not name.endswith("_gpu"):
            yield name, comfy.samplers.sampler_object(name)
    for label, (name, options) in WITH_OPTIONS.items():
        yield label, comfy.samplers.ksampler(name, options)


def ours() -> Iterator[tuple[str, Any]]:
    for solver in SOLVERS:
        yield solver.name, node(f"Stepwise{solver.id}Sampler")[0]


def of_packs(folder: File) -> Iterator[tuple[str, Any]]:
    """What the packs in a folder add to the host's names when they are loaded. One that fails to load ends it."""
    import comfy.samplers
    import server

    import nodes as core

    known = set(comfy.samplers.SAMPLER_NAMES) | set(comfy.samplers.KSampler.SAMPLERS)
    # Packs add routes to the server while they are imported.
    server.PromptServer(asyncio.new_event_loop())
    for pack in sorted(path for path in folder.iterdir() if path.is_dir() or path.suffix == ".py"):
        logging.disable(logging.NOTSET)
        if not asyncio.run(core.load_custom_node(str(pack), module_parent="custom_nodes")):
            raise SystemExit(f"{pack.name} cannot be loaded; ComfyUI says why above.")
        logging.disable(logging.WARNING)
    for name in comfy.samplers.KSampler.SAMPLERS:
        if name not in known:
            yield name, comfy.samplers.sampler_object(name)


def reported(name: str, sampler: Any) -> Any:
    import comfy.samplers
    from stepwise.nodes.host.exact import HostSampler
    from stepwise.samplers.exact.report import measured

    started = time.monotonic()
    euler = HostSampler(comfy.samplers.sampler_object("euler"))
    found = measured(name, HostSampler(sampler), euler)
    print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return found


def read(file: File) -> Any:
    """What was found of a sampler, from its JSON."""
    from stepwise.samplers.exact.report import Finding, Report

    data = json.loads(file.read_text(encoding="utf-8"))
    return Report(data["name"], tuple(Finding(**each) for each in data["findings"]), {}, {})


def file_of(folder: File, name: str) -> File:
    return folder / f"{name.replace('/', '_')}.json"


def cell(report: Any, what: str, say: Callable[[Any], str], wrong: str = "**{}**") -> str:
    """VE and FLOW, one value where both are the same; what is found wrong is bold."""
    from stepwise.samplers import FLOW, VE

    said = []
    for path in (VE, FLOW):
        finding = report.found(what, path)
        text = "error" if finding.verdict == "error" else say(finding.values)
        said.append(wrong.format(text) if finding.verdict in ("wrong", "error") else text)
    return said[0] if said[0] == said[1] else " / ".join(said)


def row(report: Any) -> tuple[str, ...]:
    def near(value: Any) -> str:
        return "-" if value is None else "yes" if value == 0.0 else "yes, ~" if value <= 1e-5 else f"no, {value:.1g}"

    return (
        report.name,
        cell(report, "model calls a step", lambda value: "-" if value is None else f"{value:g}"),
        cell(report, "order", lambda value: "-" if value is None else f"{value:.2f}"),
        cell(report, "error to Euler's", lambda value: f"{list(value.values())[1]:.2g}" if value else "-"),
        cell(report, "noise level at each call", lambda value: "right" if abs(value) <= 0.05 else f"{value:+.0%}"),
        cell(report, "law on Gaussian data", lambda value: f"{value[-1]['variance']:.2f}"),
        cell(report, "alone is in a batch", near),
        cell(report, "same seed, same picture", near),
        cell(report, "leaves SIGMAS alone", lambda value: "written" if value else "yes"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="samplers, by the name in the table; all without")
    parser.add_argument("--group", choices=("core", "ours"), help="one table; both without")
    parser.add_argument("--json", type=File, help="a folder for the reports as JSON")
    parser.add_argument("--page", type=File, help="a folder of such JSON, to make the tables from")
    parser.add_argument("--packs", type=File, help="a folder of custom nodes of others")
    given = parser.parse_args()
    load_host()
    groups = {"core": cores, "ours": ours}
    if given.packs:
        groups = {"packs": lambda: of_packs(given.packs)}
    elif given.group:
        groups = {given.group: groups[given.group]}
    lines = {}
    for group, samplers in groups.items():
        chosen = [(name, sampler) for name, sampler in samplers() if not given.names or name in given.names]
        reports = []
        for name, sampler in chosen:
            report = read(file_of(given.page, name)) if given.page else reported(name, sampler)
            reports.append(report)
            if given.names:
                print(report.text())
            if given.json:
                given.json.mkdir(parents=True, exist_ok=True)
                file_of(given.json, name).write_text(json.dumps(report.data(), indent=1), encoding="utf-8")
        lines[group] = table(HEAD, [row(report) for report in reports])
        print(lines[group])
    if not given.names and not given.packs:
        text = PAGE.read_text(encoding="utf-8")
        for group, made in lines.items():
            text = filled(text, f"{made}\n", group)
        generated.write({PAGE: text})


if __name__ == "__main__":
    main()
