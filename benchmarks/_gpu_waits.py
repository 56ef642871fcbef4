"""How often the host waits for the device, as PyTorch itself tells it, and where."""

import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from stepwise.benchmarks._gpu_checks import busy
from stepwise.benchmarks._gpu_networks import DEVICE, PerElement, toy
from stepwise.benchmarks._gpu_runs import Results, our_runner, sigmas_of, synchronise, their_runner

SHORT, LONG = 10, 20
WATCHED = {
    "ours, Euler": our_runner("Euler"),
    "ours, DPM++ 2M": our_runner("DPMpp2M"),
    "ours, DPM++ 2M SDE, noise of the CPU": our_runner("DPMpp2MSDE"),
    "ours, DPM++ 2M SDE, Brownian": our_runner("DPMpp2MSDE", noise_kind="brownian"),
    "ours, DPM++ 2M SDE, noise of the GPU": our_runner("DPMpp2MSDE", noise_device="gpu"),
    "ComfyUI, euler": their_runner("euler"),
    "ComfyUI, dpmpp_2m": their_runner("dpmpp_2m"),
    "ComfyUI, uni_pc": their_runner("uni_pc"),
    "ComfyUI, dpmpp_2m_sde": their_runner("dpmpp_2m_sde"),
    "ComfyUI, dpmpp_2m_sde_gpu": their_runner("dpmpp_2m_sde_gpu"),
}


@contextmanager
def waits() -> Iterator[Counter[str]]:
    """Counts by place what `set_sync_debug_mode` warns of, and waiting for an event or stream, which it misses."""
    found: Counter[str] = Counter()
    kept = (torch.cuda.Event.synchronize, torch.cuda.Stream.synchronize) if DEVICE.type == "cuda" else ()

    def note(kind: str) -> None:
        frames = [f for f in traceback.extract_stack()[:-2] if "warnings" not in f.filename]
        own = [f for f in frames if "stepwise" in f.filename or "/comfy" in f.filename or "ComfyUI" in f.filename]
        places = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in own[-3:]]
        found[f"{kind}: {' < '.join(reversed(places))}"] += 1

    def warned(message: Any, *_: Any, **__: Any) -> None:
        if "synchroniz" in str(message):
            note("sync")

    def waiting(method: Callable[..., None], kind: str) -> Callable[..., None]:
        def wait(self: Any, *given: Any) -> None:
            note(kind)
            method(self, *given)

        return wait

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = warned
        if kept:
            torch.cuda.Event.synchronize = waiting(kept[0], "event")
            torch.cuda.Stream.synchronize = waiting(kept[1], "stream")
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            if kept:
                torch.cuda.set_sync_debug_mode("default")
                torch.cuda.Event.synchronize, torch.cuda.Stream.synchronize = kept


def counted(results: Results, end: float) -> None:
    """Waits a step, from runs of two lengths, and what is left of a run; on an idle device and on a busy one."""
    loads = (("an idle device", lambda: time.sleep(0.003)), ("a busy one", lambda: busy(5.0)))
    with waits():
        # To begin with it waits once itself.
        pass
    for kind in ("EPS", "FLOW"):
        for load, work in loads:
            subject = toy(kind, (1, 4, 64, 64), PerElement())
            subject.network.watch = lambda out, work=work: (work(), out)[1]
            for name, runner in WATCHED.items():
                if kind == "FLOW" and "SDE" in name:
                    continue
                runner(subject, SHORT)
                counts = []
                for steps in (SHORT, LONG):
                    sigmas_of(subject, steps)
                    synchronise()
                    with waits() as found:
                        runner(subject, steps)
                    counts.append(found)
                few, many = (found.total() for found in counts)
                a_step = (many - few) / (LONG - SHORT)
                entry = {"a step": a_step, "a run": few - SHORT * a_step}
                if name.startswith("ours") or name.endswith(" euler"):
                    entry["where, in a run of 10 steps"] = dict(counts[0].most_common(16))
                results.put("waits", f"{name}, {kind}, {load}", entry)
                if time.time() > end:
                    return
