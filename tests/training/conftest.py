"""Fixtures for small runs: a folder of synthetic digits, networks of a few neurons, one thread."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ebgan_fast.models import Mlp
from ebgan_fast.training import session, train
from ebgan_fast.training.config import TrainConfig

from ..data.layouts import pack
from .helpers import bars, write_idx
from .scoring import PixelNet, scored, take_pixels
from .test_conv_runs import blobs

Configure = Callable[..., TrainConfig]


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    write_idx(folder, bars(50, seed=0))
    return folder


@pytest.fixture
def configure(tmp_path: Path, digits_folder: Path) -> Configure:
    """Return a function that makes configs of small runs. They use batch norm, dropout, an average and schedules, which
    all have a state.
    """
    return configuring(tmp_path / "run", digits_folder)


def configuring(out: Path, digits_folder: Path) -> Configure:
    def make(**fields: Any) -> TrainConfig:
        small: dict[str, Any] = {
            "out": out,
            "data": digits_folder,
            "steps": 20,
            "batch_size": 8,
            "margin_schedule": "cosine",
            "margin_end": 2.0,
            "lr_decay": "linear",
            "ema": 0.9,
            "log_every": 4,
            "sample_every": 1000,
            "checkpoint_every": 6,
            "threads": 1,
            "device": "cpu",
        }
        sizes: dict[str, Any] = {
            "z_dim": 4,
            "n_layer_g": 3,
            "size_g": 16,
            "n_layer_d": 3,
            "size_d": 12,
            "dropout_d": True,
        }
        sizes |= {name: fields.pop(name) for name in sizes if name in fields}
        return TrainConfig(**{"networks": Mlp(**sizes), **small, **fields})

    return make


def leave_out_curves(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(session, "save_curves", lambda lines, path, title: None)


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no curves, which takes half a second each time."""
    leave_out_curves(monkeypatch)


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Run each test on one thread."""


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory, digits_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        leave_out_curves(patch)
        result = train(configuring(folder, digits_folder)())
    assert (result.step, result.stopped_by) == (20, None)
    return folder


@pytest.fixture
def whole(_trained: Path, tmp_path: Path) -> Path:
    """Return the test's own copy of a run of 20 steps that was never interrupted. It is trained once for all tests."""
    return shutil.copytree(_trained, tmp_path / "whole")


@pytest.fixture
def pixel_net(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PixelNet:
    """Let runs score themselves by this small feature net, with a cache of the test's own."""
    net = PixelNet()
    take_pixels(monkeypatch, net, tmp_path / "cache")
    return net


@pytest.fixture(scope="session")
def packed_blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of blobs as `prepare` packs images. Tests only read it."""
    folder = tmp_path_factory.mktemp("blobs") / "packed"
    pack(folder, blobs().gather(torch.arange(40)), [40])
    return folder


@pytest.fixture(scope="session")
def whole_scored(packed_blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a scored run of 8 steps that was never interrupted. Tests only read it."""
    place = tmp_path_factory.mktemp("scored")
    with pytest.MonkeyPatch.context() as patch:
        leave_out_curves(patch)
        take_pixels(patch, PixelNet(), place / "cache")
        train(scored(place / "whole", packed_blobs, steps=8))
    return place / "whole"
