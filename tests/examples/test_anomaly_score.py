"""The energy of a trained discriminator separates anomalies from normal samples."""

from __future__ import annotations

import pytest
import torch

from .loading import load


def test_auroc_is_the_share_of_ordered_pairs() -> None:
    auroc = load("anomaly_score").auroc
    assert auroc(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])) == 1.0
    assert auroc(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0])) == 0.0
    # The pairs (normal, anomaly) are (1, 2), (1, 1), (3, 2) and (3, 1): one in order, one tie, two out of order.
    assert auroc(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 1.0])) == 1.5 / 4


@pytest.mark.slow
def test_the_energy_finds_anomalies() -> None:
    # With seeds 0 to 7 and 300 steps: AUROC of rings 0.000 before and 1.000 after (an untrained energy follows the
    # brightness), of pairs 0.32 to 0.38 before and 0.93 to 0.98 after; mean energies 0.9 to 1.2 for discs, 4.3 to 4.5
    # for pairs and 10.3 to 10.4 for rings.
    figures = load("anomaly_score").main(steps=300, seed=3)
    assert figures["AUROC before, ring"] < 0.5
    assert figures["AUROC before, pair"] < 0.5
    assert figures["AUROC after, ring"] > 0.95
    assert figures["AUROC after, pair"] > 0.8
    assert 2 * figures["mean energy, disc"] < figures["mean energy, pair"] < figures["mean energy, ring"]
