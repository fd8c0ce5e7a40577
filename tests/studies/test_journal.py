"""Incomplete last lines of journals are repaired, damaged lines are named, and a file that replaces a journal is
refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ebgan_fast.studies.framework import queue as queues
from ebgan_fast.studies.framework.storage import StorageError

from .counting import done, job
from .storages import held, lock_of, refusal
from .test_queue import end, opened, results, taken


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of a journal whose last line closes the second of two trials."""
    path = tmp_path_factory.mktemp("whole") / "journal.log"
    queue = opened(str(path), 1, 2)
    for number in (1, 2):
        end(taken(queue), number)
    return path.read_bytes()


def test_a_journal_may_be_cut_anywhere_in_its_last_line(
    tmp_path: Path, whole: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line before says what the second trial measured, so the trial is closed again."""
    start = whole.rindex(b"\n", 0, -1) + 1
    for length in range(start + 1, len(whole)):
        path = tmp_path / "journal.log"
        path.write_bytes(whole[:length])
        queue = opened(str(path), 1, 2)
        told = capsys.readouterr().err
        kept = length == len(whole) - 1  # only the newline was missing
        assert told.count("\n") == (not kept), length
        assert kept or (str(path) in told and "cut short" in told)
        assert queue.done()[0].result == {"found": 1}
        queue.bury()
        assert results(queue) == [({"number": number}, {"found": number}) for number in (1, 2)], length
        assert path.read_bytes().endswith(b"\n")
        assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_a_journal_may_be_cut_in_its_first_line(tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "_SECONDS_TO_SETTINGS", 0.1)
    for length in (*range(0, whole.index(b"\n"), 9), whole.index(b"\n")):
        path = tmp_path / f"{length}.log"
        path.write_bytes(whole[:length])
        queue = opened(str(path), 1)
        end(taken(queue), 1)
        assert len(opened(str(path), 1).done()) == 1


@pytest.mark.parametrize(
    "tail", [bytes(700), b'{"op_code":8,"worker_id":"a{"op_code":8,"worker_id":"b"}\n', b'{"op_code":8,"t\0\0\0']
)
def test_a_journal_whose_end_is_no_line_is_mended(
    tmp_path: Path, whole: bytes, tail: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """A power cut leaves zeros at the end, and earlier versions continued writing in an incomplete line."""
    path = tmp_path / "journal.log"
    path.write_bytes(whole + tail)
    assert len(opened(str(path), 1, 2).done()) == 2
    assert "took out the last line" in capsys.readouterr().err
    assert path.read_bytes().startswith(whole)
    assert tail not in path.read_bytes()


def test_a_journal_that_is_cut_while_it_is_open_is_mended_at_the_next_write(tmp_path: Path) -> None:
    """Another process, which was killed, has left an incomplete line."""
    path = tmp_path / "journal.log"
    queue = opened(str(path), 1)
    claim = taken(queue)
    with path.open("ab") as file:
        file.write(b'{"op_code":8,"worker_id":"an')
    end(claim, 1)
    assert len(opened(str(path), 1).done()) == 1


@pytest.mark.parametrize("line", [1, 3])
@pytest.mark.parametrize(
    "damage",
    [
        b'{"op_code":4}',
        b'{"op_code":99,"worker_id":"a"}',
        b'{"op_code":"a"}',
        b"[1]",
        b"1",
        b'{"op_code":8,"worker_id":"a"}',
        b'{"op_code":' + b"[" * 100_000,
        b'{"op_code":8,"worker_id":"an',
        b"\xff\xfe",
        bytes(40),
        b"",
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, whole: bytes, damage: bytes, line: int) -> None:
    path = tmp_path / "journal.log"
    lines = whole.split(b"\n")
    lines[line - 1] = damage
    path.write_bytes(b"\n".join(lines))
    told = refusal(str(path))
    assert str(path) in told
    if damage.startswith(b'{"op_code":') or line > 1:
        assert f"line {line}:" in told
    else:
        assert "another kind of file" in told
    assert path.read_bytes() == b"\n".join(lines)


@pytest.mark.parametrize(
    ("op_code", "change"),
    [(8, {"user_attr": {"measured": {"seconds": 10**400}}}), (8, {"user_attr": {"measured": {"seconds": 1e999}}})],
)
def test_odd_seconds_in_a_journal_are_left_out(
    tmp_path: Path, whole: bytes, op_code: int, change: dict[str, Any]
) -> None:
    path = tmp_path / "journal.log"
    lines = [json.loads(line) for line in whole.splitlines()]
    for line in lines:
        if line["op_code"] == op_code and "measured" in line.get("user_attr", {}):
            line.update(change)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert all(0 <= one.seconds < 1000 for one in opened(str(path), 1, 2).done())


def test_odd_notes_in_a_journal_are_named(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(whole.replace(b'"user_attrs":{}', b'"user_attrs":[]', 1))
    assert str(path) in refusal(str(path))


def _delete(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    os.truncate(path, 0)


def _halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _replace(path: Path) -> None:
    other = path.with_name("other.log")
    opened(str(other), 5, 6, 7, 8, 9, 10)
    other.replace(path)


def _overwrite(path: Path) -> None:
    """Write something else, which is longer, into the same file."""
    path.write_bytes(b"margins\n" * path.stat().st_size)


@pytest.mark.parametrize("change", [_delete, _truncate, _halve, _replace, _overwrite])
def test_a_journal_that_is_replaced_while_a_study_runs_is_named(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Nothing is added to the file that is there, and the lock is free afterward."""
    path = tmp_path / "journal.log"
    queue = opened(str(path), 1, 2)
    claim = taken(queue)
    change(path)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(StorageError, match=str(path)):
        end(claim, 1)
    claim._pulse.stop()
    assert (path.read_bytes() if path.exists() else None) == before
    with held(lock_of(str(path)), 0):
        pass


def test_trials_that_others_can_read(tmp_path: Path) -> None:
    """Optuna's own storage can open the journal."""
    import optuna

    path = tmp_path / "journal.log"
    done(job(tmp_path, str(path), 2))
    journal = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    found: list[Any] = optuna.load_study(storage=journal, study_name="counting").get_trials()
    assert [(trial.params, trial.value, trial.user_attrs["result"]["square"]) for trial in found] == [
        ({"number": number}, number, number**2) for number in range(2)
    ]
