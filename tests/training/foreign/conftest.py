"""Fixtures of a small run whose checkpoint the tests replace, and of the error of loading that checkpoint."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ebgan_fast.training import TrainConfig, load_generator, train

from ...limited_memory import Fork, error_within
from ..conftest import configuring

Refusal = Callable[[], str]

_ROOM = 1 << 30  # bytes; more than any of the files needs, and less than the 4 GB or more that a harmful file asks for


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits_folder: Path) -> tuple[Path, TrainConfig]:
    """Return a run's folder, which every test copies, and its config."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    config = dataclasses.replace(configuring(folder, digits_folder)(), steps=2, log_every=2, lr_decay="none")
    config = dataclasses.replace(config, margin_steps=2)
    train(config)
    return folder, config


@pytest.fixture
def run(trained: tuple[Path, TrainConfig], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained[0], tmp_path / "run"))


@pytest.fixture
def refusal(fork: Fork, run: Path) -> Refusal:
    """Return a function that loads the run's generator in little memory. It returns the error, which must come and name
    the file.
    """

    def refused() -> str:
        path = run / "checkpoint.pt"
        name, text = error_within(fork, _ROOM, load_generator, path)
        assert name == "CheckpointError", (name, text)
        assert text.startswith(f"{path}: got ")
        assert text.isprintable()
        assert len(text) < 600
        return text.removeprefix(f"{path}: ")

    return refused
