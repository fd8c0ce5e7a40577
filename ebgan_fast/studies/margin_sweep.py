"""The effect of the margin on MNIST (figure 9): with a small margin digits are missing, with a large one samples
collapse."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._plotting import in_house_style, new_figure, show_picture
from ..models.families import Mlp
from ..training.config import TrainConfig
from ..training.pictures import save_grid
from ..training.sampling import sample_images
from ..training.step import Trainer
from .framework.checks import check_batch, check_counts, check_given, check_positive, check_shares
from .framework.results import Params, Results, markdown_table
from .framework.study import SEEDS, Budget, Job, Measured, Range, Study, Tick
from .networks.steps import train
from .sets.digits import load_digits

_SHOWN, _COLUMNS = 50, 10


@dataclass(frozen=True)
class MarginSweep:
    """The margins that are tried, and the networks. The networks of the full size and the learning rate are figure
    9's."""

    margins: tuple[float, ...] = (1, 2, 4, 6, 8, 12, 16, 32)
    """The margins to try, in units of the l2 energy."""
    seeds: int = 3
    """The number of runs of each margin, with seeds from 0."""
    steps: int = 20_000
    """The number of steps of a run. Each step updates both networks."""
    batch_size: int = 64
    """The number of real images in a step. A step generates as many images."""
    size_g: int = 1600
    """sizeG, the number of features of each hidden layer of the generator. Its nLayerG is 5."""
    size_d: int = 1024
    """sizeD, the number of features of each encoder layer of the discriminator. Its nLayerD is 2."""
    lr: float = 0.001
    """The learning rate of both networks (Adam). Figure 9 has 0.001.
    The smaller budgets double it, which halves the steps that their smaller networks need."""
    ema: float = 0.999
    """The decay per step of the moving average of the generator's weights.
    The average draws the samples. 0: the latest weights draw them."""
    samples: int = 10_000
    """The number of generated digits that give a run's score."""


BUDGETS: dict[Budget, MarginSweep] = {
    # The smaller networks stand twice the learning rate, which halves the number of steps (docs/mnist.md).
    "minutes": MarginSweep(seeds=1, steps=4_000, size_g=400, size_d=512, lr=0.002, samples=5_000),
    "hour": MarginSweep(seeds=3, steps=8_000, size_g=400, size_d=512, lr=0.002),
    "full": MarginSweep(),
}


def trials(sweep: MarginSweep) -> list[Params]:
    """Return every margin with every seed. Raise a ValueError if the sweep can't be run."""
    check_given(sweep, "margins")
    for margin in sweep.margins:
        if not (margin > 0 and math.isfinite(margin)):
            raise ValueError(f"margins: got {margin}, expected positive numbers")
    check_counts(sweep, "seeds", "steps", "batch_size", "size_g", "size_d", "samples")
    check_batch(sweep.batch_size, "because of batch norm")
    check_positive(sweep, "lr")
    check_shares(sweep, "ema")
    return [{"margin": float(margin), "seed": seed} for seed in range(sweep.seeds) for margin in sweep.margins]


def describe(params: Params, result: dict[str, Any] | None) -> str:
    """Return a run in a few words, with its classes and score if there are any."""
    words = f"margin {params['margin']:g}, seed {params['seed']}"
    return words if result is None else f"{words}: {result['classes']} classes, score {result['exp_score']:.2f}"


def trial(params: Params, job: Job[MarginSweep], tick: Tick) -> Measured:
    """Train with one margin, and score the digits that the generator draws."""
    sweep, digits = job.settings, job.data
    config = TrainConfig(
        out=Path(),
        networks=Mlp(n_layer_g=5, n_layer_d=2, size_g=sweep.size_g, size_d=sweep.size_d),
        steps=sweep.steps,
        batch_size=sweep.batch_size,
        seed=params["seed"],
        margin=params["margin"],
        lr_g=sweep.lr,
        lr_d=sweep.lr,
        pt_weight=0.0,
        ema=sweep.ema,
        device=job.device,
    )
    trainer = Trainer(config, digits.images)
    train(trainer, sweep.steps, tick)
    sampler = trainer.sampler()
    result = digits.scores(sampler, sweep.samples, params["seed"])
    save_grid(sample_images(sampler, _SHOWN, params["seed"]), job.options.out / picture_of(params), _COLUMNS)
    return Measured(result, result["exp_score"])


def picture_of(params: Params) -> str:
    """Return the file name of a run's samples in the study's folder."""
    return f"samples/margin-{params['margin']:g}-{params['seed']}.png"


def classes(results: Results, margin: float) -> list[int]:
    """Return the number of digits that each run of a margin covers. A failed run has 0."""
    return [run.result["classes"] if run.result else 0 for run in results.runs(margin=margin)]


def table(results: Results) -> str:
    """Return a table in Markdown with a row for each margin: means over the seeds, and the classes of each seed."""
    rows = []
    for margin in _margins(results):
        measured = [run.result for run in results.runs(margin=margin) if run.result]

        def mean(name: str, of: list[dict[str, Any]] = measured) -> str:
            return f"{statistics.mean(result[name] for result in of):.2f}" if of else "-"

        covered = ", ".join(map(str, classes(results, margin)))
        rows.append([f"{margin:g}", covered, mean("exp_score"), mean("kl_conditional_marginal"), mean("diversity")])
    return markdown_table(
        ["margin", "digits covered, by seed", r"exp E KL(p(y\|x) ‖ p(y))", r"E KL(p(y\|x) ‖ p(y))", "diversity"], rows
    )


def sample_files(results: Results) -> list[str]:
    """Return the names of the samples of each margin's first run."""
    return [picture_of(results.runs(margin=margin)[0].params) for margin in _margins(results)]


@in_house_style
def draw(results: Results, folder: Path) -> list[Path]:
    """Write margins.png, the samples of each margin's first run as in figure 9, into a folder. Return its path."""
    margins = _margins(results)
    rows = -(-len(margins) // 4)
    figure = new_figure(13, 2 * rows + 0.3)
    panels = figure.subplots(rows, 4, squeeze=False).flat
    for axes in panels:
        axes.set_axis_off()
    for axes, margin in zip(figure.axes, margins, strict=False):
        first = results.runs(margin=margin)[0]
        show_picture(axes, results.picture(picture_of(first.params)))
        covered = first.result["classes"] if first.result else 0
        axes.set_title(f"margin {margin:g}, digits covered: {covered}", fontsize=9)
    path = folder / "margins.png"
    figure.savefig(path, dpi=110)
    return [path]


def _margins(results: Results) -> list[float]:
    return sorted({run.params["margin"] for run in results.trials})


STUDY = Study(
    name="margin-sweep",
    summary="The effect of the margin on MNIST (figure 9).",
    budgets=BUDGETS,
    parameters={"margin": Range(0, 1e6), "seed": SEEDS},
    choosing=("margins", "seeds"),
    trials=trials,
    trial=trial,
    describe=describe,
    table=table,
    draw=draw,
    sample_files=sample_files,
    load=load_digits,
)
