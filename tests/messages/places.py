"""Files for the cases: small sets of images, digits, packed images and runs. Each kind of run is trained once."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
import torch

from ebgan_fast import cli
from tests.data import archives, layouts

SMALL = ("--steps", "4", "--size-g", "8", "--size-d", "8", "--batch-size", "4", "--log-every", "2", "--device", "cpu")


def photos(folder: Path, count: int = 3) -> Path:
    """Make images/ with `count` pictures; return its name."""
    archives.pictures(folder / "images", count)
    return Path("images")


def idx(values: torch.Tensor) -> bytes:
    """Return the content of an IDX file that holds these values as bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.dim()]) + sizes + values.to(torch.uint8).numpy().tobytes()


def digits(folder: Path, count: int = 20) -> Path:
    """Make digits/ with the four IDX files, `count` images of noise in each part; return its name."""
    place = folder / "digits"
    place.mkdir()
    chance = torch.Generator().manual_seed(0)
    for part in ("train", "t10k"):
        images = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=chance)
        (place / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (place / f"{part}-labels-idx1-ubyte").write_bytes(idx(torch.arange(count) % 10))
    return Path("digits")


def packed(folder: Path, size: int = 32, count: int = 8, channels: int = 3) -> Path:
    """Make packed/, images of noise in the form that `prepare` writes; return its name."""
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=chance)
    layouts.pack(folder / "packed", images, [count - count // 2, count // 2])
    return Path("packed")


def run_of_digits(folder: Path) -> Path:
    """Make digits/, and run/ that was trained on them; return the run's name."""
    return _copied("digits", folder)


def run_of_images(folder: Path) -> Path:
    """Make packed/, and run/ that was trained on it; return the run's name."""
    return _copied("packed", folder)


def _copied(kind: str, folder: Path) -> Path:
    made = _trained(kind)
    shutil.copytree(made / "run", folder / "run")
    shutil.copytree(made / kind, folder / kind)
    return Path("run")


@functools.cache
def _trained(kind: str) -> Path:
    """Train a run on data of a kind; return the folder with both.

    The run knows its data by a relative name, which each case's folder has too.
    """
    kept = Path(tempfile.mkdtemp(prefix="messages")).resolve()
    atexit.register(shutil.rmtree, kept, ignore_errors=True)
    place = kept / "here"
    place.mkdir()
    {"digits": digits, "packed": packed}[kind](place)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.chdir(place)
        patch.setattr(cli, "keep_freed_memory", lambda: True)
        assert cli.main(["train", "--out", "run", "--data", kind, *SMALL]) == 0
    return place.rename(kept / "moved")  # so that a run finds no data but those of the case


def text(folder: Path, name: str, content: str = "no such thing\n") -> Path:
    """Make a text file and its folders; return its name."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)
    return Path(name)


def killed(*arguments: object) -> None:
    """Kill this process as the system kills one that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)
