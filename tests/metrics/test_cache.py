from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from ebgan_fast.metrics import cache


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
    """So that a signal is heard while another process computes."""
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
