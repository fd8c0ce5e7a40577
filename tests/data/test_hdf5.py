"""HDF5 files are read by blocks, and no link leads out of a file."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from ebgan_fast.data import DataError
from ebgan_fast.data.sources import hdf5
from ebgan_fast.data.sources.arrays import open_array

from .array_files import chunked, contiguous, images, refused


def test_hdf5_is_read_in_blocks_of_whole_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = images(100, 8, 8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=array, chunks=(5, 8, 4), compression="gzip")
    asked: list[tuple[int, int]] = []
    get = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset, "__getitem__", lambda self, key: (asked.append((key.start, key.stop)), get(self, key))[1]
    )
    source = open_array(tmp_path / "a.h5")
    for index in range(100):
        assert np.array_equal(source.read(index), array[index])
    assert asked == [(start, start + 20) for start in range(0, 100, 20)]
    asked.clear()
    monkeypatch.setattr(hdf5, "_BLOCK_BYTES", 13 * 64)
    source = open_array(tmp_path / "a.h5")
    assert np.array_equal(source.read(99), array[99])
    assert asked == [(90, 100)]


@pytest.mark.parametrize("chunks", [(1, 1, 1, 1), (3, 4, 2, 1), (7, 11, 13, 3), (2, 11, 1, 3)])
def test_a_block_of_many_chunks_is_read_by_parts(
    chunks: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = images(7, 11, 13, 3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=array, chunks=chunks)
    for most in (1, 2, 5, 100):
        monkeypatch.setattr(hdf5, "_MOST_CHUNKS", most)
        source = open_array(tmp_path / "a.h5")
        assert all(np.array_equal(source.read(index), array[index]) for index in range(7))


def test_hdf5_is_not_left_by_its_links(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "private.h5", "w") as file:
        file["images"] = images(2, 8, 8)
    (tmp_path / "raw").write_bytes(bytes(1000))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["link"] = h5py.ExternalLink("private.h5", "/images")
        file["group"] = h5py.ExternalLink("private.h5", "/")
        file["soft"] = h5py.SoftLink("/group/images")
        file.create_dataset("raw", (2, 8, 8), np.uint8, external=[(str(tmp_path / "raw"), 0, 128)])
        layout = h5py.VirtualLayout((2, 8, 8), np.uint8)
        layout[:] = h5py.VirtualSource("private.h5", "images", (2, 8, 8))
        file.create_virtual_dataset("virtual", layout)
        for name in ("link", "soft", "raw", "virtual"):
            assert file[name].shape == (2, 8, 8)  # h5py itself would follow the link
    refused("a file without arrays", tmp_path / "a.h5")
    for name in ("link", "group/images", "soft"):
        refused("in another file .*private.h5", tmp_path / "a.h5", name)
    for name in ("raw", "virtual"):
        refused("with values in other files", tmp_path / "a.h5", name)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["own"] = images(2, 8, 8)
    assert set(open_array(tmp_path / "a.h5").aside.texts()) == {
        "2 datasets of other files (raw, virtual)",
        "2 links to other files (group, link)",
    }


def test_hdf5_links_that_form_a_loop(tmp_path: Path) -> None:
    array = images(2, 8, 8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one/two/images"] = array
        file["one/two/up"] = file["one"]
        file["one/root"] = file["/"]
        file["second name"] = file["one/two/images"]
        file["soft"] = h5py.SoftLink("one/two/up/two/images")
        file["one/relative"] = h5py.SoftLink("two")
        file["round"] = h5py.SoftLink("/round")
        file["there"], file["back"] = h5py.SoftLink("/back/x"), h5py.SoftLink("/there/x")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["type"] = np.dtype("u1")
    assert len(open_array(tmp_path / "a.h5")) == 2
    for name in ("soft", "one/relative/images", "one/two/up/two/up/two/images", "second name"):
        assert np.array_equal(open_array(tmp_path / "a.h5", name).read(1), array[1])
    for name in ("round", "there", "dangling", "type", "one", "", "one/two/images/x"):
        refused("got no array", tmp_path / "a.h5", name)


def test_hdf5_that_cannot_be_read_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = chunked(tmp_path, images(9, 8, 8))
    with monkeypatch.context() as patch:
        patch.setattr(h5py.h5z, "filter_avail", lambda code: False)
        refused("packed by the filter shuffle, which HDF5 lacks", path)
    source = open_array(path)
    contiguous(tmp_path, images(9, 8, 9))
    with pytest.raises(DataError, match="changed since it was opened"):
        source.read(0)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"HDF5 file needs the package h5py: pip install 'ebgan_fast\[data\]'"):
        open_array(path)


def test_sizes_that_a_file_only_claims(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", (2, 10**6, 10**6, 3), np.uint8, chunks=(1, 512, 512, 3))
        file.create_dataset("chunk", (1000, 2048, 2048, 1), np.uint8, chunks=(1000, 2048, 2048, 1))
    refused("images of 1000000000000 pixels", tmp_path / "a.h5", "images")
    refused("in chunks of 4194304000 bytes, expected at most.*h5repack", tmp_path / "a.h5", "chunk")
