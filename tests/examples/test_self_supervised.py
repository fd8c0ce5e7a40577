"""Invariance alone collapses the features; the pulling-away term keeps them apart."""

from __future__ import annotations

import pytest

from .loading import load


@pytest.mark.slow
def test_the_term_keeps_features_from_collapsing() -> None:
    # Over seeds 0 to 11 (100 steps): LATER
    figures = load("self_supervised").main(steps=100, seed=3)
    alone = figures["invariance alone"]
    assert alone["effective rank"] < 3
    for name in ("with decorrelation", "with diversity"):
        assert figures[name]["effective rank"] > 4, name
        assert figures[name]["probe accuracy"] > alone["probe accuracy"] + 0.1, name
