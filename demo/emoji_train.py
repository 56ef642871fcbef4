"""Train the Emoji model from nothing: the codec of its pictures, the UNet with its words, and the change for LCM.

    .dev/env/bin/python demo/emoji_train.py codec --minutes 1.6 --device cuda
    .dev/env/bin/python demo/emoji_train.py unet --minutes 5.4 --device cuda
    .dev/env/bin/python demo/emoji_train.py lcm --minutes 0.9 --device cuda
    .dev/env/bin/python demo/emoji_train.py export

demo/emoji_data.py comes first. These minutes are a large GPU's; a CPU wants `--batch 24` and hours. The learning rate
follows the share of `--minutes` that was trained, summed over all runs; a run that is stopped goes on from its last
checkpoint when the same command is given again. Everything random follows from SEED.
"""

import argparse
import copy
import importlib
import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from stepwise.tools.environment.inprocess import load_comfyui
from torch import Tensor, nn

DEMO = Path(__file__).resolve().parent
# PyTorch's attention is the one with a gradient here.
FOLDERS = load_comfyui("--use-pytorch-cross-attention")
small_models, net, emoji_words, emoji = (
    importlib.import_module(f"stepwise.nodes.host.{name}")
    for name in ("small_models", "emoji_networks", "emoji_words", "emoji")
)

STATE, DATA = DEMO.parent / ".dev" / "emoji", "emoji_data.safetensors"
SEED = 0
RATES = {"codec": 1e-3, "unet": 1e-3, "lcm": 1e-3}
EMA = {"codec": 0.998, "unet": 0.9985, "lcm": 0.98}
BATCH = {"codec": 128, "unet": 640, "lcm": 512}
LATENT_NOISE = 0.15
# Each picture has a table of prompts, drawn once.
PROMPTS = 48
TEXT_DROPOUT = 0.12
MIN_SNR = 5.0
LCM_RANK, LCM_STRIDE, LCM_GUIDANCE = 8, 20, 3.0
WARMUP = 200
CHECKPOINT_SECONDS = 180
LICENSE = "GPL-3.0-only; trained on Noto Color Emoji (SIL OFL 1.1) and Unicode names and keywords"


class Data:
    """Pictures as the file has them, what is known of each, and the vocabulary of all names and keywords."""

    def __init__(self, state: Path):
        with safe_open(state / DATA, "pt") as file:
            self.pictures = file.get_tensor("pictures").permute(0, 3, 1, 2).contiguous()
            self.entries = json.loads(file.metadata()["entries"])
        named = {word for entry in self.entries for word in entry["words"]}
        counts = Counter(word for entry in self.entries for text in entry["keywords"] for word in set(text))
        self.vocabulary = emoji_words.Vocabulary(sorted(named | set(counts)))
        self.weights = torch.tensor([entry["weight"] for entry in self.entries])

    def pixels(self) -> Tensor:
        return self.pictures.float() / 127.5 - 1.0

    def prompts(self) -> Tensor:
        """Word numbers `[pictures, PROMPTS, 12]`: what each picture is called, drawn once."""
        g = torch.Generator().manual_seed(SEED)
        rows = [[self.vocabulary.numbers(self.prompt(entry, g)) for _ in range(PROMPTS)] for entry in self.entries]
        return torch.tensor(rows)

    def prompt(self, entry: dict, g: torch.Generator) -> list[str]:
        """The name, or a part of it, or the name and keywords, or keywords alone."""
        kind, many = torch.rand(2, generator=g).tolist()
        name, extra = list(entry["words"]), entry["keywords"]
        if kind < 0.5 or not extra:
            return name
        if kind < 0.65:
            kept = torch.rand(len(name), generator=g) < 0.75
            return [word for word, keep in zip(name, kept.tolist(), strict=True) if keep] or name
        order = torch.randperm(len(extra), generator=g).tolist()
        added = [word for place in order[: 1 + int(2 * many)] for word in extra[place]]
        return name + added if kind < 0.85 else added


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


class Run:
    """A network in training: its moving average, optimiser, generator, clock and checkpoint."""

    def __init__(self, name: str, network: nn.Module, options: argparse.Namespace):
        self.name, self.network = name, network
        self.path, self.log = options.state / f"{name}.pt", options.state / f"{name}.log"
        self.budget, self.device = options.minutes * 60.0, torch.device(options.device)
        self.batch = options.batch or BATCH[name]
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.trained = [p for p in network.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.trained, lr=RATES[name], weight_decay=0.01, betas=(0.9, 0.99), fused=True
        )
        self.generator = torch.Generator(self.device).manual_seed(SEED)
        self.step, self.seconds, self.losses = 0, 0.0, []
        if self.path.is_file():
            self.restore(torch.load(self.path, weights_only=True, map_location=self.device))

    def restore(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "seconds": self.seconds,
        }
        unfinished = self.path.with_suffix(".part")
        torch.save(state, unfinished)
        os.replace(unfinished, self.path)

    def learning_rate(self) -> float:
        """A warm-up, a plateau for half of the time, then a cosine down to 1 %."""
        share = min(1.0, self.seconds / self.budget)
        fall = max(0.0, (share - 0.5) / 0.5)
        warm = min(1.0, (self.step + 1) / WARMUP)
        return RATES[self.name] * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))

    @torch.no_grad()
    def follow(self) -> None:
        decay = min(EMA[self.name], (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1.0 - decay)
        for a, p in zip(self.average.buffers(), self.network.buffers(), strict=True):
            a.copy_(p)

    def train(self, loss_of_step: Callable[[], Tensor]) -> nn.Module:
        """The moving average after `--minutes` of training in all, earlier runs counted."""
        mixed = torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")
        start = saved = printed = time.monotonic()
        earlier = self.seconds
        while self.seconds < self.budget:
            for group in self.optimiser.param_groups:
                group["lr"] = self.learning_rate()
            with mixed:
                loss = loss_of_step()
            self.optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.trained, 1.0)
            self.optimiser.step()
            self.step += 1
            self.follow()
            self.losses.append(loss.detach())
            if self.step % 20 == 0 and self.device.type == "cuda":
                torch.cuda.synchronize()
            now = time.monotonic()
            self.seconds = earlier + now - start
            if now - printed > 10:
                printed = now
                self.report()
            if now - saved > CHECKPOINT_SECONDS:
                saved = now
                self.save()
        self.save()
        self.report()
        return self.average.eval()

    def report(self) -> None:
        if not self.losses:
            return
        loss = torch.stack(self.losses).mean().item()
        self.losses.clear()
        line = f"{self.name} step {self.step}  loss {loss:.5f}  rate {self.learning_rate():.1e}  {self.seconds:.0f} s"
        print(line, flush=True)
        with self.log.open("a") as file:
            file.write(line + "\n")


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(made: Tensor, pixels: Tensor) -> Tensor:
    """L1 of the pixels, of their differences, and of both at half the size."""
    loss = made.new_zeros(())
    for weight in (1.0, 0.5):
        loss = loss + weight * (made - pixels).abs().mean()
        for a, b in zip(edges(made), edges(pixels), strict=True):
            loss = loss + weight * 0.5 * (a - b).abs().mean()
        made, pixels = nn.functional.avg_pool2d(made, 2), nn.functional.avg_pool2d(pixels, 2)
    return loss


def train_codec(data: Data, options: argparse.Namespace) -> None:
    """Pictures and their mirror images, each moved by up to four pixels; the decoder sees the latents with noise."""
    torch.manual_seed(SEED)
    network = net.Codec().to(options.device, memory_format=torch.channels_last)
    run = Run("codec", network, options)
    pixels, g = data.pixels().to(options.device), run.generator

    def loss_of_step() -> Tensor:
        chosen = pixels[torch.randint(len(pixels), (run.batch,), generator=g, device=run.device)]
        mirrored = torch.rand(run.batch, 1, 1, 1, generator=g, device=run.device) < 0.5
        chosen = torch.where(mirrored, chosen.flip(-1), chosen)
        down, right = torch.randint(-4, 5, (2,), generator=g, device=run.device).tolist()
        chosen = chosen.roll((down, right), (2, 3)).contiguous(memory_format=torch.channels_last)
        latents = network.encode(chosen)
        noise = torch.randn(latents.shape, generator=g, device=run.device)
        return reconstruction_loss(network.decode(latents + LATENT_NOISE * noise).float(), chosen)

    codec = run.train(loss_of_step).cpu()
    latents = latents_of(data, codec)
    with torch.no_grad():
        made = torch.cat([codec.decode(part) for part in latents.split(64)]).clamp(-1, 1)
    error = (made - data.pixels()).square().mean((1, 2, 3)).div(4).sqrt()
    print(f"reconstruction: rms error {error.square().mean().sqrt():.4f} of 1, worst picture {error.max():.4f}")
    print(f"latents: mean {latents.mean():.3f}, deviations {[round(s, 2) for s in latents.std((0, 2, 3)).tolist()]}")


@torch.no_grad()
def latents_of(data: Data, codec: nn.Module) -> Tensor:
    return torch.cat([codec.encode(part) for part in data.pixels().split(64)])


class Network(nn.Module):
    """The UNet and its text side, trained together."""

    def __init__(self, vocabulary: emoji_words.Vocabulary):
        super().__init__()
        self.unet = net.build_unet()
        self.text = net.Text(len(vocabulary), emoji_words.TOKENS)
        initialise(self.unet)


class Batches:
    """Noised latents with their prompts: all the randomness of a run, from its one generator, on its device."""

    def __init__(self, data: Data, state: Path, run: Run):
        self.latents = latents_of(data, trained_codec(state)).to(run.device)
        self.prompts, self.weights = data.prompts().to(run.device), data.weights.to(run.device)
        self.empty = torch.tensor(data.vocabulary.numbers([]), device=run.device)
        sampling = small_models.host_model(nn.Identity(), sampling_settings=net.SAMPLING).model.model_sampling
        # alpha^2 of the 1000 timesteps, from sigma = sqrt(1 - alpha^2) / alpha.
        self.squared = (1.0 / (1.0 + sampling.sigmas.square())).to(run.device)
        self.run = run

    def draw(self, dropout: float, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(x_0, noise, prompts)` for each of `times`."""
        g, device, count = self.run.generator, self.run.device, len(times)
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=g)
        prompts = self.prompts[chosen, torch.randint(PROMPTS, (count,), generator=g, device=device)]
        dropped = torch.rand(count, 1, generator=g, device=device) < dropout
        x_0 = self.latents[chosen]
        noise = torch.randn(x_0.shape, generator=g, device=device)
        return x_0, noise, torch.where(dropped, self.empty, prompts)

    def levels(self, times: Tensor) -> tuple[Tensor, Tensor]:
        squared = self.squared[times].view(-1, 1, 1, 1)
        return squared.sqrt(), (1.0 - squared).sqrt()


def train_unet(data: Data, options: argparse.Namespace) -> None:
    """v prediction; the loss of each noise level weighted by min(SNR + 1, 5) / (SNR + 1) (after arXiv:2303.09556)."""
    torch.manual_seed(SEED)
    network = Network(data.vocabulary).to(options.device)
    run = Run("unet", network, options)
    batches = Batches(data, options.state, run)

    def loss_of_step() -> Tensor:
        # One timestep from each of as many equal parts of the range as there are pictures.
        places = torch.arange(run.batch, device=run.device)
        jitter = torch.rand(run.batch, generator=run.generator, device=run.device)
        times = ((places + jitter) / run.batch * len(batches.squared)).long().clamp(max=len(batches.squared) - 1)
        x_0, noise, prompts = batches.draw(TEXT_DROPOUT, times)
        alpha, sigma = batches.levels(times)
        v = network.unet(alpha * x_0 + sigma * noise, times.float(), network.text(prompts)).float()
        # v has an error of (SNR + 1) times that of x_0, and SNR + 1 = 1 / sigma^2.
        weight = (MIN_SNR * sigma.square()).clamp(max=1.0)
        return ((v - (alpha * noise - sigma * x_0)).square() * weight).mean()

    run.train(loss_of_step)


class Factors(nn.Module):
    """The change of the UNet for LCM: `emoji_net.low_rank` as parameters."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.names = list(made := net.low_rank(unet, LCM_RANK))
        self.values = nn.ParameterList(made.values())

    def named(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.values, strict=True))


def train_lcm(data: Data, options: argparse.Namespace) -> None:
    """Latent consistency distillation (arXiv:2310.04378, algorithm 1) of a low-rank change (arXiv:2311.05556).

    A DDIM step of the guided teacher takes x from timestep t to t - 20; the student's prediction at t follows its own
    moving average's there. The student is run without guidance: the teacher's is in it.
    """
    torch.manual_seed(SEED)
    teacher = trained_network(data, options.state).to(options.device)
    weights = dict(teacher.unet.named_parameters())
    run = Run("lcm", Factors(teacher.unet).to(options.device), options)
    batches = Batches(data, options.state, run)
    steps = torch.arange(LCM_STRIDE - 1, len(batches.squared), LCM_STRIDE, device=run.device)

    def x_0_of(x: Tensor, times: Tensor, context: Tensor, factors: Factors | None = None) -> Tensor:
        used = weights if factors is None else net.changed(weights, factors.named())
        v = torch.func.functional_call(teacher.unet, used, (x, times.float(), context)).float()
        alpha, sigma = batches.levels(times)
        made = alpha * x - sigma * v
        return made if factors is None else small_models.consistent(x, made, times.view(-1, 1, 1, 1))

    def loss_of_step() -> Tensor:
        t = steps[torch.randint(len(steps), (run.batch,), generator=run.generator, device=run.device)]
        s = (t - LCM_STRIDE).clamp(min=0)
        x_0, noise, prompts = batches.draw(0.0, t)
        alpha_t, sigma_t = batches.levels(t)
        alpha_s, sigma_s = batches.levels(s)
        x_t = alpha_t * x_0 + sigma_t * noise
        with torch.no_grad():
            context, empty = teacher.text(prompts), teacher.text(batches.empty.expand_as(prompts))
            both = x_0_of(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([context, empty]))
            cond, uncond = both.chunk(2)
            guided = uncond + LCM_GUIDANCE * (cond - uncond)
            x_s = alpha_s * guided + sigma_s / sigma_t * (x_t - alpha_t * guided)
            target = x_0_of(x_s, s, context, run.average)
        return nn.functional.huber_loss(x_0_of(x_t, t, context, run.network), target, delta=0.1) * 10

    run.train(loss_of_step)


def trained_codec(state: Path) -> nn.Module:
    codec = net.Codec()
    codec.load_state_dict(torch.load(state / "codec.pt", weights_only=True, map_location="cpu")["average"])
    return codec.eval().requires_grad_(False)


def trained_network(data: Data, state: Path) -> Network:
    network = Network(data.vocabulary)
    network.load_state_dict(torch.load(state / "unet.pt", weights_only=True, map_location="cpu")["average"])
    return network.eval().requires_grad_(False)


def export(data: Data, options: argparse.Namespace) -> None:
    """Codec, text side and UNet in one file of float16, the vocabulary in its metadata; the LCM change in another."""
    network, codec = trained_network(data, options.state), trained_codec(options.state)
    tensors = {f"codec.{name}": tensor for name, tensor in codec.state_dict().items()} | network.state_dict()
    words = " ".join(data.vocabulary.known)
    about = {"format": "stepwise-emoji-1", "license": LICENSE, "seed": str(SEED)}
    described = {"description": "Emoji, 64x64, text to image, v prediction", "words": words}
    write(options.out / emoji.WEIGHTS, tensors, about | described | {"rgb": json.dumps(preview_colours(data, codec))})
    if (options.state / "lcm.pt").is_file():
        factors = Factors(network.unet)
        factors.load_state_dict(torch.load(options.state / "lcm.pt", weights_only=True, map_location="cpu")["average"])
        write(options.out / emoji.LCM_WEIGHTS, factors.named(), about | {"description": "Emoji, a change for LCM"})


def preview_colours(data: Data, codec: nn.Module) -> tuple[list[list[float]], list[float]]:
    """What the host's preview of a latent needs: `[16][3]` and `[3]`, the mean colours of the squares by regression."""
    latents = latents_of(data, codec).movedim(1, -1).flatten(0, 2)
    colours = nn.functional.avg_pool2d(data.pixels(), net.RATIO).movedim(1, -1).flatten(0, 2)
    known = torch.cat([latents, torch.ones(len(latents), 1)], 1)
    solved = [[round(value, 4) for value in row] for row in torch.linalg.lstsq(known, colours).solution.tolist()]
    return solved[:-1], solved[-1]


def write(path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    halves = {name: t.detach().half().contiguous() for name, t in tensors.items() if t.is_floating_point()}
    save_file(halves, path, about)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=["codec", "unet", "lcm", "export"])
    parser.add_argument("--state", type=Path, default=STATE, help="data and checkpoints")
    parser.add_argument("--out", type=Path, default=DEMO, help="where the weights go")
    parser.add_argument("--minutes", type=float, default=2.0, help="training time of the stage, all runs together")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, help="pictures a step")
    options = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    stages = {"codec": train_codec, "unet": train_unet, "lcm": train_lcm, "export": export}
    stages[options.stage](Data(options.state), options)


if __name__ == "__main__":
    main()
