"""How well the Emoji model draws: what a classifier sees, how far its pictures are from the real ones, and whose.

    .dev/env/bin/python demo/emoji_judge.py [--state .dev/emoji]

It needs what emoji_data.py made. A small classifier learns seven groups (faces, animals and plants, food, travel,
activities, objects, symbols) from four fifths of the pictures; the others say how far it can be trusted.
"""

import argparse
from pathlib import Path

import emoji_train as train  # isort: skip  (it finds the host)
import torch
from stepwise.demo.classifier import frechet_distance
from stepwise.tools.measure.emoji import PROMPTS, pictures, sample
from torch import Tensor, nn

GROUPS = {
    "Smileys & Emotion": "faces",
    "Animals & Nature": "animals and plants",
    "Food & Drink": "food",
    "Travel & Places": "travel",
    "Activities": "activities",
    "Objects": "objects",
    "Symbols": "symbols",
}
NAMES = list(GROUPS.values())
EPOCHS, BATCH, RATE = 25, 64, 2e-3
DRAWN, CHUNK = 70, 35
GUIDANCES = (1.0, 4.0, 7.5)


class Classifier(nn.Module):
    """Four convolutions and two linear layers on `[N, 3, 64, 64]` in [-1, 1]."""

    def __init__(self):
        super().__init__()
        layers, inputs = [], 3
        for outputs in (32, 48, 64, 96):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
            inputs = outputs
        layers += [nn.Flatten(), nn.Dropout(0.3), nn.Linear(96 * 16, 64), nn.ReLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(64, len(NAMES))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.body(pixels))


def trained(pixels: Tensor, labels: Tensor) -> Classifier:
    """On pictures that are mirrored and moved by up to four pixels, each group as often as any other."""
    torch.manual_seed(train.SEED)
    model = Classifier()
    often = 1.0 / torch.bincount(labels).float()[labels]
    steps = EPOCHS * len(labels) // BATCH
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        chosen = torch.multinomial(often, BATCH, replacement=True)
        batch = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, pixels[chosen].flip(-1), pixels[chosen])
        batch = batch.roll(tuple(torch.randint(-4, 5, (2,)).tolist()), (2, 3))
        loss = nn.functional.cross_entropy(model(batch), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval().requires_grad_(False)


def judge(data: train.Data) -> None:
    """Prints how many of the drawn pictures are seen as their group, and the Frechet distance to the real ones."""
    kept = [i for i, entry in enumerate(data.entries) if entry["group"] in GROUPS]
    labels = torch.tensor([NAMES.index(GROUPS[data.entries[i]["group"]]) for i in kept])
    pixels = data.pixels()[kept]
    g = torch.Generator().manual_seed(train.SEED)
    order = torch.randperm(len(kept), generator=g)
    held, taught = order[: len(kept) // 5], order[len(kept) // 5 :]
    model = trained(pixels[taught], labels[taught])
    tell("real, held out", model, pixels[held], labels[held])
    chosen = torch.multinomial(data.weights[kept], DRAWN, generator=g)
    prompts = [" ".join(data.entries[kept[i]]["words"]) for i in chosen.tolist()]
    real = model.body(pixels[chosen])
    floors = []
    for _ in range(20):
        halves = torch.randperm(len(kept), generator=g)[: 2 * DRAWN].chunk(2)
        floors.append(frechet_distance(*(model.body(pixels[half]) for half in halves)))
    floor = torch.tensor(floors)
    print(f"two draws of {DRAWN} real pictures: Frechet distance {floor.mean():.1f} +- {floor.std():.1f}")
    for cfg in GUIDANCES:
        parts = [prompts[start : start + CHUNK] for start in range(0, DRAWN, CHUNK)]
        made = torch.cat([pictures(sample(part, cfg, "DPMpp2M", "Karras", 20)) for part in parts])
        made = made.movedim(-1, 1) * 2.0 - 1.0
        tell(f"guidance {cfg:g}", model, made, labels[chosen])
        rms = (made - pixels[chosen]).square().mean((1, 2, 3)).div(4).sqrt()
        far = frechet_distance(model.body(made), real)
        near = (rms < 0.1).float().mean()
        print(f"guidance {cfg:g}: Frechet distance to the pictures of those names {far:.1f}", end=", ")
        print(f"rms from them {rms.mean():.3f}, within 0.1 of them {near:.0%}", flush=True)


def tell(name: str, model: Classifier, pixels: Tensor, labels: Tensor) -> None:
    seen = torch.cat([model(part).argmax(1) for part in pixels.split(64)]) == labels
    groups = ", ".join(f"{NAMES[k]} {seen[labels == k].float().mean():.0%}" for k in labels.unique().tolist())
    print(f"{name}: seen as its group {seen.float().mean():.0%} ({groups})", flush=True)


def nearest(data: train.Data) -> None:
    """Prints the rms distance of each picture of the sheet to the nearest training picture, and which it is."""
    made = pictures(sample(PROMPTS, 4.0, "DPMpp2M", "Karras", 20)).movedim(-1, 1)
    known = data.pictures.float().flatten(1) / 255
    distances, which = (torch.cdist(made.flatten(1), known) / known.shape[1] ** 0.5).min(1)
    right = sum(data.entries[i]["name"] == prompt for prompt, i in zip(PROMPTS, which.tolist(), strict=True))
    print(
        f"the sheet: the nearest real picture is the one of that name for {right} of {len(PROMPTS)}, "
        f"rms {distances.min():.3f} to {distances.max():.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, default=train.STATE)
    data = train.Data(parser.parse_args().state)
    nearest(data)
    judge(data)


if __name__ == "__main__":
    main()
