"""Write an array of images in each format, and check that a file is refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from ebgan_fast.data import DataError
from ebgan_fast.data.sources.arrays import open_array

Array = NDArray[Any]


def images(*shape: int) -> Array:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def npy(path: Path, array: Array) -> Path:
    np.save(path / "a.npy", array)
    return path / "a.npy"


def npz(path: Path, array: Array) -> Path:
    np.savez(path / "a.npz", labels=np.arange(3), images=array)
    return path / "a.npz"


def compressed(path: Path, array: Array) -> Path:
    np.savez_compressed(path / "a.npz", images=array)
    return path / "a.npz"


def contiguous(path: Path, array: Array) -> Path:
    with h5py.File(path / "a.h5", "w") as file:
        file["images"] = array
    return path / "a.h5"


def chunked(path: Path, array: Array) -> Path:
    with h5py.File(path / "a.h5", "w", userblock_size=1024) as file:
        chunks = (min(3, len(array)), *(max(1, side // 2) for side in array.shape[1:]))
        file.create_dataset("images", data=array, chunks=chunks, compression="gzip", shuffle=True)
    return path / "a.h5"


WAYS = [npy, npz, compressed, contiguous, chunked]
Way = Callable[[Path, Array], Path]


def refused(words: str, path: Path, column: str | None = None) -> None:
    with pytest.raises(DataError, match=words) as error:
        open_array(path, column)
    assert str(error.value).startswith(f"{path}: got ")
    assert "expected" in str(error.value)
    assert str(error.value).isprintable()


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()
