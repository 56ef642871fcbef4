"""Train the Digits models from nothing: the teacher, then its distillation for LCM.

    .dev/env/bin/python demo/train.py [--out demo] [--threads 2] [--keep-teacher]

Everything follows from SEED; a CPU is enough.
"""

import argparse
import copy
import importlib
import math
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from stepwise.tools.environment.inprocess import load_comfyui
from torch import Tensor, nn

PACK = Path(__file__).resolve().parent.parent
SEED = 0
BATCH = 64
LABEL_DROPOUT = 0.1
TEACHER_STEPS, TEACHER_RATE, TEACHER_EMA = 5000, 1e-3, 0.998
LCM_STEPS, LCM_RATE, LCM_EMA, LCM_STRIDE = 800, 5e-4, 0.95, 20
MIN_SNR = 5.0


def load_pack():
    """The pack's modules `nodes.host.digits` and `demo.classifier`, and the host's folders, which the caller keeps."""
    # PyTorch's attention is the one with a gradient here.
    folders = load_comfyui("--use-pytorch-cross-attention")
    names = ("stepwise.nodes.host.digits", "stepwise.demo.classifier")
    return *map(importlib.import_module, names), folders


def initialise(module: nn.Module) -> None:
    """PyTorch's own initialisation, which the host's layers skip, and zero for the last layer of each branch."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, (nn.GroupNorm, nn.LayerNorm)):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    for name, layer in module.named_modules():
        if name.endswith(("out_layers.3", "proj_out")) or name == "out.2":
            nn.init.zeros_(layer.weight)


class Batches:
    """Noised training images with their labels: all the randomness of a run, from one generator."""

    def __init__(self, images: Tensor, labels: Tensor, no_class: int, seed: int):
        self.images, self.labels, self.no_class = images, labels, no_class
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, timesteps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`(images, noise, timesteps, labels)`: one of `timesteps` per image, LABEL_DROPOUT of the labels dropped."""
        g = self.generator
        chosen = torch.randint(len(self.images), (BATCH,), generator=g)
        images = self.images[chosen]
        noise = torch.randn(images.shape, generator=g)
        times = timesteps[torch.randint(len(timesteps), (BATCH,), generator=g)]
        dropped = torch.rand(BATCH, generator=g) < LABEL_DROPOUT
        return images, noise, times, self.labels[chosen].masked_fill(dropped, self.no_class)


def optimise(name: str, parameters: list, rate: float, steps: int, loss_of_step, after_step) -> None:
    """AdamW under a cosine with a warm-up of 100 steps; prints where it is."""
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: min(1.0, (i + 1) / 100) * 0.5 * (1 + math.cos(math.pi * i / steps))
    )
    start, running = time.monotonic(), None
    for step in range(1, steps + 1):
        loss = loss_of_step()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        after_step()
        running = loss.item() if running is None else 0.99 * running + 0.01 * loss.item()
        if step % 100 == 0:
            elapsed = time.monotonic() - start
            left = elapsed / step * (steps - step)
            print(f"{name} {step}/{steps}  loss {running:.4f}  {elapsed:.0f} s, {left:.0f} s left", flush=True)


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    """One step of the exponential moving average."""
    for a, p in zip(average.parameters(), module.parameters(), strict=True):
        a.lerp_(p, 1.0 - decay)


def frozen_copy(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).requires_grad_(False)


class Network(nn.Module):
    """The UNet and its table of label embeddings, trained together; the weights file is its state."""

    def __init__(self, digits):
        super().__init__()
        self.unet = digits.build_unet()
        self.labels = nn.Parameter(torch.randn(digits.NO_CLASS + 1, digits.TOKENS, digits.CONTEXT))
        initialise(self.unet)

    def denoise(self, sampling: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """The denoised prediction as the host computes it: `sampling` scales the input and reads the output."""
        output = self.unet(sampling.calculate_input(sigma, x), sampling.timestep(sigma).float(), self.labels[labels])
        return sampling.calculate_denoised(sigma, output, x)


def train_teacher(digits, sampling: nn.Module, batches: Batches) -> Network:
    """Epsilon prediction; the loss of each noise level weighted by min(SNR, 5) / SNR (arXiv:2303.09556)."""
    network = Network(digits)
    average = frozen_copy(network)
    timesteps = torch.arange(len(sampling.sigmas))

    def loss_of_step() -> Tensor:
        images, noise, times, labels = batches.draw(timesteps)
        sigma = sampling.sigmas[times]
        broadcast = sigma.view(-1, 1, 1, 1)
        scaled = sampling.calculate_input(sigma, images + broadcast * noise)
        error = network.unet(scaled, times.float(), network.labels[labels]) - noise
        return (error.square() * (MIN_SNR * broadcast.square()).clamp(max=1.0)).mean()

    optimise(
        "teacher",
        list(network.parameters()),
        TEACHER_RATE,
        TEACHER_STEPS,
        loss_of_step,
        lambda: follow(average, network, TEACHER_EMA),
    )
    return average


def distil(digits, teacher: Network, sampling: nn.Module, lcm: nn.Module, batches: Batches) -> Network:
    """Latent consistency distillation (arXiv:2310.04378, algorithm 1) at guidance 1.

    A DDIM step of the teacher takes x from timestep t to t - 20; the student's prediction at t follows its own
    moving average's there. The label embeddings stay the teacher's, so that both models share them.
    """
    student = copy.deepcopy(teacher)
    student.unet.requires_grad_(True)
    average = frozen_copy(student)
    timesteps = torch.arange(LCM_STRIDE - 1, len(sampling.sigmas), LCM_STRIDE)

    def loss_of_step() -> Tensor:
        images, noise, times, labels = batches.draw(timesteps)
        s, t = sampling.sigmas[(times - LCM_STRIDE).clamp(min=0)], sampling.sigmas[times]
        x_t = images + t.view(-1, 1, 1, 1) * noise
        with torch.no_grad():
            x_s = torch.lerp(teacher.denoise(sampling, x_t, t, labels), x_t, (s / t).view(-1, 1, 1, 1))
            target = average.denoise(lcm, x_s, s, labels)
        return nn.functional.huber_loss(student.denoise(lcm, x_t, t, labels), target, delta=0.1) * 10

    optimise(
        "lcm",
        list(student.unet.parameters()),
        LCM_RATE,
        LCM_STEPS,
        loss_of_step,
        lambda: follow(average, student, LCM_EMA),
    )
    return average


def save(digits, network: Network, path: Path, description: str) -> None:
    tensors = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {
        "format": "stepwise-digits-1",
        "description": description,
        "license": "GPL-3.0-only",
        "seed": str(SEED),
    }
    save_file(tensors, path, metadata)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def load(digits, path: Path) -> Network:
    """The network in a file of weights, in float32 and frozen."""
    network = Network(digits)
    network.load_state_dict(load_file(path))
    return network.requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=PACK / "demo", help="where the weights go")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep-teacher", action="store_true", help="distil the teacher that is there")
    arguments = parser.parse_args()
    digits, classifier, _folders = load_pack()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(SEED)

    (images, labels), _ = classifier.load_split()
    latents = digits.DigitsLatent().process_in(images * 2.0 - 1.0)
    sampling = digits.host_model(nn.Identity(), sampling_settings=digits.SAMPLING).model.model_sampling
    lcm = digits.host_model(nn.Identity(), sampling_settings=digits.SAMPLING, model_sampling=digits.LCMSampling).model
    teacher_file, lcm_file = (arguments.out / name for name in digits.WEIGHTS.values())
    if not arguments.keep_teacher:
        teacher = train_teacher(digits, sampling, Batches(latents, labels, digits.NO_CLASS, SEED))
        save(digits, teacher, teacher_file, "Handwritten digits, 8x8, epsilon prediction")
    # From the file, so that a kept teacher and a fresh one give the same student.
    teacher = load(digits, teacher_file)
    student = distil(digits, teacher, sampling, lcm.model_sampling, Batches(latents, labels, digits.NO_CLASS, SEED + 1))
    save(digits, student, lcm_file, "Handwritten digits, 8x8, latent consistency model")


if __name__ == "__main__":
    main()
