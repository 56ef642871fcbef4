"""How well digits are drawn: the classifier's verdict, and the pictures as they are."""

import torch
from PIL import Image
from stepwise.demo.classifier import accuracy, frechet_distance, load_split, train_classifier
from torch import Tensor

SEED = 0
FLOOR_DRAWS = 20


def full_ink(images: Tensor) -> float:
    """The share of pixels that round to the darkest of the data's grey values, 16 of 16."""
    return (images >= 15.5 / 16.0).float().mean().item()


def by_class(values: Tensor, labels: Tensor) -> list[Tensor]:
    return [values[labels == digit] for digit in range(10)]


def within_class_variance(images: Tensor, labels: Tensor) -> float:
    """Summed over pixels, averaged over classes."""
    return sum(x.var(0).sum().item() for x in by_class(images, labels)) / 10.0


class Referee:
    """The classifier and the held-out images, by which everything is judged."""

    def __init__(self, per_class: int):
        self.judge = train_classifier(seed=SEED)
        (self.train, self.train_labels), (self.real, self.real_labels) = load_split()
        self.features = by_class(self.judge.features(self.real), self.real_labels)
        self.accuracy = accuracy(self.judge, self.real, self.real_labels)
        scores = [self.drawn(per_class, torch.Generator().manual_seed(SEED + i)) for i in range(FLOOR_DRAWS)]
        self.floor, self.floor_spread = torch.tensor(scores).mean(0).tolist()
        self.floor_deviation = torch.tensor(scores).std(0)[0].item()

    def frechet(self, images: Tensor, labels: Tensor) -> float:
        """Frechet distance to the held-out images of the same class, averaged over classes."""
        pairs = zip(by_class(self.judge.features(images), labels), self.features, strict=True)
        return sum(frechet_distance(made, real) for made, real in pairs) / 10.0

    def spread(self, images: Tensor, labels: Tensor) -> float:
        return within_class_variance(images, labels) / within_class_variance(self.real, self.real_labels)

    def drawn(self, count: int, generator: torch.Generator) -> tuple[float, float]:
        """Frechet distance and spread of `count` training images of each class."""
        order = torch.randperm(len(self.train), generator=generator)
        chosen = torch.cat([places[:count] for places in by_class(order, self.train_labels[order])])
        images, labels = self.train[chosen], self.train_labels[chosen]
        return self.frechet(images, labels), self.spread(images, labels)


def enlarged(image: Tensor, factor: int) -> Image.Image:
    """`[H, W]` or `[H, W, 3]` in [0, 1] as a picture, each pixel a square."""
    picture = Image.fromarray((image * 255.0).round().to(torch.uint8).numpy())
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)
