"""A study's trials in an Optuna storage that processes and machines share: each is done once, and none is lost.

Optuna's own GridSampler may give one configuration to two processes that ask at the same time (its documentation says
so), and forgets a trial whose process was killed. So all configurations are queued as waiting trials, which a storage
hands out one by one, and a trial of a dead process is queued again.
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

# Names of what is noted at a trial and at the study.
_OWNER, _SIGN, _MEASURED, _RESULT, _REASON, _SETTINGS = "owner", "alive", "measured", "result", "reason", "settings"

# Reasons that close a trial which was not measured and didn't fail: its configuration is to be done by another.
_INTERRUPTED, _KILLED, _COPY = "interrupted", "its process was killed", "a copy of another trial"
_UNFINISHED = (_INTERRUPTED, _KILLED, _COPY)
_MOST_DEATHS = 3  # of processes, before a trial counts as failed: one that needs too much memory would kill for ever

_WORKING_ON: set[tuple[str, int]] = set()  # queues and numbers of the trials that this process does

_MANY = 500  # trials, which take long to queue: 6,656 in SQLite half a minute
_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_TO_SETTINGS = 5.0  # for which a study that another process has made may have none
_SECONDS_TO_GIVE_BACK = 5.0  # an interrupted process waits no longer for a lock: its trial will be found without owner


class Claim:
    """A trial that this process is to do. It gives signs of life until it ends."""

    def __init__(self, queue: TrialQueue, trial: FrozenTrial, trial_id: int) -> None:
        self.params: Params = dict(trial.params)
        self._queue = queue
        self._trial = trial
        self._id = trial_id
        self._began = time.perf_counter()
        queue.begin(trial.number)
        self._pulse = Pulse(functools.partial(queue.sign, trial_id))

    def done(self, measured: Measured) -> Done:
        """Keep what was measured, which ends the trial; it fails by a value that no storage holds, such as NaN."""
        if not FINITE.holds(measured.value):
            return self._end(None, f"got the value {shown(measured.value)}, expected a finite number")
        return self._end(measured, None)

    def failed(self, reason: str) -> Done:
        """End the trial where there is nothing to measure, such as a loss that became NaN."""
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
    """The trials of one study, those of this run among them.

    Args:
        storage: where they are kept.
        name: of the study in the storage.
        settings: what all its trials have in common, as JSON can hold it.
        configurations: the trials of this run: one value of each parameter, all different. Those that the study doesn't
            have yet are queued.
        parameters: what each parameter may be in any run of the study: Optuna's tools want to know.

    Raises:
        StorageError: the storage's study of that name has other settings, or can't be read.
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
        """The storage as the user may read it, without a password."""
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
        """Queue those of this run's configurations that no trial is done, under way or waiting for; return how many."""

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
        """A waiting trial of this run that no other process has; None if there are none left."""
        if claim := self._claim_of_those_seen():
            return claim
        # All at once: of 2,000 trials in SQLite a look takes 0.3 s, and one trial by its number a millisecond.
        self._waiting.extend(self._look_for_waiting())
        return self._claim_of_those_seen()

    def _claim_of_those_seen(self) -> Claim | None:
        """The first trial that was waiting at the last look, and still is."""
        while self._waiting:
            trial = self._waiting.popleft()
            trial_id = self._id_of(trial)
            now = self._storage.ask(functools.partial(self._storage.trials.get_trial, trial_id))
            if now.state == TrialState.WAITING and self._take(trial_id):
                return Claim(self, trial, trial_id)
        return None

    def _look_for_waiting(self) -> Iterator[FrozenTrial]:
        """This run's waiting trials. Of equal ones the first is left, in every process, and the others are closed."""
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
        """Close the trials of dead processes, and keep what they had measured; return how many there were.

        `fill` queues anew what they had not.
        """
        running = self._storage.ask(lambda: self._trials(TrialState.RUNNING))
        dead = [self._id_of(trial) for trial in running if self._life(trial) == "dead"]
        for trial_id in dead:
            # Anew: it may have noted something after the look above and before it died.
            trial = self._storage.ask(functools.partial(self._storage.trials.get_trial, trial_id))
            measured, result = trial.user_attrs.get(_MEASURED), trial.user_attrs.get(_RESULT)
            # Killed between the two: what it noted last was the result.
            value: Any = measured.get("value") if isinstance(measured, dict) else None
            if isinstance(result, dict) and FINITE.holds(value):
                self._complete(trial_id, value)
            else:
                self.close(trial_id, _INTERRUPTED if self._is_own(trial) else _KILLED)
        return len(dead)

    def unsure(self) -> int:
        """Return how many of this run's trials others have of whom it isn't known yet whether they live."""
        running = self._storage.ask(lambda: self._trials(TrialState.RUNNING))
        return sum(self._life(trial) == "unknown" for trial in running if key(trial.params) in self._wanted)

    def done(self) -> list[Done]:
        """This run's finished trials, failed ones too, in the order of its configurations, whoever did them when."""
        found: dict[str, Done] = {}
        for trial in self._storage.ask(lambda: self._trials(TrialState.COMPLETE, TrialState.FAIL)):
            name = key(trial.params)
            if name not in self._wanted or _is_unfinished(trial):
                continue
            # Where two processes did the same, what was measured first counts.
            if name not in found or (found[name].result is None and trial.state == TrialState.COMPLETE):
                found[name] = self._read(trial)
        return [found[name] for name in self._wanted if name in found]

    def begin(self, number: int) -> None:
        """Remember that this process works on a trial."""
        _WORKING_ON.add((self._name, number))

    def end(self, number: int) -> None:
        """Forget it."""
        _WORKING_ON.discard((self._name, number))

    def note(self, trial_id: int, name: str, value: Any, patience: float = PATIENCE) -> None:
        """Note something at a trial, unless it is closed."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.ask(lambda: self._storage.trials.set_trial_user_attr(trial_id, name, value), patience)

    def keep(self, trial: FrozenTrial, trial_id: int, measured: Measured, seconds: float) -> None:
        """Complete a trial with what was measured.

        If others have taken its process for dead and closed it, it is kept beside.
        """
        # In this order: `bury` completes a trial that has a result, for which it needs the value.
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
        """Give a sign of life, if nothing is in the way.

        Our lock comes first: a thread that held Optuna's own and waited for ours would hold the others up. What the
        trial's own thread notes may take Optuna's alone, as no other thread waits for that.
        """

        def note() -> None:
            with self._storage.lock:
                self._storage.trials.set_trial_user_attr(trial_id, _SIGN, number)

        self._storage.ask(note, patience=0.0)

    def close(self, trial_id: int, reason: str, patience: float = PATIENCE) -> None:
        """Close a trial without a result, unless it is closed."""
        self.note(trial_id, _REASON, reason, patience)
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.ask(lambda: self._set_state(trial_id, TrialState.FAIL), patience)

    def _complete(self, trial_id: int, value: float) -> bool:
        """Complete a trial; False if another process has closed it."""

        def complete() -> bool:
            try:
                return self._set_state(trial_id, TrialState.COMPLETE, [value])
            except UpdateFinishedTrialError:
                return self._storage.trials.get_trial(trial_id).state == TrialState.COMPLETE  # by a try before this one

        return self._storage.ask(complete)

    def _set_state(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        with self._storage.lock:
            return self._storage.trials.set_trial_state_values(trial_id, state, values)

    def _take(self, trial_id: int) -> bool:
        """Take a waiting trial; False if another process has it.

        The process notes itself as a candidate first. If it is killed in between, the trial has dead candidates alone.
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
            # A try that failed may have taken it before its answer was lost: then nobody else has tried.
            notes = self._storage.ask(lambda: trials.get_trial(trial_id)).user_attrs
            is_mine = _OWNER not in notes and [name for name in notes if name.startswith(_OWNER)] == [candidate]
        if is_mine:
            self.note(trial_id, _OWNER, me)
        elif tries == 1:
            self.note(trial_id, candidate, None)
        return is_mine

    def _life(self, trial: FrozenTrial) -> Life:
        """Say if the owner of a trial under way lives. Where none is noted yet, one living candidate is enough."""
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
        """Read a finished trial. Raises a StorageError for what no study writes."""
        result, reason, measured = (trial.user_attrs.get(name) for name in (_RESULT, _REASON, _MEASURED))
        if trial.state == TrialState.COMPLETE and not isinstance(result, dict):
            got = f"got {shown(result)} for the result of trial {trial.number}"
            raise StorageError(f"{self.place}: {got}, expected an object; another --out starts anew")
        if trial.state == TrialState.COMPLETE:
            reason = None
        else:
            result, reason = None, str(reason)
        took: Any = measured.get("seconds") if isinstance(measured, dict) else None
        if not FINITE.holds(took):  # earlier versions noted none
            took = trial.duration.total_seconds() if trial.duration else 0.0
        return Done(dict(trial.params), result, reason, float(took))

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        found = self._study.get_trials(deepcopy=False, states=states or None)
        for trial in found:
            if not isinstance(trial.user_attrs, dict):
                got = f"got {shown(trial.user_attrs)} for the notes of trial {trial.number}"
                raise StorageError(f"{self.place}: {got}, expected an object; another --out starts anew")
        return found

    def _id_of(self, trial: FrozenTrial) -> int:
        find = self._storage.trials.get_trial_id_from_study_id_trial_number
        return self._storage.ask(lambda: find(self._study_id, trial.number))

    def _add(self, params: Params, **what: Any) -> None:
        distributions = {name: self._distributions[name] for name in params}
        self._study.add_trial(create_trial(params=params, distributions=distributions, **what))

    def _opened(self, name: str) -> tuple[OptunaStudy, bool]:
        """The study, and True if it was made now."""
        trials = self._storage.trials
        try:
            return optuna.create_study(storage=trials, study_name=name, direction="maximize"), True
        except DuplicatedStudyError:
            return optuna.load_study(storage=trials, study_name=name), False

    def _agree_on(self, settings: dict[str, Any], is_new: bool) -> None:
        """Note the study's settings, or hold them against those that are noted."""
        found = self._storage.ask(lambda: self._study.user_attrs.get(_SETTINGS))
        # Who has made the study notes them. If it was killed before, another does.
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
            raise StorageError(f"{self.place}: {got}, expected an object; another --out starts anew")
        first = min(name for name in {*found, *settings} if found.get(name) != settings.get(name))
        got = f"got {printable(first)} {settings.get(first)!r}, expected {shown(found.get(first))}"
        raise StorageError(f"{self.place}: {got}, that of the trials which are there; another --out starts anew")


def _distribution(values: Choices | Range) -> BaseDistribution:
    """A parameter's values in Optuna's terms."""
    if not isinstance(values, Range):
        return CategoricalDistribution(list(values))
    if isinstance(values.lowest, int) and isinstance(values.highest, int):
        return IntDistribution(values.lowest, values.highest)
    return FloatDistribution(values.lowest, values.highest)


def _owners(trial: FrozenTrial) -> list[dict[str, Any]]:
    """The owner of a trial under way; those who may be where it isn't noted yet."""
    notes = trial.user_attrs
    owners = [notes[_OWNER]] if _OWNER in notes else [notes[name] for name in notes if name.startswith(_OWNER)]
    return [owner for owner in owners if isinstance(owner, dict)]


def _is_unfinished(trial: FrozenTrial) -> bool:
    """Return True for a trial that was closed without being done.

    One that was completed has a result, though another process may have noted why it was about to close it.
    """
    return trial.state == TrialState.FAIL and _reason(trial) in _UNFINISHED


def _reason(trial: FrozenTrial) -> str | None:
    reason: str | None = trial.user_attrs.get(_REASON)
    return reason
