"""Synthetic digits, and comparisons of two runs."""

from __future__ import annotations

import json
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ebgan_fast.training.run import checkpoint
from ebgan_fast.training.step import Trainer


def bars(count: int, seed: int) -> Tensor:
    """Return images, uint8 [count, 28, 28]. Each shows a bright bar on black, two pixels wide, upright or level."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.zeros(count, 28, 28, dtype=torch.uint8)
    for image, place, upright in zip(
        images,
        torch.randint(4, 22, (count,), generator=rng).tolist(),
        torch.randint(2, (count,), generator=rng).tolist(),
        strict=True,
    ):
        (image.T if upright else image)[place : place + 2, 4:24] = 255
    return images


def write_idx(folder: Path, train_images: Tensor) -> None:
    """Write the four files of a set like MNIST. The test part has five images."""
    folder.mkdir()
    for part, images in (("train", train_images), ("t10k", train_images[:5])):
        header = struct.pack(">4I", 0x803, *images.shape)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.numpy().tobytes())
        header = struct.pack(">2I", 0x801, len(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + bytes(len(images)))


TIMING = {"steps_per_s", "images_per_s", "elapsed_s", "memory_gb"}


class CutOff(BaseException):
    """Raised in place of the end of the process."""


def cut_off_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """End the run at the start of step `step + 1`."""
    original = Trainer.step

    def fragile(trainer: Trainer) -> None:
        if trainer.step_count == step:
            raise CutOff
        original(trainer)

    monkeypatch.setattr(Trainer, "step", fragile)


def assert_same_state(one: Any, other: Any, at: str = "state") -> None:
    assert type(one) is type(other), at
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, at
        assert torch.equal(one, other), at
    elif isinstance(one, dict):
        assert list(one) == list(other), at
        for name, value in one.items():
            assert_same_state(value, other[name], f"{at}.{name}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), at
        for index, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            assert_same_state(mine, theirs, f"{at}[{index}]")
    else:
        assert one == other, at


def assert_same_run(one: Path, other: Path, but: Collection[str] = ()) -> None:
    """Check that two runs have the same checkpoint, metrics and samples.

    Times, the folder's name and the config's fields in `but` may differ.
    """
    states = [checkpoint.read(folder / "checkpoint.pt") for folder in (one, other)]
    for state in states:
        del state["elapsed_s"]
        for name in ("out", *but):
            del state["config"][name]
    assert_same_state(*states)
    metrics = []
    for folder in (one, other):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        metrics.append([{name: line[name] for name in line if name not in TIMING} for line in lines])
    assert metrics[0] == metrics[1]
    pictures = [{path.name: path.read_bytes() for path in (folder / "samples").iterdir()} for folder in (one, other)]
    assert pictures[0] == pictures[1]


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
