"""The pulling-away term against collapse in self-supervised learning.

Two noisy views of each sample should have the same features. Features that are standardized over the batch cannot be
constant, but all features can still be equal. The loss is lowest if each feature follows the most invariant direction
of the data, here a brightness that says nothing about the classes. The pulling-away term is the mean squared cosine
between rows:

* `pulling_away_term(features.T)`, of centered features, is the mean squared correlation between features, so it makes
  the features different (the off-diagonal part of Barlow Twins' loss, within a view);
* `pulling_away_term(features)` is the mean squared cosine between samples, so it spreads the samples over directions.

The program prints for each the effective rank of the features (WIDTH at most), and the accuracy of a linear probe on
held-out samples. No encoder has seen the labels.

    python examples/self_supervised.py --steps 200
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from ebgan_fast import pulling_away_term

PIXELS, FACTORS, CLASSES, WIDTH, BATCH = 64, 16, 8, 16, 256


class Data:
    """Samples in PIXELS dimensions, made of FACTORS factors: the first is brightness, the others depend on class."""

    def __init__(self) -> None:
        self.directions = torch.linalg.qr(torch.randn(PIXELS, FACTORS))[0].T
        self.centers = 2.0 * torch.randn(CLASSES, FACTORS)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(CLASSES, (count,))
        factors = self.centers[labels] + 0.5 * torch.randn(count, FACTORS)
        factors[:, 0] = 12.0 * torch.randn(count)
        return factors @ self.directions, labels


def view(samples: Tensor) -> Tensor:
    """Return a view of the samples with noise of standard deviation 1. A factor's within a class is 0.5."""
    return samples + torch.randn_like(samples)


def standardized(features: Tensor) -> Tensor:
    return (features - features.mean(0)) / (features.std(0) + 1e-6)


def train(data: Data, steps: int, decorrelation: float, diversity: float) -> nn.Module:
    encoder = nn.Sequential(nn.Linear(PIXELS, 128), nn.ReLU(), nn.Linear(128, WIDTH))
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    for _ in range(steps):
        samples, _ = data.draw(BATCH)
        one, two = standardized(encoder(view(samples))), standardized(encoder(view(samples)))
        loss = (one - two).square().mean()
        if decorrelation:
            loss = loss + decorrelation * (pulling_away_term(one.T) + pulling_away_term(two.T)) / 2
        if diversity:
            loss = loss + diversity * (pulling_away_term(one) + pulling_away_term(two)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encoder


def effective_rank(features: Tensor) -> float:
    """Return exp of the entropy of the correlation matrix's spectrum.

    It is 1 if all features are equal, and WIDTH if no two of them correlate.
    """
    spectrum = torch.linalg.eigvalsh(standardized(features).T.corrcoef()).clamp(min=1e-12)
    share = spectrum / spectrum.sum()
    return torch.exp(-(share * share.log()).sum()).item()


def probe_accuracy(train_features: Tensor, train_labels: Tensor, features: Tensor, labels: Tensor) -> float:
    """Return the accuracy of a ridge regression onto the classes, fitted on one set and measured on the other."""
    mean, std = train_features.mean(0), train_features.std(0)
    known, new = (train_features - mean) / std, (features - mean) / std
    classes = nn.functional.one_hot(train_labels, CLASSES).to(known.dtype)
    share = classes.mean(0)
    ridge = 0.01 * len(known) * torch.eye(WIDTH)
    weights = torch.linalg.solve(known.T @ known + ridge, known.T @ (classes - share))
    return ((new @ weights + share).argmax(1) == labels).float().mean().item()


def main(*, steps: int = 200, seed: int = 0) -> dict[str, dict[str, float]]:
    """Train three encoders. Returns the effective rank and the probe's accuracy of each."""
    torch.manual_seed(seed)
    data = Data()
    (known, known_labels), (new, new_labels) = data.draw(2000), data.draw(2000)
    figures = {}
    for name, decorrelation, diversity in (
        ("invariance alone", 0.0, 0.0),
        ("with decorrelation", 1.0, 0.0),
        ("with diversity", 0.0, 10.0),
    ):
        torch.manual_seed(seed + 1)  # the same first weights and batches for all three
        encoder = train(data, steps, decorrelation, diversity)
        with torch.no_grad():
            known_features, features = encoder(view(known)), encoder(view(new))
        rank = effective_rank(features)
        accuracy = probe_accuracy(known_features, known_labels, features, new_labels)
        figures[name] = {"effective rank": rank, "probe accuracy": accuracy}
        print(f"{name:20s} effective rank {rank:5.2f} of {WIDTH}   probe accuracy {accuracy:.3f}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
