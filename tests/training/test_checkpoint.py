from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from ebgan_fast.training import CheckpointError
from ebgan_fast.training.run import checkpoint

STATE = {"step": 3, "weights": {"a": torch.arange(5000.0), "none": None}, "list": [1, 2.5, "x"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    checkpoint.write(path, STATE)
    return path


def test_round_trip(path: Path) -> None:
    state = checkpoint.read(path)
    assert torch.equal(state["weights"]["a"], STATE["weights"]["a"])  # type: ignore[index]
    assert (state["step"], state["list"], state["weights"]["none"]) == (3, [1, 2.5, "x"], None)
    assert [entry.name for entry in path.parent.iterdir()] == ["checkpoint.pt"]


def test_torch_loads_it_without_running_code(path: Path) -> None:
    assert torch.load(path, weights_only=True)["step"] == 3


@pytest.mark.parametrize("kept", [0, 1, 100, -1, -100])
def test_a_truncated_file(path: Path, kept: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: got a truncated file"):
        checkpoint.read(path)
    assert path.read_bytes() == whole[:kept]


def test_a_flipped_bit_in_a_weight(path: Path) -> None:
    data = bytearray(path.read_bytes())
    place = data.index(STATE["weights"]["a"].numpy().tobytes()) + 10_000  # type: ignore[index]
    data[place] ^= 1
    path.write_bytes(bytes(data))
    assert torch.load(path, weights_only=True)["step"] == 3  # torch doesn't see it
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: got damaged data"):
        checkpoint.read(path)


def test_files_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"

    def text() -> None:
        path.write_text("hello")

    def plain_zip() -> None:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a", "b")

    def weights() -> None:
        torch.save({"weight": torch.zeros(3)}, path)

    def bare_tensor() -> None:
        torch.save(torch.zeros(3), path)

    def code() -> None:
        torch.save({"format": Path}, path)

    def bare_pickle() -> None:
        path.write_bytes(pickle.dumps({"format": 1}))

    for make in (text, plain_zip, weights, bare_tensor, code, bare_pickle):
        make()
        with pytest.raises(CheckpointError, match=r"other\.pt: got .*, expected a checkpoint"):
            checkpoint.read(path)


class _Touch:
    """An object that is pickled as a call that creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def test_code_in_a_file_is_not_run(path: Path, tmp_path: Path) -> None:
    checkpoint.write(path, {"weights": _Touch(tmp_path / "touched")})
    with pytest.raises(CheckpointError, match=r"got what torch\.save doesn't write"):
        checkpoint.read(path)
    assert not (tmp_path / "touched").exists()


def test_another_version(path: Path) -> None:
    checkpoint.write(path, {"version": 99})
    with pytest.raises(CheckpointError, match="got a checkpoint of version 99, expected 1"):
        checkpoint.read(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        checkpoint.read(tmp_path / "none.pt")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    before = path.read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write(path, {"step": 4})
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["checkpoint.pt"]


def test_the_data_is_on_disk_before_the_name_changes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names: (order.append("replace"), replace(*names)))
    checkpoint.write(path, STATE)
    assert order == ["fsync", "replace", "fsync"]
