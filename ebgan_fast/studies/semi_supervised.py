"""Semi-supervised MNIST (section 4.2, table 2): a ladder network alone, and as the discriminator of an EBGAN."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .._plotting import BLUE, GRAY, GREEN, ORANGE, PURPLE, dress, in_house_style, new_figure, show_picture
from ..training.pictures import save_grid
from ..training.sampling import sample_images
from .framework.checks import (
    check_batch,
    check_counts,
    check_given,
    check_not_negative,
    check_positive,
    check_shares,
)
from .framework.intervals import paired_difference
from .framework.results import Done, Params, Results, markdown_table
from .framework.study import SEEDS, Budget, DigitOptions, Job, Measured, Range, Study, Tick
from .networks.ladder_training import CLASSES, FlatDigits, LadderConfig, LadderTrainer, flat_digits
from .sets.digits import UnscoredDigits

Model = Literal["classifier", "LN", "LN-longer", "EBGAN-LN", "EBGAN-LN-low"]

MODELS: tuple[Model, ...] = ("classifier", "LN", "LN-longer", "EBGAN-LN", "EBGAN-LN-low")
_EBGANS = ("EBGAN-LN", "EBGAN-LN-low")
_COLORS = {"classifier": GRAY, "LN": BLUE, "LN-longer": GREEN, "EBGAN-LN": ORANGE, "EBGAN-LN-low": PURPLE}
_TESTS = 20  # times that a run measures its test error
_SHOWN = 50
_TICKS = (0.5, 1, 2, 3, 5, 10, 20, 50)  # percent


@dataclass(frozen=True)
class SemiSupervised:
    """The models that are compared, and how long they train. `--budget full` is the paper's recipe (appendix D)."""

    labels: tuple[int, ...] = (100,)
    """The numbers of labeled images to try, with equally many of each digit. The paper has 100, 200 and 1000."""
    models: tuple[Model, ...] = MODELS
    """The models to compare.
    classifier: the encoder alone. LN: the ladder network on real images.
    LN-longer: LN with the steps and the learning rate of EBGAN-LN, so that only the generator is different.
    EBGAN-LN: the ladder network as an EBGAN's discriminator.
    EBGAN-LN-low: the same with a margin near the energy of real images."""
    seeds: int = 15
    """The number of runs of each model with each number of labels, with seeds from `first_seed`."""
    first_seed: int = 0
    """The lowest seed. Settings that were chosen by the seeds 0 and 1 are compared by others."""
    steps: int = 120_000
    """The number of updates of the classifier and of LN."""
    ebgan_steps: int = 180_000
    """The number of updates of EBGAN-LN and of LN-longer."""
    margin_steps: int = 60_000
    """The number of steps of EBGAN-LN in which the margin falls to 0. Then the generator is switched off."""
    margin: float = 16.0
    """The margin of the first step, in units of the energy, which is a sum of squares."""
    low_margin: float = 4.0
    """The margin of EBGAN-LN-low's first step.
    LN's energy of real images falls to about this, and appendix E of the paper looks for a margin there."""
    hinge_weight: float = 1.0
    """The weight of the hinge beside the energy of real images. Equation 1 has 1."""
    batch_size: int = 100
    """The number of images without labels in a step, and the largest number of labeled images."""
    recon_weight: float = 1000.0
    """784 times the weight of the energy in the loss. The classifier's loss has the weight 1.
    The paper has 1000. Few steps need more: Rasmus et al. have 5000 for 100 labels."""
    lr: float = 0.0002
    """The learning rate of the classifier and of LN.
    The paper has 0.0002. Few steps need more: Rasmus et al. have 0.002."""
    ebgan_lr: float = 0.0005
    """The learning rate of EBGAN-LN's ladder network."""
    lr_g: float = 0.00025
    """The learning rate of the generator."""
    beta1: float = 0.5
    """The decay rate of Adam's first moment, for the ladder network."""


# With few steps, a higher learning rate and a larger weight of the energy are better. Rasmus et al. give 0.002 and 5000
# for 100 labels.
_FEW_STEPS = SemiSupervised(
    seeds=1,
    steps=2_000,
    ebgan_steps=3_000,
    margin_steps=1_000,
    recon_weight=5000.0,
    lr=0.002,
    ebgan_lr=0.002,
    lr_g=0.001,
    beta1=0.9,
)
BUDGETS: dict[Budget, SemiSupervised] = {
    "minutes": _FEW_STEPS,
    "hour": replace(_FEW_STEPS, seeds=3, steps=6_000, ebgan_steps=9_000, margin_steps=3_000),
    "full": SemiSupervised(),
}


def trials(settings: SemiSupervised) -> list[Params]:
    """Return every model with every number of labels and every seed. Raise a ValueError if the settings can't be
    run."""
    check_given(settings, "labels", "models")
    check_counts(settings, "seeds", "steps", "ebgan_steps", "batch_size")
    check_batch(settings.batch_size, "because of batch norm")
    check_positive(settings, "lr", "ebgan_lr", "lr_g")
    check_not_negative(settings, "margin", "low_margin", "recon_weight", "hinge_weight")
    check_shares(settings, "beta1")
    if not 1 <= settings.margin_steps <= settings.ebgan_steps:
        raise ValueError(
            f"margin_steps: got {settings.margin_steps}, expected 1 to the {settings.ebgan_steps} of ebgan_steps"
        )
    for labels in settings.labels:
        if labels < CLASSES or labels % CLASSES:
            raise ValueError(f"labels: got {labels}, expected a multiple of {CLASSES}, as many of each digit")
    return [
        {"labels": labels, "model": model, "seed": seed}
        for seed in range(settings.first_seed, settings.first_seed + settings.seeds)
        for labels in settings.labels
        for model in settings.models
    ]


class LadderDigits(UnscoredDigits):
    """The digits in the form that a ladder network takes."""

    @functools.cached_property
    def flat(self) -> FlatDigits:
        """The digits on the device, with images as floats."""
        return flat_digits(self.mnist, self.device)


def load(settings: SemiSupervised, options: DigitOptions) -> LadderDigits:
    """Read the digits. Raise a ValueError if there are fewer than a batch."""
    return LadderDigits.with_batches(options, settings.batch_size, 28)


def describe(params: Params, result: dict[str, Any] | None) -> str:
    """Return a run in a few words, with its test error if there is one."""
    words = f"{params['model']}, {params['labels']} labels, seed {params['seed']}"
    return words if result is None else f"{words}: {result['error']:.2%} wrong"


def trial(params: Params, job: Job[SemiSupervised], tick: Tick) -> Measured:
    """Train one model, and measure its test error at up to 20 steps."""
    settings = job.settings
    model: Model = params["model"]
    ebgan = model in _EBGANS
    longer = ebgan or model == "LN-longer"
    config = LadderConfig(
        labels=params["labels"],
        seed=params["seed"],
        steps=settings.ebgan_steps if longer else settings.steps,
        batch_size=settings.batch_size,
        recon_weight=0.0 if model == "classifier" else settings.recon_weight,
        lr=settings.ebgan_lr if longer else settings.lr,
        lr_g=settings.lr_g,
        beta1=settings.beta1,
        margin=settings.low_margin if model == "EBGAN-LN-low" else settings.margin,
        margin_steps=settings.margin_steps if ebgan else 0,
        hinge_weight=settings.hinge_weight,
    )
    trainer = LadderTrainer(config, job.data.flat)
    curve: list[tuple[int, float]] = []
    looks = {round(config.steps * look / _TESTS) for look in range(1, _TESTS + 1)}
    while trainer.step_count < config.steps:
        tick()
        trainer.step()
        if trainer.step_count in looks:
            curve.append((trainer.step_count, trainer.test_error()))
    if ebgan:
        path = job.options.out / picture_of(params)
        save_grid(sample_images(trainer.sampler(), _SHOWN, params["seed"]), path)
    error = curve[-1][1]
    return Measured({"error": error, "curve": curve}, -error)


def picture_of(params: Params) -> str:
    """Return the file name of a run's samples in the study's folder."""
    prefix = "" if params["model"] == "EBGAN-LN" else f"{params['model']}-"  # the name in results of earlier versions
    return f"samples/{prefix}{params['labels']}-{params['seed']}.png"


def errors(results: Results, model: str, labels: int) -> dict[int, float]:
    """Return the test errors of the runs of one model, in percent, by their seeds."""
    return {seed: 100 * found["error"] for seed, found in results.by_seed(model=model, labels=labels).items()}


def table(results: Results) -> str:
    """Return a table in Markdown in the form of table 2: mean and standard deviation over the seeds. Beside them stand
    the differences from LN and from LN-longer, with intervals."""
    amounts = _amounts(results)
    header = ["test error, %"]
    for labels in amounts:
        header += [f"{labels} labels", f"{labels}: less LN", f"{labels}: less LN-longer"]
    rows = []
    for model in MODELS:
        row: list[object] = [model]
        for labels in amounts:
            own = errors(results, model, labels)
            row.append(_mean_and_deviation(list(own.values())))
            for other in ("LN", "LN-longer"):
                others = {} if model == other else errors(results, other, labels)
                row.append(paired_difference(own, others).text(signed=True))
        seeds = max(len(errors(results, model, labels)) for labels in amounts)
        if seeds:
            rows.append([*row, seeds])
    return (
        f"{markdown_table([*header, 'seeds'], rows)}\n"
        f"{results.failed_words()}Mean and, in parentheses, standard deviation over seeds.\n"
        "Differences: over the same seeds, with 95 % intervals.\n"
    )


def sample_files(results: Results) -> list[str]:
    """Return the names of the samples of the first run of each EBGAN-LN for each number of labels."""
    return [picture_of(run.params) for run in _sampled(results)]


def _sampled(results: Results) -> list[Done]:
    runs = (results.runs(model=model, labels=labels) for labels in _amounts(results) for model in _EBGANS)
    return [found[0] for found in runs if found]


@in_house_style
def draw(results: Results, folder: Path) -> list[Path]:
    """Write errors.png, the test error over the steps, into a folder, and samples.png if there are samples. Return the
    paths."""
    return [_draw_errors(results, folder), *_draw_samples(results, folder)]


def _draw_errors(results: Results, folder: Path) -> Path:
    amounts = _amounts(results)
    figure = new_figure(6 * len(amounts), 4)
    for axes, labels in zip(figure.subplots(1, len(amounts), squeeze=False).flat, amounts, strict=True):
        for model, color in _COLORS.items():
            for number, run in enumerate(results.runs(model=model, labels=labels)):
                if run.result:
                    steps, wrong = zip(*run.result["curve"], strict=True)
                    percent = [100 * share for share in wrong]
                    axes.plot(steps, percent, color=color, linewidth=1, label=None if number else model)
        axes.set_yscale("log")
        limits = axes.get_ylim()
        axes.set_yticks(_TICKS, list(map(str, _TICKS)))
        axes.minorticks_off()
        axes.set_ylim(limits)  # the ticks would widen the limits
        axes.set_xlabel("step")
        axes.set_title(f"{labels} labels")
        dress(axes, "test error, %")
        axes.legend()
    path = folder / "errors.png"
    figure.savefig(path, dpi=110)
    return path


def _draw_samples(results: Results, folder: Path) -> list[Path]:
    runs = [run for run in _sampled(results) if picture_of(run.params) in results.pictures]
    if not runs:
        return []
    figure = new_figure(6 * len(runs), 3.4)
    for axes, run in zip(figure.subplots(1, len(runs), squeeze=False).flat, runs, strict=True):
        show_picture(axes, results.picture(picture_of(run.params)))
        axes.set_title("{model}, {labels} labels, seed {seed}".format(**run.params))
    path = folder / "samples.png"
    figure.savefig(path, dpi=110)
    return [path]


def _amounts(results: Results) -> list[int]:
    return sorted({run.params["labels"] for run in results.measured()})


def _mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return "-"
    deviation = f" ({statistics.stdev(values):.2f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


STUDY = Study(
    name="semi-supervised",
    summary="Digits from few labels: a ladder network alone, and inside an EBGAN (table 2).",
    budgets=BUDGETS,
    parameters={"labels": Range(CLASSES, 60_000), "model": MODELS, "seed": SEEDS},
    choosing=("labels", "models", "seeds"),
    trials=trials,
    trial=trial,
    describe=describe,
    table=table,
    draw=draw,
    sample_files=sample_files,
    load=load,
)
