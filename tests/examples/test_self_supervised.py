"""With an invariance loss alone the features collapse; the pulling-away term keeps them apart."""

from __future__ import annotations

import pytest

from .loading import load


@pytest.mark.slow
def test_the_term_keeps_features_from_collapsing() -> None:
    # With seeds 0 to 11 and 200 steps: effective rank 1.03 to 1.25 with invariance alone, at least 7.2 with
    # decorrelation and at least 12.2 with diversity; the probe gains 0.13 to 0.41, with this seed 0.37.
    figures = load("self_supervised").main(steps=200, seed=3)
    alone = figures["invariance alone"]
    assert alone["effective rank"] < 2
    for name in ("with decorrelation", "with diversity"):
        assert figures[name]["effective rank"] > 5, name
        assert figures[name]["probe accuracy"] > alone["probe accuracy"] + 0.1, name
