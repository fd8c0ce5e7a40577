"""The paper's theorems in a small game (section 2.2): two players on a discrete space reach the equilibrium.

A point k has data probability p_k. The discriminator is any energy D in [0, m]^K, and the generator any distribution q.
Let V = sum p D + sum q [m - D]+ and U = sum q D. Theorems 1 and 2 say that every equilibrium has q = p and V = m. They
also say that D = gamma on all points with p > 0, so U = gamma.

For D in [0, m], V is m + sum (p - q) D. So the game has the equilibria of a zero-sum game, and the methods for those
apply. In fictitious play, each player plays the best response to the other's average (Robinson 1951). In the
extragradient method, each player steps along the gradient, with a look ahead (Korpelevich 1976).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._plotting import BLUE, GRAY, GREEN, ORANGE, dress, in_house_style, new_figure
from .framework.checks import check_positive, check_seed
from .framework.results import Params, Results, markdown_table
from .framework.study import Budget, Job, Measured, Options, Study, Tick, no_tick

Array = NDArray[np.float64]

_ROUNDS_PER_TICK = 1000


@dataclass(frozen=True)
class Game:
    """The game, and how long it is played."""

    points: int = 20
    """The number of points of the space. A quarter of them have no data."""
    margin: float = 10.0
    """The margin m of the discriminator's loss."""
    seed: int = 0
    """The seed of the data's distribution and of the first moves."""
    rounds: int = 100_000
    """The number of moves of each player."""
    step: float = 0.1
    """The gradient play's step size, with energies in units of the margin. Below 1 the play is known to converge."""


BUDGETS: dict[Budget, Game] = {"minutes": Game(), "hour": Game(rounds=1_000_000), "full": Game(rounds=10_000_000)}


@dataclass(frozen=True)
class Play:
    """The course of V and U in a game, and the last strategies of both players.

    Attributes:
        name: the name of the way of playing.
        rounds: the rounds after which the next four were measured.
        value: V(G, D) after these rounds.
        energy: U(G, D) after these rounds.
        distance: the total variation between q and p after these rounds.
        unevenness: the mean over the data of |D - gamma| after these rounds, where gamma is the mean of D over the
            data.
        generator, discriminator: the last q and the last D.
    """

    name: str
    rounds: list[int]
    value: list[float]
    energy: list[float]
    distance: list[float]
    unevenness: list[float]
    generator: list[float]
    discriminator: list[float]


def value(p: Array, q: Array, energy: Array, margin: float) -> float:
    """Return V(G, D), the discriminator's expected loss (equation 1)."""
    return float(p @ energy + q @ np.maximum(margin - energy, 0))


def data(game: Game) -> Array:
    """Return the data's distribution p, which is random, and 0 on a quarter of the points."""
    p = np.random.default_rng(game.seed).exponential(size=game.points)
    p[: game.points // 4] = 0
    p /= p.sum()
    return p


def best_responses(game: Game, tick: Tick = no_tick) -> Play:
    """Play best responses to the other player's average (fictitious play).

    D answers the average q with m where q > p, and with 0 elsewhere. G answers the average D with the point of its
    lowest energy.
    """
    p = data(game)
    q_mean = np.full(game.points, 1 / game.points)
    d_mean = np.random.default_rng(game.seed + 1).uniform(0, game.margin, game.points)
    log = _Log("best responses to averages", game, p)
    for round_ in range(1, game.rounds + 1):
        if round_ % _ROUNDS_PER_TICK == 0:
            tick()
        answer_d = np.where(p < q_mean, game.margin, 0.0)
        lowest = np.argmin(d_mean)
        weight = 1 / (round_ + 1)
        d_mean += weight * (answer_d - d_mean)
        q_mean *= 1 - weight
        q_mean[lowest] += weight
        log.note(round_, q_mean, d_mean)
    return log.play(q_mean, d_mean)


def gradient_play(game: Game, tick: Tick = no_tick) -> Play:
    """Play the extragradient method.

    Both players step along their gradients, taken at the points to which a first step would lead. Then they are
    projected back to allowed strategies.
    """
    p = data(game)
    q = np.full(game.points, 1 / game.points)
    share = np.random.default_rng(game.seed + 1).uniform(0, 1, game.points)  # D / m
    log = _Log("gradient play", game, p)
    for round_ in range(1, game.rounds + 1):
        if round_ % _ROUNDS_PER_TICK == 0:
            tick()
        ahead_q = onto_simplex(q - game.step * share)
        ahead_share = np.clip(share - game.step * (p - q), 0, 1)
        q = onto_simplex(q - game.step * ahead_share)
        share = np.clip(share - game.step * (p - ahead_q), 0, 1)
        log.note(round_, q, share * game.margin)
    return log.play(q, share * game.margin)


PLAYS = {"best responses to averages": best_responses, "gradient play": gradient_play}


def trials(game: Game) -> list[Params]:
    """Return both ways of playing.

    Raises:
        ValueError: there are fewer than 4 points or no rounds, the margin or the step isn't positive, or the seed is
            negative or too large.
    """
    for name, got, least in (("points", game.points, 4), ("rounds", game.rounds, 1)):
        if got < least:
            raise ValueError(f"{name}: got {got}, expected at least {least}")
    check_positive(game, "margin", "step")
    check_seed(game.seed)
    return [{"play": name} for name in PLAYS]


def trial(params: Params, job: Job[Game], tick: Tick) -> Measured:
    """Play the game in one way."""
    play = PLAYS[params["play"]](job.settings, tick)
    return Measured(asdict(play), -play.distance[-1])


def describe(params: Params, result: dict[str, Any] | None) -> str:
    """Return a way of playing in a few words, with its last distance from p if there is one."""
    return params["play"] if result is None else f"{params['play']}: TV(q, p) {result['distance'][-1]:.1e}"


def table(results: Results) -> str:
    """Return a table in Markdown with the values of the theorems and the values that were reached."""
    game, plays = _game_and_plays(results)
    rows: list[list[Any]] = [["theorems 1 and 2", "", f"{game.margin:g}", f"0 to {game.margin:g}", "0", "0"]]
    rows += [
        [
            one.name,
            f"{one.rounds[-1]:,}",
            f"{one.value[-1]:.4f}",
            f"{one.energy[-1]:.4f}",
            f"{one.distance[-1]:.1e}",
            f"{one.unevenness[-1]:.1e}",
        ]
        for one in plays
    ]
    return markdown_table(["", "rounds", "V", "U", "TV(q, p)", "E_p abs(D − γ)"], rows)


@in_house_style
def draw(results: Results, folder: Path) -> list[Path]:
    """Write theory.png into a folder: V and U, the distances from equilibrium, and the last strategies. Return its
    path."""
    game, plays = _game_and_plays(results)
    figure = new_figure(12, 3.6 * len(plays))
    for row, one in zip(figure.subplots(len(plays), 3, squeeze=False), plays, strict=True):
        values, distances, strategies = row
        values.axhline(game.margin, color=GRAY, linestyle="--", linewidth=1, label="m")
        values.plot(one.rounds, one.value, color=BLUE, label="V")
        values.plot(one.rounds, one.energy, color=ORANGE, label="U")
        dress(values, one.name)
        distances.plot(one.rounds, one.distance, color=BLUE, label="TV(q, p)")
        distances.plot(one.rounds, np.array(one.unevenness) / game.margin, color=ORANGE, label="E_p |D − γ| / m")
        distances.set_yscale("log")
        dress(distances, "distance from equilibrium")
        for axes in (values, distances):
            axes.set_xscale("log")
            axes.set_xlabel("rounds")
            axes.legend()
        points = np.arange(game.points)
        strategies.bar(points, data(game), color=GRAY, alpha=0.4, label="p")
        strategies.plot(points, one.generator, "o", markersize=4, color=ORANGE, label="q")
        strategies.plot(
            points, np.array(one.discriminator) / game.margin, "_", markersize=10, color=GREEN, label="D / m"
        )
        dress(strategies, "last strategies")
        strategies.set_xlabel("point")
        strategies.legend()
    path = folder / "theory.png"
    figure.savefig(path, dpi=100)
    return [path]


def _game_and_plays(results: Results) -> tuple[Game, list[Play]]:
    game = Game(**{field.name: results.settings[field.name] for field in fields(Game)})
    return game, [Play(**trial.result) for trial in results.trials if trial.result is not None]


class _Log:
    """The measurements of a game, at rounds whose distances grow: twenty in each tenfold of rounds."""

    def __init__(self, name: str, game: Game, p: Array) -> None:
        self._name, self._game, self._p = name, game, p
        self._marks = {round(float(mark)) for mark in np.geomspace(1, game.rounds, int(20 * np.log10(game.rounds)) + 2)}
        self._rows: list[tuple[int, float, float, float, float]] = []

    def note(self, round_: int, q: Array, energy: Array) -> None:
        if round_ in self._marks:
            gamma = float(self._p @ energy)
            self._rows.append(
                (
                    round_,
                    value(self._p, q, energy, self._game.margin),
                    float(q @ energy),
                    float(np.abs(q - self._p).sum() / 2),
                    float(self._p @ np.abs(energy - gamma)),
                )
            )

    def play(self, q: Array, energy: Array) -> Play:
        columns = [list(column) for column in zip(*self._rows, strict=True)]
        rounds, values, energies, distances, spreads = columns
        return Play(self._name, rounds, values, energies, distances, spreads, q.tolist(), energy.tolist())


def onto_simplex(point: Array) -> Array:
    """Return the distribution that is nearest to a point."""
    descending = np.sort(point)[::-1]
    surplus = np.cumsum(descending) - 1
    counts = np.arange(1, len(point) + 1)
    kept = np.count_nonzero(descending * counts > surplus)
    nearest: Array = np.maximum(point - surplus[kept - 1] / kept, 0)
    return nearest


STUDY = Study(
    name="theory",
    summary="The paper's theorems at work: players on a discrete space reach V = m, U = gamma and q = p.",
    budgets=BUDGETS,
    parameters={"play": tuple(PLAYS)},
    choosing=(),
    trials=trials,
    trial=trial,
    describe=describe,
    table=table,
    draw=draw,
    options=Options,
)
