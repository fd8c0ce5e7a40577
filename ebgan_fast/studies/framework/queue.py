"""A study's trials in an Optuna storage that processes and machines share. Each trial is done once, and none is lost.

Optuna's own GridSampler may give the same configuration to two processes that ask at the same time, as its
documentation says. It also loses a trial whose process was killed. So this module queues all configurations as waiting
trials, which a storage hands out one by one. It queues the trial of a dead process again.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial, TrialState, create_trial

from ..._console import Tolerant, printable, say, shown
from ..._settings import FINITE
from .owners import Life, Pulse, Watch, known_life, this_process
from .results import Done, Params
from .storage import PATIENCE, Storage, StorageError
from .study import Choices, Measured, Range, key

# The names of the notes at a trial and at the study.
_OWNER, _SIGN, _MEASURED, _RESULT, _REASON, _SETTINGS = "owner", "alive", "measured", "result", "reason", "settings"

# Reasons to close a trial that measured nothing and didn't fail. Another trial is to do its configuration.
_INTERRUPTED, _KILLED, _COPY = "interrupted", "its process was killed", "a copy of another trial"
_UNFINISHED = (_INTERRUPTED, _KILLED, _COPY)
_MOST_DEATHS = 3  # deaths until a trial counts as failed: a trial that needs too much memory would kill for ever

_WORKING_ON: set[tuple[str, int]] = set()  # (queue, trial number) of the trials that this process is doing

_MANY = 500  # from so many trials on, a note is printed: queueing 6,656 in SQLite takes half a minute
_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_TO_SETTINGS = 5.0  # for which a study that another process has created may be without settings
_SECONDS_TO_GIVE_BACK = 5.0  # an interrupted process waits no longer for a lock; others will find its trial ownerless


class Claim:
    """A trial that this process has taken and is to do. It gives signs of life until it ends."""

    def __init__(self, queue: TrialQueue, trial: FrozenTrial, trial_id: int) -> None:
        self.params: Params = dict(trial.params)
        self._queue = queue
        self._trial = trial
        self._id = trial_id
        self._began = time.perf_counter()
        queue.begin(trial.number)
        self._pulse = Pulse(functools.partial(queue.sign, trial_id))

    def done(self, measured: Measured) -> Done:
        """End the trial with what it measured. A value that no storage holds, such as NaN, makes the trial fail."""
        if not FINITE.holds(measured.value):
            return self._end(None, f"got the value {shown(measured.value)}, expected a finite number")
        return self._end(measured, None)

    def failed(self, reason: str) -> Done:
        """End the trial as failed, for this reason, such as a loss that became NaN."""
        return self._end(None, reason)

    def give_back(self) -> None:
        """Leave the trial to another process or a later run."""
        self._pulse.stop()
        self._queue.end(self._trial.number)
        with contextlib.suppress(StorageError, OSError):
            self._queue.close(self._id, _INTERRUPTED, _SECONDS_TO_GIVE_BACK)

    def _end(self, measured: Measured | None, reason: str | None) -> Done:
        seconds = time.perf_counter() - self._began
        self._pulse.stop()
        if measured is None:
            self._queue.note(self._id, _MEASURED, {"seconds": seconds})
            self._queue.close(self._id, str(reason))
        else:
            self._queue.keep(self._trial, self._id, measured, seconds)
        self._queue.end(self._trial.number)
        return Done(self.params, None if measured is None else measured.result, reason, seconds)


class TrialQueue:
    """The trials of one study, among them those of this run.

    Args:
        storage: the storage that keeps the trials.
        name: the name of the study in the storage.
        settings: the settings that all trials of the study share, as JSON can hold them.
        configurations: the trials of this run, all different. Each has one value of each parameter. Those that the
            study doesn't have yet are queued.
        parameters: the values that each parameter may have in any run of the study. Optuna's tools need them.

    Raises:
        StorageError: the study of this name has other settings, or the storage can't be read.
        OSError: a file can't be written.
    """

    def __init__(
        self,
        storage: Storage,
        name: str,
        settings: Mapping[str, Any],
        configurations: Sequence[Params],
        parameters: Mapping[str, Choices | Range],
    ) -> None:
        self.place = storage.name
        """The storage's name as it is shown to the user, without a password."""
        self._name = f"{storage.name} {name}"
        self._storage = storage
        self._distributions = {name: _distribution(values) for name, values in parameters.items()}
        self._wanted = {key(params): params for params in configurations}
        self._watch = Watch()
        self._waiting: deque[FrozenTrial] = deque()
        self.total = len(self._wanted)
        """The number of this run's trials."""
        self._study, is_new = storage.ask(lambda: self._opened(name))
        self._study_id = storage.ask(lambda: storage.trials.get_study_id_from_name(name))
        self._agree_on(json.loads(json.dumps(dict(settings))), is_new)
        self.fill()

    def fill(self) -> int:
        """Queue this run's configurations that have no trial done, under way or waiting. Return their number."""

        def add() -> int:
            with self._storage.lock:
                trials = self._trials()
                known = {key(trial.params) for trial in trials if not _is_unfinished(trial)}
                deaths = Counter(
                    key(trial.params) for trial in trials if _is_unfinished(trial) and _reason(trial) == _KILLED
                )
                missing = [params for name, params in self._wanted.items() if name not in known]
                if len(missing) >= _MANY:
                    say(f"{self.place}: queueing {len(missing):,} trials", Tolerant(sys.stderr))
                for params in missing:
                    died = deaths[key(params)]
                    if died < _MOST_DEATHS:
                        self._add(params, state=TrialState.WAITING)
                    else:
                        reason = f"its process was killed {died} times"
                        self._add(params, state=TrialState.FAIL, user_attrs={_REASON: reason})
                return len(missing)

        return self._storage.ask(add)

    def claim(self) -> Claim | None:
        """Take a waiting trial of this run that no other process has, and return it. None: there are none left."""
        if claim := self._claim_of_those_seen():
            return claim
        # Look at all trials at once: with 2,000 trials in SQLite a look takes 0.3 s, and a single trial a millisecond.
        self._waiting.extend(self._look_for_waiting())
        return self._claim_of_those_seen()

    def _claim_of_those_seen(self) -> Claim | None:
        """Take the first trial that was waiting at the last look and still is. None: there is none."""
        while self._waiting:
            trial = self._waiting.popleft()
            trial_id = self._id_of(trial)
            now = self._storage.ask(functools.partial(self._storage.trials.get_trial, trial_id))
            if now.state == TrialState.WAITING and self._take(trial_id):
                return Claim(self, trial, trial_id)
        return None

    def _look_for_waiting(self) -> Iterator[FrozenTrial]:
        """Yield this run's waiting trials. If several are equal, every process keeps the first one and closes the
        others."""
        found: dict[str, FrozenTrial] = {}
        trials = [trial for trial in self._storage.ask(self._trials) if key(trial.params) in self._wanted]
        for trial in trials:
            if not _is_unfinished(trial):
                found.setdefault(key(trial.params), trial)
        completed = {key(trial.params) for trial in trials if trial.state == TrialState.COMPLETE}
        for trial in trials:
            if trial.state != TrialState.WAITING:
                continue
            if found[key(trial.params)] is trial and key(trial.params) not in completed:
                yield trial
            else:
                self.close(self._id_of(trial), _COPY)

    def bury(self) -> int:
        """Close the trials of dead processes, and return their number. A trial whose result was noted is completed with
        it.

        `fill` queues the other trials again.
        """
        running = self._storage.ask(lambda: self._trials(TrialState.RUNNING))
        dead = [self._id_of(trial) for trial in running if self._life(trial) == "dead"]
        for trial_id in dead:
            # Read the trial again: its owner may have stored notes after the look above, before it died.
            trial = self._storage.ask(functools.partial(self._storage.trials.get_trial, trial_id))
            measured, result = trial.user_attrs.get(_MEASURED), trial.user_attrs.get(_RESULT)
            # The result is noted last. So a process that was killed between the two notes has no result.
            value: Any = measured.get("value") if isinstance(measured, dict) else None
            if isinstance(result, dict) and FINITE.holds(value):
                self._complete(trial_id, value)
            else:
                self.close(trial_id, _INTERRUPTED if self._is_own(trial) else _KILLED)
        return len(dead)

    def unsure(self) -> int:
        """Return how many of this run's trials belong to processes that may be alive or dead, as nothing is known
        yet."""
        running = self._storage.ask(lambda: self._trials(TrialState.RUNNING))
        return sum(self._life(trial) == "unknown" for trial in running if key(trial.params) in self._wanted)

    def done(self) -> list[Done]:
        """Return this run's finished trials, with the failed ones, in the order of the configurations.

        It doesn't matter which process did them in which run.
        """
        found: dict[str, Done] = {}
        for trial in self._storage.ask(lambda: self._trials(TrialState.COMPLETE, TrialState.FAIL)):
            name = key(trial.params)
            if name not in self._wanted or _is_unfinished(trial):
                continue
            # If two processes did the same configuration, the first result counts.
            if name not in found or (found[name].result is None and trial.state == TrialState.COMPLETE):
                found[name] = self._read(trial)
        return [found[name] for name in self._wanted if name in found]

    def begin(self, number: int) -> None:
        """Remember that this process works on the trial of this number."""
        _WORKING_ON.add((self._name, number))

    def end(self, number: int) -> None:
        """Remember that this process no longer works on the trial of this number."""
        _WORKING_ON.discard((self._name, number))

    def note(self, trial_id: int, name: str, value: Any, patience: float = PATIENCE) -> None:
        """Store a note at a trial, unless the trial is closed."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.ask(lambda: self._storage.trials.set_trial_user_attr(trial_id, name, value), patience)

    def keep(self, trial: FrozenTrial, trial_id: int, measured: Measured, seconds: float) -> None:
        """Complete a trial with what was measured.

        Other processes may have taken this one for dead and closed the trial. Then the result is added as another
        trial.
        """
        # The order matters: `bury` completes a trial that has a result, and then needs the value.
        about = {"value": measured.value, "seconds": seconds}
        self.note(trial_id, _MEASURED, about)
        self.note(trial_id, _RESULT, measured.result)
        if not self._complete(trial_id, measured.value):
            attrs = {_MEASURED: about, _RESULT: measured.result}
            added = {"state": TrialState.COMPLETE, "value": measured.value, "user_attrs": attrs}
            self._storage.ask(lambda: self._add(dict(trial.params), **added))
            for other in self._storage.ask(lambda: self._trials(TrialState.WAITING)):
                if key(other.params) == key(trial.params):
                    self.close(self._id_of(other), _COPY)

    def sign(self, trial_id: int, number: int) -> None:
        """Store a sign of life at a trial, unless the storage is busy.

        Our lock must be taken before Optuna's. A thread that held Optuna's lock and waited for ours would make the
        others wait. Notes of the trial's own thread may take Optuna's lock alone, because no other thread waits for it.
        """

        def note() -> None:
            with self._storage.lock:
                self._storage.trials.set_trial_user_attr(trial_id, _SIGN, number)

        self._storage.ask(note, patience=0.0)

    def close(self, trial_id: int, reason: str, patience: float = PATIENCE) -> None:
        """Close a trial without a result, unless it is closed already."""
        self.note(trial_id, _REASON, reason, patience)
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.ask(lambda: self._set_state(trial_id, TrialState.FAIL), patience)

    def _complete(self, trial_id: int, value: float) -> bool:
        """Complete a trial. Return False if another process has closed it."""

        def complete() -> bool:
            try:
                return self._set_state(trial_id, TrialState.COMPLETE, [value])
            except UpdateFinishedTrialError:
                # An earlier try of this process may have completed it.
                return self._storage.trials.get_trial(trial_id).state == TrialState.COMPLETE

        return self._storage.ask(complete)

    def _set_state(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        with self._storage.lock:
            return self._storage.trials.set_trial_state_values(trial_id, state, values)

    def _take(self, trial_id: int) -> bool:
        """Take a waiting trial. Return False if another process has it.

        This process first notes itself as a candidate. If it is killed before it notes itself as the owner, the trial
        has only dead candidates.
        """
        trials, me = self._storage.trials, this_process()
        candidate = f"{_OWNER} {me['token']}"
        tries = 0

        def take() -> bool:
            nonlocal tries
            tries += 1
            try:
                return self._set_state(trial_id, TrialState.RUNNING)
            except UpdateFinishedTrialError:
                return False

        self.note(trial_id, candidate, me)
        is_mine = self._storage.ask(take)
        if not is_mine and tries > 1:
            # A failed try may have taken the trial and lost the answer. Then this process is the only candidate.
            notes = self._storage.ask(lambda: trials.get_trial(trial_id)).user_attrs
            is_mine = _OWNER not in notes and [name for name in notes if name.startswith(_OWNER)] == [candidate]
        if is_mine:
            self.note(trial_id, _OWNER, me)
        elif tries == 1:
            self.note(trial_id, candidate, None)
        return is_mine

    def _life(self, trial: FrozenTrial) -> Life:
        """Say if the owner of a trial under way is alive. If no owner is noted yet, one living candidate is enough."""
        known = {self._known_life(owner, trial.number) for owner in _owners(trial)}
        if "lives" in known or known == {"dead"}:
            return "lives" if "lives" in known else "dead"
        return self._watch.life(trial.number, trial.user_attrs.get(_SIGN))

    def _known_life(self, owner: dict[str, Any], number: int) -> Life:
        if owner.get("token") == this_process()["token"]:
            return "lives" if (self._name, number) in _WORKING_ON else "dead"
        return known_life(owner)

    def _is_own(self, trial: FrozenTrial) -> bool:
        return any(owner.get("token") == this_process()["token"] for owner in _owners(trial))

    def _read(self, trial: FrozenTrial) -> Done:
        """Return a finished trial. Raise a StorageError for contents that no study writes."""
        result, reason, measured = (trial.user_attrs.get(name) for name in (_RESULT, _REASON, _MEASURED))
        if trial.state == TrialState.COMPLETE and not isinstance(result, dict):
            got = f"got {shown(result)} for the result of trial {trial.number}"
            raise StorageError(f"{self.place}: {got}, expected an object; another --out starts a new study")
        if trial.state == TrialState.COMPLETE:
            reason = None
        else:
            result, reason = None, str(reason)
        took: Any = measured.get("seconds") if isinstance(measured, dict) else None
        if not FINITE.holds(took):  # earlier versions didn't note the seconds
            took = trial.duration.total_seconds() if trial.duration else 0.0
        return Done(dict(trial.params), result, reason, float(took))

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        found = self._study.get_trials(deepcopy=False, states=states or None)
        for trial in found:
            if not isinstance(trial.user_attrs, dict):
                got = f"got {shown(trial.user_attrs)} for the notes of trial {trial.number}"
                raise StorageError(f"{self.place}: {got}, expected an object; another --out starts a new study")
        return found

    def _id_of(self, trial: FrozenTrial) -> int:
        find = self._storage.trials.get_trial_id_from_study_id_trial_number
        return self._storage.ask(lambda: find(self._study_id, trial.number))

    def _add(self, params: Params, **what: Any) -> None:
        distributions = {name: self._distributions[name] for name in params}
        self._study.add_trial(create_trial(params=params, distributions=distributions, **what))

    def _opened(self, name: str) -> tuple[OptunaStudy, bool]:
        """Return the study, and True if this process has just created it."""
        trials = self._storage.trials
        try:
            return optuna.create_study(storage=trials, study_name=name, direction="maximize"), True
        except DuplicatedStudyError:
            return optuna.load_study(storage=trials, study_name=name), False

    def _agree_on(self, settings: dict[str, Any], is_new: bool) -> None:
        """Store the study's settings. If settings are stored already, raise a StorageError if they differ."""
        found = self._storage.ask(lambda: self._study.user_attrs.get(_SETTINGS))
        # The process that created the study stores them. If it was killed before that, another process does.
        until = time.monotonic() + _SECONDS_TO_SETTINGS
        while found is None and not is_new and time.monotonic() < until:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            found = self._storage.ask(lambda: self._study.user_attrs.get(_SETTINGS))
        if found is None:
            self._storage.ask(lambda: self._study.set_user_attr(_SETTINGS, settings))
            return
        if found == settings:
            return
        if not isinstance(found, dict):
            got = f"got {shown(found)} for the study's settings"
            raise StorageError(f"{self.place}: {got}, expected an object; another --out starts a new study")
        first = min(name for name in {*found, *settings} if found.get(name) != settings.get(name))
        got = f"got {printable(first)} {settings.get(first)!r}, expected {shown(found.get(first))}"
        raise StorageError(f"{self.place}: {got}, that of the trials which are there; another --out starts a new study")


def _distribution(values: Choices | Range) -> BaseDistribution:
    """Return the values of a parameter as Optuna's distribution."""
    if not isinstance(values, Range):
        return CategoricalDistribution(list(values))
    if isinstance(values.lowest, int) and isinstance(values.highest, int):
        return IntDistribution(values.lowest, values.highest)
    return FloatDistribution(values.lowest, values.highest)


def _owners(trial: FrozenTrial) -> list[dict[str, Any]]:
    """Return the owner of a trial under way. If none is noted yet, return the candidates."""
    notes = trial.user_attrs
    owners = [notes[_OWNER]] if _OWNER in notes else [notes[name] for name in notes if name.startswith(_OWNER)]
    return [owner for owner in owners if isinstance(owner, dict)]


def _is_unfinished(trial: FrozenTrial) -> bool:
    """Return True if a trial was closed without being done.

    A completed trial has a result, even if another process has noted why it was about to close it.
    """
    return trial.state == TrialState.FAIL and _reason(trial) in _UNFINISHED


def _reason(trial: FrozenTrial) -> str | None:
    reason: str | None = trial.user_attrs.get(_REASON)
    return reason
