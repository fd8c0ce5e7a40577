"""Seven images of noise, written in every layout that users have."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import lmdb
import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from PIL import Image

from ebgan_fast.data.packed import INDEX, Shard, digest_of, index_text

NAMES = [f"{number:03d}" for number in range(7)]


def picture(number: int, width: int = 21, height: int = 17) -> Image.Image:
    """Return an image of noise, another one for each number."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """Return the bytes of an image in a format of Pillow; WebP is written without loss."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


def contents(kind: str = "PNG") -> dict[str, bytes]:
    return {name: encoded(picture(number), kind) for number, name in enumerate(NAMES)}


def folder(path: Path) -> Path:
    path.mkdir()
    for name, content in contents().items():
        (path / f"{name}.png").write_bytes(content)
    return path


def nested(path: Path) -> Path:
    """Write folders like CelebA's and ImageNet's, with a file of attributes and with hidden files."""
    for number, (name, content) in enumerate(contents().items()):
        place = path / "img_align_celeba" / f"n{number // 3}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.PNG").write_bytes(content)
        (place / f"._{name}.png").write_bytes(b"a Mac's leftovers")
    (path / ".thumbnails").mkdir()
    (path / ".thumbnails" / "a.png").write_bytes(b"hidden")
    (path / "list_attr_celeba.txt").write_text("7\nSmiling\n")
    return path


def zipped(path: Path) -> Path:
    """Write a zip like StyleGAN's and EDM's, its images in the reverse order of their names."""
    path = path.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("dataset.json", "{}")
        for name, content in reversed(contents().items()):
            file.writestr(f"{name[:2]}/img{name}.png", content)
    return path


def parquet(path: Path) -> Path:
    """Write two parquet files like those of Hugging Face's datasets, with row groups of two images."""
    path.mkdir()
    rows = [{"image": {"bytes": content, "path": name}, "label": 3} for name, content in contents().items()]
    for number, part in enumerate((rows[:5], rows[5:])):
        table = pyarrow.Table.from_pylist(part)
        pyarrow.parquet.write_table(table, path / f"train-{number:05d}-of-00002.parquet", row_group_size=2)
    return path


def tars(path: Path) -> Path:
    """Write two tars like webdataset's, in which each sample has a label and a second image."""
    path.mkdir()
    pairs = list(contents().items())
    for number, part in enumerate((pairs[:4], pairs[4:])):
        with tarfile.open(path / f"shard-{number:06d}.tar", "w") as tar:
            for name, content in part:
                members = ((f"{name}.cls", b"3"), (f"{name}.png", content), (f"{name}.mask.png", b"not this one"))
                for member, data in members:
                    info = tarfile.TarInfo(member)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return path


def lsun(path: Path) -> Path:
    """Write an LMDB like LSUN's, of WebP images under keys that end like hashes."""
    path.mkdir()
    with lmdb.open(str(path), map_size=1 << 24) as database, database.begin(write=True) as writing:
        for name, content in contents("WEBP").items():
            writing.put(f"{name}cafe".encode(), content)
    return path


def pack(path: Path, images: torch.Tensor, counts: Sequence[int]) -> None:
    """Write images [M, C, H, W] as `prepare` packs them; shard i has counts[i] images."""
    path.mkdir()
    shards = []
    for number, part in enumerate(images.split(list(counts))):
        file = path / f"shard_{number:05d}.bin"
        file.write_bytes(part.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
        shards.append(Shard(file.name, len(part), digest_of(file)))
    channels, height, width = images.shape[1:]
    (path / INDEX).write_text(index_text((channels, height, width), shards, []))


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "folder": folder,
    "nested folders": nested,
    "zip": zipped,
    "parquet": parquet,
    "webdataset": tars,
    "lsun": lsun,
}
