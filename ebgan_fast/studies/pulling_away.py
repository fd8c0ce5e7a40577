"""EBGAN without the pulling-away term, with it, and with what other code computes for it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .._plotting import BLUE, GRAY, Axes, in_house_style, new_figure, show_picture
from ..models.families import Mlp
from ..training.config import TrainConfig
from ..training.pictures import save_grid
from ..training.sampling import sample_images
from .framework.checks import check_batch, check_counts, check_given, check_positive, check_shares
from .framework.results import Done, Params, Results, markdown_table
from .framework.study import SEEDS, Budget, DigitOptions, Job, Loaded, Measured, NoData, Study, Tick
from .networks.repelling_terms import TERMS, Term, trainer_with
from .networks.steps import train
from .sets import gaussians
from .sets.digits import Digits

DataName = Literal["ring", "grid", "mnist"]

_DATA: tuple[DataName, ...] = ("ring", "grid", "mnist")
_MODES = {"ring": 8, "grid": 25, "mnist": 10}
_SHOWN, _COLUMNS = 50, 10
_SHOWN_POINTS = 300


@dataclass(frozen=True)
class PullingAway:
    """The terms that are compared, the data, and how long each run trains."""

    terms: tuple[Term, ...] = TERMS
    """The terms to compare.
    none: no term. paper: the paper's equation 14.
    no square: the mean of equation 14's cosines, which are not squared.
    batch axis: equation 14 with codes that are normalized along the batch."""
    sets: tuple[DataName, ...] = _DATA
    """The data sets to train on: a ring of 8 Gaussians, a 5 x 5 grid of Gaussians, and MNIST."""
    seeds: int = 5
    """The number of runs of each term on each set, with seeds from 0."""
    weight: float = 0.1
    """The weight of the term in the generator's loss. The paper's is 0.1."""
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
    point_margin: float = 1.0
    """The margin on the mixtures, in units of the l2 energy. Their points lie at most 2.8 apart."""
    point_lr: float = 0.0005
    """The learning rate of both networks on the mixtures (Adam)."""
    ema: float = 0.999
    """The decay per step of the moving average of the generator's weights.
    The average draws the samples. 0: the latest weights draw them."""
    samples: int = 10_000
    """The number of generated images or points that give a run's scores."""


BUDGETS: dict[Budget, PullingAway] = {
    # On MNIST these are the margin sweep's: smaller networks at twice the learning rate.
    "minutes": PullingAway(seeds=1, steps=4_000, point_steps=4_000, size_g=400, size_d=512, lr=0.002, samples=5_000),
    "hour": PullingAway(seeds=3, steps=8_000, point_steps=10_000, size_g=400, size_d=512, lr=0.002),
    "full": PullingAway(),
}


def trials(comparison: PullingAway) -> list[Params]:
    """Return every term on every set with every seed. Raise a ValueError if the comparison can't be run."""
    check_given(comparison, "terms", "sets")
    check_counts(comparison, "seeds", "steps", "point_steps", "batch_size", "size_g", "size_d", "samples")
    check_positive(comparison, "weight", "margin", "lr", "point_margin", "point_lr")
    check_shares(comparison, "ema")
    check_batch(comparison.batch_size, "a pair to repel")
    return [
        {"set": name, "term": term, "seed": seed}
        for seed in range(comparison.seeds)
        for name in comparison.sets
        for term in comparison.terms
    ]


def load(comparison: PullingAway, options: DigitOptions) -> Loaded:
    """Read the digits if a trial trains on them."""
    return Digits.of(options) if "mnist" in comparison.sets else NoData()


def describe(params: Params, result: dict[str, Any] | None) -> str:
    """Return a run in a few words, with the number of modes that it found if it has a result."""
    words = f"{params['set']}, term: {params['term']}, seed {params['seed']}"
    return words if result is None else f"{words}: {result['modes']} of {_MODES[params['set']]}"


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
        pt_weight=comparison.weight,
        ema=comparison.ema,
        device=job.device,
    )
    images = digits.images if on_digits else gaussians.points(params["set"], job.device)
    trainer = trainer_with(params["term"], config, images)
    train(trainer, config.steps, tick)
    sampler, term = trainer.sampler(), trainer.statistics()["pulling_away"]
    if on_digits:
        scores = digits.scores(sampler, comparison.samples, seed)
        save_grid(sample_images(sampler, _SHOWN, seed), job.options.out / picture_of(params), _COLUMNS)
        return Measured({"modes": scores["classes"], "pulling_away": term, **scores}, scores["classes"])
    found, drawn = gaussians.mode_scores(sampler, params["set"], comparison.samples, seed)
    shown = [[round(number, 3) for number in point] for point in drawn[:_SHOWN_POINTS].tolist()] if seed == 0 else []
    return Measured({"pulling_away": term, **found, "points": shown}, found["modes"])


def picture_of(params: Params) -> str:
    """Return the file name of the samples of a run on MNIST in the study's folder."""
    return f"samples/{params['term'].replace(' ', '-')}-{params['seed']}.png"


def table(results: Results) -> str:
    """Return a table in Markdown with a row for each term: the modes of each seed, and means over the seeds."""
    header: list[str] = ["term"]
    for name in _sets(results):
        header += [f"{name}: modes of {_MODES[name]}", "score" if name == "mnist" else "good samples"]
        header += ["diversity"] if name == "mnist" else []
        header += ["equation 14"]
    rows: list[list[str]] = []
    for term in TERMS:
        row: list[str] = [term]
        for name in _sets(results):
            measured = [run.result for run in results.runs(set=name, term=term) if run.result]
            row.append(", ".join(str(result["modes"]) for result in measured) or "-")
            columns = ["exp_score", "diversity", "pulling_away"] if name == "mnist" else ["good", "pulling_away"]
            row += [_mean([result[column] for result in measured]) for column in columns]
        if any(results.runs(set=name, term=term) for name in _sets(results)):
            rows.append(row)
    return (
        f"{markdown_table(header, rows)}\n"
        "Modes: one number a seed. All else: means over seeds. Equation 14: the paper's term of the codes at the end, "
        "in every row.\n"
    )


def sample_files(results: Results) -> list[str]:
    """Return the names of the samples of each term's first run on MNIST."""
    runs = (results.runs(set="mnist", term=term) for term in TERMS)
    return [picture_of(found[0].params) for found in runs if found]


@in_house_style
def draw(results: Results, folder: Path) -> list[Path]:
    """Write terms.png, the samples of each term's first run, into a folder. Return its path."""
    sets = _sets(results)
    terms = [term for term in TERMS if any(results.runs(set=name, term=term) for name in sets)]
    figure = new_figure(3.2 * len(terms), 2.9 * len(sets))
    for row, name in zip(figure.subplots(len(sets), len(terms), squeeze=False), sets, strict=True):
        for axes, term in zip(row, terms, strict=True):
            axes.set_axis_off()
            runs = results.runs(set=name, term=term)
            if runs and runs[0].result:
                axes.set_title(f"{term}: {runs[0].result['modes']} of {_MODES[name]}", fontsize=10)
                _show(axes, runs[0], results)
    path = folder / "terms.png"
    figure.savefig(path, dpi=110)
    return [path]


def _show(axes: Axes, run: Done, results: Results) -> None:
    if run.params["set"] == "mnist":
        show_picture(axes, results.picture(picture_of(run.params)))
        return
    middles = gaussians.centers(run.params["set"])
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


def _mean(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f}" if values else "-"


STUDY = Study(
    name="pt-study",
    summary="EBGAN without and with the pulling-away term, and with what other code computes for it.",
    budgets=BUDGETS,
    parameters={"set": _DATA, "term": TERMS, "seed": SEEDS},
    choosing=("terms", "sets", "seeds"),
    trials=trials,
    trial=trial,
    describe=describe,
    table=table,
    draw=draw,
    sample_files=sample_files,
    load=load,
)
