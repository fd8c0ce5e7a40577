"""The energy of an auto-encoder in the plane and on digits (sections 2.3 and 2.4).

It is trained on real samples alone, and inside an EBGAN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .._plotting import BLUE, GRAY, GREEN, ORANGE, Axes, dress, in_house_style, new_figure
from ..data.image_set import TensorImages, pad_to_square
from ..data.pixels import to_signed_unit
from ..models.mlp import Generator
from ..training.sampling import sample_images
from . import _films
from .framework.checks import (
    check_batch,
    check_counts,
    check_enough,
    check_given,
    check_not_negative,
    check_positive,
    check_shares,
)
from .framework.intervals import mean_of
from .framework.results import Done, Params, Results, markdown_table
from .framework.study import SEEDS, Budget, DigitOptions, Job, Loaded, Measured, NoData, Study, Tick
from .networks.energies import EnergyConfig, EnergyTrainer, LeakyAutoEncoder, area_under_curve
from .networks.steps import train
from .sets import plane
from .sets.digits import UnscoredDigits

Model = Literal["bottleneck", "wide", "EBGAN", "EBGAN-PT"]
SetName = Literal["ring", "grid", "spiral", "mnist"]

MODELS: tuple[Model, ...] = ("bottleneck", "wide", "EBGAN", "EBGAN-PT")
_SHAPES: tuple[plane.Shape, ...] = ("ring", "grid", "spiral")
_SETS: tuple[SetName, ...] = (*_SHAPES, "mnist")
_TITLES: dict[Model, str] = {
    "bottleneck": "alone, bottleneck",
    "wide": "alone, wide",
    "EBGAN": "EBGAN",
    "EBGAN-PT": "EBGAN-PT",
}
_KINDS = {"test": BLUE, "generated": ORANGE, "upside down": GREEN, "noise": GRAY}  # of images, with their colors
_BIN = 0.5  # width of a bar of the histograms, in units of the energy
_BINS = 80  # the last one holds all higher energies too
_COMPARED = 10_000  # images of each kind, and real points
_SHOWN = 64  # generated points in a frame, and twice as many real ones
_LINES = 10  # of equal energy, up to the margin
_ALL = "all"  # stands for the model of a run on MNIST
_PAIR = "a pair to repel"


@dataclass(frozen=True)
class Surfaces:
    """The auto-encoders that are compared, the data, and how long each run trains."""

    models: tuple[Model, ...] = MODELS
    """The auto-encoders to compare.
    bottleneck: a short code, on real samples alone. wide: a code that could learn the identity, on real samples alone.
    EBGAN: the wide one as the discriminator of an EBGAN. EBGAN-PT: the same with the pulling-away term.
    On MNIST a run trains all four, because all are shown the digits of its EBGAN."""
    sets: tuple[SetName, ...] = _SETS
    """The data sets: a ring of 8 Gaussians, a 5 x 5 grid of Gaussians, a spiral, and MNIST."""
    seeds: int = 5
    """The number of runs of each model on each set, with seeds from 0."""
    pt_weight: float = 0.1
    """The weight of the pulling-away term in EBGAN-PT. The paper's is 0.1."""
    point_steps: int = 20_000
    """The number of steps of a run in the plane."""
    point_batch_size: int = 128
    """The number of real points in a step. A step of an EBGAN generates as many."""
    point_margin: float = 0.3
    """The margin in the plane, in units of the l2 energy. Neighbors of the grid lie 0.4 apart."""
    point_lr: float = 0.0005
    """The learning rate of both networks in the plane (Adam)."""
    point_width: int = 128
    """The number of features of each hidden layer in the plane, and the length of a wide code."""
    steps: int = 20_000
    """The number of steps of a run on MNIST."""
    batch_size: int = 64
    """The number of real digits in a step. A step of an EBGAN generates as many."""
    margin: float = 10.0
    """The margin on MNIST, in units of the l2 energy."""
    lr: float = 0.0005
    """The learning rate of both networks on MNIST (Adam)."""
    size_g: int = 800
    """sizeG on MNIST, the number of features of each hidden layer of the generator. Its nLayerG is 5."""
    size_d: int = 1024
    """The length of a wide code on MNIST, as many numbers as a padded digit has pixels.
    The auto-encoder has one layer to each side of it."""
    bottleneck: int = 16
    """The length of a short code on MNIST. In the plane it is 1."""
    ema: float = 0.999
    """The decay per step of the moving average of the generator's weights.
    The average draws the samples. 0: the latest weights draw them."""


_SHORT = Surfaces(seeds=1, point_steps=6_000, steps=4_000, size_g=400)
BUDGETS: dict[Budget, Surfaces] = {"minutes": _SHORT, "hour": replace(_SHORT, seeds=5), "full": Surfaces()}


def trials(settings: Surfaces) -> list[Params]:
    """Return every model on every set with every seed. Raise a ValueError if the settings can't be run."""
    check_given(settings, "models", "sets")
    check_counts(settings, "seeds", "point_steps", "steps", "point_width", "size_g", "size_d", "bottleneck")
    check_positive(settings, "point_margin", "point_lr", "margin", "lr")
    check_not_negative(settings, "pt_weight")
    check_shares(settings, "ema")
    check_batch(settings.point_batch_size, _PAIR, "point_batch_size")
    check_batch(settings.batch_size, _PAIR)
    return [
        {"set": name, "model": model, "seed": seed}
        for seed in range(settings.seeds)
        for name in settings.sets
        for model in (settings.models if name != "mnist" else (_ALL,))
    ]


def load(settings: Surfaces, options: DigitOptions) -> Loaded:
    """Read the digits if a trial trains on them. Raise a ValueError if a set has fewer samples than a batch."""
    if any(name != "mnist" for name in settings.sets):
        check_enough("point_batch_size", settings.point_batch_size, plane.POINTS)
    return UnscoredDigits.with_batches(options, settings.batch_size) if "mnist" in settings.sets else NoData()


def describe(params: Params, result: dict[str, Any] | None) -> str:
    """Return a run in a few words, with its main number if it has a result."""
    words = f"{params['set']}, {params['model']}, seed {params['seed']}"
    if result is None:
        return words
    if params["set"] == "mnist":
        area = result["EBGAN"]["area"]["generated"]
        return f"{words}: the EBGAN tells generated digits from real ones with area {area:.2f}"
    return f"{words}: {result['share']:.0%} of the square and {result['data']:.0%} of the data below half the margin"


def trial(params: Params, job: Job[Surfaces], tick: Tick) -> Measured:
    """Train one model on points, or all on digits, and measure the energy."""
    return (_on_digits if params["set"] == "mnist" else _on_points)(params, job, tick)


def _on_points(params: Params, job: Job[Surfaces], tick: Tick) -> Measured:
    settings, model, seed = job.settings, params["model"], params["seed"]
    steps, margin, width = settings.point_steps, settings.point_margin, settings.point_width
    real = plane.points(params["set"], job.device)
    torch.manual_seed(seed)
    discriminator = LeakyAutoEncoder(2, width, width, 1 if model == "bottleneck" else width).to(job.device)
    generator = Generator(8, 4, width, real.shape).to(job.device) if _is_ebgan(model) else None
    config = _config(settings, model, seed, margin, settings.point_lr, settings.point_batch_size)
    trainer = EnergyTrainer(config, real, discriminator, generator)
    lattice = _films.lattice().to(job.device)
    frames: list[Tensor] = []
    generated: list[list[list[float]]] = []

    def look() -> None:
        frames.append(_films.frame_of(trainer.energies(lattice), margin))
        if sampler := trainer.sampler():
            generated.append(_rounded(sample_images(sampler, _SHOWN, seed)))

    moments = _films.moments(steps) if seed == 0 else []
    train(trainer, steps, tick, dict.fromkeys(moments, look))
    of_square, of_data = trainer.energies(lattice), trainer.energies(_images(real, _COMPARED))
    area = area_under_curve(of_data, of_square)
    result: dict[str, Any] = {"share": _low(of_square, margin), "data": _low(of_data, margin), "area": area}
    if seed == 0:
        _films.save_frames(frames, job.options.out / picture_of(params))
        result |= {"steps": moments, "generated": generated}
    return Measured(result, area)


def _low(energies: Tensor, margin: float) -> float:
    """Return the share of energies below half the margin."""
    return float((energies < margin / 2).float().mean())


def _on_digits(params: Params, job: Job[Surfaces], tick: Tick) -> Measured:
    """Train all models. Those without a generator are shown the digits of the EBGAN."""
    digits, seed = job.data, params["seed"]
    trainers = {model: _trained_on_digits(model, job, seed, tick) for model in MODELS}
    samplers = {model: trainers[model if _is_ebgan(model) else "EBGAN"].sampler() for model in MODELS}
    test = to_signed_unit(pad_to_square(digits.mnist.test_images[:_COMPARED], digits.size).to(digits.device))
    noise = torch.rand(test.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    result: dict[str, Any] = {}
    for model, trainer in trainers.items():
        sampler = samplers[model]
        assert sampler is not None
        images = {
            "test": test,
            "generated": sample_images(sampler, len(test), seed, device=digits.device),
            "upside down": test.rot90(2, (2, 3)),
            "noise": noise.to(digits.device),
        }
        energies = {kind: trainer.energies(batch).cpu() for kind, batch in images.items()}
        result[model] = {
            "area": {kind: area_under_curve(energies["test"], energies[kind]) for kind in _KINDS if kind != "test"},
            "energy": {kind: round(float(values.mean()), 4) for kind, values in energies.items()},
            "histograms": {kind: _counts(values) for kind, values in energies.items()},
        }
    return Measured(result, result["EBGAN"]["area"]["generated"])


def _trained_on_digits(model: Model, job: Job[Surfaces], seed: int, tick: Tick) -> EnergyTrainer:
    settings, images, device = job.settings, job.data.images, job.data.device
    torch.manual_seed(seed)
    code = settings.bottleneck if model == "bottleneck" else settings.size_d
    discriminator = LeakyAutoEncoder(math.prod(images.shape), code).to(device)
    generator = Generator(100, 5, settings.size_g, images.shape).to(device) if _is_ebgan(model) else None
    config = _config(settings, model, seed, settings.margin, settings.lr, settings.batch_size)
    trainer = EnergyTrainer(config, images, discriminator, generator)
    train(trainer, settings.steps, tick)
    return trainer


def _config(settings: Surfaces, model: Model, seed: int, margin: float, lr: float, batch_size: int) -> EnergyConfig:
    return EnergyConfig(
        margin=margin,
        pt_weight=settings.pt_weight if model == "EBGAN-PT" else 0.0,
        lr=lr,
        batch_size=batch_size,
        ema=settings.ema,
        seed=seed,
    )


def _is_ebgan(model: Model) -> bool:
    return model in ("EBGAN", "EBGAN-PT")


def picture_of(params: Params) -> str:
    """Return the file name of the film of a run in the study's folder."""
    return f"films/{params['set']}-{params['model']}.png"


def sample_files(results: Results) -> list[str]:
    """Return the names of the films, which the first seed's runs in the plane have."""
    return [picture_of(run.params) for run in _filmed(results)]


def table(results: Results) -> str:
    """Return tables in Markdown: the energies in the plane, and those of digits."""
    parts = [part for part in (_table_of_plane(results), _table_of_digits(results)) if part]
    notes = (
        f"{results.runs_words()}Square, data: the share of each whose energy is below half the margin.\n"
        "Area: under the ROC curve by which the energy tells real samples from others, in the plane from the square's\n"
        "points. 1 tells all, 0.5 tells nothing, and 0 is always wrong.\n"
    )
    return "\n".join([*parts, notes])


def _table_of_plane(results: Results) -> str:
    shapes = [shape for shape in _SHAPES if results.runs(set=shape)]
    models = [model for model in MODELS if results.runs(model=model)]
    if not shapes:
        return ""
    columns = {"square": "share", "data": "data", "area": "area"}
    header = ["in the plane", *(f"{shape}: {title}" for shape in shapes for title in columns)]
    rows = [
        [_TITLES[model]]
        + [
            mean_of([found[key] for found in results.by_seed(set=shape, model=model).values()]).text()
            for shape in shapes
            for key in columns.values()
        ]
        for model in models
    ]
    return markdown_table(header, rows)


def _table_of_digits(results: Results) -> str:
    runs = list(results.by_seed(set="mnist").values())
    if not runs:
        return ""
    kinds = [kind for kind in _KINDS if kind != "test"]
    header = ["on MNIST", "energy of test digits", "of generated", *(f"area: {kind}" for kind in kinds)]
    rows = []
    for model in MODELS:
        energies = [mean_of([run[model]["energy"][kind] for run in runs]).text() for kind in ("test", "generated")]
        areas = [mean_of([run[model]["area"][kind] for run in runs]).text() for kind in kinds]
        rows.append([_TITLES[model], *energies, *areas])
    return markdown_table(header, rows)


def _filmed(results: Results) -> list[Done]:
    return [run for run in results.measured() if run.params["set"] in _SHAPES and run.params["seed"] == 0]


@in_house_style
def draw(results: Results, folder: Path) -> list[Path]:
    """Write figures into a folder, and return the paths of those for which there are results.

    surfaces.png: the energies in the plane. training.webp: a film of them. energies.png: the energies of digits.
    """
    drawn = []
    films = _films_of(results)
    shapes = [shape for shape in _SHAPES if any((shape, model) in films for model in MODELS)]
    models = [model for model in MODELS if any((shape, model) in films for shape in shapes)]
    if shapes:
        drawn.append(_draw_surfaces(films, shapes, models, folder / "surfaces.png"))
        rows = [[films.get((shape, model)) for model in models] for shape in shapes]
        data = [_points(shape) for shape in shapes]
        _films.animate(rows, data, [_TITLES[model] for model in models], folder / "training.webp")
        drawn.append(folder / "training.webp")
    if runs := list(results.by_seed(set="mnist").values()):
        drawn.append(_draw_histograms(runs, folder / "energies.png"))
    return drawn


def _films_of(results: Results) -> dict[tuple[str, str], _films.Film]:
    """Return the films that these results hold, by set and model."""
    found = {}
    for run in _filmed(results):
        picture = results.picture(picture_of(run.params))
        if picture is not None and run.result:
            steps = run.result["steps"]
            film = _films.Film(_films.frames_in(picture, len(steps)), steps, run.result["generated"])
            found[run.params["set"], run.params["model"]] = film
    return found


def _draw_surfaces(
    films: dict[tuple[str, str], _films.Film], shapes: list[plane.Shape], models: list[Model], path: Path
) -> Path:
    figure = new_figure(3.1 * len(models), 3.0 * len(shapes) + 0.5)
    panels = figure.subplots(len(shapes), len(models), squeeze=False)
    for axes, model in zip(panels[0], models, strict=True):
        axes.set_title(_TITLES[model], fontsize=11)
    for row, shape in zip(panels, shapes, strict=True):
        for axes, model in zip(row, models, strict=True):
            axes.set_axis_off()
            if film := films.get((shape, model)):
                _draw_surface(axes, film, _points(shape))
    figure.savefig(path, dpi=100)
    return path


def _draw_surface(axes: Axes, film: _films.Film, data: Tensor) -> None:
    """Draw lines of equal energy at the end of a film, data in white, and generated points in orange."""
    tile = film.tiles[-1].astype(float) / 255 * _films.CEILING
    line = np.linspace(-_films.REACH, _films.REACH, len(tile))
    axes.contourf(line, line, np.minimum(tile, 1), np.linspace(0, 1, _LINES + 1), cmap="viridis")
    axes.contour(line, line, tile, [0.5], colors="white", linewidths=0.8)
    axes.plot(data[:, 0], data[:, 1], ".", color="white", markersize=3)
    if film.generated:
        across, up = zip(*film.generated[-1], strict=True)
        axes.plot(across, up, ".", color=ORANGE, markersize=4)
    axes.set_aspect("equal")


def _draw_histograms(runs: list[dict[str, Any]], path: Path) -> Path:
    figure = new_figure(3.6 * len(MODELS), 3.2)
    edges = np.arange(_BINS + 1) * _BIN
    for number, (axes, model) in enumerate(zip(figure.subplots(1, len(MODELS), sharey=True), MODELS, strict=True)):
        for kind, color in _KINDS.items():
            counts = np.sum([run[model]["histograms"][kind] for run in runs], axis=0)
            label = kind
            if kind != "test":
                label += f", area {np.mean([run[model]['area'][kind] for run in runs]):.2f}"
            axes.stairs(100 * counts / counts.sum(), edges, color=color, fill=True, alpha=0.5, label=label)
        axes.set_title(_TITLES[model], fontsize=10)
        axes.set_xlabel(f"energy (last bar: {edges[-2]:g} and more)")
        axes.set_xlim(0, edges[-1])
        dress(axes, "" if number else "% of images")
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=100)
    return path


def _points(shape: plane.Shape) -> Tensor:
    return _images(plane.points(shape), 2 * _SHOWN).view(-1, 2)


def _images(samples: TensorImages, count: int) -> Tensor:
    """Return the first images of a set in memory, [count, C, H, W] in [-1, 1], on its device."""
    images: Tensor = samples.gather(torch.arange(count, device=samples.device))
    return to_signed_unit(images)


def _rounded(points: Tensor) -> list[list[float]]:
    return [[round(number, 2) for number in point] for point in points.view(-1, 2).tolist()]


def _counts(energies: Tensor) -> list[int]:
    """Return the number of energies in each bar of the histograms."""
    bars = (energies / _BIN).long().clamp(max=_BINS - 1)
    return torch.bincount(bars, minlength=_BINS).tolist()


STUDY = Study(
    name="energy-surface",
    summary="The energy in the plane and on digits: real samples alone, and an EBGAN (sections 2.3 and 2.4).",
    budgets=BUDGETS,
    parameters={"set": _SETS, "model": (*MODELS, _ALL), "seed": SEEDS},
    choosing=("models", "sets", "seeds"),
    trials=trials,
    trial=trial,
    describe=describe,
    table=table,
    draw=draw,
    sample_files=sample_files,
    load=load,
)
