"""The queue of trials: one owner each, and none lost with its owner."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import IntDistribution

from ebgan_fast.studies import queue as queues
from ebgan_fast.studies.queue import Claim, TrialQueue

RANGES = {"number": IntDistribution(0, 1000)}


@pytest.fixture(params=["journal", "sqlite"])
def storage(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    return str(tmp_path / "journal.log") if request.param == "journal" else f"sqlite:///{tmp_path / 'trials.db'}"


def opened(storage: str, *numbers: int) -> TrialQueue:
    queue = TrialQueue(storage, "test", {})
    queue.add([{"number": number} for number in numbers], RANGES)
    return queue


def taken(queue: TrialQueue) -> Claim:
    claim = queue.claim()
    assert claim is not None
    return claim


def claimed_by(monkeypatch: pytest.MonkeyPatch, queue: TrialQueue, owner: dict[str, Any]) -> Claim:
    with monkeypatch.context() as patch:
        patch.setattr(queues, "this_process", lambda: owner)
        return taken(queue)


def test_each_trial_is_given_out_once(storage: str) -> None:
    first, second = opened(storage, 1, 2), opened(storage, 1, 2)
    numbers = [taken(first).params["number"], taken(second).params["number"]]
    assert sorted(numbers) == [1, 2]
    assert first.claim() is None
    assert second.claim() is None


def test_what_is_not_asked_for_stays(storage: str) -> None:
    queue = opened(storage, 1, 2)
    claim = queue.claim(lambda params: params["number"] == 2)
    assert claim is not None
    assert claim.params == {"number": 2}
    assert queue.claim(lambda params: params["number"] == 2) is None
    assert taken(queue).params == {"number": 1}


def test_of_trials_that_two_processes_queued_at_once_one_is_done(storage: str) -> None:
    queue = opened(storage, 1)
    queue.enqueue({"number": 1}, dict(RANGES))
    taken(queue).done({}, 0.0)
    assert queue.claim() is None
    assert len(queue.done()) == 1


def test_a_living_owner_keeps_its_trial(storage: str) -> None:
    queue = opened(storage, 1)
    taken(queue)
    assert queue.revive() == 0
    assert queue.claim() is None


def test_a_dead_owner_of_this_machine_loses_it(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = opened(storage, 1)
    # The number is that of a living process, which was born at another time.
    owner = {**queues.this_process(), "born": "17"}
    claimed_by(monkeypatch, queue, owner)
    assert queue.revive() == 1
    taken(queue).done({"found": 1}, 0.0)
    assert [(one.params, one.result) for one in queue.done()] == [({"number": 1}, {"found": 1})]
    assert len(opened(storage, 1).done()) == 1  # nothing is queued anew


def test_an_owner_elsewhere_is_dead_after_ten_minutes_of_silence(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = opened(storage, 1)
    claim = claimed_by(monkeypatch, queue, {"host": f"not {socket.gethostname()}", "pid": 1, "born": "1"})
    assert queue.revive() == 0
    now, mark = time.time(), time.monotonic()
    monkeypatch.setattr(queues.time, "time", lambda: now + 500)
    monkeypatch.setattr(queues.time, "monotonic", lambda: mark + 500)
    claim.alive()
    monkeypatch.setattr(queues.time, "time", lambda: now + 1000)
    assert queue.revive() == 0
    monkeypatch.setattr(queues.time, "time", lambda: now + 1200)
    assert queue.revive() == 1


def test_a_trial_that_kills_its_processes_fails_at_the_third(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = opened(storage, 1)
    for death in range(3):
        assert not queue.done(), death
        claimed_by(monkeypatch, queue, {**queues.this_process(), "born": "17"})
        assert queue.revive() == 1
    assert queue.claim() is None
    assert [one.reason for one in queue.done()] == ["its process was killed 3 times"]
    opened(storage, 1)
    assert queue.claim() is None
