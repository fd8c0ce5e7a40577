"""The paper's grid search on MNIST (section 4.1, table 1): EBGAN's 512 configurations and the plain GAN's 6144."""

from __future__ import annotations

import hashlib
import itertools
import random
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

from optuna.distributions import CategoricalDistribution

from ..models.families import Mlp
from ..training.config import TrainConfig
from ..training.pictures import save_grid
from ..training.sampling import sample_images
from ..training.step import Trainer
from . import digits
from .options import Budget, Options, check_batch, check_counts, check_given, check_seed
from .plain_gan import GanConfig, GanTrainer, Optimizer
from .queue import Params, key
from .running import Study, Tick

Family = Literal["EBGAN", "GAN"]

# Table 1. EBGAN's optimisers and learning rate are fixed there.
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


@dataclass(frozen=True)
class Grid:
    """Which part of table 1 is tried, and how long each trial trains. The paper gives neither batch nor steps."""

    families: tuple[Family, ...] = ("EBGAN", "GAN")
    """Kinds of GAN."""
    n_layer_g: tuple[int, ...] = LAYERS
    """nLayerG, weight layers of the generator."""
    n_layer_d: tuple[int, ...] = LAYERS
    """nLayerD, weight layers of the discriminator."""
    size_g: tuple[int, ...] = SIZES_G
    """sizeG, features of each hidden layer of the generator."""
    size_d: tuple[int, ...] = SIZES_D
    """sizeD, features of each hidden layer of the discriminator."""
    dropout_d: tuple[bool, ...] = (False, True)
    """dropoutD."""
    optim_g: tuple[Optimizer, ...] = ("adam", "sgd")
    """Optimiser of the plain GAN's generator."""
    optim_d: tuple[Optimizer, ...] = ("adam", "sgd")
    """Optimiser of the plain GAN's discriminator."""
    lr: tuple[float, ...] = RATES
    """Learning rates of the plain GAN."""
    draw: int | None = None
    """Configurations of each family, drawn at random from those above. None: all of them."""
    steps: int = 20_000
    """Updates of both networks in a trial."""
    batch_size: int = 64
    """Real images in a step, and as many generated ones."""
    samples: int = 10_000
    """Generated digits that a trial's score is taken of."""
    seed: int = 0
    """Of every trial's weights, noise and batches, and of what is drawn."""

    def configurations(self) -> list[Params]:
        """The trials, those of the families mixed, so that a part of them is a fair picture of all.

        Raises:
            ValueError: a value that table 1 doesn't have, or nothing to try.
        """
        check_given(self, "families", *(name for name in CHOICES if name != "family"))
        if self.draw is not None:
            check_counts(self, "draw")
        for name, allowed in CHOICES.items():
            values = self.families if name == "family" else getattr(self, name)
            for value in values:
                if value not in allowed:
                    raise ValueError(f"{name}: got {value}, expected some of {', '.join(map(str, allowed))}")
        chance = random.Random(self.seed)
        chosen: list[Params] = []
        for family in dict.fromkeys(self.families):
            every = self._all_of(family)
            chosen += every if self.draw is None else chance.sample(every, min(self.draw, len(every)))
        chance.shuffle(chosen)
        return chosen

    def _all_of(self, family: Family) -> list[Params]:
        names = ["n_layer_g", "n_layer_d", "size_g", "size_d", "dropout_d"]
        if family == "GAN":
            names += ["optim_g", "optim_d", "lr"]
        product = itertools.product(*(dict.fromkeys(getattr(self, name)) for name in names))
        return [{"family": family, **dict(zip(names, values, strict=True))} for values in product]


BUDGETS: dict[Budget, Grid] = {
    "minutes": Grid(size_g=(400,), size_d=(128, 256), draw=24, steps=500, samples=2_000),
    "hour": Grid(size_g=(400, 800), draw=48, steps=1_000, samples=5_000),
    "full": Grid(),
}


def grid_study(grid: Grid, options: Options) -> Study:
    """The search as trials. Raises a ValueError for a grid that can't be searched."""
    check_counts(grid, "steps", "batch_size", "samples")
    check_batch(grid.batch_size, "because of batch norm")
    check_seed(grid.seed)
    configurations = grid.configurations()
    common = {name: getattr(grid, name) for name in ("steps", "batch_size", "samples", "seed")}
    device = options.torch_device  # refused, if at all, before a classifier is trained
    data, judge = digits.prepare(options.data)
    return Study(
        name="grid",
        settings={**common, **data},
        configurations=configurations,
        ranges={name: CategoricalDistribution(values) for name, values in CHOICES.items()},
        trial=partial(_trial, grid=grid, data=options.data, device=device, out=options.out),
        describe=describe,
        conditions=judge,
    )


def describe(params: Params, result: dict[str, Any] | None) -> str:
    """A configuration in the paper's terms, and its score."""
    words = (
        f"{params['family']} nLayerG {params['n_layer_g']} nLayerD {params['n_layer_d']} sizeG {params['size_g']} "
        f"sizeD {params['size_d']}{' dropout' if params['dropout_d'] else ''}"
    )
    if params["family"] == "GAN":
        words += f" {params['optim_g']}/{params['optim_d']} {params['lr']:g}"
    return words if result is None else f"{words}: {result['kl_conditional_marginal']:.2f} nats"


def picture_of(params: Params, out: Path) -> Path:
    """Where a trial leaves its samples."""
    return out / "samples" / f"{hashlib.blake2b(key(params).encode(), digest_size=6).hexdigest()}.png"


def _trial(
    params: Params, tick: Tick, *, grid: Grid, data: Path | None, device: str, out: Path
) -> tuple[dict[str, Any], float]:
    trainer = _trainer(params, grid, data, device)
    digits.train(trainer, grid.steps, tick)
    sampler = trainer.sampler()
    result = digits.digit_scores(sampler, grid.samples, grid.seed, data)
    save_grid(sample_images(sampler, _SHOWN, grid.seed), picture_of(params, out))
    # The direction whose values, at most ln 10, the axes of the paper's figures 2 and 3 fit.
    return result, result["kl_conditional_marginal"]


def _trainer(params: Params, grid: Grid, data: Path | None, device: str) -> Trainer | GanTrainer:
    images = digits.training_images(data, device=device)
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
