"""The energy of an auto-encoder, in the plane and on digits: after training on real samples alone, and inside an EBGAN
(sections 2.3 and 2.4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .._plotting import BLUE, GRAY, GREEN, ORANGE, Axes, dress, in_house_style, new_figure
from ..data.image_set import TensorImages, pad_to_square
from ..data.pixels import to_signed_unit
from ..models.mlp import AutoEncoder, Generator
from ..training.sampling import sample_images
from . import _films
from .framework.checks import check_batch, check_counts, check_given, check_not_negative, check_positive, check_shares
from .framework.intervals import mean_of
from .framework.results import Done, Params, Results, markdown_table
from .framework.study import SEEDS, Budget, DigitOptions, Job, Loaded, Measured, NoData, Study, Tick
from .networks.energies import EnergyConfig, EnergyTrainer, PlaneAutoEncoder, area_under_curve
from .sets import plane
from .sets.digits import UnscoredDigits

Model = Literal["bottleneck", "wide", "EBGAN", "EBGAN-PT"]
SetName = Literal["ring", "grid", "spiral", "mnist"]

MODELS: tuple[Model, ...] = ("bottleneck", "wide", "EBGAN", "EBGAN-PT")
_SHAPES: tuple[plane.Shape, ...] = ("ring", "grid", "spiral")
_SETS: tuple[SetName, ...] = (*_SHAPES, "mnist")
_TITLES = {
    "bottleneck": "auto-encoder, bottleneck",
    "wide": "auto-encoder, wide",
    "EBGAN": "the wide one in an EBGAN",
    "EBGAN-PT": "with the pulling-away term",
}
_KINDS = {"test": BLUE, "generated": ORANGE, "upside down": GREEN, "noise": GRAY}  # of images, with their colors
_BIN = 0.5  # width of a bar of the histograms, in units of the energy
_BINS = 80  # the last one holds all higher energies too
_COMPARED = 10_000  # images of each kind, and real points
_SHOWN = 64  # generated points in a frame, and twice as many real ones
_LINES = 10  # of equal energy, up to the margin


@dataclass(frozen=True)
class Surfaces:
    """The auto-encoders that are compared, the data, and how long each run trains."""

    models: tuple[Model, ...] = MODELS
    """The auto-encoders to compare.
    bottleneck: a short code, on real samples alone. wide: a code that could learn the identity, on real samples alone.
    EBGAN: the wide one as the discriminator of an EBGAN. EBGAN-PT: the same with the pulling-away term."""
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
    lr: float = 0.001
    """The learning rate of both networks on MNIST (Adam)."""
    size_g: int = 800
    """sizeG on MNIST, the number of features of each hidden layer of the generator. Its nLayerG is 5."""
    size_d: int = 1024
    """sizeD on MNIST, the length of a wide code. The paper's best EBGAN has 1024, as many as a padded digit has pixels.
    The discriminator's nLayerD is 2."""
    bottleneck: int = 16
    """The length of a short code on MNIST. In the plane it is 1."""
    ema: float = 0.999
    """The decay per step of the moving average of the generator's weights.
    The average draws the samples. 0: the latest weights draw them."""


_SHORT = Surfaces(seeds=1, point_steps=6_000, steps=4_000, size_g=400, lr=0.002)
BUDGETS: dict[Budget, Surfaces] = {"minutes": _SHORT, "hour": replace(_SHORT, seeds=5), "full": Surfaces()}


def trials(settings: Surfaces) -> list[Params]:
    """Return every model on every set with every seed. Raise a ValueError if the settings can't be run."""
    check_given(settings, "models", "sets")
    check_counts(settings, "seeds", "point_steps", "steps", "point_width", "size_g", "size_d", "bottleneck")
    check_positive(settings, "point_margin", "point_lr", "margin", "lr")
    check_not_negative(settings, "pt_weight")
    check_shares(settings, "ema")
    for size in (settings.point_batch_size, settings.batch_size):
        check_batch(size, "a pair to repel")
    return [
        {"set": name, "model": model, "seed": seed}
        for seed in range(settings.seeds)
        for name in settings.sets
        for model in settings.models
    ]


def load(settings: Surfaces, options: DigitOptions) -> Loaded:
    """Read the digits if a trial trains on them."""
    return UnscoredDigits.of(options) if "mnist" in settings.sets else NoData()


def describe(params: Params, result: dict[str, Any] | None) -> str:
    """Return a run in a few words, with its main number if it has a result."""
    words = f"{params['set']}, {params['model']}, seed {params['seed']}"
    if result is None:
        return words
    if params["set"] == "mnist":
        return f"{words}: area under the curve {result['area']['generated']:.3f} against generated digits"
    return f"{words}: {result['share']:.0%} of the plane below half the margin"


def trial(params: Params, job: Job[Surfaces], tick: Tick) -> Measured:
    """Train one model on one set, and measure its energy."""
    return (_on_digits if params["set"] == "mnist" else _on_points)(params, job, tick)


def _on_points(params: Params, job: Job[Surfaces], tick: Tick) -> Measured:
    settings, model, seed = job.settings, params["model"], params["seed"]
    torch.manual_seed(seed)
    code = 1 if model == "bottleneck" else settings.point_width
    discriminator = PlaneAutoEncoder(code, settings.point_width).to(job.device)
    generator = Generator(8, 4, settings.point_width, (1, 1, 2)).to(job.device) if _is_ebgan(model) else None
    real = plane.points(params["set"], job.device)
    config = EnergyConfig(
        margin=settings.point_margin,
        pt_weight=settings.pt_weight if model == "EBGAN-PT" else 0.0,
        lr=settings.point_lr,
        batch_size=settings.point_batch_size,
        ema=settings.ema,
        seed=seed,
    )
    trainer = EnergyTrainer(config, real, discriminator, generator)
    lattice = _films.lattice().to(job.device)
    frames: list[Tensor] = []
    generated: list[list[list[float]]] = []

    def look(step: int) -> None:
        frames.append(_films.frame_of(trainer.energies(lattice), settings.point_margin))
        if sampler := trainer.sampler():
            generated.append(_rounded(sample_images(sampler, _SHOWN, seed)))

    looks = _films.moments(settings.point_steps) if seed == 0 else []
    trainer.train(settings.point_steps, tick, look, set(looks))
    energies = trainer.energies(lattice)
    share = float((energies < settings.point_margin / 2).float().mean())
    of_data = trainer.energies(_images(real, _COMPARED))
    result: dict[str, Any] = {"share": share, "area": area_under_curve(of_data, energies)}
    if seed == 0:
        _films.save_frames(frames, job.options.out / picture_of(params))
        result |= {"frames": len(frames), "generated": generated}
    return Measured(result, -share)


def _on_digits(params: Params, job: Job[Surfaces], tick: Tick) -> Measured:
    model, seed, digits = params["model"], params["seed"], job.data
    trainer = _trained_on_digits(model, job, seed, tick)
    # Real samples alone make no generator. Their auto-encoders are shown the digits of the EBGAN of the same seed.
    sampler = (trainer if _is_ebgan(model) else _trained_on_digits("EBGAN", job, seed, tick)).sampler()
    assert sampler is not None
    squares = pad_to_square(digits.mnist.test_images[:_COMPARED], digits.size)
    test = to_signed_unit(squares.to(digits.device))
    chance = torch.Generator().manual_seed(seed)
    images = {
        "test": test,
        "generated": sample_images(sampler, len(test), seed, device=digits.device),
        "upside down": test.rot90(2, (2, 3)),
        "noise": (torch.rand(test.shape, generator=chance) * 2 - 1).to(digits.device),
    }
    energies = {kind: trainer.energies(batch).cpu() for kind, batch in images.items()}
    area = {kind: area_under_curve(energies["test"], energies[kind]) for kind in _KINDS if kind != "test"}
    histograms = {kind: _counts(values) for kind, values in energies.items()}
    means = {kind: round(float(values.mean()), 4) for kind, values in energies.items()}
    return Measured({"area": area, "energy": means, "histograms": histograms}, area["generated"])


def _trained_on_digits(model: Model, job: Job[Surfaces], seed: int, tick: Tick) -> EnergyTrainer:
    settings, digits = job.settings, job.data
    torch.manual_seed(seed)
    size = settings.bottleneck if model == "bottleneck" else settings.size_d
    discriminator = AutoEncoder(2, size, image_shape=digits.images.shape).to(digits.device)
    generator = Generator(100, 5, settings.size_g, digits.images.shape).to(digits.device) if _is_ebgan(model) else None
    config = EnergyConfig(
        margin=settings.margin,
        pt_weight=settings.pt_weight if model == "EBGAN-PT" else 0.0,
        lr=settings.lr,
        batch_size=settings.batch_size,
        ema=settings.ema,
        seed=seed,
    )
    trainer = EnergyTrainer(config, digits.images, discriminator, generator)
    trainer.train(settings.steps, tick, lambda step: None, set())
    return trainer


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
    return "\n".join(parts)


def _table_of_plane(results: Results) -> str:
    shapes = [shape for shape in _SHAPES if results.runs(set=shape)]
    if not shapes:
        return ""
    header = ["in the plane", *(f"{shape}: {column}" for shape in shapes for column in ("share below m/2", "area"))]
    rows = []
    for model in _models(results, *shapes):
        row = [_TITLES[model]]
        for shape in shapes:
            row += [_mean(results, shape, model, key) for key in ("share", "area")]
        rows.append(row)
    return (
        f"{markdown_table(header, rows)}\n"
        f"Seeds: {_seeds(results, *shapes)}. Means with 95 % intervals. Share: the part of the square whose energy is\n"
        "below half the margin. Area: under the ROC curve by which the energy tells data from the square's points.\n"
    )


def _table_of_digits(results: Results) -> str:
    models = _models(results, "mnist")
    if not models:
        return ""
    kinds = [kind for kind in _KINDS if kind != "test"]
    header = ["on MNIST", "energy of test digits", *(f"area: {kind}" for kind in kinds)]
    rows = []
    for model in models:
        areas = [_mean(results, "mnist", model, "area", kind) for kind in kinds]
        rows.append([_TITLES[model], _mean(results, "mnist", model, "energy", "test"), *areas])
    return (
        f"{markdown_table(header, rows)}\n"
        f"Seeds: {_seeds(results, 'mnist')}. Means with 95 % intervals. Area: under the ROC curve by which the energy\n"
        "tells test digits from these images. 0.5 tells nothing, 1 tells all.\n"
    )


def _mean(results: Results, name: str, model: str, *keys: str) -> str:
    values = []
    for run in results.runs(set=name, model=model):
        found: Any = run.result
        if found is not None:
            for key in keys:
                found = found[key]
            values.append(float(found))
    return mean_of(values).text()


def _models(results: Results, *sets: str) -> list[Model]:
    return [model for model in MODELS if any(results.runs(set=name, model=model) for name in sets)]


def _seeds(results: Results, *sets: str) -> int:
    return max(len(results.runs(set=name, model=model)) for name in sets for model in MODELS)


def _filmed(results: Results) -> list[Done]:
    return [run for run in results.measured() if run.params["set"] in _SHAPES and run.params["seed"] == 0]


@in_house_style
def draw(results: Results, folder: Path) -> list[Path]:
    """Write surfaces.png, the energies in the plane, training.webp, how they came about, and energies.png, those of
    digits, into a folder. Return the paths of those for which there are results."""
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
    if results.runs(set="mnist"):
        drawn.append(_draw_histograms(results, folder / "energies.png"))
    return drawn


def _films_of(results: Results) -> dict[tuple[str, str], _films.Film]:
    """Return the films that these results hold, by set and model."""
    found = {}
    for run in _filmed(results):
        picture = results.picture(picture_of(run.params))
        if picture is not None and run.result:
            tiles = _films.frames_in(picture, run.result["frames"])
            found[run.params["set"], run.params["model"]] = _films.Film(tiles, run.result["generated"])
    return found


def _draw_surfaces(
    films: dict[tuple[str, str], _films.Film],
    shapes: list[plane.Shape],
    models: list[Model],
    path: Path,
) -> Path:
    figure = new_figure(3.1 * len(models), 3.0 * len(shapes) + 0.5)
    panels = list(figure.subplots(len(shapes), len(models), squeeze=False))
    for row, shape in zip(panels, shapes, strict=True):
        for axes, model in zip(row, models, strict=True):
            axes.set_axis_off()
            if film := films.get((shape, model)):
                axes.set_title(_TITLES[model] if row is panels[0] else "", fontsize=10)
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


def _draw_histograms(results: Results, path: Path) -> Path:
    models = _models(results, "mnist")
    figure = new_figure(3.6 * len(models), 3.2)
    edges = np.arange(_BINS + 1) * _BIN
    for number, (axes, model) in enumerate(
        zip(figure.subplots(1, len(models), squeeze=False, sharey=True)[0], models, strict=True)
    ):
        runs = [run.result for run in results.runs(set="mnist", model=model) if run.result]
        for kind, color in _KINDS.items():
            counts = np.sum([run["histograms"][kind] for run in runs], axis=0)
            label = kind if kind == "test" else f"{kind} ({np.mean([run['area'][kind] for run in runs]):.2f})"
            axes.stairs(100 * counts / counts.sum(), edges, color=color, fill=True, alpha=0.5, label=label)
        axes.set_title(_TITLES[model], fontsize=9)
        axes.set_xlabel("energy")
        axes.set_xlim(0, edges[-1])
        dress(axes, "" if number else "% of images")
        axes.legend(fontsize=7, title="area under the curve", title_fontsize=7)
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
    parameters={"set": _SETS, "model": MODELS, "seed": SEEDS},
    choosing=("models", "sets", "seeds"),
    trials=trials,
    trial=trial,
    describe=describe,
    table=table,
    draw=draw,
    sample_files=sample_files,
    load=load,
)
