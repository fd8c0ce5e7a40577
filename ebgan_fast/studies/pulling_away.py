"""EBGAN without the pulling-away term, with it at several weights, and with what other code computes for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from .._plotting import BLUE, GRAY, ORANGE, Axes, in_house_style, new_figure, show_picture
from ..models.families import Mlp
from ..training.config import TrainConfig
from ..training.pictures import save_grid
from ..training.sampling import sample_images
from .framework.checks import check_batch, check_counts, check_enough, check_given, check_positive, check_shares
from .framework.intervals import clear, mean_of, paired_difference
from .framework.results import Done, Params, Results, markdown_table
from .framework.study import SEEDS, Budget, DigitOptions, Job, Loaded, Measured, NoData, Range, Study, Tick
from .networks.repelling_terms import TERMS, Term, trainer_with
from .networks.steps import train
from .sets import plane
from .sets.digits import Digits

DataName = Literal["ring", "grid", "mnist"]

_DATA: tuple[DataName, ...] = ("ring", "grid", "mnist")
_MODES = {"ring": 8, "grid": 25, "mnist": 10}
_WITHOUT: Params = {"term": "none", "weight": 0.0}
_SHOWN, _COLUMNS = 50, 10
_SHOWN_POINTS = 300
_INTERVAL_SHOWN = 3  # runs from which the figure has an interval


class Column(NamedTuple):
    """A number of a run's result, as tables and figures show it.

    Attributes:
        key: the name of the number in the result.
        title: the words for it.
        digits: the digits after the point.
        highest: the highest number that there can be. None: there is no bound.
    """

    key: str
    title: str
    digits: int = 2
    highest: float | None = None

    def of(self, result: Mapping[str, Any]) -> float:
        """Return the number of a run."""
        return float(result[self.key])


# The number by which the runs on each set are compared, chosen before they were run.
OUTCOMES = {
    "ring": Column("modes", f"modes of {_MODES['ring']}", 1, _MODES["ring"]),
    "grid": Column("modes", f"modes of {_MODES['grid']}", 1, _MODES["grid"]),
    "mnist": Column("kl_conditional_marginal", "E KL, nats", 3, math.log(10)),
}
_OF_POINTS = (Column("good", "good samples"), Column("pulling_away", "equation 14"))
_OTHERS = {
    "ring": _OF_POINTS,
    "grid": _OF_POINTS,
    "mnist": (Column("modes", "classes", 1), Column("diversity", "diversity"), Column("pulling_away", "equation 14")),
}


@dataclass(frozen=True)
class PullingAway:
    """The terms that are compared, the data, and how long each run trains."""

    terms: tuple[Term, ...] = TERMS
    """The terms to compare.
    none: no term. paper: the paper's equation 14, at each of `weights`.
    no square: the mean of equation 14's cosines, which are not squared.
    batch axis: equation 14 with codes that are normalized along the batch."""
    weights: tuple[float, ...] = (0.1, 0.5, 2.0)
    """The weights of the paper's term in the generator's loss. The paper has 0.1."""
    other_weight: float = 0.5
    """The weight of the terms that other code computes."""
    sets: tuple[DataName, ...] = _DATA
    """The data sets to train on: a ring of 8 Gaussians, a 5 x 5 grid of Gaussians, and MNIST."""
    seeds: int = 5
    """The number of runs of each term on each set, with seeds from 0."""
    steps: int = 20_000
    """The number of steps of a run on MNIST. Each step updates both networks."""
    point_steps: int = 20_000
    """The number of steps of a run on a mixture of Gaussians. Each step updates both networks."""
    batch_size: int = 64
    """The number of real images or points in a step. A step generates as many."""
    size_g: int = 800
    """sizeG on MNIST, the number of features of each hidden layer of the generator. Its nLayerG is 5.
    The full budget has 800, as the paper's best EBGAN-PT (figure 4c)."""
    size_d: int = 1024
    """sizeD on MNIST, the number of features of each encoder layer of the discriminator. Its nLayerD is 2."""
    margin: float = 10.0
    """The margin on MNIST, in units of the l2 energy."""
    lr: float = 0.001
    """The learning rate of both networks on MNIST (Adam).
    The smaller budgets double it, which halves the steps that their smaller networks need."""
    point_margin: float = 0.3
    """The margin on the mixtures, in units of the l2 energy. Neighbors of the grid lie 0.4 apart.
    With 1.0 the grid's samples get worse after 6,000 steps."""
    point_lr: float = 0.0005
    """The learning rate of both networks on the mixtures (Adam)."""
    ema: float = 0.999
    """The decay per step of the moving average of the generator's weights.
    The average draws the samples. 0: the latest weights draw them."""
    samples: int = 10_000
    """The number of generated images or points that give a run's scores."""


BUDGETS: dict[Budget, PullingAway] = {
    # On MNIST these are the margin sweep's: smaller networks at twice the learning rate.
    "minutes": PullingAway(seeds=1, steps=4_000, point_steps=8_000, size_g=400, size_d=512, lr=0.002, samples=5_000),
    "hour": PullingAway(seeds=3, steps=8_000, size_g=400, size_d=512, lr=0.002),
    "full": PullingAway(),
}


def trials(comparison: PullingAway) -> list[Params]:
    """Return every term at its weights, on every set with every seed. Raise a ValueError if the comparison can't be
    run."""
    check_given(comparison, "terms", "sets", "weights")
    check_counts(comparison, "seeds", "steps", "point_steps", "batch_size", "size_g", "size_d", "samples")
    check_positive(comparison, "other_weight", "margin", "lr", "point_margin", "point_lr")
    shown = [f"{weight:g}" for weight in comparison.weights]
    if min(comparison.weights) <= 0 or len({*shown}) < len(shown):
        expected = "different positive numbers; --terms none has no term"
        raise ValueError(f"weights: got {', '.join(shown)}, expected {expected}")
    check_shares(comparison, "ema")
    check_batch(comparison.batch_size, "a pair to repel")
    return [
        {"set": name, "term": term, "weight": weight, "seed": seed}
        for seed in range(comparison.seeds)
        for name in comparison.sets
        for term in comparison.terms
        for weight in _weights(term, comparison)
    ]


def _weights(term: Term, comparison: PullingAway) -> tuple[float, ...]:
    if term == "none":
        return (0.0,)
    return comparison.weights if term == "paper" else (comparison.other_weight,)


def load(comparison: PullingAway, options: DigitOptions) -> Loaded:
    """Read the digits if a trial trains on them. Raise a ValueError if a set has fewer samples than a batch."""
    if any(name != "mnist" for name in comparison.sets):
        check_enough("batch_size", comparison.batch_size, plane.POINTS)
    return Digits.with_batches(options, comparison.batch_size) if "mnist" in comparison.sets else NoData()


def describe(params: Params, result: dict[str, Any] | None) -> str:
    """Return a run in a few words, with its outcome if it has a result."""
    words = f"{params['set']}, {label_of(params)}, seed {params['seed']}"
    if result is None:
        return words
    outcome = OUTCOMES[params["set"]]
    return f"{words}: {outcome.title}: {outcome.of(result):.{outcome.digits}f}"


def label_of(params: Params) -> str:
    """Return a run's term and its weight, as tables and figures show them."""
    term: str = params["term"]
    if term == "none":
        return "no term"
    return f"{'equation 14' if term == 'paper' else term}, {params['weight']:g}"


def trial(params: Params, job: Job[PullingAway], tick: Tick) -> Measured:
    """Train with one term on one set, and score the images or points that the generator draws."""
    comparison, digits = job.settings, job.data
    on_digits = params["set"] == "mnist"
    seed: int = params["seed"]
    config = TrainConfig(
        out=Path(),
        networks=Mlp(n_layer_g=5, n_layer_d=2, size_g=comparison.size_g, size_d=comparison.size_d)
        if on_digits
        else Mlp(z_dim=16, n_layer_g=4, n_layer_d=4, size_g=128, size_d=128),
        steps=comparison.steps if on_digits else comparison.point_steps,
        batch_size=comparison.batch_size,
        seed=seed,
        margin=comparison.margin if on_digits else comparison.point_margin,
        lr_g=comparison.lr if on_digits else comparison.point_lr,
        lr_d=comparison.lr if on_digits else comparison.point_lr,
        pt_weight=params["weight"],
        ema=comparison.ema,
        device=job.device,
    )
    images = digits.images if on_digits else plane.points(params["set"], job.device)
    trainer = trainer_with(params["term"], config, images)
    train(trainer, config.steps, tick)
    sampler, term = trainer.sampler(), trainer.statistics()["pulling_away"]
    if on_digits:
        scores = digits.scores(sampler, comparison.samples, seed)
        save_grid(sample_images(sampler, _SHOWN, seed), job.options.out / picture_of(params), _COLUMNS)
        return Measured({"modes": scores["classes"], "pulling_away": term, **scores}, scores["classes"])
    found, drawn = plane.mode_scores(sampler, params["set"], comparison.samples, seed)
    shown = [[round(number, 3) for number in point] for point in drawn[:_SHOWN_POINTS].tolist()] if seed == 0 else []
    return Measured({"pulling_away": term, **found, "points": shown}, found["modes"])


def picture_of(params: Params) -> str:
    """Return the file name of the samples of a run on MNIST in the study's folder."""
    return f"samples/{params['term'].replace(' ', '-')}-{params['weight']:g}-{params['seed']}.png"


def table(results: Results) -> str:
    """Return two tables in Markdown with a row for each term and weight: the outcomes with their differences from no
    term, and what else was measured."""
    results = _with_weights(results)
    sets, variants = _sets(results), _variants(results)
    differences = {
        (label_of(variant), name): paired_difference(
            _outcomes(results, name, variant), _outcomes(results, name, _WITHOUT)
        )
        for variant in variants
        if variant["term"] != "none"
        for name in sets
    }
    is_clear = dict(zip(differences, clear(list(differences.values())), strict=True))
    header, others = ["term"], ["term"]
    for name in sets:
        header += [f"{name}: {OUTCOMES[name].title}", "difference"]
        others += [f"{name}: {column.title}" for column in _OTHERS[name]]
    rows, other_rows = [], []
    for variant in variants:
        label = label_of(variant)
        row, other_row = [label], [label]
        for name in sets:
            measured = list(results.by_seed(set=name, **variant).values())
            row.append(_mean(OUTCOMES[name], measured))
            difference = differences.get((label, name))
            text = difference.text(OUTCOMES[name].digits, signed=True) if difference else "-"
            row.append(f"**{text}**" if is_clear.get((label, name)) else text)
            other_row += [_mean(column, measured) for column in _OTHERS[name]]
        rows.append(row)
        other_rows.append(other_row)
    return (
        f"{markdown_table(header, rows)}\n"
        f"{results.runs_words()}Difference: from no term, over the same seeds.\n"
        f"Bold: clearly not 0, by Holm's rule for all {len(differences)} differences.\n\n"
        f"{markdown_table(others, other_rows)}\n"
        "Equation 14: the paper's term of the codes at the end, in every row.\n"
    )


def sample_files(results: Results) -> list[str]:
    """Return the names of the samples of each term's first run on MNIST."""
    results = _with_weights(results)
    runs = (results.runs(set="mnist", **variant) for variant in _variants(results))
    return [picture_of(found[0].params) for found in runs if found]


@in_house_style
def draw(results: Results, folder: Path) -> list[Path]:
    """Write outcomes.png, the outcome of every run, and terms.png, the samples of each term's first run, into a folder.
    Return their paths."""
    results = _with_weights(results)
    return [_draw_outcomes(results, folder / "outcomes.png"), _draw_samples(results, folder / "terms.png")]


def _draw_outcomes(results: Results, path: Path) -> Path:
    sets, variants = _sets(results), _variants(results)
    figure = new_figure(1 + 3.4 * len(sets), 1.2 + 0.42 * len(variants))
    panels = figure.subplots(1, len(sets), squeeze=False, sharey=True)[0]
    for axes, name in zip(panels, sets, strict=True):
        for place, variant in enumerate(variants):
            values = list(_outcomes(results, name, variant).values())
            mean = mean_of(values)
            axes.plot(values, [place] * len(values), "o", color=GRAY, markersize=4, alpha=0.6, markeredgewidth=0)
            half = 0.0 if math.isnan(mean.half) or len(values) < _INTERVAL_SHOWN else mean.half
            color = GRAY if variant["term"] == "none" else BLUE if variant["term"] == "paper" else ORANGE
            axes.errorbar(mean.value, place, xerr=half, fmt="|", color=color, markersize=14, capsize=4, linewidth=1.8)
        axes.set_yticks(range(len(variants)), [label_of(variant) for variant in variants])
        axes.set_ylim(len(variants) - 0.5, -0.5)
        if highest := OUTCOMES[name].highest:
            left, right = axes.get_xlim()
            axes.set_xlim(max(left, -0.02 * highest), min(right, 1.02 * highest))  # intervals may go beyond
        axes.set_xlabel(f"{name}: {OUTCOMES[name].title}")
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
    return path


def _draw_samples(results: Results, path: Path) -> Path:
    sets, variants = _sets(results), _variants(results)
    figure = new_figure(3.2 * len(variants), 2.9 * len(sets))
    for row, name in zip(figure.subplots(len(sets), len(variants), squeeze=False), sets, strict=True):
        for axes, variant in zip(row, variants, strict=True):
            axes.set_axis_off()
            runs = results.runs(set=name, **variant)
            if runs and runs[0].result:
                axes.set_title(f"{label_of(variant)}: {runs[0].result['modes']} of {_MODES[name]}", fontsize=10)
                _show(axes, runs[0], results)
    figure.savefig(path, dpi=110)
    return path


def _show(axes: Axes, run: Done, results: Results) -> None:
    if run.params["set"] == "mnist":
        show_picture(axes, results.picture(picture_of(run.params)))
        return
    middles = plane.centers(run.params["set"])
    axes.plot(middles[:, 0], middles[:, 1], "o", color=GRAY, markersize=7, markerfacecolor="none")
    if run.result and run.result["points"]:
        across, up = zip(*run.result["points"], strict=True)
        axes.plot(across, up, ".", color=BLUE, markersize=2)
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(-1.05, 1.05)
    axes.set_aspect("equal")


def _sets(results: Results) -> list[str]:
    found = {run.params["set"] for run in results.trials}
    return [name for name in _DATA if name in found]


def _variants(results: Results) -> list[Params]:
    """Return the terms with their weights, no term first."""
    found = {(run.params["term"], run.params["weight"]) for run in results.trials}
    ordered = sorted(found, key=lambda one: (TERMS.index(one[0]), one[1]))
    return [{"term": term, "weight": weight} for term, weight in ordered]


def _outcomes(results: Results, name: str, variant: Params) -> dict[int, float]:
    """Return the outcome of each measured run on a set, by its seed."""
    return {seed: OUTCOMES[name].of(found) for seed, found in results.by_seed(set=name, **variant).items()}


def _mean(column: Column, measured: Sequence[Mapping[str, Any]]) -> str:
    return mean_of([column.of(result) for result in measured]).text(column.digits)


def _with_weights(results: Results) -> Results:
    """Return the results with a weight in each trial. In results of earlier versions the settings have it."""

    def weighted(trial: Done) -> Done:
        weight = 0.0 if trial.params["term"] == "none" else results.settings.get("weight")
        return trial if "weight" in trial.params else replace(trial, params={**trial.params, "weight": weight})

    return replace(results, trials=[weighted(trial) for trial in results.trials])


STUDY = Study(
    name="pt-study",
    summary="EBGAN without and with the pulling-away term, and with what other code computes for it.",
    budgets=BUDGETS,
    parameters={"set": _DATA, "term": TERMS, "weight": Range(0.0, 1e6), "seed": SEEDS},
    choosing=("terms", "weights", "other_weight", "sets", "seeds"),
    trials=trials,
    trial=trial,
    describe=describe,
    table=table,
    draw=draw,
    sample_files=sample_files,
    load=load,
)
