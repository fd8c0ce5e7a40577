"""Tests of a full disk: the error names the file, and saved data stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ebgan_fast.training import save_folder, save_grid
from ebgan_fast.training.run import checkpoint
from ebgan_fast.training.run.lines import LinesFile

from ..full_disk import room_for


@pytest.mark.parametrize("size", [10, 3000, 200_000])
def test_a_checkpoint(tmp_path: Path, size: int) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.write(path, {"step": 1})
    with room_for(size), pytest.raises(OSError, match="too large") as error:
        checkpoint.write(path, {"step": 2, "weights": torch.zeros(100_000)})
    assert error.value.filename == str(path)
    assert checkpoint.read(path)["step"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_metrics(tmp_path: Path) -> None:
    metrics = LinesFile(tmp_path / "metrics.jsonl")
    metrics.append({"step": 1})
    with room_for(20), pytest.raises(OSError, match=r"too large|No space") as error:
        metrics.append({"step": 2, "loss": 0.123456789})
    assert error.value.filename == str(metrics.path)
    assert [line["step"] for line in metrics.lines()] == [1]
    metrics.append({"step": 3})
    assert metrics.path.read_text() == '{"step": 1}\n{"step": 3}\n'


def test_pictures(tmp_path: Path) -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for write, name in (
        (lambda: save_grid(images, tmp_path / "grid.png"), "grid.png"),
        (lambda: save_folder(images, tmp_path / "folder"), "folder/00000.png"),
    ):
        with room_for(100), pytest.raises(OSError, match="too large") as error:
            write()
        assert error.value.filename == str(tmp_path / name)
