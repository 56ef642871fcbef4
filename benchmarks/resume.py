"""What a cut does to a picture: ComfyUI's SplitSigmas against a state, for the table in docs/claims.md.

    python benchmarks/resume.py            measures, and writes the table
    python benchmarks/resume.py --check    fails when the committed table differs

The model that comes with the pack, ten digits, 20 steps on the Karras schedule, guidance 3; a run in one piece, and
the same run in two parts. The difference is rms over rms. With ComfyUI the two parts are two SamplerCustomAdvanced on
the two halves of SplitSigmas, the second with DisableNoise, as its workflows have it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.generate import generated, markdown
from stepwise.tools.measure.digits import digits
from stepwise.tools.measure.host import execute, load_host, node
from torch import Tensor

CLAIMS = ROOT / "docs" / "claims.md"
STEPS, SEED, GUIDANCE, COUNT = 20, 7, 3.0, 10
HEAD = ("Stopped half-way and gone on", "ComfyUI", "ComfyUI, worst cut", "Stepwise, worst cut")


@dataclass(frozen=True)
class Method:
    """A sampler of ComfyUI and the same one here; with a mask the left half of the picture is kept."""

    label: str
    core: str
    solver: str
    mask: bool = False


METHODS = (
    Method("Euler", "euler", "Euler"),
    Method("Euler, inpainting", "euler", "Euler", mask=True),
    Method("DPM++ 2M", "dpmpp_2m", "DPMpp2M"),
    Method("DPM++ 2M, inpainting", "dpmpp_2m", "DPMpp2M", mask=True),
    Method("DPM++ 2M SDE", "dpmpp_2m_sde", "DPMpp2MSDE"),
    Method("UniPC", "uni_pc", "UniPC"),
)


@dataclass(frozen=True)
class Lines:
    """Differences to the run in one piece, by the step of the cut."""

    method: Method
    core: dict[int, float]
    ours: dict[int, float]


def begin(method: Method) -> dict[str, Any]:
    (positive,), (negative,) = node("StepwiseDigit", labels="0-9"), node("StepwiseDigit", labels="")
    model = digits("standard")
    (guider,) = node("StepwiseCFGGuider", model=model, positive=positive, negative=negative, cfg=GUIDANCE)
    latent = {"samples": torch.zeros(COUNT, 1, 8, 8)}
    if method.mask:
        latent["samples"] = torch.rand(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2.0 - 1.0
        latent["noise_mask"] = torch.ones(1, 1, 8, 8)
        latent["noise_mask"][..., :4] = 0.0
    return {"guider": guider, "noise": execute("RandomNoise", {"noise_seed": SEED})[0], "latent_image": latent}


def sigmas() -> Tensor:
    return node("StepwiseKarrasSchedule", model=digits("standard"), steps=STEPS)[0]


def difference(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


def core_parts(method: Method, cuts: list[int]) -> dict[int, float]:
    """ComfyUI's way: the schedule is split, and the latent of the first part is the second part's."""
    from comfy_extras.nodes_custom_sampler import DisableNoise, KSamplerSelect, SamplerCustomAdvanced, SplitSigmas

    begins = begin(method)
    (sampler,) = KSamplerSelect.execute(method.core).args
    (silence,) = DisableNoise.execute().args

    def sampled(noise: Any, part: Tensor, latent: dict[str, Any]) -> dict[str, Any]:
        # A copy: ComfyUI's uni_pc writes into the schedule that it is given.
        return SamplerCustomAdvanced.execute(noise, begins["guider"], sampler, part.clone(), latent).args[0]

    whole = sampled(begins["noise"], sigmas(), begins["latent_image"])["samples"]
    found = {}
    for cut in cuts:
        high, low = SplitSigmas.execute(sigmas(), cut).args
        half = sampled(begins["noise"], high, begins["latent_image"])
        found[cut] = difference(sampled(silence, low, half)["samples"], whole)
    return found


def our_parts(method: Method, cuts: list[int]) -> dict[int, float]:
    """Through a state that was written to bytes and read back."""
    from stepwise.nodes.runs.files import from_bytes, to_bytes

    begins, kind = begin(method), f"Stepwise{method.solver}"
    whole = node(kind, **begins, sigmas=sigmas())[0]["samples"]
    found = {}
    for cut in cuts:
        state = from_bytes(to_bytes(node(kind, **begins, sigmas=sigmas(), end_step=cut)[2], {}))
        rest = node(kind, guider=begins["guider"], state=state)[0]["samples"]
        found[cut] = 0.0 if torch.equal(rest, whole) else difference(rest, whole)
    return found


@torch.inference_mode()
def measured(cuts: list[int]) -> Iterator[Lines]:
    for method in METHODS:
        yield Lines(method, core_parts(method, cuts), our_parts(method, cuts))


def percent(value: float) -> str:
    if value < 1e-4:
        return "0, bit for bit" if value == 0.0 else "below 0.01 %"
    return f"{100.0 * value:.2g} %" if value < 0.1 else f"{100.0 * value:.0f} %"


def row_of(lines: Lines) -> tuple[str, ...]:
    worst = max(lines.core.values())
    return lines.method.label, percent(lines.core[STEPS // 2]), percent(worst), percent(max(lines.ours.values()))


def table(found: list[Lines]) -> str:
    return markdown.table(HEAD, map(row_of, found), figures=True)


def main() -> None:
    load_host()
    found = list(measured(list(range(1, STEPS))))
    made = table(found)
    print(made)
    equal = sum(value == 0.0 for lines in found for value in lines.ours.values())
    print(f"{equal} of {len(found) * (STEPS - 1)} cuts of Stepwise equal the run in one piece bit for bit")
    generated.main({CLAIMS: markdown.filled(CLAIMS.read_text(encoding="utf-8"), made, "resume")})


if __name__ == "__main__":
    main()
