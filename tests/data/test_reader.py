"""The processes that decode images: their settings of Pillow, formats unknown to them, and the tasks ahead."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageFile

from ebgan_fast.data import DataError, PackedImages
from ebgan_fast.data.prepare import prepare_images
from ebgan_fast.data.reader import Reader
from ebgan_fast.data.sources.names import image_formats, image_suffixes

from . import layouts

SIZE = 8


def test_workers_have_the_settings_of_the_one_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers have the caller's settings of Pillow, so that the result doesn't depend on their number."""
    source = layouts.folder(tmp_path / "images")
    whole = layouts.encoded(layouts.picture(0))
    (source / "000.png").write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for workers in (1, 2):
        assert prepare_images(source, tmp_path / f"all{workers}", SIZE, workers=workers).images == 7
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for workers in (1, 2):
        with pytest.raises(DataError, match=r"none could be read \(7 tried\)"):
            prepare_images(source, tmp_path / f"none{workers}", SIZE, workers=workers)


def test_formats_that_a_program_has_taught_pillow_are_decoded_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may register a format, as pillow_heif does. Other processes don't know the format."""

    class Own(ImageFile.ImageFile):
        format = "OWN"

        def _open(self) -> None:
            self._size, self._mode = (9, 9), "L"

        def load(self) -> Any:
            return Image.Image.load(self)

    image_formats()
    for registry in ("OPEN", "ID", "EXTENSION"):
        monkeypatch.setattr(Image, registry, copy.copy(getattr(Image, registry)))
    Image.register_open("OWN", lambda *args: Image.new("L", (9, 9), 7), lambda head: head.startswith(b"own"))
    Image.register_extension("OWN", ".own")
    image_formats.cache_clear()
    image_suffixes.cache_clear()
    try:
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "a.own").write_bytes(b"own")
        assert prepare_images(tmp_path / "images", tmp_path / "out", SIZE, workers=2).images == 1
    finally:
        image_formats.cache_clear()
        image_suffixes.cache_clear()
    assert PackedImages(tmp_path / "out").gather(torch.arange(1)).unique().tolist() == [7]


def test_no_more_answers_wait_than_keep_the_workers_busy(tmp_path: Path) -> None:
    """At most 12 of 480 tasks are sent ahead; otherwise all pixels of a shard would wait in memory."""
    asked = 0

    class Source:
        def __len__(self) -> int:
            return 16 * 480

    reader = Reader(Source(), SIZE, 2)  # type: ignore[arg-type]

    def ask(task: range) -> list[Any]:
        nonlocal asked
        asked += 1
        return list(task)

    reader._ask = ask  # type: ignore[method-assign, assignment]
    given = reader.read(range(16 * 480))
    assert next(given) == 0  # type: ignore[comparison-overlap]
    assert asked <= 12
    assert list(given) == list(range(1, 16 * 480))
    assert asked == 480
