"""The parts of benchmarks/gpu.py that say right or wrong: cuts, batches, the CPU's result, draws under load, NaN."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from stepwise.benchmarks._gpu_networks import DEVICE, PerElement, Subject, toy
from stepwise.benchmarks._gpu_runs import Results, cuts_of, difference, ours, synchronise
from stepwise.samplers import AddressedNoise
from stepwise.samplers.plan import Noise
from stepwise.samplers.registry import SOLVERS
from torch import Tensor

STEPS = 6
KINDS = ("EPS", "FLOW")
NOISES = (
    {"noise_kind": "independent", "noise_device": "cpu"},
    {"noise_kind": "brownian", "noise_device": "cpu"},
    {"noise_kind": "independent", "noise_device": "gpu"},
)


def settings() -> Iterator[tuple[str, dict[str, str]]]:
    """Every solver at its default, those with noise with each kind of it."""
    for solver in SOLVERS:
        yield from ((solver.id, noise) for noise in (NOISES if solver.stochastic else ({},)))


def tally(results: Results, name: str, end: float, cases: Iterator[tuple[str, bool]]) -> None:
    """Counts the cases that are right until the time is over, and names those that are not."""
    right, wrong, over = 0, [], False
    for case, equal in cases:
        right += equal
        if not equal:
            wrong.append(case)
        if over := time.time() > end:
            break
    results.put("correctness", name, {"right": right, "wrong": wrong, "all": not over})


def cuts(results: Results, end: float) -> None:
    """Cut after a step and resumed, with a mask or without: equal bits."""

    def cases() -> Iterator[tuple[str, bool]]:
        mask = (torch.arange(256.0).view(1, 16, 16) % 3) / 2.0
        for kind in KINDS:
            subject = toy(kind, (2, 4, 16, 16))
            picture = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
            for masked in ({}, {"latent_image": {"samples": picture, "noise_mask": mask}}):
                for solver, noise in settings():
                    whole = ours(subject, solver, STEPS, images=2, **noise, **masked)[0]["samples"]
                    for cut in cuts_of(STEPS):
                        state = ours(subject, solver, STEPS, images=2, **noise, **masked, end_step=cut)[2]
                        rest = ours(subject, solver, STEPS, state=state, **noise)[0]["samples"]
                        yield f"{solver} {kind} {noise} cut {cut} {sorted(masked)}", torch.equal(rest, whole)

    tally(results, "cut and resumed, equal bits", end, cases())


def batches(results: Results, end: float) -> None:
    """An image alone and in a batch of three: equal bits."""

    def cases() -> Iterator[tuple[str, bool]]:
        for kind in KINDS:
            subject = toy(kind)
            noise = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(3))
            for solver, added in settings():
                together = ours(subject, solver, STEPS, images=3, noise=Fixed(7, noise), **added)[0]["samples"]
                for i in range(3):
                    alone = ours(subject, solver, STEPS, noise=Fixed(7 + i, noise[i : i + 1]), **added)[0]["samples"]
                    yield f"{solver} {kind} {added} image {i}", torch.equal(alone[0], together[i])

    tally(results, "alone and in a batch, equal bits", end, cases())


class Fixed:
    """A NOISE that is given; image i has seed + i."""

    def __init__(self, seed: int, noise: Tensor):
        self.seed, self.noise = seed, noise

    def generate_noise(self, latent: Any) -> Tensor:
        return self.noise


def against_cpu(results: Results, end: float) -> None:
    """The same run on the CPU: the largest difference over the rms, the worst of all solvers."""
    worst: dict[str, float] = {}
    for kind in KINDS:
        here, there = toy(kind), toy(kind, cpu=True)
        for solver in SOLVERS:
            runs = [ours(subject, solver.id, STEPS)[0]["samples"] for subject in (here, there)]
            worst[f"{solver.id} {kind}"] = difference(*runs)
            if time.time() > end:
                break
    top = sorted(worst.items(), key=lambda pair: -pair[1])[:5]
    results.put("correctness", "device against CPU", {"runs": len(worst), "worst": dict(top)})


def busy(milliseconds: float) -> None:
    """Gives the device work for so long."""
    if DEVICE.type == "cuda":
        torch.cuda._sleep(int(milliseconds * 1.5e6))


def draws_under_load(results: Results, end: float) -> None:
    """Noise drawn into pinned memory and copied while the device has other work: what the CPU drew."""
    noise, alone = AddressedNoise([5]), AddressedNoise([5])
    for shape in ((1, 4, 64, 64), (1, 16, 21, 90, 160)):
        like = torch.zeros(shape, device=DEVICE)
        addresses = [Noise("step", 1.0 / (i + 1), 1.0 / (i + 2)) for i in range(12)]
        busy(200.0)
        drawn = [noise(address, like) for address in addresses]
        ahead = DEVICE.type != "cuda" or not torch.cuda.current_stream().query()
        right = sum(
            torch.equal(each.cpu(), alone(address, each.cpu())) for each, address in zip(drawn, addresses, strict=True)
        )
        found = {"right": right, "of": len(addresses), "the device was behind": ahead}
        results.put("correctness", f"pinned draws under load, {'x'.join(map(str, shape))}", found)


def runs_under_load(results: Results, end: float) -> None:
    """Noise drawn ahead while the device is far behind, against the same draws made on the CPU for a model there."""

    def cases() -> Iterator[tuple[str, bool]]:
        for solver, noise in (("DDPM", {}), ("DPMppSDE", {}), ("DPMpp2MSDE", {"noise_kind": "brownian"}), ("LCM", {})):
            subject = toy("EPS", (1, 4, 64, 64))
            plain = ours(subject, solver, STEPS, **noise)[0]["samples"]
            subject.network.watch = lambda out: (busy(20.0), out)[1]
            for i in range(3):
                loaded = ours(subject, solver, STEPS, **noise)[0]["samples"]
                yield f"{solver} {noise} {i}", torch.equal(loaded, plain)

    tally(results, "runs under load, equal bits", end, cases())


def not_finite(results: Results, end: float) -> None:
    """A NaN at a step: what is said of it, and how many steps the host was ahead when it was."""
    from stepwise.nodes.host.finite import FiniteCheck

    found: dict[str, Any] = {}
    reached: list[int] = []
    culprit = FiniteCheck.culprit

    def noted(self: Any, call: int, noise: Any) -> str:
        reached.append(self.denoiser.calls)
        return culprit(self, call, noise)

    FiniteCheck.culprit = noted
    try:
        for load, work in (("an idle device", lambda: time.sleep(0.01)), ("a busy one", lambda: busy(20.0))):
            for images, victim in ((1, 0), (3, 2)):
                subject = toy("EPS", (images, 4, 16, 16), Failing(at=5, image=victim, work=work))
                try:
                    ours(subject, "DPMpp2M", 20, images=images)
                    said = "nothing"
                except ValueError as error:
                    said = str(error)
                named = re.search(r"at step (\d+) of", said)
                late = reached.pop() - int(named[1]) if named and reached else None
                found[f"{load}, image {victim} of {images}"] = {"said": said[:400], "steps late": late}
                synchronise()
    finally:
        FiniteCheck.culprit = culprit
    results.put("correctness", "a NaN at step 5 of 20", found)


class Failing(PerElement):
    """Makes NaN of one image from its step `at` on, told by the time that it is given."""

    def __init__(self, at: int, image: int, work: Callable[[], None]):
        super().__init__()
        self.at, self.image, self.work = at, image, work
        self.seen: list[int] = []

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, **given: Any) -> Tensor:
        self.work()
        out = super().forward(x, timesteps, context, **given)
        # Both prompts of the images are in a batch; 20 steps of simple on 1000 timesteps take 50 each.
        bad = timesteps.float() < 1000.0 - 50.0 * (self.at - 1)
        chosen = torch.arange(len(x), device=x.device) % max(1, len(x) // 2) == self.image
        shape = (-1, *[1] * (x.ndim - 1))
        return torch.where((bad & chosen).reshape(shape), torch.full_like(out, float("nan")), out)


def correctness(results: Results, end: float) -> None:
    checks = (not_finite, draws_under_load, runs_under_load, against_cpu, batches, cuts)
    shares = (0.1, 0.1, 0.1, 0.2, 0.4, 1.0)
    for check, share in zip(checks, shares, strict=True):
        begun = time.time()
        try:
            check(results, begun + share * (end - begun))
        except TimeoutError:
            raise
        except Exception as error:
            results.put("correctness", f"{check.__name__}, error", f"{type(error).__name__}: {error}"[:2000])
        results.put("correctness", f"{check.__name__}, seconds", round(time.time() - begun, 1))


__all__ = ["Subject", "busy", "correctness"]
