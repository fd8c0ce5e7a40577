"""The energy of a trained discriminator tells anomalies from normal samples."""

from __future__ import annotations

import pytest
import torch

from .loading import load


def test_auroc_is_the_share_of_ordered_pairs() -> None:
    auroc = load("anomaly_score").auroc
    assert auroc(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])) == 1.0
    assert auroc(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0])) == 0.0
    # Pairs (normal, anomaly): (1, 2) and (1, 1) and (3, 2) and (3, 1): one ordered, one tie, two the wrong way.
    assert auroc(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 1.0])) == 1.5 / 4


@pytest.mark.slow
def test_the_energy_finds_anomalies() -> None:
    # Seeds 0 to 7, in 300 steps: rings 0.000 before and 1.000 after (an untrained energy follows brightness), pairs
    # 0.32 to 0.38 before and 0.93 to 0.98 after; mean energies 0.9 to 1.2, 4.3 to 4.5 and 10.3 to 10.4.
    figures = load("anomaly_score").main(steps=300, seed=3)
    assert figures["AUROC before, ring"] < 0.5
    assert figures["AUROC before, pair"] < 0.5
    assert figures["AUROC after, ring"] > 0.95
    assert figures["AUROC after, pair"] > 0.8
    assert 2 * figures["mean energy, disc"] < figures["mean energy, pair"] < figures["mean energy, ring"]
