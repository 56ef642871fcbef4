"""Whether the first call of a network in a process differs from later ones, and whether Load State's warm_up makes a
resumed run equal again: SD1.5 in float16, over several processes."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import folder_paths
import torch
from safetensors.torch import load_file, save_file
from stepwise.benchmarks._gpu_networks import DEVICE, Subject, flux, sd15, sdxl
from stepwise.benchmarks._gpu_runs import Results, difference, ours, synchronise
from stepwise.nodes.runs import files
from stepwise.tools.measure.host import node
from torch import Tensor, nn

STEPS, CUT = 10, 5
# What a new process does: it goes on from the state of another one, twice each with Load State's warm_up off and on,
# or makes the first runs of its life on another network.
ROLES = ("warm_up off", "warm_up off, again", "warm_up on", "warm_up on, again", "SDXL", "Flux")
OTHERS = {"SDXL": sdxl, "Flux": flux}


def compared(one: Tensor, other: Tensor) -> float:
    """0 for equal bits."""
    return 0.0 if torch.equal(one.cpu(), other.cpu()) else difference(one, other)


def one_call(subject: Subject, side: int = 0) -> Tensor:
    """The network alone on fixed numbers, both prompts at once."""
    side = side or subject.shape[-1]
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, subject.shape[1], side, side, generator=generator).to(DEVICE)
    context = torch.cat([subject.positive[0][0], subject.negative[0][0]]).to(DEVICE)
    dtype = subject.network.dtype
    return subject.network(x.to(dtype), torch.full((2,), 500.0, device=DEVICE), context=context.to(dtype)).float()


class Layers:
    """What every layer without parts got and gave in a call of the network."""

    def __init__(self, network: nn.Module):
        self.seen: dict[str, tuple[Tensor, Tensor]] = {}
        leaves = [(name, layer) for name, layer in network.named_modules() if not list(layer.children())]
        self.kinds = {name: type(layer).__name__ for name, layer in leaves}
        self.hooks = [layer.register_forward_hook(self.watching(name)) for name, layer in leaves]

    def watching(self, name: str) -> Any:
        def hook(layer: nn.Module, given: tuple[Any, ...], out: Any) -> None:
            if given and isinstance(given[0], Tensor) and isinstance(out, Tensor):
                self.seen[name] = given[0].clone(), out.clone()

        return hook

    def remove(self) -> None:
        for hook in self.hooks:
            hook.remove()


def layers_that_differ(first: Layers, later: Layers) -> dict[str, Any]:
    """The layers that gave something else for the same input, in the order of the call."""
    own = [
        f"{name} ({first.kinds[name]})"
        for name, (given, out) in first.seen.items()
        if name in later.seen and torch.equal(given, later.seen[name][0]) and not torch.equal(out, later.seen[name][1])
    ]
    return {"by themselves": own[:10], "how many": len(own), "of": len(first.seen)}


def calls(subject: Subject) -> dict[str, Any]:
    """The first calls of the network in this process against the last of them."""
    watched = Layers(subject.network)
    made = [one_call(subject)]
    watched.remove()
    made += [one_call(subject) for _ in range(3)]
    small = [one_call(subject, side=subject.shape[-1] // 2) for _ in range(3)]
    made += [one_call(subject) for _ in range(2)]
    again = Layers(subject.network)
    made.append(one_call(subject))
    again.remove()
    return {
        "calls 1 to 6 against the last": [compared(each, made[-1]) for each in made[:-1]],
        "calls of half the side, 1 and 2 against the last": [compared(each, small[-1]) for each in small[:-1]],
        "layers of call 1": layers_that_differ(watched, again),
    }


def whole_and_state(subject: Subject, folder: Path) -> dict[str, Any]:
    """A whole run, twice, and its state half-way, as files for other processes."""
    first, again = (ours(subject, "DPMpp2M", STEPS)[0]["samples"] for _ in range(2))
    state = ours(subject, "DPMpp2M", STEPS, end_step=CUT)[2]
    (folder / "state.safetensors").write_bytes(files.to_bytes(state, {}))
    save_file({"whole": again.cpu().clone()}, folder / "whole.safetensors")
    rest = ours(subject, "DPMpp2M", STEPS, state=state)[0]["samples"]
    return {"two whole runs": compared(first, again), "resumed in this process": compared(rest, again)}


def resumed(subject: Subject, role: str, folder: Path) -> dict[str, Any]:
    """In a new process: what of the run that was made in another one differs."""
    folder_paths.set_output_directory(str(folder))
    load = {"file": "state.safetensors [output]", "warm_up": role.startswith("warm_up on")}
    whole = load_file(folder / "whole.safetensors")["whole"]
    states = [node("StepwiseLoadState", **load)[0] for _ in range(3)]
    begun = time.perf_counter()
    rests = [ours(subject, "DPMpp2M", STEPS, state=state)[0]["samples"] for state in states]
    synchronise()
    return {
        "resumed, three times": [compared(rest, whole) for rest in rests],
        "seconds": round(time.perf_counter() - begun, 3),
    }


def first_runs(subject: Subject) -> dict[str, Any]:
    """In a new process: the first runs of two steps against the last of them."""
    made = [ours(subject, "DPMpp2M", 2)[0]["samples"].cpu().clone() for _ in range(4)]
    return {"runs 1 to 3 against the last": [compared(each, made[-1]) for each in made[:-1]]}


def first_call(results: Results, end: float, folder: Path, subject: Subject, small: bool) -> None:
    """Side by side, since a process takes longer to begin than to do this."""
    results.put("first call", "a run in the first process", whole_and_state(subject, folder))
    running = {role: begun(role, folder, small) for role in ROLES}
    try:
        while time.time() < end and any(process.poll() is None for process, _ in running.values()):
            time.sleep(0.1)
    finally:
        for process, log in running.values():
            process.kill()
            process.wait()
            log.close()
    for role in running:
        file = folder / f"{role}.json"
        said = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else last_of(folder / f"{role}.log")
        results.put("first call", role, said)


def begun(role: str, folder: Path, small: bool) -> tuple[subprocess.Popen[str], IO[str]]:
    """A process of that role, and the file that takes what it says."""
    log = (folder / f"{role}.log").open("w", encoding="utf-8")
    command = [sys.executable, sys.argv[0], "--role", role, "--folder", str(folder), *["--small"] * small]
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True), log


def last_of(file: Path) -> str:
    return "no result: " + file.read_text(encoding="utf-8", errors="replace")[-2000:]


def in_a_new_process(role: str, folder: Path, small: bool) -> None:
    found = first_runs(OTHERS[role](small)) if role in OTHERS else resumed(sd15(small), role, folder)
    beside = folder / f"{role}.tmp"
    beside.write_text(json.dumps(found), encoding="utf-8")
    beside.replace(folder / f"{role}.json")
