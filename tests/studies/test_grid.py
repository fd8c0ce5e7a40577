"""The grid is that of table 1, and its tables say what the trials did."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ebgan_fast.studies import grid
from ebgan_fast.studies.framework.results import Done, Results
from ebgan_fast.studies.framework.study import key
from ebgan_fast.studies.grid import BUDGETS, Grid, trials

from . import whole_run


def made(*trials: tuple[str, float | None]) -> Results:
    """Return the results of trials, each with its family and its score. The score None stands for a failed trial."""
    done = []
    for number, (family, score) in enumerate(trials):
        params: dict[str, Any] = {
            "family": family,
            "n_layer_g": 2 + number % 4,
            "n_layer_d": 2,
            "size_g": 400,
            "size_d": 128,
            "dropout_d": False,
        }
        if family == "GAN":
            params |= {"optim_g": "adam", "optim_d": "sgd", "lr": 0.001}
        result = None
        if score is not None:
            result = {"kl_conditional_marginal": score, "kl_marginal_conditional": 10 - score, "classes": number}
        done.append(Done(params, result, None if result else "got loss nan", 1.0))
    return Results("grid", {}, {}, {}, "", done)


def test_the_whole_grid_is_table_1() -> None:
    configurations = trials(Grid())
    assert sum(one["family"] == "EBGAN" for one in configurations) == 512
    assert sum(one["family"] == "GAN" for one in configurations) == 6144
    assert len({key(one) for one in configurations}) == 512 + 6144


def test_a_part_is_drawn_at_random_and_the_same_each_time() -> None:
    hour = BUDGETS["hour"]
    drawn = trials(hour)
    assert drawn == trials(hour)
    assert drawn != trials(dataclasses.replace(hour, seed=1))
    for family in ("EBGAN", "GAN"):
        own = [one for one in drawn if one["family"] == family]
        assert len(own) == len({key(one) for one in own}) == 48
        assert {one["n_layer_g"] for one in own} == {2, 3, 4, 5}
        assert {one["size_g"] for one in own} == {400, 800}
    families = [one["family"] for one in drawn]
    assert "EBGAN" in families[:20]  # mixed, not one family after the other
    assert "GAN" in families[:20]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size_g": (400, 500)}, "size_g: got 500, expected some of 400, 800, 1600, 3200"),
        ({"lr": (0.5,)}, "lr: got 0.5, expected some of 0.01"),
        ({"families": ("WGAN",)}, "family: got WGAN"),
        ({"n_layer_d": ()}, "n_layer_d: got no value, expected at least one"),
    ],
)
def test_values_that_the_table_lacks_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trials(dataclasses.replace(Grid(), **fields))


def test_the_share_in_the_top_third() -> None:
    ebgans = [("EBGAN", score) for score in (2.0, 1.5, 0.05, 0.04)]
    gans = [("GAN", 1.0), *[("GAN", None)] * 4]
    results = made(*ebgans, *gans)
    # The top third of nine trials is 2.0, 1.5 and 1.0.
    assert grid.top_share(results, "EBGAN") == 2 / 4
    assert grid.top_share(results, "GAN") == 1 / 5
    # 10 - score reverses the order, but failed trials stay last.
    assert grid.top_share(results, "EBGAN", grid.swapped_score) == 2 / 4
    assert grid.top_share(results, "GAN", grid.swapped_score) == 1 / 5


def test_the_table_counts_failures_as_the_lowest_score() -> None:
    table = grid.table(made(("EBGAN", 2.0), ("EBGAN", 1.0), ("GAN", 0.1), ("GAN", None)))
    rows = {line.split(" | ")[0].strip("| "): line for line in table.splitlines()[:4]}
    shares = {line.split(" | ")[0].strip("| "): line for line in table.splitlines()[6:11]}
    assert shares["EBGAN"].split(" | ")[1:] == ["0% (0% to 84%)", "50% (1% to 99%)", "50% (1% to 99%) |"]
    assert shares["GAN"].split(" | ")[1].startswith("100%")
    # Two numbers 1 apart have the interval 12.706 / 2 around their mean.
    assert rows["EBGAN"].split(" | ")[1:7] == ["2", "0", "1.50 ± 6.35", "1.50", "2.00", "0%"]
    assert rows["GAN"].split(" | ")[1:7] == ["2", "1", "0.05 ± 0.64", "0.05", "0.10", "100%"]
    assert "EBGAN's mean score less GAN's: +1.45" in table
    assert "n = 2 and 2." in table
    assert "| EBGAN nLayerG 2 nLayerD 2 sizeG 400 sizeD 128 | 2.00 | 8.00 | 0 |" in table


def test_one_family_alone_can_be_shown() -> None:
    assert "GAN nLayer" not in grid.table(made(("EBGAN", 2.0), ("EBGAN", 1.0), ("EBGAN", 0.5))).replace(
        "EBGAN nLayer", ""
    )


@pytest.mark.slow
@pytest.mark.usefixtures("digit_classifier")
def test_the_command(tmp_path: Path) -> None:
    sizes = "--n-layer-g 2 --n-layer-d 2 --size-g 400 --size-d 128 --dropout-d False"
    flags = f"{sizes} --optim-g adam --optim-d adam --lr 0.001 --steps 3 --samples 100 --device cpu"
    pictures = {"histograms.png", "by-optimizer.png", "best.png"}
    results = whole_run.check("grid", tmp_path / "out", flags.split(), 2, pictures)
    assert results.settings["steps"] == 3
    assert results.settings["classifier_test_accuracy"] > 0.98
