from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path

import pytest
import torch

from ebgan_fast._fitting import check_fits
from ebgan_fast.metrics import cache

from ..conftest import Fork


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert cache.read(path) is None
    cache.write(path, {"weights": {"a": torch.arange(3.0)}, "number": 0.25})
    read = cache.read(path)
    assert read is not None
    assert read["number"] == 0.25
    assert read["weights"]["a"].tolist() == [0, 1, 2]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    cache.write(path, {"number": 1})

    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        cache.write(path, {"number": 2})
    assert cache.read(path) == {"number": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_lock_makes_others_wait_and_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    waits: list[int] = []

    class WaitedError(Exception):
        pass

    def on_wait() -> None:
        waits.append(1)
        raise WaitedError

    with cache.locked(path, on_wait):
        with pytest.raises(WaitedError):
            cache.locked(path, on_wait).__enter__()
        assert waits == [1]
    with cache.locked(path, on_wait):
        assert waits == [1]
    with pytest.raises(KeyError), cache.locked(path, on_wait):
        raise KeyError
    with cache.locked(path, on_wait):
        assert waits == [1]


def test_a_wait_ends_when_the_lock_is_given_back_or_at_will(tmp_path: Path) -> None:
    """A signal must be able to end the wait while another process computes."""
    path = tmp_path / "file"
    waits: list[int] = []
    other = cache.locked(path, lambda: pytest.fail("nobody has it")).__enter__()

    def tire() -> None:
        waits.append(1)
        if len(waits) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.locked(path, tire, every=0.01).__enter__()
    assert len(waits) == 3

    def give_back() -> None:
        waits.append(1)
        if len(waits) == 5:
            other.release()

    with cache.locked(path, give_back, every=0.01):
        assert len(waits) == 5


@pytest.mark.skipif(os.name != "posix", reason="this system doesn't tell who may write a file")
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_made_anew(tmp_path: Path, mode: int) -> None:
    """A user who can write the file decides the scores."""
    path = tmp_path / "file"
    cache.write(path, {"number": 1})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(mode)
    with pytest.warns(UserWarning, match="file: got a cache file that another user may have written"):
        assert cache.read(path) is None
    cache.write(path, {"number": 2})
    assert cache.read(path) == {"number": 2}


@pytest.mark.skipif(os.name != "posix", reason="this system doesn't tell who owns a file")
def test_a_file_of_another_user_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    cache.write(path, {"number": 1})
    fstat = os.fstat
    for owner, read in ((os.geteuid(), True), (0, True), (os.geteuid() + 1, False)):
        found = fstat(os.open(path, os.O_RDONLY))
        values = list(found)
        values[stat.ST_UID] = owner
        monkeypatch.setattr(os, "fstat", lambda handle, values=values: os.stat_result(values))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert (cache.read(path) is not None) is read
        assert len(caught) == (not read)


def read_and_write(path: Path) -> None:
    with warnings.catch_warnings(record=True) as told:
        assert cache.read(path) is None
        cache.write(path, {"number": 1})
    assert cache.read(path) == {"number": 1}
    print([str(warning.message) for warning in told])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
def test_a_pipe_keeps_nobody_waiting(tmp_path: Path, fork: Fork) -> None:
    os.mkfifo(tmp_path / "file")
    child = fork(read_and_write, tmp_path / "file")
    assert child.status() == 0, child.said
    assert "which is made again" in child.said


def test_no_link_in_the_locks_place_is_followed(tmp_path: Path) -> None:
    """Another user who may write to the folder could put a link there, to make this user overwrite a file."""
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_text("kept")
    Path(f"{path}.lock").symlink_to(victim)
    with pytest.raises(OSError, match=r"file\.lock"), cache.locked(path, lambda: None):
        pass
    assert victim.read_text() == "kept"


def test_a_content_that_the_caller_did_not_write_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "file"
    cache.write(path, {"weights": {"a": torch.zeros(2)}, "number": 1.0})
    expected = {"weights": {"a": torch.zeros(2)}, "number": 0.0}
    assert cache.read(path, lambda content: check_fits(content, expected, "file")) is not None
    for other in ({"weights": {"a": torch.zeros(3)}, "number": 1.0}, {"weights": {}}, [1], None, {"number": 1.0}):
        cache.write(path, other)  # type: ignore[arg-type]
        with pytest.warns(UserWarning, match="file: got a damaged cache file"):
            assert cache.read(path, lambda content: check_fits(content, expected, "file")) is None


@pytest.mark.skipif(os.name != "posix", reason="the mask of new files is of POSIX")
def test_the_folder_is_this_users_alone_to_write(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = cache.cache_folder(tmp_path / "cache")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) & 0o022 == 0


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """filelock raises NotImplementedError on some network drives. Then two processes may compute the same file."""

    def fail(*_: object, **__: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock; use SoftFileLock instead")

    monkeypatch.setattr(cache.FileLock, "acquire", fail)
    with cache.locked(tmp_path / "file", lambda: pytest.fail("nobody waits")):
        cache.write(tmp_path / "file", {"number": 1})
    assert cache.read(tmp_path / "file") == {"number": 1}
