"""Tests of where a run keeps its images: a line reports the place, and no result depends on it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ebgan_fast.data import PackedImages, residence, training_set
from ebgan_fast.models import Conv, Mlp
from ebgan_fast.training import TrainConfig, train
from ebgan_fast.training.step import Trainer

from ..data.layouts import pack
from .helpers import CutOff, assert_same_run, cut_off_after
from .test_conv_runs import blobs, small

pytestmark = pytest.mark.usefixtures("no_curves")

SIZE = 40 * 3 * 16 * 16
SMALL = Mlp(z_dim=4, n_layer_g=2, size_g=8, size_d=8)
SMALL_CONV = Conv("(4)4c-(4)4c2s-(3)4c2s", "4-1", "(4)4c2s", "(3)4c2s")


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    pack(tmp_path / "packed", blobs().gather(torch.arange(40)), [15, 25])
    return tmp_path / "packed"


def run_of(out: Path, packed: Path, **fields: Any) -> TrainConfig:
    run = small(data=packed, flip=True, steps=12, checkpoint_every=4, threads=1, **fields)
    return TrainConfig(**{**{name: getattr(run, name) for name in run.__dataclass_fields__}, "out": out})


def give(patch: pytest.MonkeyPatch, free: int) -> None:
    """Let the CPU act as a device that has its own memory, with `free` bytes free."""
    patch.setattr(residence, "free_memory", lambda device: free)


def reads_ahead(patch: pytest.MonkeyPatch) -> set[bool]:
    """Record at each step if a thread reads the images. Return the set of values seen."""
    seen: set[bool] = set()
    original = Trainer.step

    def noted(trainer: Trainer) -> None:
        original(trainer)
        seen.add(trainer.batches.reads_ahead)

    patch.setattr(Trainer, "step", noted)
    return seen


def test_a_run_goes_on_where_its_images_are_elsewhere(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run goes on, bit for bit, if its images move between device and disk. It equals a run from disk that was never
    cut off.
    """
    train(run_of(tmp_path / "whole", packed, networks=SMALL_CONV))
    for first in (True, False):  # first on the device and then on the disk, and the other way
        cut = run_of(tmp_path / f"cut {first}", packed, networks=SMALL_CONV)
        for part, there in enumerate([first, not first]):
            with monkeypatch.context() as patch:
                seen = reads_ahead(patch)
                if there:
                    give(patch, 4 * SIZE)
                if part == 0:
                    cut_off_after(patch, 6)
                    with pytest.raises(CutOff):
                        train(cut)
                else:
                    train(cut, resume=True)
            assert seen == {not there}
        assert_same_run(cut.out, tmp_path / "whole")


@pytest.mark.parametrize(
    ("free", "line"),
    [
        (4 * SIZE, "images: 0.0 MB on cpu"),
        (4 * SIZE - 1, "images: 0.0 MB read in the background, more than a quarter of the 0.1 MB free on cpu"),
        (None, None),
    ],
)
def test_a_run_says_where_its_images_are(
    packed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    free: int | None,
    line: str | None,
) -> None:
    if free is not None:
        give(monkeypatch, free)
    seen = reads_ahead(monkeypatch)
    train(run_of(tmp_path / "run", packed, networks=SMALL))
    said = [text for text in capsys.readouterr().out.splitlines() if text.startswith("images")]
    assert said == ([] if line is None else [line])
    assert seen == {free != 4 * SIZE}


def test_the_search_for_a_margin_takes_the_same_images(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search for a margin and the run share the images, which are loaded once."""
    give(monkeypatch, 4 * SIZE)
    read: list[int] = []
    gather = PackedImages.gather

    def noted(packed: PackedImages, indices: Tensor, out: Tensor | None = None) -> Tensor:
        read.append(len(indices))
        return gather(packed, indices, out)

    monkeypatch.setattr(PackedImages, "gather", noted)
    train(run_of(tmp_path / "run", packed, margin="auto", margin_auto_steps=3, networks=SMALL))
    assert read == [40]


def test_a_long_load_says_how_far_it_is(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, 4 * SIZE)
    monkeypatch.setattr(residence, "on_device", functools.partial(residence.on_device, piece=10 * 768))
    clock = iter([0.0, 4.0, 6.0, 6.0, 10.0])
    monkeypatch.setattr(training_set.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(training_set, "amount_text", str)
    said: list[str] = []
    training_set.settled(PackedImages(packed), torch.device("cpu"), said.append)
    assert said == [f"images: {20 * 768} of {SIZE} on cpu", f"images: {SIZE} on cpu"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(2_400_000, "2.4 MB"), (193_491_456, "193 MB"), (999_400_000, "999 MB"), (2_489_413_632, "2.5 GB")],
)
def test_amounts(count: int, text: str) -> None:
    assert training_set.amount_text(count) == text
