"""The rules that a config must keep: every field's, and those between fields."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

import torch

from ..functional import Norm
from ..models.families import Mlp
from ..ops.backends import BackendName
from .config import Precision, PresetName, TrainConfig
from .schedule import LearningRateDecay, MarginSchedule
from .world import own_device

# Fields, what holds for them, and how to say so.
_Rule = tuple[tuple[str, ...], Callable[[Any], bool], str]


def validate(config: TrainConfig) -> None:
    """Raise a ValueError that names every field that can't be used, what it got and what was expected."""
    problems = list(_problems(config))
    if problems:
        raise ValueError("; ".join(problems))


def usable_device(name: str) -> torch.device:
    """The device of a command's --device: "auto" is a GPU if there is one.

    Raises:
        ValueError: no device's name, or one that isn't here.
    """
    for problem in _device_problems(name):
        raise ValueError(problem)
    return own_device(name)


def _problems(config: TrainConfig) -> Iterable[str]:
    yield from _broken_rules(config, _RULES)
    yield from _broken_rules(config.networks, _MLP_RULES if isinstance(config.networks, Mlp) else _CONV_RULES)
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
    if isinstance(config.device, str):
        yield from _device_problems(config.device)


def _broken_rules(settings: Any, rules: list[_Rule]) -> Iterable[str]:
    for names, holds, expected in rules:
        for name in names:
            value = getattr(settings, name)
            if not holds(value):
                yield f"{name}: got {value!r}, expected {expected}"


def _device_problems(name: str) -> Iterable[str]:
    if name == "auto":
        return
    try:
        if not torch.empty(1, device=name).is_meta:
            return
        problem = "it holds no values"  # "meta" parses and allocates all the same
    except (RuntimeError, AssertionError, ImportError) as error:  # ImportError: a device of another package
        problem = str(error).partition("\n")[0]
    yield f"device: got {name!r}, expected a device that torch can use here ({problem})"


def _divides(parts: int, batch: int) -> bool:
    """Return True if parts of at least two images are left; values that the rules refuse anyway pass."""
    if not (_integer(1)(parts) and _integer(2)(batch)):
        return True
    return batch % parts == 0 and batch >= 2 * parts


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


_COUNTS = (
    "steps",
    "accumulate",
    "image_size",
    "margin_auto_steps",
    "log_every",
    "sample_every",
    "checkpoint_every",
    "evaluate_samples",
)

_RULES: list[_Rule] = [
    (("out",), lambda value: isinstance(value, Path), "a Path"),
    (("data",), _or_none(lambda value: isinstance(value, Path)), "a Path or None"),
    (
        ("seed",),
        lambda value: _integer(-(2**63))(value) and value < 2**63,
        "an integer of 64 bits",
    ),
    (_COUNTS, _integer(1), "an integer of at least 1"),
    (("batch_size",), _integer(2), "an integer of at least 2, because of batch norm and pairs of samples"),
    (("evaluate_every",), _integer(0), "an integer of at least 0"),
    (("margin_steps", "threads"), _or_none(_integer(1)), "an integer of at least 1, or None"),
    (("flip", "compile", "cudnn_benchmark", "tensorboard"), lambda value: isinstance(value, bool), "True or False"),
    (("margin",), lambda value: value == "auto" or _number(lambda m: m >= 0)(value), "a finite number >= 0, or 'auto'"),
    (("pt_weight",), _number(lambda value: value >= 0), "a finite number >= 0"),
    (("features",), lambda value: isinstance(value, str) and value != "", "a net's name or file"),
    (("margin_end",), _or_none(_number(lambda value: value >= 0)), "a finite number >= 0, or None"),
    (("lr_g", "lr_d"), _number(lambda value: value > 0), "a finite number > 0"),
    (("beta1", "lr_decay_start", "ema"), _number(lambda value: 0 <= value < 1), "a number in [0, 1)"),
    (("preset",), *_one_of(PresetName)),
    (("precision",), *_one_of(Precision)),
    (("norm",), *_one_of(Norm)),
    (("margin_schedule",), *_one_of(MarginSchedule)),
    (("lr_decay",), *_one_of(LearningRateDecay)),
    (("backend",), *_one_of(BackendName)),
    (("device",), lambda value: isinstance(value, str), "a string"),
]


_MLP_RULES: list[_Rule] = [
    (("z_dim", "n_layer_g", "size_g", "size_d"), _integer(1), "an integer of at least 1"),
    (("n_layer_d",), _integer(2), "an integer of at least 2, one encoder and one decoder layer"),
    (("dropout_d",), lambda value: isinstance(value, bool), "True or False"),
]

# What their strings say is checked where the networks are built.
_CONV_RULES: list[_Rule] = [
    (
        ("generator_layers", "noise_planes", "encoder_layers", "decoder_layers"),
        lambda value: isinstance(value, str) and value != "",
        "a string in the paper's notation",
    ),
    (("width",), _number(lambda value: value > 0), "a finite number > 0"),
]
