"""Each trial in the queue has one owner, and no trial is lost with its owner."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import optuna
import pytest
from filelock import Timeout

from ebgan_fast.studies.framework import owners
from ebgan_fast.studies.framework import queue as queues
from ebgan_fast.studies.framework.addresses import open_storage
from ebgan_fast.studies.framework.owners import this_process
from ebgan_fast.studies.framework.queue import Claim, TrialQueue
from ebgan_fast.studies.framework.results import Params
from ebgan_fast.studies.framework.storage import StorageError
from ebgan_fast.studies.framework.study import Measured, Range

RANGES = {"number": Range(0, 1000)}


def opened(storage: str, *numbers: int) -> TrialQueue:
    return TrialQueue(open_storage(storage), "test", {}, [{"number": number} for number in numbers], RANGES)


def taken(queue: TrialQueue) -> Claim:
    claim = queue.claim()
    assert claim is not None
    return claim


def claimed_by(monkeypatch: pytest.MonkeyPatch, queue: TrialQueue, **owner: Any) -> Claim:
    """Take a trial as a process that differs from this one in its token and these fields."""
    with monkeypatch.context() as patch:
        patch.setattr(queues, "this_process", lambda: {**this_process(), "token": "other", **owner})
        return taken(queue)


def end(claim: Claim, found: int) -> None:
    claim.done(Measured({"found": found}, 0.0))


def results(queue: TrialQueue) -> list[tuple[Params, dict[str, Any] | None]]:
    return [(one.params, one.result) for one in queue.done()]


def states(storage: str) -> list[str]:
    """Return Optuna's own words for the state of every trial."""
    study = optuna.load_study(storage=open_storage(storage).trials, study_name="test")
    return [trial.state.name for trial in study.get_trials()]


def test_each_trial_is_given_out_once(storage: str) -> None:
    first, second = opened(storage, 1, 2), opened(storage, 1, 2)
    numbers = [taken(first).params["number"], taken(second).params["number"]]
    assert sorted(numbers) == [1, 2]
    assert first.claim() is None
    assert second.claim() is None


def test_what_is_not_asked_for_stays(storage: str) -> None:
    everything = opened(storage, 1, 2)
    queue = opened(storage, 2)
    assert taken(queue).params == {"number": 2}
    assert queue.claim() is None
    assert taken(everything).params == {"number": 1}


def test_of_trials_that_two_processes_queued_at_once_one_is_done(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:  # each process looks before the other has added its trial
        patch.setattr(TrialQueue, "_trials", lambda self, *states: [])
        first, _ = opened(storage, 1), opened(storage, 1)
    assert states(storage) == ["WAITING", "WAITING"]
    end(taken(first), 1)
    assert first.claim() is None
    assert states(storage) == ["COMPLETE", "FAIL"]
    assert results(first) == [({"number": 1}, {"found": 1})]


def test_a_living_owner_keeps_its_trial(storage: str) -> None:
    queue = opened(storage, 1)
    taken(queue)
    for looker in (queue, opened(storage, 1)):
        assert looker.bury() == looker.fill() == looker.unsure() == 0
        assert looker.claim() is None


def test_a_dead_owner_of_this_machine_loses_it(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = opened(storage, 1)
    # A living process has the owner's number, but it began at another time.
    claimed_by(monkeypatch, queue, born="17")
    assert (queue.bury(), queue.fill()) == (1, 1)
    end(taken(queue), 1)
    assert results(queue) == [({"number": 1}, {"found": 1})]
    assert len(opened(storage, 1).done()) == 1
    assert states(storage) == ["FAIL", "COMPLETE"]  # opening the queue again has queued nothing


def test_an_owner_that_cannot_be_seen_is_dead_after_minutes_of_silence(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened(storage, 1)
    claim = claimed_by(monkeypatch, queue, host="elsewhere")
    now = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(owners.time, "monotonic", lambda: now)
        assert (queue.bury(), queue.unsure()) == (0, 1)
        now += 100
        queue.note(claim._id, "alive", 1)
        assert (queue.bury(), queue.unsure()) == (0, 0)
        for silent in range(9):
            assert queue.bury() == 0, silent
            now += 20.0
        assert queue.bury() == 1
    assert queue.fill() == 1


def test_looks_that_hung_do_not_count(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage was locked for an hour, for the owner's signs as well."""
    queue = opened(storage, 1)
    claimed_by(monkeypatch, queue, host="elsewhere")
    now = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(owners.time, "monotonic", lambda: now)
        assert queue.bury() == 0
        now += 3600
        assert queue.bury() == 0


def test_signs_of_life_come_while_a_trial_lasts(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "SECONDS_BETWEEN_SIGNS", 0.02)
    queue = opened(storage, 1)
    claim = taken(queue)
    study = optuna.load_study(storage=open_storage(storage).trials, study_name="test")

    def sign() -> int:
        found: int = study.get_trials()[0].user_attrs.get("alive", 0)
        return found

    until = time.monotonic() + 30
    while sign() < 2:
        assert time.monotonic() < until
        time.sleep(0.02)
    end(claim, 1)
    time.sleep(0.1)
    last = sign()
    time.sleep(0.1)
    assert sign() == last


def test_what_a_process_measured_before_it_was_killed_is_kept(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process was killed after it had noted its result and before it had closed the trial."""
    queue = opened(storage, 1)
    claim = claimed_by(monkeypatch, queue, born="17")
    with monkeypatch.context() as patch:
        patch.setattr(TrialQueue, "_complete", lambda *arguments: True)
        end(claim, 1)
    assert states(storage) == ["RUNNING"]
    assert (queue.bury(), queue.fill()) == (1, 0)
    assert results(queue) == [({"number": 1}, {"found": 1})]
    assert states(storage) == ["COMPLETE"]


def test_the_result_of_a_process_that_was_taken_for_dead_is_kept(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop may have been asleep. Its trial was queued again, and another process hasn't begun, has begun or has
    done it."""
    for other_has in ("not begun", "begun", "done"):
        number = ["not begun", "begun", "done"].index(other_has)
        queue = opened(storage, number)
        claim = claimed_by(monkeypatch, queue, born="17")
        assert (queue.bury(), queue.fill()) == (1, 1)
        other = None if other_has == "not begun" else taken(queue)
        if other is not None and other_has == "done":
            end(other, 2)
        end(claim, 1)
        if other is not None and other_has == "begun":
            end(other, 2)
        assert results(queue) == [({"number": number}, {"found": 2 if other_has != "not begun" else 1})], other_has
        assert queue.claim() is None


def test_a_trial_that_is_completed_while_it_is_closed_counts(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process has noted why it will close the trial. The owner is alive after all, and completes the trial
    first."""
    queue = opened(storage, 1)
    claim = claimed_by(monkeypatch, queue, born="17")
    close = TrialQueue._set_state

    def slow(self: TrialQueue, trial_id: int, state: Any, values: Any = None) -> bool:
        if state == optuna.trial.TrialState.FAIL:
            end(claim, 1)
        return close(self, trial_id, state, values)

    with monkeypatch.context() as patch:
        patch.setattr(TrialQueue, "_set_state", slow)
        queue.bury()
    assert queue.fill() == 0
    assert results(queue) == [({"number": 1}, {"found": 1})]


def test_a_trial_that_kills_its_processes_fails_at_the_third(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = opened(storage, 1)
    for death in range(3):
        assert not queue.done(), death
        claimed_by(monkeypatch, queue, born="17")
        assert (queue.bury(), queue.fill()) == (1, 1)
    assert queue.claim() is None
    assert [one.reason for one in queue.done()] == ["its process was killed 3 times"]
    assert opened(storage, 1).claim() is None


def test_a_process_that_is_killed_as_it_takes_a_trial_leaves_it(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is killed before it notes that the trial is its own."""
    queue = opened(storage, 1)
    with monkeypatch.context() as patch:
        patch.setattr(queues, "this_process", lambda: {**this_process(), "token": "other", "born": "17"})
        set_state = TrialQueue._set_state

        def killed(self: TrialQueue, *arguments: Any) -> bool:
            set_state(self, *arguments)
            raise KeyboardInterrupt

        patch.setattr(TrialQueue, "_set_state", killed)
        with pytest.raises(KeyboardInterrupt):
            queue.claim()
    assert states(storage) == ["RUNNING"]
    assert (queue.bury(), queue.fill()) == (1, 1)


@pytest.mark.parametrize("killed", [False, True])
def test_who_was_slower_to_take_a_trial_does_not_own_it(
    storage: str, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """The slower process lives, or is killed after it noted that it tries to take the trial. The owner lives."""
    queue, slower = opened(storage, 1), opened(storage, 1)
    claim = taken(queue)

    def kill(*arguments: Any) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(queues, "this_process", lambda: {**this_process(), "token": "other", "born": "17"})
        if killed:
            patch.setattr(slower, "_set_state", kill)
        with pytest.raises(KeyboardInterrupt) if killed else contextlib.nullcontext():
            assert not slower._take(claim._id)
    assert queue.bury() == 0
    end(claim, 1)
    assert results(queue) == [({"number": 1}, {"found": 1})]


def test_a_trial_that_cannot_be_taken_is_left(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database may refuse the change each time the trial is seen waiting. No process then tries in an endless
    loop."""
    queue = opened(storage, 1)
    monkeypatch.setattr(queue, "_take", lambda trial_id: False)
    assert queue.claim() is None


def test_seconds_are_those_of_the_process_that_measured(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's own times depend on the clock, which may be set, and before version 5 on the time zone."""
    queue = opened(storage, 1)
    claim = taken(queue)
    now = time.perf_counter()
    monkeypatch.setattr(queues.time, "perf_counter", lambda: now + 1000)
    end(claim, 1)
    assert queue.done()[0].seconds == pytest.approx(1000, abs=10)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "1"])
def test_a_value_that_no_storage_holds_fails_the_trial(storage: str, value: Any) -> None:
    """SQLite could never read its trials again after such a value."""
    queue = opened(storage, 1, 2)
    taken(queue).done(Measured({"found": 1}, value))
    end(taken(queue), 2)
    first, second = opened(storage, 1, 2).done()
    assert first.result is None
    assert "expected a finite number" in str(first.reason)
    assert second.result == {"found": 2}


class Lost:
    """A storage method whose answer is lost once: it does what was asked for, and then the call fails."""

    def __init__(self, queue: TrialQueue, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        self._call = getattr(queue._storage.trials, method)
        self.times = 0
        monkeypatch.setattr(queue._storage.trials, method, self)

    def __call__(self, *arguments: Any) -> Any:
        found = self._call(*arguments)
        self.times += 1
        if self.times == 1:
            raise Timeout("the answer is lost")
        return found


@pytest.mark.parametrize("method", ["set_trial_state_values", "set_trial_user_attr"])
def test_a_trial_whose_taking_was_not_heard_of_is_taken(
    storage: str, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    queue = opened(storage, 1)
    with monkeypatch.context() as patch:
        lost = Lost(queue, patch, method)
        claim = taken(queue)
        assert lost.times >= 2
    assert opened(storage, 1).bury() == 0
    end(claim, 1)
    assert states(storage) == ["COMPLETE"]


def test_a_trial_that_another_took_while_an_answer_was_lost_is_not_taken(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, faster = opened(storage, 1), opened(storage, 1)
    with monkeypatch.context() as patch:
        patch.setattr(queues, "this_process", lambda: {**this_process(), "token": "other"})
        claim = taken(faster)
    Lost(queue, monkeypatch, "set_trial_state_values")
    assert not queue._take(claim._id)
    assert opened(storage, 1).unsure() == 0


def test_an_end_that_was_not_heard_of_is_one(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = opened(storage, 1)
    claim = taken(queue)
    with monkeypatch.context() as patch:
        lost = Lost(queue, patch, "set_trial_state_values")
        end(claim, 1)
        assert lost.times == 1
    assert states(storage) == ["COMPLETE"]
    assert results(queue) == [({"number": 1}, {"found": 1})]


def test_a_result_that_is_noted_after_a_look_and_before_a_death_is_kept(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened(storage, 1)
    claim = claimed_by(monkeypatch, queue, born="17")
    life = TrialQueue._life

    def late(self: TrialQueue, trial: Any) -> owners.Life:
        with monkeypatch.context() as patch:
            patch.setattr(TrialQueue, "_complete", lambda *arguments: True)
            end(claim, 1)
        return life(self, trial)

    with monkeypatch.context() as patch:
        patch.setattr(TrialQueue, "_life", late)
        assert queue.bury() == 1
    assert queue.fill() == 0
    assert results(queue) == [({"number": 1}, {"found": 1})]


def test_a_trial_that_was_queued_anew_is_not_done_once_its_owner_has_come_back(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has seen the trial waiting before the owner came back."""
    queue = opened(storage, 1, 2)
    claim = claimed_by(monkeypatch, queue, born="17")
    other = opened(storage, 1, 2)
    assert (other.bury(), other.fill()) == (1, 1)
    seen = [taken(other).params["number"]]
    assert len(other._waiting) == 1
    end(claim, claim.params["number"])
    assert other.claim() is None
    assert seen == [2]


def test_no_sign_of_life_comes_after_the_end(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    signs: list[int] = []
    monkeypatch.setattr(owners, "SECONDS_BETWEEN_SIGNS", 0.01)
    monkeypatch.setattr(TrialQueue, "sign", lambda self, trial_id, number: signs.append(number))
    queue = opened(storage, 1, 2)
    for last in ("done", "give_back"):
        claim = taken(queue)
        until = time.monotonic() + 30
        while not signs:
            assert time.monotonic() < until
            time.sleep(0.01)
        if last == "done":
            end(claim, 1)
        else:
            claim.give_back()
        time.sleep(0.05)
        signs.clear()
        time.sleep(0.1)
        assert signs == []


def test_a_trial_that_this_process_has_dropped_does_not_count_as_a_death(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second interrupt may keep a process from giving its trial back."""
    queue = opened(storage, 1)
    for _ in range(5):
        claim = taken(queue)
        claim._pulse.stop()
        queue.end(claim._trial.number)
        assert (queue.bury(), queue.fill()) == (1, 1)
    assert queue.done() == []


def test_of_two_processes_with_other_settings_one_is_refused(storage: str) -> None:
    """All begin at once, while the study may exist without its settings noted."""
    from concurrent.futures import ThreadPoolExecutor

    def begin(steps: int) -> str:
        try:
            TrialQueue(open_storage(storage), "test", {"steps": steps}, [], RANGES)
        except StorageError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(begin, range(4)))
    assert told.count("") == 1
    assert all("got steps" in words for words in told if words)
