"""Tables and figures of the grid search: the paper's figures 2, 3 and 4."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from .._plotting import BLUE, ORANGE, Axes, Figure, dress, in_house_style, new_figure, show_picture
from .grid import CHOICES, describe, picture_of
from .queue import Done
from .results import Results, markdown_table

_BEST = 3  # configurations of each family in table and figure
_BIN = 0.077  # nats, the width of the bars in the paper's figures
_COLORS = {"EBGAN": BLUE, "GAN": ORANGE}


def score(trial: Done) -> float:
    """What the figures show: E KL(p(y|x) || p(y)) in nats. A trial that failed has 0, the score of noise."""
    return 0.0 if trial.result is None else float(trial.result["kl_conditional_marginal"])


def swapped_score(trial: Done) -> float:
    """The paper's I' = E KL(p(y) || p(y|x)) in nats, which has no bound. A trial that failed has 0."""
    return 0.0 if trial.result is None else float(trial.result["kl_marginal_conditional"])


def of_family(trials: Sequence[Done], family: str) -> list[Done]:
    """The trials of one kind of GAN."""
    return [trial for trial in trials if trial.params["family"] == family]


def top_share(results: Results, family: str, by: str = "score") -> float:
    """Share of a family's trials that are in the top third of all trials' scores."""
    measure = score if by == "score" else swapped_score
    ranked = sorted(results.trials, key=measure, reverse=True)
    top = {id(trial) for trial in ranked[: len(ranked) // 3]}
    own = of_family(results.trials, family)
    return sum(id(trial) in top for trial in own) / len(own)


def table(results: Results) -> str:
    """Two tables in Markdown: the families, and the best configurations of each."""
    rows = []
    families = _families(results)
    for family in families:
        own = of_family(results.trials, family)
        scores = sorted(map(score, own))
        rows.append(
            [
                family,
                len(own),
                sum(trial.result is None for trial in own),
                f"{statistics.mean(scores):.2f}",
                f"{statistics.median(scores):.2f}",
                f"{scores[-1]:.2f}",
                f"{sum(value < 0.2 for value in scores) / len(own):.0%}",
                f"{top_share(results, family):.0%}",
                f"{top_share(results, family, 'swapped'):.0%}",
            ]
        )
    summary = markdown_table(
        ["", "runs", "failed", "mean", "median", "best", "below 0.2", "in the top third", "in the top third by I′"],
        rows,
    )
    best = [
        [
            describe(trial.params, None),
            f"{score(trial):.2f}",
            f"{swapped_score(trial):.2f}",
            "-" if trial.result is None else trial.result["classes"],
        ]
        for family in families
        for trial in _best(results, family)
    ]
    return (
        f"{summary}\n{markdown_table(['best configurations', 'score', 'I′', 'classes'], best)}\n"
        "Score: E KL(p(y|x) ‖ p(y)) in nats, at most ln 10 = 2.30. I′: E KL(p(y) ‖ p(y|x)), without a bound.\n"
    )


@in_house_style
def draw(results: Results, folder: Path) -> list[Path]:
    """Write histograms.png (figure 2), by-optimiser.png (figure 3) and best.png (figure 4) into a folder; returns
    those that could be drawn: other machines' samples may be elsewhere."""
    drawn = [_draw_by_layers(results, folder / "histograms.png")]
    if of_family(results.trials, "GAN"):
        drawn.append(_draw_by_optimizer(results, folder / "by-optimiser.png"))
    if any(picture_of(trial.params, folder).exists() for trial in results.trials):
        drawn.append(_draw_best(results, folder, folder / "best.png"))
    return drawn


def _families(results: Results) -> list[str]:
    return [family for family in CHOICES["family"] if of_family(results.trials, family)]


def _best(results: Results, family: str) -> list[Done]:
    return sorted(of_family(results.trials, family), key=score, reverse=True)[:_BEST]


def _draw_by_layers(results: Results, path: Path) -> Path:
    figure, panels = _panels(1, 3, (12, 3.6))
    for axes, most in zip(panels, (5, 4, 3), strict=True):
        chosen = [t for t in results.trials if t.params["n_layer_g"] <= most and t.params["n_layer_d"] <= most]
        _histogram(axes, chosen)
        axes.set_title("all runs" if most == 5 else f"nLayerG and nLayerD at most {most}", fontsize=10)
    figure.savefig(path, dpi=110)
    return path


def _draw_by_optimizer(results: Results, path: Path) -> Path:
    figure, panels = _panels(3, 4, (13, 8))
    ebgans = of_family(results.trials, "EBGAN")
    combinations = itertools.product(CHOICES["lr"], CHOICES["optim_d"], CHOICES["optim_g"])
    for axes, (lr, optim_d, optim_g) in zip(panels, combinations, strict=True):
        wanted = {"lr": lr, "optim_d": optim_d, "optim_g": optim_g}
        gans = [trial for trial in of_family(results.trials, "GAN") if wanted.items() <= trial.params.items()]
        _histogram(axes, [*ebgans, *gans])
        axes.set_title(f"GAN: D {optim_d}, G {optim_g}, rate {lr:g}", fontsize=9)
    figure.savefig(path, dpi=100)
    return path


def _panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    figure = new_figure(*size)
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True).flat)
    for axes in panels[-columns:]:
        axes.set_xlabel("score, nats")
    for number, axes in enumerate(panels):
        dress(axes, "" if number % columns else "% of runs")
    return figure, panels


def _histogram(axes: Axes, trials: Sequence[Done]) -> None:
    """Shares of each family's runs by score."""
    edges = [_BIN * index for index in range(math.ceil(math.log(10) / _BIN) + 1)]
    for family, color in _COLORS.items():
        scores = [score(trial) for trial in of_family(trials, family)]
        if scores:
            weights = [100 / len(scores)] * len(scores)
            label = f"{family} ({len(scores)})"
            axes.hist(scores, edges, weights=weights, color=color, alpha=0.55, label=label)
    axes.legend(fontsize=8)


def _draw_best(results: Results, folder: Path, path: Path) -> Path:
    figure = new_figure(4.2 * _BEST, 2.6 * len(_families(results)))
    panels = figure.subplots(len(_families(results)), _BEST, squeeze=False)
    for row, family in zip(panels, _families(results), strict=True):
        for axes in row:
            axes.set_axis_off()
        for axes, trial in zip(row, _best(results, family), strict=False):
            show_picture(axes, picture_of(trial.params, folder))
            axes.set_title(describe(trial.params, trial.result).replace(" sizeG", "\nsizeG"), fontsize=8)
    figure.savefig(path, dpi=130)
    return path
