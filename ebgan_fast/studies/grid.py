"""The paper's grid search on MNIST (section 4.1, table 1): 512 configurations of EBGAN and 6144 of the plain GAN."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from .._plotting import BLUE, ORANGE, Axes, Figure, dress, in_house_style, new_figure, show_picture
from ..models.families import Mlp
from ..training.config import TrainConfig
from ..training.pictures import save_grid
from ..training.sampling import sample_images
from ..training.step import Trainer
from .framework.checks import check_batch, check_counts, check_given, check_seed
from .framework.intervals import mean_of, share_interval, unpaired_difference
from .framework.results import Done, Params, Results, markdown_table
from .framework.study import Budget, Job, Measured, Study, Tick, key
from .networks.plain_gan import GanConfig, GanTrainer, Optimizer
from .networks.steps import train
from .sets.digits import load_digits

Family = Literal["EBGAN", "GAN"]

# Table 1 has these values. It fixes EBGAN's optimizers and learning rate.
LAYERS = (2, 3, 4, 5)
SIZES_G = (400, 800, 1600, 3200)
SIZES_D = (128, 256, 512, 1024)
RATES = (0.01, 0.001, 0.0001)
MARGIN = 10.0
EBGAN_RATE = 0.001
CHOICES: dict[str, list[Any]] = {
    "family": ["EBGAN", "GAN"],
    "n_layer_g": list(LAYERS),
    "n_layer_d": list(LAYERS),
    "size_g": list(SIZES_G),
    "size_d": list(SIZES_D),
    "dropout_d": [False, True],
    "optim_g": ["adam", "sgd"],
    "optim_d": ["adam", "sgd"],
    "lr": list(RATES),
}

_SHOWN = 50  # samples in each trial's grid
_BEST = 3  # configurations of each family in the table and the figure
_BIN = 0.077  # width of a bar in the paper's figures, in nats
_COLORS = {"EBGAN": BLUE, "GAN": ORANGE}
# The shares of the paper's runs in its first three bars, in percent, read off its figures 2a and 2c to about 1. The key
# is the largest nLayerG and nLayerD.
_PAPERS_SHARES = {
    5: {"EBGAN": (9.0, 20.8, 32.6), "GAN": (55.6, 29.0, 6.8)},
    3: {"EBGAN": (10.0, 11.0, 22.5), "GAN": (48.5, 26.0, 8.5)},
}
_LOW = 3 * _BIN  # nats, the upper end of the paper's first three bars
_TAILS = (1.2, 1.5)  # nats


@dataclass(frozen=True)
class Grid:
    """The part of table 1 that is tried, and how long each trial trains. The paper gives neither batch size nor
    steps."""

    families: tuple[Family, ...] = ("EBGAN", "GAN")
    """The kinds of GAN to try: EBGAN, and GAN for the plain one."""
    n_layer_g: tuple[int, ...] = LAYERS
    """The values of nLayerG to try: the number of weight layers of the generator."""
    n_layer_d: tuple[int, ...] = LAYERS
    """The values of nLayerD to try: the number of weight layers of the discriminator."""
    size_g: tuple[int, ...] = SIZES_G
    """The values of sizeG to try: the number of features of each hidden layer of the generator."""
    size_d: tuple[int, ...] = SIZES_D
    """The values of sizeD to try: the number of features of each hidden layer of the discriminator."""
    dropout_d: tuple[bool, ...] = (False, True)
    """The values of dropoutD to try: True puts dropout after each hidden layer of the discriminator."""
    optim_g: tuple[Optimizer, ...] = ("adam", "sgd")
    """The optimizers to try for the plain GAN's generator."""
    optim_d: tuple[Optimizer, ...] = ("adam", "sgd")
    """The optimizers to try for the plain GAN's discriminator."""
    lr: tuple[float, ...] = RATES
    """The learning rates to try for the plain GAN."""
    draw: int | None = None
    """The number of configurations of each family to draw at random from all of the above. None: try all."""
    steps: int = 20_000
    """The number of steps of a trial. Each step updates both networks."""
    batch_size: int = 64
    """The number of real images in a step. A step generates as many images."""
    samples: int = 10_000
    """The number of generated digits that give a trial's score."""
    seed: int = 0
    """The seed of every trial's weights, noise and batches, and of the random choice of configurations."""


BUDGETS: dict[Budget, Grid] = {
    "minutes": Grid(size_g=(400,), size_d=(128, 256), draw=24, steps=500, samples=2_000),
    "hour": Grid(size_g=(400, 800), draw=48, steps=1_000, samples=5_000),
    "full": Grid(),
}


def trials(grid: Grid) -> list[Params]:
    """Return the configurations, with those of the families mixed, so that a part of them represents all.

    Raises:
        ValueError: a value isn't in table 1, there is nothing to try, or the grid can't be searched.
    """
    check_counts(grid, "steps", "batch_size", "samples")
    check_batch(grid.batch_size, "because of batch norm")
    check_seed(grid.seed)
    check_given(grid, "families", *(name for name in CHOICES if name != "family"))
    if grid.draw is not None:
        check_counts(grid, "draw")
    for name, allowed in CHOICES.items():
        values = grid.families if name == "family" else getattr(grid, name)
        for value in values:
            if value not in allowed:
                raise ValueError(f"{name}: got {value}, expected some of {', '.join(map(str, allowed))}")
    chance = random.Random(grid.seed)
    chosen: list[Params] = []
    for family in dict.fromkeys(grid.families):
        every = _all_of(family, grid)
        chosen += every if grid.draw is None else chance.sample(every, min(grid.draw, len(every)))
    chance.shuffle(chosen)
    return chosen


def _all_of(family: Family, grid: Grid) -> list[Params]:
    names = ["n_layer_g", "n_layer_d", "size_g", "size_d", "dropout_d"]
    if family == "GAN":
        names += ["optim_g", "optim_d", "lr"]
    product = itertools.product(*(dict.fromkeys(getattr(grid, name)) for name in names))
    return [{"family": family, **dict(zip(names, values, strict=True))} for values in product]


def describe(params: Params, result: dict[str, Any] | None) -> str:
    """Return a configuration in the paper's terms, with its score if there is one."""
    words = (
        f"{params['family']} nLayerG {params['n_layer_g']} nLayerD {params['n_layer_d']} sizeG {params['size_g']} "
        f"sizeD {params['size_d']}{' dropout' if params['dropout_d'] else ''}"
    )
    if params["family"] == "GAN":
        words += f" {params['optim_g']}/{params['optim_d']} {params['lr']:g}"
    return words if result is None else f"{words}: {result['kl_conditional_marginal']:.2f} nats"


def picture_of(params: Params) -> str:
    """Return the file name of a trial's samples in the study's folder."""
    return f"samples/{hashlib.blake2b(key(params).encode(), digest_size=6).hexdigest()}.png"


def trial(params: Params, job: Job[Grid], tick: Tick) -> Measured:
    """Train one configuration, and score the digits that its generator draws."""
    grid, digits = job.settings, job.data
    trainer = _trainer(params, job)
    train(trainer, grid.steps, tick)
    sampler = trainer.sampler()
    result = digits.scores(sampler, grid.samples, grid.seed)
    save_grid(sample_images(sampler, _SHOWN, grid.seed), job.options.out / picture_of(params))
    # This direction of the divergence is at most ln 10, as the axes of the paper's figures 2 and 3 are.
    return Measured(result, result["kl_conditional_marginal"])


def _trainer(params: Params, job: Job[Grid]) -> Trainer | GanTrainer:
    grid, images, device = job.settings, job.data.images, job.device
    if params["family"] == "GAN":
        own = {field.name for field in fields(GanConfig)}
        return GanTrainer(
            GanConfig(
                **{name: value for name, value in params.items() if name in own},
                batch_size=grid.batch_size,
                seed=grid.seed,
                device=device,
            ),
            images,
        )
    return Trainer(
        TrainConfig(
            out=Path(),
            networks=Mlp(
                **{name: params[name] for name in ("n_layer_g", "n_layer_d", "size_g", "size_d", "dropout_d")}
            ),
            steps=grid.steps,
            batch_size=grid.batch_size,
            seed=grid.seed,
            margin=MARGIN,
            lr_g=EBGAN_RATE,
            lr_d=EBGAN_RATE,
            pt_weight=0.0,
            ema=0.0,
            device=device,
        ),
        images,
    )


def score(trial: Done) -> float:
    """Return the score that the figures show: E KL(p(y|x) || p(y)) in nats. A failed trial has 0, the score of
    noise."""
    return 0.0 if trial.result is None else float(trial.result["kl_conditional_marginal"])


def swapped_score(trial: Done) -> float:
    """Return the paper's I' = E KL(p(y) || p(y|x)) in nats, which has no bound. A failed trial has 0."""
    return 0.0 if trial.result is None else float(trial.result["kl_marginal_conditional"])


def of_family(trials: Sequence[Done], family: str) -> list[Done]:
    """Return the trials of one kind of GAN."""
    return [trial for trial in trials if trial.params["family"] == family]


def top_share(results: Results, family: str, measure: Callable[[Done], float] = score) -> float:
    """Return the share of a family's trials that are in the top third of all trials, by `score` or `swapped_score`."""
    ranked = sorted(results.trials, key=measure, reverse=True)
    top = {id(trial) for trial in ranked[: len(ranked) // 3]}
    own = of_family(results.trials, family)
    return sum(id(trial) in top for trial in own) / len(own)


def table(results: Results) -> str:
    """Return three tables in Markdown: the families, their shares of low and high scores, and the best configurations
    of each."""
    rows, shares = [], []
    families = _families(results)
    scored = {family: sorted(map(score, of_family(results.trials, family))) for family in families}
    for family, scores in scored.items():
        own = of_family(results.trials, family)
        shares.append(
            [
                family,
                _share([value < _LOW for value in scores]),
                *(_share([value > limit for value in scores]) for limit in _TAILS),
            ]
        )
        rows.append(
            [
                family,
                len(own),
                sum(trial.result is None for trial in own),
                mean_of(scores).text(),
                f"{statistics.median(scores):.2f}",
                f"{scores[-1]:.2f}",
                f"{sum(value < 0.2 for value in scores) / len(own):.0%}",
                f"{top_share(results, family):.0%}",
                f"{top_share(results, family, swapped_score):.0%}",
            ]
        )
    summary = markdown_table(
        ["", "runs", "failed", "mean", "median", "best", "below 0.2", "in the top third", "in the top third by I′"],
        rows,
    )
    of_shares = markdown_table(
        ["share of runs", "in the first three bars", *(f"above {limit}" for limit in _TAILS)], shares
    )
    difference = ""
    if len(families) == 2:
        text = unpaired_difference(scored["EBGAN"], scored["GAN"]).text(signed=True)
        counts = f"n = {len(scored['EBGAN'])} and {len(scored['GAN'])}"
        difference = f"EBGAN's mean score less GAN's: {text} nats, {counts}.\n\n"
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
        f"{summary}\n{difference}{of_shares}\n"
        f"{markdown_table(['best configurations', 'score', 'I′', 'classes'], best)}\n"
        "Score: E KL(p(y|x) ‖ p(y)) in nats, at most ln 10 = 2.30. I′: E KL(p(y) ‖ p(y|x)), without a bound.\n"
        "A bar is 0.077 nats wide. Intervals: 95 %.\n"
    )


def sample_files(results: Results) -> list[str]:
    """Return the names of the samples of each family's best trials."""
    return [picture_of(trial.params) for family in _families(results) for trial in _best(results, family)]


@in_house_style
def draw(results: Results, folder: Path) -> list[Path]:
    """Write histograms.png (figure 2), by-optimizer.png (figure 3) and best.png (figure 4) into a folder.

    Return the paths of those that could be drawn. The samples for best.png may be on another machine.
    """
    drawn = [_draw_by_layers(results, folder / "histograms.png")]
    if of_family(results.trials, "GAN"):
        drawn.append(_draw_by_optimizer(results, folder / "by-optimizer.png"))
    if results.pictures:
        drawn.append(_draw_best(results, folder / "best.png"))
    return drawn


def _families(results: Results) -> list[str]:
    return [family for family in CHOICES["family"] if of_family(results.trials, family)]


def _best(results: Results, family: str) -> list[Done]:
    return sorted(of_family(results.trials, family), key=score, reverse=True)[:_BEST]


def _draw_by_layers(results: Results, path: Path) -> Path:
    figure, panels = _panels(1, 3, (12, 3.6))
    for axes, most in zip(panels, (5, 4, 3), strict=True):
        chosen = [t for t in results.trials if t.params["n_layer_g"] <= most and t.params["n_layer_d"] <= most]
        _histogram(axes, chosen, _PAPERS_SHARES.get(most, {}))
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


def _share(cases: Sequence[bool]) -> str:
    """Return the share of cases that are true, in percent, with its interval (Clopper and Pearson 1934)."""
    low, high = share_interval(sum(cases), len(cases))
    return f"{sum(cases) / len(cases):.0%} ({low:.0%} to {high:.0%})"


def _histogram(axes: Axes, trials: Sequence[Done], papers: Mapping[str, Sequence[float]] | None = None) -> None:
    """Draw the shares of each family's runs by score, and the paper's shares in the first bars as rings."""
    edges = [_BIN * index for index in range(math.ceil(math.log(10) / _BIN) + 1)]
    for family, color in _COLORS.items():
        scores = [score(trial) for trial in of_family(trials, family)]
        if scores:
            weights = [100 / len(scores)] * len(scores)
            label = f"{family} ({len(scores)})"
            axes.hist(scores, edges, weights=weights, color=color, alpha=0.55, label=label)
        if scores and papers:
            middles = [edge + _BIN / 2 for edge in edges[: len(papers[family])]]
            axes.plot(middles, papers[family], "o", color=color, markerfacecolor="white", label=f"{family}, paper")
    axes.legend(fontsize=8)


def _draw_best(results: Results, path: Path) -> Path:
    figure = new_figure(4.2 * _BEST, 2.6 * len(_families(results)))
    panels = figure.subplots(len(_families(results)), _BEST, squeeze=False)
    for row, family in zip(panels, _families(results), strict=True):
        for axes in row:
            axes.set_axis_off()
        for axes, trial in zip(row, _best(results, family), strict=False):
            show_picture(axes, results.picture(picture_of(trial.params)))
            axes.set_title(describe(trial.params, trial.result).replace(" sizeG", "\nsizeG"), fontsize=8)
    figure.savefig(path, dpi=130)
    return path


STUDY = Study(
    name="grid",
    summary="The paper's grid search on MNIST: EBGAN against the plain GAN by score (table 1, figures 2 to 4).",
    budgets=BUDGETS,
    parameters=CHOICES,
    choosing=("families", *(name for name in CHOICES if name != "family"), "draw"),
    trials=trials,
    trial=trial,
    describe=describe,
    table=table,
    draw=draw,
    sample_files=sample_files,
    load=load_digits,
)
