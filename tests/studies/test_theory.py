"""The games reach the equilibrium that theorems 1 and 2 describe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ebgan_fast.studies import theory
from ebgan_fast.studies.theory import Game

from . import whole_run

GAME = Game(rounds=20_000)


def test_gradient_play_ends_in_the_equilibrium() -> None:
    play = theory.gradient_play(dataclasses.replace(GAME, points=8))
    p = theory.data(dataclasses.replace(GAME, points=8))
    assert play.distance[-1] < 1e-9
    assert play.value[-1] == pytest.approx(GAME.margin, abs=1e-9)
    there = np.array(play.discriminator)[p > 0]
    assert np.ptp(there) < 1e-9
    assert 0 <= there[0] <= GAME.margin
    assert play.energy[-1] == pytest.approx(there[0], abs=1e-9)  # U = gamma


def test_best_responses_approach_it() -> None:
    play = theory.best_responses(GAME)
    assert play.distance[-1] < 0.02 < play.distance[0]
    assert play.unevenness[-1] < 0.02 * GAME.margin < play.unevenness[0]
    assert play.value[-1] == pytest.approx(GAME.margin, rel=0.01)


def test_v_is_equation_1_and_the_best_response_its_minimum() -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.2, 0.5, 0.3])
    assert theory.value(p, q, np.array([1.0, 2.0, 12.0]), 10.0) == pytest.approx(0.5 + 1.0 + 0.2 * 9 + 0.5 * 8)
    # m (1 - TV): D* = m where p < q, and 0 elsewhere.
    assert theory.value(p, q, np.array([0.0, 0.0, 10.0]), 10.0) == pytest.approx(10 * (1 - 0.3))


def test_the_projection_gives_the_nearest_distribution() -> None:
    chance = np.random.default_rng(0)
    for _ in range(50):
        point = chance.normal(size=5)
        nearest = theory.onto_simplex(point)
        assert nearest.sum() == pytest.approx(1)
        assert (nearest >= 0).all()
        others = chance.dirichlet(np.ones(5), size=200)
        assert np.square(others - point).sum(1).min() >= np.square(nearest - point).sum() - 1e-12


def test_the_command(tmp_path: Path) -> None:
    """The results are those of the games, the table has both games, and the folder holds nothing else."""
    results = whole_run.check("theory", tmp_path, ["--rounds", "200"], 2, {"theory.png"})
    assert {path.name for path in tmp_path.iterdir()} == {
        *("results.json", "table.md", "theory.png"),
        *("journal.log", "journal.log.flock", ".results.flock"),
    }
    game = Game(rounds=200)
    for trial, play in zip(results.trials, (theory.best_responses(game), theory.gradient_play(game)), strict=True):
        assert trial.params == {"play": play.name}
        assert trial.result == dataclasses.asdict(play)
    assert theory.table(results).count("\n") == 5


@pytest.mark.parametrize("fields", [{"points": 3}, {"rounds": 0}, {"margin": 0.0}, {"step": -1.0}])
def test_impossible_games_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        theory.trials(dataclasses.replace(GAME, **fields))  # type: ignore[arg-type]
