"""The command `graph`: it compares the losses of steps that a CUDA graph replays with those of steps run one by one."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
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

from . import devices, files, peak, provenance
from .devices import Device
from .rows import append
from .steps import complaint
from .terminal import note, short

_HELD = 4  # batches of images
_LOSSES = ("loss_d", "loss_g")


@dataclass(frozen=True)
class Case:
    """A run, by the preset whose networks it trains, and what it has of its own."""

    preset: PresetName
    precision: Precision = "float32"
    words: str = ""
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    networks: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (self.preset, self.words, self.precision)))

    def config(self, place: Device, width: float, batch_size: int, steps: int) -> TrainConfig:
        """The config of a run without a graph. All that a recording could hold fast moves: both rates and the
        margin."""
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
    # A step before a line of the log runs apart, between replays.
    Case("celeba64", "bfloat16", "in two parts, without the term", {"accumulate": 2, "pt_weight": 0.0}),
    Case("mnist", words="with dropout", networks={"dropout_d": True}),
)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The comparison of a run with a graph and one without."""

    equal: bool
    """True if the statistics of every step, and the weights after the last, are the same bit for bit."""
    largest: float = 0.0
    """The largest difference of a loss, as a share of its value without a graph."""
    first: int | None = None
    """The first step whose statistics differ, counted from 1."""
    repeats: bool | None = None
    """True if two runs without a graph are the same. None: not asked, as the graph's is the same."""


@dataclass(frozen=True, kw_only=True)
class GraphRow(Agreement, provenance.Conditions):
    """One comparison, as a line of JSON among those of `train`."""

    kind: str = "graph"
    case: str
    width: float
    batch_size: int
    steps: int
    device: str
    """The type of torch's device."""
    backend: str


def graph(width: float = 1.0, batch_size: int = 64, steps: int = 200, out: Path | None = None) -> int:
    """Train with and without a CUDA graph on a GPU, and compare the losses of every step and the last weights.

    Each run begins with the same weights, images and noise, and cuDNN takes algorithms that repeat. Where losses
    differ, a second run without a graph tells whether such runs repeat at all.

    Args:
        width: Factor on the convolutional networks' maps.
        batch_size: Real images in a step.
        steps: Of each run.
        out: File of JSON lines to append to. None: bench/results/train-NAME.jsonl of the GPU's name.
    """
    for what, value, least in (("batch_size", batch_size, 4), ("steps", steps, 8)):
        if value < least:
            raise ValueError(f"{what}: got {value}, expected at least {least}")
    if out is not None:
        files.check_appendable(out, "out")
    place = devices.gpu()
    path = out or place.results("train")
    environment = provenance.environment(place.torch, place.backend, whole=True)
    wrong = False
    for case in CASES:
        try:
            found = _compared(case.config(place, width, batch_size, steps))
        except Exception as error:  # what a GPU has in store; the other cases may run
            note(f"{case.name}: {complaint(error)}")
            wrong = True
            continue
        finally:
            peak.release()
        row = GraphRow(
            case=case.name,
            width=width,
            batch_size=batch_size,
            steps=steps,
            device=place.torch.type,
            backend=place.backend,
            date=provenance.now(),
            **dataclasses.asdict(found),
            **environment,
        )
        append(row, path)
        said = f"{row.case}: {words(dataclasses.asdict(row))}"
        if is_wrong(dataclasses.asdict(row)):
            note(said)
            wrong = True
        else:
            print(said)
    print(f"appended to {short(path)}")
    return 1 if wrong else 0


def _compared(config: TrainConfig) -> Agreement:
    images = _images(config)
    with _repeating():
        expected, found = (_run(dataclasses.replace(config, cuda_graph=graph), images) for graph in (False, True))
        if _are_equal(expected, found):
            return Agreement(equal=True)
        repeats = _are_equal(expected, _run(config, images))
    differ = (expected.rows != found.rows).any(1).tolist()  # NaN too
    losses, others = (one.rows[:, [STATISTICS.index(name) for name in _LOSSES]] for one in (expected, found))
    largest = float(((others - losses).abs() / losses.abs()).max())
    first = differ.index(True) + 1 if True in differ else None
    return Agreement(equal=False, largest=largest, first=first, repeats=repeats)


@dataclass(frozen=True)
class _Run:
    rows: Tensor
    """The statistics, a row for each step."""
    weights: list[Tensor]


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
    """Random images, in the GPU's memory."""
    shape = (_HELD * config.batch_size, config.networks.channels or 1, config.image_size, config.image_size)
    pixels = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return TensorImages(pixels).to(torch.device(config.device))


@contextlib.contextmanager
def _repeating() -> Iterator[None]:
    """Let cuDNN leave out the algorithms that add in another order each time."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def is_wrong(row: Mapping[str, Any]) -> bool:
    """Return True if the graph's losses differ where those without one repeat."""
    return not row["equal"] and bool(row["repeats"])


def words(row: Mapping[str, Any]) -> str:
    """Say in a sentence what a row found, as JSON gives it."""
    if row["equal"]:
        return f"losses of {row['steps']} steps and the weights after them are the same with a CUDA graph, bit for bit"
    since = f"from step {row['first']} on" if row["first"] else "and in the last weights alone"
    without = "they repeat" if row["repeats"] else "they don't repeat either"
    by = f"by up to {row['largest']:.1e} of their value, {since}"
    return f"losses of {row['steps']} steps differ with a CUDA graph, {by}; without one {without}"
