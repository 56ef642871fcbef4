"""Train the Emoji model from nothing: the codec of its pictures, then the UNet with its words. Resumable.

    COMFYUI_PATH=... python demo/emoji_train.py words --minutes 6
    COMFYUI_PATH=... python demo/emoji_train.py unet --minutes 90 [--until 00:10] [--state .dev/emoji] [--threads 2]
    COMFYUI_PATH=... python demo/emoji_train.py codec --minutes 15
    COMFYUI_PATH=... python demo/emoji_train.py export [--out demo]

demo/emoji_data.py comes first. The rate of learning follows the share of `--minutes` that was trained, summed over all
runs; a run that is stopped goes on from its last checkpoint when the same command is given again. Larger `--minutes`
on a finished stage train it further. Everything random follows from SEED.
"""

import argparse
import copy
import datetime
import json
import math
import os
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Threads that wait in a busy loop halve the speed wherever anything else runs.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

DEMO = Path(__file__).resolve().parent
sys.path[:0] = [os.environ.get("COMFYUI_PATH", str(DEMO.parent / ".dev" / "ComfyUI")), str(DEMO)]

from comfy.cli_args import args as host  # noqa: E402

# PyTorch's attention is the one with a gradient here.
host.cpu, host.use_pytorch_cross_attention = True, True

import emoji_net as net  # noqa: E402
import emoji_words  # noqa: E402
import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

SEED = 0
CODEC_BATCH, CODEC_RATE, CODEC_EMA = 16, 1e-3, 0.998
LATENT_NOISE = 0.1
UNET_BATCH, UNET_RATE, UNET_EMA = 24, 1e-3, 0.995
WORDS_BATCH, WORDS_RATE, WORDS_EMA = 96, 2e-3, 0.998
TEXT_DROPOUT = 0.12
MIN_SNR = 5.0
HINT_WEIGHT, SPREAD_WEIGHT = 0.2, 0.05
WARMUP = 50
# What the words stage has trained goes on at this share of the rate, so that small batches do not undo it.
SLOW_SHARE, WORDS_PARTS = 0.2, ("text.", "unet.hint.")
CHECKPOINT_SECONDS = 180
WEIGHTS = "emoji.safetensors"


class Data:
    """Pictures as the file has them, what is known of each, and the vocabulary of all names and keywords."""

    def __init__(self, state: Path):
        with safe_open(state / "emoji_data.safetensors", "pt") as file:
            self.pictures = file.get_tensor("pictures").permute(0, 3, 1, 2).contiguous()
            self.entries = json.loads(file.metadata()["entries"])
        named = {word for entry in self.entries for word in entry["words"]}
        counts = Counter(word for entry in self.entries for text in entry["keywords"] for word in set(text))
        self.known = sorted(named | set(counts))
        self.weights = torch.tensor([entry["weight"] for entry in self.entries])

    def pixels(self, chosen: Tensor) -> Tensor:
        return self.pictures[chosen].float() / 127.5 - 1.0


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

    def __init__(
        self,
        name: str,
        network: nn.Module,
        rate: float,
        ema: float,
        options: argparse.Namespace,
        slowly: tuple[str, ...] = (),
    ):
        self.path = options.state / f"{name}.pt"
        self.log = options.state / f"{name}.log"
        self.name, self.network, self.rate, self.ema = name, network, rate, ema
        self.budget, self.until, self.threads = options.minutes * 60.0, options.until, options.threads
        self.average = copy.deepcopy(network).requires_grad_(False)
        slow = [p for n, p in network.named_parameters() if n.startswith(slowly)] if slowly else []
        others = [p for p in network.parameters() if all(p is not q for q in slow)]
        groups = [{"params": others, "share": 1.0}] + [{"params": slow, "share": SLOW_SHARE}] * bool(slow)
        self.optimiser = torch.optim.AdamW(groups, lr=rate, weight_decay=0.01, betas=(0.9, 0.99), fused=True)
        self.replicas = [network, *(replica(network) for _ in range(options.replicas - 1))]
        self.generators = [torch.Generator().manual_seed(SEED + index) for index in range(options.replicas)]
        self.step, self.seconds, self.running = 0, 0.0, {}
        if self.path.is_file():
            self.restore(torch.load(self.path, weights_only=True, map_location="cpu"))

    def restore(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        for generator, kept in zip(self.generators, state["generators"], strict=False):
            generator.set_state(kept)
        self.step, self.seconds, self.running = state["step"], state["seconds"], state["running"]

    def save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generators": [generator.get_state() for generator in self.generators],
            "step": self.step,
            "seconds": self.seconds,
            "running": self.running,
        }
        unfinished = self.path.with_suffix(".part")
        torch.save(state, unfinished)
        os.replace(unfinished, self.path)

    def learning_rate(self) -> float:
        """A warm-up, a plateau for the first 55 % of the time, then a cosine down to 2 %."""
        share = min(1.0, self.seconds / self.budget)
        fall = max(0.0, (share - 0.55) / 0.45)
        return self.rate * min(1.0, (self.step + 1) / WARMUP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fall)))

    @torch.no_grad()
    def follow(self) -> None:
        decay = min(self.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1.0 - decay)
        for a, p in zip(self.average.buffers(), self.network.buffers(), strict=True):
            a.copy_(p)

    def train(self, loss_of_step) -> None:
        """Until `--minutes` were trained in all, or the clock shows `--until`."""
        saved = printed = time.monotonic()
        pool = ThreadPoolExecutor(len(self.replicas), initializer=torch.set_num_threads, initargs=(self.threads,))
        deadline = seconds_until(self.until)
        while self.seconds < self.budget and time.monotonic() < deadline:
            start = time.monotonic()
            rate = self.learning_rate()
            for group in self.optimiser.param_groups:
                group["lr"] = rate * group["share"]
            losses = self.gradients(loss_of_step, pool)
            nn.utils.clip_grad_norm_([p for p in self.network.parameters() if p.grad is not None], 1.0)
            self.optimiser.step()
            self.step += 1
            self.follow()
            for part, loss in losses.items():
                self.running[part] = 0.99 * self.running.get(part, loss) + 0.01 * loss
            now = time.monotonic()
            self.seconds += now - start
            if now - printed > 30:
                printed = now
                self.report(rate)
            if now - saved > CHECKPOINT_SECONDS:
                saved = now
                self.save()
        self.save()
        self.report(self.learning_rate())

    def gradients(self, loss_of_step, pool: ThreadPoolExecutor) -> dict[str, float]:
        """The mean gradient over the replicas, each with a batch of its own, in `network`; returns the mean losses."""

        def work(index: int) -> dict[str, float]:
            self.replicas[index].zero_grad()
            losses = loss_of_step(self.replicas[index], self.generators[index])
            sum(losses.values()).backward()
            return {part: loss.item() for part, loss in losses.items()}

        parts = list(pool.map(work, range(len(self.replicas))))
        for p, *copies in zip(*(network.parameters() for network in self.replicas), strict=True):
            if p.grad is not None:
                p.grad.add_(sum(copy.grad for copy in copies)).div_(len(self.replicas))
        return {part: sum(losses[part] for losses in parts) / len(parts) for part in parts[0]}

    def report(self, rate: float) -> None:
        losses = "  ".join(f"{part} {loss:.5f}" for part, loss in self.running.items())
        line = f"{self.name} step {self.step}  {losses}  rate {rate:.1e}  {self.seconds:.0f} s"
        print(line, flush=True)
        with self.log.open("a") as file:
            file.write(line + "\n")


def replica(network: nn.Module) -> nn.Module:
    """The same parameters with gradients of its own, for a thread of its own."""
    twin = copy.deepcopy(network)
    for p, q in zip(network.parameters(), twin.parameters(), strict=True):
        q.data = p.data
    return twin


def seconds_until(clock: str | None) -> float:
    """The monotonic time at which the clock shows `clock` next; never for None."""
    if clock is None:
        return math.inf
    now = datetime.datetime.now()
    end = datetime.datetime.combine(now.date(), datetime.time.fromisoformat(clock))
    if end <= now:
        end += datetime.timedelta(days=1)
    return time.monotonic() + (end - now).total_seconds()


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
    """The decoder on pictures and their mirror images; latents carry noise of 0.1, so that near ones decode alike."""
    codec = fitted_codec(data).to(options.device, memory_format=torch.channels_last)
    run = Run("codec", codec, CODEC_RATE, CODEC_EMA, options)

    def loss_of_step(network: nn.Module, g: torch.Generator) -> dict[str, Tensor]:
        chosen = torch.randint(len(data.pictures), (CODEC_BATCH,), generator=g)
        pixels = data.pixels(chosen)
        mirrored = torch.rand(CODEC_BATCH, 1, 1, 1, generator=g) < 0.5
        pixels = torch.where(mirrored, pixels.flip(-1), pixels)
        pixels = pixels.to(options.device).contiguous(memory_format=torch.channels_last)
        latents = network.encode(pixels)
        latents = latents + LATENT_NOISE * torch.randn(latents.shape, generator=g).to(options.device)
        made = network.decode(latents.contiguous(memory_format=torch.channels_last))
        return {"picture": reconstruction_loss(made, pixels)}

    run.train(loss_of_step)
    measure_codec(data, run.average.cpu())


def fitted_codec(data: Data) -> nn.Module:
    """The encoder in its final form, and a decoder that is only its transpose."""
    torch.manual_seed(SEED)
    codec = net.Codec()
    net.fit_components(codec, data.pixels(torch.arange(len(data.pictures))))
    codec.encoder.requires_grad_(False)
    nn.init.zeros_(codec.refine[-2].weight)
    nn.init.zeros_(codec.refine[-2].bias)
    return codec


@torch.no_grad()
def latents_of(data: Data, codec: nn.Module) -> Tensor:
    return torch.cat([codec.encode(data.pixels(chosen)) for chosen in torch.arange(len(data.pictures)).split(64)])


@torch.no_grad()
def measure_codec(data: Data, codec: nn.Module) -> None:
    codec.eval()
    latents = latents_of(data, codec)
    made = torch.cat([codec.decode(part) for part in latents.split(64)]).clamp(-1, 1)
    error = (made - data.pixels(torch.arange(len(made)))).square().mean((1, 2, 3)).div(4).sqrt()
    print(f"reconstruction: rms error {error.square().mean().sqrt():.4f} of 1, worst picture {error.max():.4f}")
    print(f"latents: mean {latents.mean():.3f}, deviations {[round(s, 2) for s in latents.std((0, 2, 3)).tolist()]}")


class Network(nn.Module):
    """The UNet and its text side, trained together."""

    def __init__(self, vocabulary: emoji_words.Vocabulary):
        super().__init__()
        self.unet = net.build_unet()
        self.text = net.Text(len(vocabulary), emoji_words.TOKENS)
        initialise(self.unet)
        nn.init.zeros_(self.unet.spread.weight)
        nn.init.constant_(self.unet.spread.bias, -1.0)


class Prompts:
    """What a picture is called: its name, or a loose form of it, or keywords; sometimes nothing."""

    def __init__(self, data: Data):
        self.vocabulary = emoji_words.Vocabulary(data.known)
        self.entries = data.entries

    def row(self, index: int, g: torch.Generator) -> list[int]:
        entry = self.entries[index]
        kind, many = torch.rand(2, generator=g).tolist()
        if kind < TEXT_DROPOUT:
            return self.vocabulary.numbers([])
        prompt, extra = list(entry["words"]), entry["keywords"]
        if kind > 0.65 and extra:
            order = torch.randperm(len(extra), generator=g).tolist()
            added = [word for place in order[: 1 + int(2 * many)] for word in extra[place]]
            prompt = prompt + added if kind < 0.85 else added + (prompt if many < 0.5 else [])
        elif kind > 0.5 and len(prompt) > 1:
            kept = torch.rand(len(prompt), generator=g) < 0.75
            prompt = [word for word, keep in zip(prompt, kept.tolist(), strict=True) if keep] or prompt
        return self.vocabulary.numbers(prompt)

    def draw(self, chosen: Tensor, g: torch.Generator) -> Tensor:
        return torch.tensor([self.row(index, g) for index in chosen.tolist()])


def train_words(data: Data, options: argparse.Namespace) -> None:
    """The text side and the hint alone, as a regression of the picture on its words.

    It costs a fiftieth of a step of the whole network and leaves the UNet the details to learn.
    """
    latents = latents_of(data, fitted_codec(data)).to(options.device)
    prompts = Prompts(data)
    run = Run("words", Network(prompts.vocabulary).to(options.device), WORDS_RATE, WORDS_EMA, options)

    def loss_of_step(network: nn.Module, g: torch.Generator) -> dict[str, Tensor]:
        chosen = torch.multinomial(data.weights.sqrt(), WORDS_BATCH, replacement=True, generator=g)
        context = network.text(prompts.draw(chosen, g).to(options.device))
        chosen = chosen.to(options.device)
        return {"hint": (network.unet.hints(context[:, 0]) - latents[chosen]).square().mean()}

    run.train(loss_of_step)


def train_unet(data: Data, options: argparse.Namespace) -> None:
    """v prediction; the loss of each noise level weighted by min(SNR + 1, 5) / (SNR + 1) (arXiv:2303.09556)."""
    device, count = options.device, options.batch
    latents = latents_of(data, fitted_codec(data)).to(device).contiguous(memory_format=torch.channels_last)
    prompts, cumulative = Prompts(data), net.alphas_cumprod().to(device)
    network = Network(prompts.vocabulary).to(device, memory_format=torch.channels_last)
    started = options.state / "words.pt"
    if started.is_file():
        words = torch.load(started, weights_only=True, map_location="cpu")["average"]
        network.load_state_dict({name: t for name, t in words.items() if name.startswith(WORDS_PARTS)}, strict=False)
    run = Run("unet", network, UNET_RATE, UNET_EMA, options, slowly=WORDS_PARTS)

    def loss_of_step(network: nn.Module, g: torch.Generator) -> dict[str, Tensor]:
        chosen = torch.multinomial(data.weights, count, replacement=True, generator=g)
        # One timestep from each of as many equal parts of the range as there are pictures.
        times = (torch.arange(count) + torch.rand(count, generator=g)) / count * len(cumulative)
        times = times.long().clamp(max=len(cumulative) - 1).to(device)
        squared = cumulative[times].view(-1, 1, 1, 1)
        alpha, sigma = squared.sqrt(), (1.0 - squared).sqrt()
        x_0 = latents[chosen.to(device)]
        noise = torch.randn(x_0.shape, generator=g).to(device).contiguous(memory_format=torch.channels_last)
        context = network.text(prompts.draw(chosen, g).to(device))
        v = network.unet(alpha * x_0 + sigma * noise, times.float(), context)
        # v has an error of (SNR + 1) times that of x_0, and SNR + 1 = 1 / sigma^2.
        weight = (MIN_SNR * sigma.square()).clamp(max=1.0)
        error = ((v - (alpha * noise - sigma * x_0)).square() * weight).mean()
        off = (network.unet.hints(context[:, 0]) - x_0).square()
        # The likelihood of a normal law, which is highest where the variance is what the hint is off.
        log_variance = network.unet.log_variance(context[:, 0].detach())
        spread = (off.detach() * (-log_variance).exp() + log_variance).mean()
        return {"v": error, "hint": HINT_WEIGHT * off.mean(), "spread": SPREAD_WEIGHT * spread}

    run.train(loss_of_step)


def trained_codec(state: Path) -> nn.Module:
    codec = net.Codec()
    codec.load_state_dict(torch.load(state / "codec.pt", weights_only=True, map_location="cpu")["average"])
    return codec.eval().requires_grad_(False)


def export(data: Data, options: argparse.Namespace) -> None:
    """Codec, text side and UNet in one file of float16, with the vocabulary in its metadata."""
    state = torch.load(options.state / "unet.pt", weights_only=True, map_location="cpu")
    tensors = {f"codec.{name}": t for name, t in trained_codec(options.state).state_dict().items()} | state["average"]
    tensors = {name: t.half().contiguous() for name, t in tensors.items() if not name.endswith("num_batches_tracked")}
    metadata = {
        "format": "stepwise-emoji-1",
        "description": "Emoji, 64x64, text to image, v prediction",
        "license": "GPL-3.0-only; trained on Noto Color Emoji (SIL OFL 1.1) and Unicode names and keywords",
        "seed": str(SEED),
        "steps": str(state["step"]),
        "words": " ".join(data.known),
    }
    path = options.out / WEIGHTS
    save_file(tensors, path, metadata)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, {state['step']} steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=["words", "unet", "codec", "export"])
    parser.add_argument("--state", type=Path, default=DEMO.parent / ".dev" / "emoji", help="data and checkpoints")
    parser.add_argument("--out", type=Path, default=DEMO, help="where the weights go")
    parser.add_argument("--minutes", type=float, default=90.0, help="training time of the stage, all runs together")
    parser.add_argument("--until", help="stop when the clock shows this, as 00:10")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=UNET_BATCH, help="of the stage unet")
    parser.add_argument("--threads", type=int, default=1, help="that share the work of every operation")
    parser.add_argument("--replicas", type=int, default=1, help="batches at a time, each in a thread of its own")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    stages = {"words": train_words, "unet": train_unet, "codec": train_codec, "export": export}
    stages[options.stage](Data(options.state), options)


if __name__ == "__main__":
    main()
