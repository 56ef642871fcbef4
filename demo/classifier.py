"""Data and a referee for the Digits models: the held-out split, a small classifier and its Frechet distance.

scikit-learn brings the data; it is needed to train and to measure, never to sample.
"""

import torch
from torch import Tensor, nn

SPLIT_SEED = 0
TEST_SIZE = 360


def load_split() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """`((train_images, train_labels), (test_images, test_labels))`, stratified by class, the same on every call.

    Images are `[N, 1, 8, 8]` float32, 0 = paper, 1 = ink; labels are `[N]` int64 in 0..9; 1437 and 360 of them.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = torch.tensor(digits.images / 16.0, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(digits.target, dtype=torch.int64)
    train, test = train_test_split(
        range(len(labels)), test_size=TEST_SIZE, stratify=digits.target, random_state=SPLIT_SEED
    )
    return (images[train], labels[train]), (images[test], labels[test])


class Classifier(nn.Module):
    """Two convolutions and two linear layers on `[N, 1, 8, 8]` images in [0, 1]."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64 * 4 * 4, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, 10)

    def features(self, images: Tensor) -> Tensor:
        """The 64 activations below the last layer, `[N, 64]`."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def train_classifier(seed: int = 0, epochs: int = 20) -> Classifier:
    """A classifier trained on the training split; a function of the seed alone (seconds on one core).

    The caller's global generator is left as it was.
    """
    (images, labels), _ = load_split()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier()
        optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
        steps = epochs * (len(labels) // 64)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for step in range(steps):
            if step % (len(labels) // 64) == 0:
                order = torch.randperm(len(labels))
            batch = order[step % (len(labels) // 64) * 64 :][:64]
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval().requires_grad_(False)


def accuracy(model: Classifier, images: Tensor, labels: Tensor) -> float:
    """The share of `[N, 1, 8, 8]` images in [0, 1] that the classifier takes for their label."""
    return (model(images).argmax(1) == labels).float().mean().item()


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Frechet distance of the Gaussians fitted to two sets of features `[N, D]`, `[M, D]`.

        |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

    Dowson & Landau 1982; Heusel et al. 2017 (arXiv:1706.08500), equation 6. The trace of the root is the sum of the
    roots of the eigenvalues of C_a C_b, which are real and non-negative. Float64.
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    root = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root).item()
