"""A study's trials in an Optuna storage that processes and machines share: each is done once, and none is lost.

Optuna's own GridSampler may give one configuration to two processes that ask at the same time (its documentation says
so), and forgets a trial whose process was killed. So all configurations are queued as waiting trials, which a storage
hands out one by one, and a trial of a dead process is queued again.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import make_url

from .._files import naming

Params = dict[str, Any]

optuna.logging.set_verbosity(optuna.logging.WARNING)

SEEDS = IntDistribution(0, 2**31 - 1)  # the range of a parameter that is a seed

# Names of what is noted at a trial and at the study.
_OWNER, _ALIVE, _RESULT, _REASON, _SETTINGS = "owner", "alive", "result", "reason", "settings"

# Reasons that close a trial whose configuration another trial has: it was not measured and didn't fail.
_INTERRUPTED, _KILLED, _COPY = "interrupted", "its process was killed", "a copy of another trial"
_UNFINISHED = (_INTERRUPTED, _KILLED, _COPY)
_MOST_DEATHS = 3  # of processes, before a trial counts as failed: one that needs too much memory would kill for ever

_SECONDS_BETWEEN_SIGNS = 30.0
_SECONDS_TO_DEATH = 600.0  # of an owner on another machine that gave no sign of life


@dataclass(frozen=True)
class Done:
    """A finished trial: its configuration, and what it measured or, where it failed, why."""

    params: Params
    result: dict[str, Any] | None
    reason: str | None
    seconds: float


class Claim:
    """A trial that this process is to do."""

    def __init__(self, queue: TrialQueue, trial: FrozenTrial) -> None:
        self.params: Params = dict(trial.params)
        self._queue = queue
        self._trial = trial
        self._signed = time.monotonic()

    def alive(self) -> None:
        """Tell other machines that the trial is being worked on. Cheap: call it as often as you like."""
        now = time.monotonic()
        if now - self._signed > _SECONDS_BETWEEN_SIGNS:
            self._signed = now
            self._queue.storage.set_trial_user_attr(self._trial._trial_id, _ALIVE, time.time())

    def done(self, result: dict[str, Any], value: float) -> None:
        """The trial's end.

        Args:
            result: all that it measured, as JSON can hold it.
            value: what Optuna's own tools rank by.
        """
        storage = self._queue.storage
        storage.set_trial_user_attr(self._trial._trial_id, _RESULT, result)
        storage.set_trial_state_values(self._trial._trial_id, TrialState.COMPLETE, [value])

    def failed(self, reason: str) -> None:
        """The trial's end where there is nothing to measure, such as a loss that became NaN."""
        self._queue.fail(self._trial, reason)

    def give_back(self) -> None:
        """Leave the trial to another process or a later run."""
        self._queue.fail(self._trial, _INTERRUPTED)
        self._queue.enqueue(self.params, self._trial.distributions)


class TrialQueue:
    """The trials of one study.

    Args:
        storage: the address of a database, such as sqlite:///grid.db, or the path of a journal file.
        name: of the study in the storage.
        settings: what all its trials have in common, as JSON can hold it.

    Raises:
        ValueError: a storage that can't be read, or whose study of that name has other settings.
        OSError: the journal can't be written.
    """

    def __init__(self, storage: str, name: str, settings: dict[str, Any]) -> None:
        self.storage = _open(storage)
        self._lock = _lock(storage)
        with self._lock, naming(Path(storage)):
            self._study = _study(self.storage, name)
        settings = json.loads(json.dumps(settings))
        found = self._study.user_attrs.get(_SETTINGS)
        if found is None:
            with naming(Path(storage)):
                self._study.set_user_attr(_SETTINGS, settings)
        elif found != settings:
            first = min(name for name in {*found, *settings} if found.get(name) != settings.get(name))
            raise ValueError(
                f"{storage}: got {first} {settings.get(first)!r}, expected {found.get(first)!r}, that of the trials "
                "which are there; another --out starts anew"
            )

    def add(self, configurations: Sequence[Params], ranges: Mapping[str, BaseDistribution]) -> None:
        """Queue those that the study doesn't have yet.

        Args:
            configurations: one value of each parameter, all different.
            ranges: what each parameter may be in any run of the study: Optuna's tools want to know.
        """
        with self._lock:
            known = {key(trial.params) for trial in self._trials() if _reason(trial) not in _UNFINISHED}
            for params in configurations:
                if key(params) not in known:
                    self.enqueue(params, {name: ranges[name] for name in params})

    def enqueue(self, params: Params, distributions: dict[str, BaseDistribution]) -> None:
        """Queue one configuration, whatever is there already."""
        self._study.add_trial(create_trial(state=TrialState.WAITING, params=params, distributions=distributions))

    def claim(self, wanted: Callable[[Params], bool] = lambda params: True) -> Claim | None:
        """A waiting trial that no other process has; None if there are none left.

        Args:
            wanted: whether this run is to do a trial of the study.
        """
        for trial in self._trials(TrialState.WAITING):
            if not wanted(trial.params) or not self._take(trial):
                continue
            self.storage.set_trial_user_attr(trial._trial_id, _OWNER, this_process())
            if self._is_copy(trial):
                self.fail(trial, _COPY)
                continue
            return Claim(self, trial)
        return None

    def revive(self) -> int:
        """Queue the trials of dead processes again, unless they killed three; returns how many died."""
        dead = [trial for trial in self._trials(TrialState.RUNNING) if not _lives(trial)]
        for trial in dead:
            self.fail(trial, _KILLED)
            times = sum(
                _reason(other) == _KILLED and key(other.params) == key(trial.params) for other in self._trials()
            )
            if times < _MOST_DEATHS:
                self.enqueue(trial.params, trial.distributions)
            else:
                lost = {_REASON: f"its process was killed {times} times"}
                self._study.add_trial(
                    create_trial(
                        state=TrialState.FAIL,
                        params=trial.params,
                        distributions=trial.distributions,
                        user_attrs=lost,
                    )
                )
        return len(dead)

    def fail(self, trial: FrozenTrial, reason: str) -> None:
        """Close a trial, unless another process did."""
        try:
            self.storage.set_trial_user_attr(trial._trial_id, _REASON, reason)
            self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            pass

    def done(self) -> list[Done]:
        """The finished trials, failed ones too, in the order in which they were queued."""
        return [
            Done(
                dict(trial.params),
                trial.user_attrs.get(_RESULT),
                _reason(trial),
                trial.duration.total_seconds() if trial.duration else 0.0,
            )
            for trial in self._trials(TrialState.COMPLETE, TrialState.FAIL)
            if _reason(trial) not in _UNFINISHED
        ]

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)

    def _take(self, trial: FrozenTrial) -> bool:
        try:
            with self._lock:
                return self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    def _is_copy(self, trial: FrozenTrial) -> bool:
        """Whether two processes queued it at the same time: of equal trials the first is done, in every process."""
        return any(
            other._trial_id < trial._trial_id
            and _reason(other) not in _UNFINISHED
            and key(other.params) == key(trial.params)
            for other in self._trials()
        )


def _open(storage: str) -> BaseStorage:
    if "://" not in storage:
        _check_journal(Path(storage))
        Path(storage).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(storage))
    try:
        return RDBStorage(storage)
    except Exception as error:  # of the database's driver, whatever it is
        raise ValueError(f"{storage}: got {str(error).splitlines()[0]}, expected a database or a file") from error


def _check_journal(path: Path) -> None:
    """Raise a ValueError for a file of something else, to which trials would be added."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        line = file.readline(1 << 20)
    with contextlib.suppress(ValueError):
        first = json.loads(line)
        if isinstance(first, dict) and "op_code" in first:
            return
    if line.endswith(b"\n"):  # a first line that was cut short is one that a kill has left
        raise ValueError(f"{path}: got a file of something else, expected a journal of trials or a new name")


def _lock(storage: str) -> AbstractContextManager[Any]:
    """What must be held to change who does what.

    A database server locks a trial's row while it looks at it and changes it, and a journal its file. SQLite doesn't:
    without this, two of 40 trials went to both of two processes.
    """
    if "://" in storage:
        url = make_url(storage)
        if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
            return FileLock(f"{url.database}.lock")
    return nullcontext()


def _study(storage: BaseStorage, name: str) -> Study:
    try:
        return optuna.create_study(storage=storage, study_name=name, direction="maximize")
    except DuplicatedStudyError:
        return optuna.load_study(storage=storage, study_name=name)


def key(params: Params) -> str:
    """A text that two configurations share if and only if they are the same."""
    return json.dumps(params, sort_keys=True)


def _reason(trial: FrozenTrial) -> str | None:
    reason: str | None = trial.user_attrs.get(_REASON)
    return reason


class Owner(TypedDict):
    """The process that runs a trial."""

    host: str
    pid: int
    born: str | None


def this_process() -> Owner:
    """This process, told from any that may get its number later."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "born": _birth(os.getpid())}


def _lives(trial: FrozenTrial) -> bool:
    """Return True if the process that runs a trial still does, as far as can be seen from here."""
    owner: Owner | None = trial.user_attrs.get(_OWNER)
    if owner is not None and owner["host"] == socket.gethostname() and owner["born"] is not None:
        return _birth(owner["pid"]) == owner["born"]
    started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    alive: float = trial.user_attrs.get(_ALIVE, started)
    return time.time() - alive < _SECONDS_TO_DEATH


def _birth(pid: int) -> str | None:
    """When a process of this machine began, in the system's ticks; None if there is none, or the system isn't Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
