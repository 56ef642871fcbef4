"""What a step costs besides the model: the tables of docs/cost.md and README.md.

    python benchmarks/cost.py           less than a minute: counts, which are the same on every machine
    python benchmarks/cost.py --time    some minutes more: the time of a step on this CPU, against the other libraries

The samplers run on a pretended GPU (tools/counting.py) with a model that costs nothing. Counted is one step in the
middle of a run: from the model call that begins it to the one that begins the next.
"""

import argparse
import os
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from stepwise.samplers import FLOW, VE, AddressedNoise, run, start
from stepwise.samplers import Path as NoisePath
from stepwise.samplers.registry import SOLVERS, Solver
from stepwise.samplers.schedules import karras
from stepwise.tools.measure.counting import Counts, Device
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
README, PAGE = ROOT / "README.md", ROOT / "docs" / "cost.md"
SHAPE = (1, 16, 256, 256)
STEPS, MIDDLE = 20, 10
SIGMAS = {
    VE: karras(STEPS),
    FLOW: tuple(3.0 * u / (1.0 + 2.0 * u) for u in (1.0 - i / STEPS for i in range(STEPS + 1))),
}
SOLVER: Mapping[str, Solver] = {solver.id: solver for solver in SOLVERS}
Options = Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """A solver of ours and its counterparts: a function of ComfyUI's, a scheduler of diffusers', each with options."""

    solver: str
    params: Options = field(default_factory=dict)
    comfyui: tuple[str, Options] | None = None
    diffusers: tuple[str, Options] | None = None

    @property
    def label(self) -> str:
        values = ", ".join(f"{name} {value}" for name, value in self.params.items())
        return SOLVER[self.solver].name + (f", {values}" if values else "")

    @property
    def calls(self) -> int:
        """Model calls of a step."""
        return len([stage for stage in self.plan(VE).stages if stage.step == MIDDLE])

    def plan(self, path: NoisePath):
        return SOLVER[self.solver].plan(path, SIGMAS[path], **self.params)


MULTISTEP, SINGLESTEP = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
SDE = {"algorithm_type": "sde-dpmsolver++"}
METHODS = (
    Method("DDPM", {}, ("ddpm", {}), ("DDPMScheduler", {})),
    Method("DDIM", {}, ("euler", {}), ("DDIMScheduler", {})),
    Method("Euler", {}, ("euler", {}), ("EulerDiscreteScheduler", {})),
    Method("EulerAncestral", {}, ("euler_ancestral", {}), ("EulerAncestralDiscreteScheduler", {})),
    Method("Heun", {}, ("heun", {}), ("HeunDiscreteScheduler", {})),
    Method("DPMSolver", {"order": "2"}, ("dpm_2", {}), ("KDPM2DiscreteScheduler", {})),
    Method(
        "DPMSolver",
        {"order": "3"},
        None,
        (SINGLESTEP, {"solver_order": 3, "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    ),
    Method("DPMpp2S", {}, ("dpmpp_2s_ancestral", {"eta": 0.0}), (SINGLESTEP, {"solver_order": 2})),
    Method("DPMpp2S", {"eta": 1.0}, ("dpmpp_2s_ancestral", {})),
    Method("DPMpp2M", {}, ("dpmpp_2m", {}), (MULTISTEP, {"solver_order": 2})),
    Method("DPMpp3M", {}, ("dpmpp_3m_sde", {"eta": 0.0}), (MULTISTEP, {"solver_order": 3})),
    Method("DPMppSDE", {}, ("dpmpp_sde", {})),
    Method("DPMpp2MSDE", {}, ("dpmpp_2m_sde", {}), (MULTISTEP, {"solver_order": 2, **SDE})),
    Method("DPMpp3MSDE", {}, ("dpmpp_3m_sde", {}), (MULTISTEP, {"solver_order": 3, **SDE})),
    Method("UniPC", {"order": 2}, None, ("UniPCMultistepScheduler", {"solver_order": 2})),
    Method("UniPC", {"order": 3}, ("uni_pc_bh2", {}), ("UniPCMultistepScheduler", {"solver_order": 3})),
    Method("DEIS", {}, ("deis", {}), ("DEISMultistepScheduler", {"solver_order": 3})),
    Method("LMS", {}, ("lms", {}), ("LMSDiscreteScheduler", {})),
    Method("Restart", {}),
    Method("LCM", {}, ("lcm", {}), ("LCMScheduler", {})),
)


# Running each library on a model of ours


class Enough(Exception):
    """The step has been seen: the rest of the run is not needed."""


Model = Callable[[Tensor], Tensor]


def run_ours(method: Method, model: Model, x: Tensor, path: NoisePath = VE) -> None:
    """As the node does it: the model wants the noise level as a tensor, one number per image."""

    def denoiser(x: Tensor, sigma: float) -> Tensor:
        x.new_full((len(x),), sigma)
        return model(x)

    run(method.plan(path), denoiser, start(x), AddressedNoise([0]))


def run_comfyui(method: Method, model: Model, x: Tensor) -> None:
    from comfy.extra_samplers import uni_pc
    from comfy.k_diffusion import sampling

    name, options = method.comfyui
    function = getattr(uni_pc if name.startswith("uni_pc") else sampling, f"sample_{name}".replace("uni_pc", "unipc"))
    sigmas = torch.tensor(SIGMAS[VE]).to(x.device)
    function(ComfyUIModel(model), x, sigmas, extra_args={}, disable=True, **options)


class ComfyUIModel:
    """What ComfyUI's functions want to know of a model, beside calling it: that it is of the EPS family."""

    def __init__(self, model: Model):
        import comfy.model_sampling

        class Sampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
            pass

        self.model = model
        sampling = Sampling()
        patcher = SimpleNamespace(get_model_object=lambda name: sampling)
        inner = SimpleNamespace(model_sampling=sampling)
        self.inner_model = SimpleNamespace(inner_model=inner, model_patcher=patcher)

    def __call__(self, x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        return self.model(x)


def run_diffusers(method: Method, model: Model, x: Tensor) -> None:
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    name, options = method.diffusers
    scheduler = getattr(diffusers, name)(**options)
    # Its singlestep scheduler counts model calls, not steps.
    scheduler.set_timesteps(STEPS * method.calls if name == SINGLESTEP else STEPS, device=x.device)
    for timestep in scheduler.timesteps:
        x = scheduler.step(model(x), timestep, x, return_dict=False)[0]


# Counting


class CountedModel:
    """Returns a tensor that is there already. The count runs from its call `first` to its call `last`."""

    def __init__(self, device: Device, first: int, last: int):
        self.device, self.first, self.last, self.calls = device, first, last, 0

    def __call__(self, x: Tensor) -> Tensor:
        if self.calls == self.first:
            self.device.begin()
        if self.calls == self.last:
            self.device.end()
            raise Enough
        self.calls += 1
        return self.device.put(torch.ones(x.shape))


def counted(
    runner: Callable[..., None], method: Method, shape: Sequence[int], first: int, last: int, **options: Any
) -> Counts:
    with torch.no_grad(), Device(shape) as device:
        try:
            runner(method, CountedModel(device, first, last), device.given(torch.randn(*shape)), **options)
        except Enough:
            return device.counts
    raise RuntimeError(f"{method.label}: the run ended before its step {MIDDLE} did")


def count_ours(method: Method, path: NoisePath = VE, shape: Sequence[int] = SHAPE) -> Counts:
    plan = method.plan(path)
    return counted(run_ours, method, shape, plan.first_stage(MIDDLE), plan.first_stage(MIDDLE + 1), path=path)


def count_theirs(runner: Callable[..., None], method: Method, shape: Sequence[int] = SHAPE) -> Counts:
    return counted(runner, method, shape, MIDDLE * method.calls, (MIDDLE + 1) * method.calls)


def extra_peak(counts: Counts) -> float:
    """Latents beyond the current x and denoised."""
    return counts.peak - 2.0


# Tables


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


HEAD = (
    "Solver, and whose",
    "kernels",
    "kernels, all",
    "latents moved",
    "peak",
    "syncs",
    "copies to the device",
    "draw copies",
)


def cells(counts: Counts) -> list[str]:
    numbers = (counts.kernels, counts.kernels_all, counts.moved, extra_peak(counts), counts.syncs, counts.uploads)
    draws = f"{counts.draws}, waited for" if counts.waited else f"{counts.draws}"
    return [*(f"{number:.4g}" for number in numbers), draws]


def short(counts: Counts | None) -> str:
    return " / ".join(cells(counts)[i] for i in (0, 2, 3, 4)) if counts else "-"


@dataclass(frozen=True)
class Measured:
    method: Method
    ours: Counts
    flow: Counts
    comfyui: Counts | None
    diffusers: Counts | None


def measure(method: Method) -> Measured:
    return Measured(
        method,
        count_ours(method),
        count_ours(method, FLOW),
        count_theirs(run_comfyui, method) if method.comfyui else None,
        count_theirs(run_diffusers, method) if method.diffusers else None,
    )


def full_table(results: Sequence[Measured]) -> str:
    rows: list[list[str]] = []
    for result in results:
        method = result.method
        rows.append([f"**{method.label}**", *cells(result.ours)])
        if cells(result.flow) != cells(result.ours):
            rows.append(["on flow models", *cells(result.flow)])
        if result.comfyui and method.comfyui:
            rows.append([f"ComfyUI `{method.comfyui[0]}`", *cells(result.comfyui)])
        if result.diffusers and method.diffusers:
            rows.append([f"diffusers `{method.diffusers[0]}`", *cells(result.diffusers)])
    return table(HEAD, rows)


def short_table(results: Sequence[Measured]) -> str:
    head = ("Kernels / latents moved / peak / syncs", "Stepwise", "ComfyUI", "diffusers")
    return table(head, [(r.method.label, short(r.ours), short(r.comfyui), short(r.diffusers)) for r in results])


# Time

SIZES = ((1, 4, 64, 64), (1, 4, 128, 128), (1, 16, 128, 128), (1, 16, 256, 256), (1, 16, 41, 120, 208))
TIMED = ("Euler", "DPMpp2M", "DPMSolver", "UniPC")
REPETITIONS = 15
WARM = 3  # steps until every history is full


class TimedModel:
    """Returns one tensor again and again, and takes the time from its call `first` to its call `last`."""

    def __init__(self, shape: Sequence[int], first: int, last: int):
        self.prediction = torch.ones(*shape)
        self.first, self.last, self.calls = first, last, 0

    def __call__(self, x: Tensor) -> Tensor:
        if self.calls == self.first:
            self.begun = time.perf_counter()
        if self.calls == self.last:
            self.seconds = time.perf_counter() - self.begun
            raise Enough
        self.calls += 1
        return self.prediction


def seconds(runner: Callable[..., None], method: Method, shape: Sequence[int], steps: int) -> float:
    """The time of a step, from a few in the middle of a run."""
    if runner is run_ours:
        first, last = (method.plan(VE).first_stage(step) for step in (WARM, WARM + steps))
    else:
        first, last = WARM * method.calls, (WARM + steps) * method.calls
    model = TimedModel(shape, first, last)
    try:
        runner(method, model, torch.randn(*shape))
    except Enough:
        return model.seconds / steps
    raise RuntimeError(f"{method.label}: the run ended too soon")


def quartiles(ratios: Sequence[float]) -> str:
    low, median, high = statistics.quantiles(ratios, n=4)
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def timed(method: Method, shape: Sequence[int]) -> list[str]:
    """Ours in milliseconds, and ours over each of the others', repetition by repetition in turn."""
    runners = (run_ours, run_comfyui, run_diffusers)
    steps = 10 if torch.Size(shape).numel() <= 1 << 20 else 1
    with torch.no_grad():
        taken = [[seconds(runner, method, shape, steps) for runner in runners] for _ in range(REPETITIONS + 1)][1:]
    size = "x".join(map(str, shape))
    ratios = [quartiles([times[0] / times[other] for times in taken]) for other in (1, 2)]
    return [method.label, size, f"{1e3 * statistics.median(times[0] for times in taken):.3g}", *ratios]


def time_table() -> str:
    head = ("Solver", "Latent", "ours, ms a step", "ours / ComfyUI", "ours / diffusers")
    methods = [method for method in METHODS if method.solver in TIMED and method.comfyui]
    return table(head, [timed(method, shape) for method in methods for shape in SIZES])


# The page

INTRODUCTION = f"""# What a step costs besides the model

Made by `python benchmarks/cost.py`. Every number but the times is counted, not measured, so it is the same on every
machine, and the tests hold it there.

The samplers run {STEPS} steps on a latent of {" x ".join(map(str, SHAPE))} float32 numbers, on tensors that pretend to
lie on a GPU, with a model that costs nothing. Counted is step {MIDDLE + 1}, from the model call that begins it to the
one that begins the next, so that all model calls of a step are in it:

- **kernels**: operations on the device that read or write a tensor of a latent's size; **kernels, all** has those on
  single numbers too.
- **latents moved**: what they read and write, in latents.
- **peak**: how many latents are alive at once beyond the current x and denoised. The latent that the run was given is
  not counted, for none of the three. Ours holds as long as nobody keeps a state of an earlier call.
- **syncs**: how often the host waits until the device has come to a value.
- **copies to the device**: of small tensors, made from numbers on the host.
- **draw copies**: latents of noise drawn on the host, each also counted as one kernel and one latent. Ours are pinned,
  so that nobody waits; drawn on the device they would be one kernel and one latent too.

diffusers' `step()` also turns the predicted noise into a denoised latent, 2 kernels and 5 latents moved, which for the
other two is part of the model call.

"""
TIMES = """
## Time

One CPU thread, a model that returns at once; the libraries in turn, {repetitions} times. The ratio is ours over theirs
in the same repetition, median and quartiles: below 1 ours is faster. Times depend on the machine and are not tested.

"""
SECTION = """## Cost

What a step costs besides the model, the same on every machine since it is counted; [docs/cost.md](docs/cost.md) has it
all. A kernel is one operation on latents, the peak is the memory beyond x and denoised in latents, and at a sync the
host waits for the GPU.

<!-- cost -->
<!-- /cost -->

"""


def fill_readme(results: Sequence[Measured]) -> None:
    text = README.read_text()
    if "<!-- cost -->" not in text:
        text = text.replace("## Quality\n", SECTION + "## Quality\n", 1)
    made = re.sub(r"(?<=<!-- cost -->\n).*?(?=<!-- /cost -->)", lambda _: short_table(results), text, flags=re.DOTALL)
    README.write_text(made)


def write_page(results: Sequence[Measured], times: str) -> None:
    """Without new times, those that the page has stay."""
    kept = PAGE.read_text().partition("\n## Time\n") if PAGE.is_file() else ("", "", "")
    times = TIMES.format(repetitions=REPETITIONS) + times if times else "".join(kept[1:])
    PAGE.write_text(INTRODUCTION + full_table(results) + times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", action="store_true", help="also take the time of a step")
    known = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from stepwise.tools.environment.inprocess import load_comfyui

    folder = load_comfyui()
    torch.set_num_threads(1)
    results = [measure(method) for method in METHODS]
    print(full_table(results))
    times = time_table() if known.time else ""
    print(times)
    write_page(results, times)
    fill_readme(results)
    folder.cleanup()


if __name__ == "__main__":
    main()
