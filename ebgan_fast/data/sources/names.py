"""Rules about names: they say if a file is an image, a set of images, or hidden, and to which split it belongs."""

from __future__ import annotations

import functools
import os
import re
from typing import Literal, get_args

from PIL import Image

Kind = Literal["images", "parquet", "tar", "zip", "lmdb", "arrays"]
"""The kind of a file. The kind "images" means files of one image each; files of the other kinds hold many images.

The kind "arrays" means .npy, .npz, HDF5 and CIFAR's batches.
"""

KINDS: tuple[Kind, ...] = get_args(Kind)

NOUNS: dict[Kind, str] = {
    "images": "images",
    "parquet": "parquet files",
    "tar": "tars",
    "zip": "zips",
    "lmdb": "LMDBs",
    "arrays": "arrays",
}
"""The words for files of each kind in a message."""

SUFFIX_KINDS: dict[str, Kind] = {
    ".parquet": "parquet",
    ".tar": "tar",
    ".zip": "zip",
    ".npy": "arrays",
    ".npz": "arrays",
    ".h5": "arrays",
    ".hdf": "arrays",
    ".hdf5": "arrays",
    ".lmdb": "lmdb",
}
COMPRESSED = frozenset({".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".gz", ".7z", ".rar"})
"""Suffixes of archives that can't be read image by image."""

# Formats that Pillow names and that aren't taken for images: Pillow passes PostScript to another program; of the others
# it knows only the name, or it only writes them.
_NO_IMAGES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"})

_HEADS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8|RIFF....WEBP|BM....\0\0\0\0|II\*\0|MM\0\*|....ftyp(avif|avis)|\0\0\0\x0cjP  "
    rb"|\xff\x4f\xff\x51",
    re.DOTALL,
)
HEAD_BYTES = 64
"""The first bytes of a file that suffice to recognize an image."""

_BATCH = re.compile(r"((train_)?data_batch(_\d+)?|test_batch|train|test|val_data)")  # CIFAR, and downsampled ImageNet

# The word of a split in a path, as Hugging Face's datasets finds it, and its other forms.
_SPLIT = re.compile(
    r"(?:^|[-._ 0-9])(train(?:ing)?|test(?:ing)?|val(?:id(?:ation)?)?|dev|eval(?:uation)?)(?=[-._ 0-9]|$)",
    re.IGNORECASE,
)
_OF_A_SET = frozenset({"", "data", "dataset", "images", "image", "imgs", "img", "photos", "pictures", "set", "split"})
_SHARD_OF = re.compile(r"(\w+(?:\.\w+)*)-\d{5}-of-\d{5}\b")  # train-00000-of-00005.parquet
_WORDS = {"training": "train", "testing": "test", "val": "validation", "valid": "validation", "dev": "validation"}
_WORDS |= {"eval": "test", "evaluation": "test"}


@functools.cache
def image_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that it can decode as it is installed here, the usual ones first."""
    Image.preinit()
    Image.init()
    return tuple(name for name in Image.ID if name in Image.OPEN and name not in _NO_IMAGES)


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes, lower case and with the dot, of files that Pillow can decode as it is installed here."""
    formats = {*image_formats(), "MPO"}  # Pillow opens an MPO as the JPEG with which it begins
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name in lower case, or "" if there is none or it is a number.

    Two suffixes such as ".tar.gz" are returned as one.
    """
    stem, suffix = os.path.splitext(name.rpartition("/")[2].lower())
    if suffix[1:].isdecimal():  # as in frame.0001
        return ""
    if stem.endswith(".tar") and suffix not in SUFFIX_KINDS:
        return f".tar{suffix}"
    return suffix


def is_image(name: str) -> bool:
    """Return True if a name has the suffix of an image that Pillow can decode."""
    return suffix_of(name) in image_suffixes()


def looks_like_image(head: bytes) -> bool:
    """Return True if a file with these first `HEAD_BYTES` begins like an image. Used for files without a suffix."""
    return _HEADS.match(head) is not None


def is_hidden(name: str) -> bool:
    """Return True if any part of a path within a set begins with a dot, or is the folder that a Mac adds to a zip."""
    return any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in name.split("/"))


def is_batch(name: str) -> bool:
    """Return True if a file has the name of one of CIFAR's batches."""
    return _BATCH.fullmatch(name.rpartition("/")[2]) is not None


def split_of(name: str, kind: Kind) -> str | None:
    """Return the split to which a file belongs: "train", "test", "validation" or another word; None if there is none.

    The split of an image is read from its folders alone, not from its own name: "train" may be what the image shows.

    Args:
        name: the file's path within the set.
        kind: the kind of the file.
    """
    *folders, base = name.split("/")
    if kind == "images":
        return next((word for folder in folders if (word := _split_of_folder(folder))), None)
    if kind == "arrays" and is_batch(base) and "test" not in base and "val" not in base:
        return "train"
    if found := _SHARD_OF.match(base):
        return _word(found[1])
    for part in (base, *folders):
        if found := _SPLIT.search(part):
            return _word(found[1])
    return None


def _split_of_folder(name: str) -> str | None:
    """Return the split of a folder such as seg_train, val2017 or test_images; None for test_tube, which is a class."""
    *others, last = (word.rstrip("0123456789") for word in re.split("[-._ ]+", name))
    if _SPLIT.fullmatch(last):
        return _word(last)
    first, *others = *others, last
    return _word(first) if _SPLIT.fullmatch(first) and _OF_A_SET.issuperset(map(str.lower, others)) else None


def _word(found: str) -> str:
    return _WORDS.get(found.lower(), found.lower() if found.lower() in ("train", "test", "validation") else found)
