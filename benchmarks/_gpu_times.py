"""Times of benchmarks/gpu.py: steps around a network that costs nothing, and whole steps of real architectures."""

import contextlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from stepwise.benchmarks._gpu_networks import Free, Subject, toy
from stepwise.benchmarks._gpu_runs import SETTLED, WARM, Results, Runner, interleaved, our_runner, ours, their_runner
from stepwise.samplers.noise import ahead

# The latents of each: SD1.5 at 512, SDXL at 1024, Flux at 2048, Wan 2.2's 81 frames of 1280 x 720; and steps timed.
SIZES: Mapping[str, tuple[str, Sequence[int], float, int]] = {
    "SD1.5": ("EPS", (1, 4, 64, 64), 7.0, 20),
    "SDXL": ("EPS", (1, 4, 128, 128), 7.0, 20),
    "Flux 2048": ("FLUX", (1, 16, 256, 256), 1.0, 6),
    "Wan 720p": ("FLOW", (1, 16, 21, 90, 160), 5.0, 3),
}


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """No noise is drawn ahead: what that is worth."""
    kept, ahead.ahead = ahead.ahead, lambda noise, *_: noise
    try:
        yield
    finally:
        ahead.ahead = kept


def drawn_at_once(subject: Subject, steps: int) -> Any:
    with at_once():
        return ours(subject, "DPMpp2MSDE", steps)


SAMPLERS: Mapping[str, Runner] = {
    "ComfyUI, dpmpp_2m": their_runner("dpmpp_2m"),
    "ours, DPM++ 2M": our_runner("DPMpp2M"),
    "ComfyUI, dpmpp_2m_sde": their_runner("dpmpp_2m_sde"),
    "ComfyUI, dpmpp_2m_sde_gpu": their_runner("dpmpp_2m_sde_gpu"),
    "ours, DPM++ 2M SDE": our_runner("DPMpp2MSDE"),
    "ours, DPM++ 2M SDE, nothing drawn ahead": drawn_at_once,
    "ours, DPM++ 2M SDE, noise of the GPU": our_runner("DPMpp2MSDE", noise_device="gpu"),
}
UNIPC: Mapping[str, Runner] = {"ComfyUI, uni_pc": their_runner("uni_pc"), "ours, UniPC": our_runner("UniPC")}
BROWNIAN: Mapping[str, Runner] = {
    "ours, DPM++ 2M SDE, Brownian": our_runner("DPMpp2MSDE", noise_kind="brownian"),
    "ours, DPM++ 2M SDE, Brownian of the GPU": our_runner("DPMpp2MSDE", noise_kind="brownian", noise_device="gpu"),
}


def summary(times: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles in milliseconds."""
    low, median, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return {"median": round(median, 4), "quartiles": [round(low, 4), round(high, 4)], "repetitions": len(times)}


def noted(
    results: Results,
    part: str,
    runners: Mapping[str, Runner],
    subject: Subject,
    steps: int,
    repetitions: int,
    end: float,
    settled: int = SETTLED,
) -> None:
    results.put(part, "steps timed in a run", steps)
    for taken in interleaved(runners, subject, steps, repetitions, end, settled):
        for name, times in taken.items():
            results.put(part, name, {**summary(times), "all": [round(each, 4) for each in times]})


def free(results: Results, name: str, repetitions: int, end: float, small: bool) -> None:
    """Around a network that costs nothing."""
    kind, shape, cfg, steps = SIZES[name]
    if small:
        shape, steps = (*shape[:2], *[8] * (len(shape) - 2)), 3
    subject = toy(kind, shape, Free(), cfg=cfg)
    # A step of ComfyUI's CPU tree takes seconds for a video: the fewer the better.
    video = len(shape) == 5
    runners = {**SAMPLERS, **({} if video else UNIPC), **BROWNIAN}
    noted(results, f"free, {name}", runners, subject, steps, repetitions, end, WARM + 1 if video else SETTLED)


def whole(results: Results, name: str, subject: Subject, repetitions: int, end: float, small: bool) -> None:
    """Whole steps of a real architecture."""
    steps = 2 if small else 6 if name == "Flux" else 15
    results.put(f"whole, {name}", "numbers in the network", sum(p.numel() for p in subject.network.parameters()))
    # None of these begins otherwise than it goes on.
    noted(results, f"whole, {name}", SAMPLERS, subject, steps, repetitions, end, settled=WARM + 1)
    if torch.cuda.is_available():
        results.put(f"whole, {name}", "GiB of the device, peak", round(torch.cuda.max_memory_allocated() / 2**30, 2))
