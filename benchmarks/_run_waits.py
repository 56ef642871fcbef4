"""How often the host waits for the device in a whole run of ComfyUI, on a pretended GPU: a table of
docs/guider_cost.md."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from stepwise.tools.generate.markdown import table
from stepwise.tools.measure.counting import GPU, Counts, Device
from stepwise.tools.measure.host import execute, node
from torch import Tensor, nn

SD_BETAS = {"beta_schedule": "linear", "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000}
SHAPE = (1, 4, 128, 128)


class Half(nn.Module):
    """Predicts half of what it is given, without a wait of its own."""

    def __init__(self):
        super().__init__()
        self.dtype = torch.float32

    def forward(self, x: Tensor, timesteps: Tensor, context: Any = None, **_: Any) -> Tensor:
        return x * 0.5


@contextmanager
def on_a_pretended_gpu(shape: Sequence[int], idle: bool) -> Iterator[tuple[Device, Any]]:
    """A device, and a MODEL of ComfyUI that is loaded there: what loading costs is no part of a run."""
    import comfy.model_management
    from stepwise.nodes.host.small_models import host_model

    load, patcher = comfy.model_management.load_models_gpu, host_model(Half(), sampling_settings=SD_BETAS)
    comfy.model_management.load_models_gpu = lambda *_, **__: None
    try:
        with Device(shape, idle) as device:
            patcher.load_device = GPU
            patcher.get_free_memory = lambda device: 1e15
            patcher.model.current_patcher = patcher
            sampling = patcher.get_model_object("model_sampling")
            for name, buffer in list(sampling.named_buffers()):
                sampling._buffers[name] = device.put(buffer)
            yield device, patcher
    finally:
        comfy.model_management.load_models_gpu = load


def counts_of(sampler: str, steps: int, idle: bool, parts: Sequence[int] = (), **given: Any) -> Counts:
    """Of a whole run of a step node of ours, or of ComfyUI's node where the `sampler` is one of ComfyUI's; from the
    inputs on the CPU to the latent on the CPU. With `parts` a run that stops after so many steps and the rest of it,
    from the state that the first leaves: the rest alone is counted."""
    prompts = [[[torch.full((1, 77, 768), value), {}]] for value in (1.0, 0.0)]
    sigmas = torch.cat([torch.linspace(10.0, 0.1, steps), torch.zeros(1)])
    with torch.inference_mode(), on_a_pretended_gpu(SHAPE, idle) as (device, model):
        inputs = {"model": model, "positive": prompts[0], "negative": prompts[1], "cfg": 4.0}
        latent = {"samples": torch.zeros(*SHAPE)}
        if sampler.islower():
            (guider,), (noise,) = execute("CFGGuider", inputs), execute("RandomNoise", {"noise_seed": 1})
            (chosen,) = execute("KSamplerSelect", {"sampler_name": sampler})
            run = {"guider": guider, "noise": noise, "sampler": chosen, "sigmas": sigmas, "latent_image": latent}
            device.begin()
            execute("SamplerCustomAdvanced", run)
        else:
            (guider,), (noise,) = node("StepwiseCFGGuider", **inputs), node("StepwiseNoise", seed=1)
            run = {"noise": noise, "sigmas": sigmas, "latent_image": latent, **given}
            for end in parts:
                run = {"state": node(f"Stepwise{sampler}", guider=guider, **run, end_step=end)[2], **given}
            device.begin()
            node(f"Stepwise{sampler}", guider=guider, **run)
        device.end()
    return device.counts


ROWS = (
    ("ComfyUI, `euler`", "euler"),
    ("Euler (Stepwise)", "Euler"),
    ("ComfyUI, `dpmpp_2m`", "dpmpp_2m"),
    ("DPM++ 2M (Stepwise)", "DPMpp2M"),
    ("ComfyUI, `uni_pc`", "uni_pc"),
    ("UniPC (Stepwise)", "UniPC"),
    ("ComfyUI, `dpmpp_2m_sde`", "dpmpp_2m_sde"),
    ("DPM++ 2M SDE (Stepwise)", "DPMpp2MSDE"),
)
INTRODUCTION = """
## Waits in a whole run

A run of the step node, or of ComfyUI's Sampler Custom Advanced, from inputs on the CPU to a latent on the CPU, on a
pretended GPU that is loaded and that is never idle, so that whoever asks for a value waits for it. On one that is
always idle ours has one wait less, the last look for values that are not finite. Copies to the device from memory that
is not pinned, for which a driver may wait or not, are told apart.

"""


def waits_table(chosen: Sequence[tuple[str, str]] = ROWS) -> str:
    """Waits in runs of 10 and of 20 steps, and copies that the driver may wait for."""
    rows = []
    for label, sampler in chosen:
        short, long = (counts_of(sampler, steps, idle=False) for steps in (10, 20))
        rows.append((label, *(each.waits - each.staged for each in (short, long)), long.staged))
    return table(("Sampler", "Waits, 10 steps", "Waits, 20 steps", "May wait, 20 steps"), rows)
