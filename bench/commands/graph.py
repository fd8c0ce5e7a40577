"""The command `graph`: compare the losses of steps that a CUDA graph replays with those of steps run one by one."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebgan_fast.data import ImageSet, TensorImages
from ebgan_fast.training import TrainConfig, preset
from ebgan_fast.training.config import PresetName
from ebgan_fast.training.optim import Precision
from ebgan_fast.training.statistics import STATISTICS
from ebgan_fast.training.step import Trainer

from ..results.rows import GraphRow, Result
from ..terminal import complaint, note
from ..timing import watches
from ..timing.devices import Device
from .session import Advance, Describe, Session, check_least

_HELD = 4  # batches of images
_LOSSES = ("loss_d", "loss_g")


@dataclass(frozen=True)
class Case:
    """A training run, by the preset whose networks it trains and what it changes in that preset."""

    preset: PresetName
    precision: Precision = "float32"
    words: str = ""
    """The changes in words, for the name."""
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The changed fields of the config."""
    networks: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The changed fields of the networks."""

    @property
    def name(self) -> str:
        """The preset, the changes and the precision."""
        return ", ".join(filter(None, (self.preset, self.words, self.precision)))

    def config(self, place: Device, width: float, batch_size: int, steps: int) -> TrainConfig:
        """Return the config of a run without a graph.

        Both learning rates and the margin change from step to step, as a recording could wrongly keep one of them.

        Args:
            place: The device.
            width: Factor on the convolutional networks' maps.
            batch_size: Real images in a step.
            steps: The number of steps.
        """
        start = preset(self.preset, Path())
        networks: Any = start.networks
        sizes = {"width": width} if hasattr(networks, "width") else {}
        assert isinstance(start.margin, float)
        return dataclasses.replace(
            start,
            networks=dataclasses.replace(networks, **sizes, **self.networks),
            batch_size=batch_size,
            steps=steps,
            log_every=max(1, steps // 4),
            precision=self.precision,
            lr_decay="linear",
            margin_schedule="linear",
            margin_end=start.margin / 2,
            device=str(place.torch),
            **self.fields,
        )


CASES = (
    Case("celeba64", "bfloat16"),
    Case("celeba64"),
    # A step before a line of the log runs without the graph, between replays.
    Case("celeba64", "bfloat16", "in two parts, without the term", {"accumulate": 2, "pt_weight": 0.0}),
    Case("mnist", words="with dropout", networks={"dropout_d": True}),
)


def graph(width: float = 1.0, batch_size: int = 64, steps: int = 200, out: Path | None = None) -> int:
    """Train with and without a CUDA graph on a GPU, and compare the losses of every step and the last weights.

    Each run begins with the same weights, images and noise, and cuDNN takes algorithms that repeat. Where losses
    differ, a second run without a graph shows if such runs repeat at all.

    Args:
        width: Factor on the convolutional networks' maps.
        batch_size: Real images in a step.
        steps: Steps of each run.
        out: File of JSON lines to add to. None: bench/results/train-NAME.jsonl with the GPU's name.
    """
    check_least(4, batch_size=batch_size)
    check_least(8, steps=steps)
    session = Session.begin("train", "cuda", out, whole=True)
    failed: list[str] = []

    def measurements(describe: Describe, advance: Advance) -> Iterator[Result]:
        for case in CASES:
            describe(case.name)
            try:
                found = _compared(case.config(session.device, width, batch_size, steps))
            except Exception as error:  # a GPU may raise any error, and the other cases may run
                note(f"{case.name}: {complaint(error)}")
                failed.append(case.name)
                continue
            finally:
                watches.release()
                advance()
            yield GraphRow(
                case=case.name,
                width=width,
                batch_size=batch_size,
                steps=steps,
                backend=session.device.backend,
                **found,
                **session.conditions(),
            )

    status = session.finish(len(CASES), measurements)
    return 1 if failed else status


def _compared(config: TrainConfig) -> dict[str, Any]:
    """Return the fields of a row that the comparison finds: equal, largest, first and repeats."""
    images = _images(config)
    with _repeating():
        expected, found = (_run(dataclasses.replace(config, cuda_graph=graph), images) for graph in (False, True))
        if _are_equal(expected, found):
            return {"equal": True}
        repeats = _are_equal(expected, _run(config, images))
    differ = (expected.rows != found.rows).any(1).tolist()  # NaN too
    losses, others = (one.rows[:, [STATISTICS.index(name) for name in _LOSSES]] for one in (expected, found))
    largest = float(((others - losses).abs() / losses.abs()).max())
    first = differ.index(True) + 1 if True in differ else None
    return {"equal": False, "largest": largest, "first": first, "repeats": repeats}


@dataclass(frozen=True)
class _Run:
    """The findings of one training run."""

    rows: Tensor
    """The statistics, a row for each step."""
    weights: list[Tensor]
    """The weights after the last step."""


def _run(config: TrainConfig, images: ImageSet) -> _Run:
    rows: list[Tensor] = []
    with contextlib.closing(Trainer(config, images)) as trainer:
        while trainer.step_count < config.steps:
            trainer.step()
            if (of_interval := trainer.step_count % config.log_every) == 0 or trainer.step_count == config.steps:
                noted: Tensor = trainer.state_dict()["statistics"]
                rows.append(noted[: of_interval or config.log_every].double().cpu())
        nets = trainer.generator, trainer.discriminator
        return _Run(torch.cat(rows), [value.cpu() for net in nets for value in net.state_dict().values()])


def _are_equal(one: _Run, other: _Run) -> bool:
    return torch.equal(one.rows, other.rows) and all(map(torch.equal, one.weights, other.weights))


def _images(config: TrainConfig) -> TensorImages:
    """Return random images in the GPU's memory."""
    shape = (_HELD * config.batch_size, config.networks.channels or 1, config.image_size, config.image_size)
    pixels = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return TensorImages(pixels).to(torch.device(config.device))


@contextlib.contextmanager
def _repeating() -> Iterator[None]:
    """Let cuDNN leave out algorithms that add in another order each time."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
