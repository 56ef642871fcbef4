"""docs/gpu.md from docs/gpu.json, and docs/gpu.json from the results of runs of benchmarks/gpu.py."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate.generated import Files
from stepwise.tools.generate.markdown import table

PAGE, DATA = ROOT / "docs" / "gpu.md", ROOT / "docs" / "gpu.json"
Figures = Mapping[str, Any]
FREE = ("SD1.5", "SDXL", "Flux 2048", "Wan 720p")
WHOLE = ("SD1.5", "SDXL", "Flux")
PARTS = (
    "correctness",
    "waits",
    "first call",
    *(f"free, {name}" for name in FREE),
    *(f"whole, {name}" for name in WHOLE),
)
# What of a run is no figure: when it was, and the places and single times behind a figure.
BEHIND = ("all", "where, in a run of 10 steps", "seconds")


def has_figures(part: Figures) -> bool:
    return any(isinstance(value, dict) for value in part.values())


def pruned(part: Figures) -> dict[str, Any]:
    kept = {name: value for name, value in part.items() if not name.endswith("seconds")}
    for name, value in kept.items():
        if name != "cut and resumed, equal bits" and isinstance(value, dict):
            kept[name] = {
                key: each for key, each in value.items() if key not in BEHIND or isinstance(each, bool | float)
            }
    return kept


def joined(runs: Sequence[Path]) -> str:
    """The text of docs/gpu.json: of each part what the last of `runs`, oldest first, that has it found, with the
    machine and the commit of that run; of times those before it too."""
    found: dict[str, Any] = {}
    for run in runs:
        data = json.loads(run.read_text(encoding="utf-8"))
        for name in PARTS:
            if has_figures(data.get(name, {})):
                before = [found.pop(name)] if name in found and name.startswith(("free", "whole")) else []
                found[name] = {"machine": data["machine"]["what"], "figures": pruned(data[name])}
                if before:
                    found[name]["earlier"] = before[0]
    return json.dumps({name: found[name] for name in PARTS if name in found}, indent=1) + "\n"


def small(value: float) -> str:
    return "0" if value == 0.0 else f"{value:.1e}"


def machines(data: Figures) -> str:
    told: dict[str, list[str]] = {}
    for name, part in data.items():
        what = part["machine"]
        row = (
            what["device"],
            f"PyTorch {what['torch']}, CUDA {what['CUDA']}",
            f"ComfyUI {what['ComfyUI']}",
            what["commit"],
        )
        told.setdefault("\n".join(row), []).append(name)
    head = ("Parts", "Device", "Libraries", "Host", "Commit of the pack")
    return table(head, [("; ".join(names), *row.split("\n")) for row, names in told.items()])


def correctness(figures: Figures) -> str:
    equal = ("cut and resumed, equal bits", "alone and in a batch, equal bits", "runs under load, equal bits")
    names = (
        "Runs cut after a step and resumed: every solver, kinds of noise, with a mask and without",
        "Images of a batch of three against the image alone",
        "Runs on a device that is far behind, noise drawn ahead, against an idle one",
    )
    rows = []
    for key, name in zip(equal, names, strict=True):
        right, wrong = figures[key]["right"], len(figures[key]["wrong"])
        rows.append((name, f"{right} of {right + wrong} equal in every bit"))
    for key, found in figures.items():
        if key.startswith("pinned draws"):
            shape = key.rpartition(", ")[2].replace("x", " x ")
            rows.append((f"Draws of {shape} into pinned memory under load", f"{found['right']} of {found['of']} equal"))
    against = figures["device against CPU"]
    worst = max(against["worst"].values())
    rows.append((f"The device against the CPU, {against['runs']} runs, largest difference over rms", small(worst)))
    return table(("Check", "Result"), rows)


def waits(figures: Figures) -> str:
    """Whole numbers of waits, from those of a step and of a run."""
    cases = [f"{kind}, {load}" for kind in ("EPS", "FLOW") for load in ("an idle device", "a busy one")]
    samplers = list(dict.fromkeys(name.rsplit(", ", 2)[0] for name in figures))

    def counted(sampler: str, case: str) -> str:
        found = figures.get(f"{sampler}, {case}")
        return "" if found is None else " / ".join(f"{n * found['a step'] + found['a run']:.0f}" for n in (10, 20))

    return table(("Sampler", *cases), [(name, *(counted(name, case) for case in cases)) for name in samplers])


def late(figures: Figures) -> str:
    found = figures["a NaN at step 5 of 20"]
    return table(
        ("A NaN at step 5 of 20", "Told so many steps later"), [(n, each["steps late"]) for n, each in found.items()]
    )


def first_call(figures: Figures) -> str:
    network, run = figures["in the first process"], figures["a run in the first process"]
    rows: list[tuple[str, Sequence[float]]] = [
        ("SD1.5: calls 1 to 6 of the network in a process against the 7th", network["calls 1 to 6 against the last"]),
        ("SD1.5: after that, two whole runs; a resumed run in the same process", list(run.values())),
    ]
    for name, found in figures.items():
        if name.startswith("warm_up"):
            rows.append((f"SD1.5: resumed three times in a new process, {name}", found["resumed, three times"]))
        elif "runs 1 to 3 against the last" in found:
            rows.append((f"{name}: runs 1 to 3 in a process against the 4th", found["runs 1 to 3 against the last"]))
    return table(
        ("Largest difference over rms", "In their order"), [(name, ", ".join(map(small, all_))) for name, all_ in rows]
    )


def figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100.0 else f"{value:.3g}"


def spread(found: Figures | None) -> str:
    return "" if found is None else "{} ({} to {})".format(*map(figure, (found["median"], *found["quartiles"])))


def times(data: Figures, kind: str, names: Sequence[str]) -> str:
    parts = [data[f"{kind}, {name}"]["figures"] for name in names]
    timed = [{name: found for name, found in part.items() if isinstance(found, dict)} for part in parts]
    heads = [
        f"{name}, {max(f['repetitions'] for f in found.values())} times"
        for name, found in zip(names, timed, strict=True)
    ]
    samplers = list(dict.fromkeys(sampler for found in timed for sampler in found))
    return table(("Sampler", *heads), [(sampler, *(spread(f.get(sampler)) for f in timed)) for sampler in samplers])


def against(part: Figures, one: str, other: str, digits: int = 3) -> str:
    """The medians of two samplers."""
    return " against ".join(f"{part['figures'][name]['median']:.{digits}g}" for name in (one, other))


AHEAD = "ours, DPM++ 2M SDE", "ours, DPM++ 2M SDE, nothing drawn ahead"
TREE = "ours, DPM++ 2M SDE", "ComfyUI, dpmpp_2m_sde_gpu"


def page(data: Figures) -> str:
    figures = {name: part["figures"] for name, part in data.items()}
    first = figures["first call"]
    off, on = (first[name]["seconds"] for name in ("warm_up off", "warm_up on"))
    layers = first["in the first process"]["layers of call 1"]
    return TEXT.format(
        machines=machines(data),
        correctness=correctness(figures["correctness"]),
        waits=waits(figures["waits"]),
        late=late(figures["correctness"]),
        first_call=first_call(first),
        layers=layers["of"],
        off=off,
        on=on,
        free=times(data, "free", FREE),
        whole=times(data, "whole", WHOLE),
        free_sd15=against(data["free, SD1.5"], *AHEAD),
        free_sd15_before=against(data["free, SD1.5"]["earlier"], *AHEAD),
        free_sdxl=against(data["free, SDXL"], *AHEAD),
        free_flux=against(data["free, Flux 2048"], *AHEAD),
        free_wan=against(data["free, Wan 720p"], *AHEAD),
        wan_tree=against(data["free, Wan 720p"], *TREE),
        sdxl_before=against(data["whole, SDXL"]["earlier"], *AHEAD),
        sdxl=against(data["whole, SDXL"], *AHEAD),
        sd15=against(data["whole, SD1.5"], *AHEAD),
        flux=against(data["whole, Flux"], *AHEAD, digits=4),
        billions=f"{figures['whole, Flux']['numbers in the network'] / 1e9:.1f}",
        before=table(("Before this change, NVIDIA H100, ms a step", "ComfyUI", "Stepwise"), BEFORE),
    )


def files() -> Files:
    return {PAGE: page(json.loads(DATA.read_text(encoding="utf-8")))}


BEFORE = (
    ("free, SD1.5, DPM++ 2M", "1.52", "0.46"),
    ("free, SD1.5, UniPC", "3.2", "0.69"),
    ("free, SD1.5, DPM++ 2M SDE", "8.8 CPU, 5.9 GPU", "0.70 CPU, 0.56 GPU, 0.71 Brownian"),
    ("free, Flux 2048, DPM++ 2M SDE", "228 CPU, 4.9 GPU", "4.5 CPU, 0.42 GPU"),
    ("free, Wan 720p, DPM++ 2M SDE", "7.6 GPU", "28.9 CPU, 0.88 GPU"),
    ("whole, Flux 1024, DPM++ 2M", "192.2", "187.2"),
    ("whole, Flux 1024, DPM++ 2M SDE", "295 CPU, 195.6 GPU", "188.0 CPU, 185.7 GPU"),
)
TEXT = """# What a GPU shows

Made by `python benchmarks/gpu.py --page` from [gpu.json](gpu.json), which is put together by `python benchmarks/gpu.py
--join RESULTS` from what `python benchmarks/gpu.py --seconds 500 --commit REV --out FOLDER` measures on a computer with
a GPU. No test repeats these figures, since the tests run on CPUs: what can be counted there is in
[cost.md](cost.md) and [guider_cost.md](guider_cost.md).

{machines}
ComfyUI ran with `--gpu-only`. The networks of SD1.5, SDXL and Flux have the architecture and random numbers.

## Right or wrong

Six steps of every solver on a network that treats every number for itself.

{correctness}
## Waits

How often the host waits for the device in a run of 10 / of 20 steps. An idle device has done everything it was given
before the next call of the network, a busy one has 5 ms of other work in each call.

{waits}
Counted are the warnings of `torch.cuda.set_sync_debug_mode` and, since it does not warn of them, waits for an event or
a stream. It misses other waits too: PyTorch calls it incomplete, and a copy from memory that is not pinned, where the
driver may wait, is no wait to it. [guider_cost.md](guider_cost.md) counts those apart on a pretended GPU; its runs also
copy the latent to the CPU at the end, where with `--gpu-only` it stays on the device.

**Values that are not finite.** The host looks at the sums of the predictions when they have come, and waits for them
only at the end of a run. So a NaN is told as many steps late as the device is behind, never later than the end, and
always with the step and image where it arose:

{late}
No state that is not finite is saved meanwhile: autosave looks at what it writes.

## What a GPU promises for a resumed run

Within a process, the same bits. In a new process the first call of a network in 16 bits may differ from all later
ones, and a run that goes on there begins with it:

{first_call}
Of SD1.5's {layers} layers none alone gave anything else for what it was given, so the difference comes from what is
between them, such as attention. *Load State*'s `warm_up` makes one call that is thrown away before the run goes on:
with it the resumed run had the bits of the uncut one in both processes, without it in neither. Three resumed runs of
five steps, each from a state of its own, took {on:.2f} s with it and {off:.2f} s without. It was tried with SD1.5 only;
SDXL and Flux show the same kind of first run. Equal bits on another device, driver or version of PyTorch are not
promised.

## Times around a network that costs nothing

Milliseconds a step, from the middle of a run, all samplers in turn again and again: median (quartiles). The sizes are
SD1.5 at 512 x 512, SDXL at 1024 x 1024, Flux at 2048 x 2048 and 81 frames of Wan at 1280 x 720. ComfyUI's
`dpmpp_2m_sde` draws on the CPU and `dpmpp_2m_sde_gpu` on the GPU, both from a Brownian tree; ours draws independent
noise on the CPU unless the row says otherwise.

{free}
A free network leaves little time to draw beside. Noise drawn ahead against noise drawn when it is asked for is

- {free_sd15} at SD1.5's size, and {free_sd15_before} in an earlier run: no gain;
- {free_sdxl} at SDXL's, with quartiles that hardly keep apart;
- {free_flux} at Flux's and {free_wan} at Wan's, with quartiles that overlap.

Where nothing hides it, noise of the CPU for a large video takes longer than ComfyUI's tree on the GPU ({wan_tree}),
and Brownian noise of the CPU much longer: there draw on the GPU.

## Whole steps

SD1.5 at 512 x 512, SDXL and Flux ({billions} billion parameters) at 1024 x 1024, milliseconds a step: median
(quartiles).

{whole}
The quartiles of SD1.5 and SDXL are wide; what took the time there was not looked into. For DPM++ 2M those of ComfyUI
and ours overlap at both sizes; each tree of ComfyUI takes longer than our noise drawn on the same device. Noise drawn
ahead against noise drawn when it is asked for:

- SD1.5: {sd15};
- SDXL: {sdxl}, and {sdxl_before} in an earlier run of two repetitions;
- Flux: {flux}.

So with these networks it gains nothing that can be told from the scatter.

## Before this change

Measured at 0.1.0 with few repetitions. Not measured again on this device; of those versions nothing but this is
claimed.

{before}"""
