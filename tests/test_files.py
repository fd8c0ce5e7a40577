from __future__ import annotations

from pathlib import Path

import pytest

from ebgan_fast._files import content_of, replacing, temporary_name

from .limited_memory import Fork, error_within, needs_linux


def write(path: Path) -> str:
    """Try to write a file, and return the file that the error names."""
    with pytest.raises(OSError) as caught, replacing(path) as file:  # noqa: PT011  each system has its own
        file.write(b"new")
    return str(caught.value.filename)


def test_an_error_names_the_file_that_the_user_knows(tmp_path: Path) -> None:
    assert write(tmp_path / "missing" / "a.bin") == str(tmp_path / "missing" / "a.bin")


def test_an_error_names_what_is_in_the_way(tmp_path: Path) -> None:
    """If a folder is in place of the partial file, the error names that folder, and the file itself stays as it was."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    temporary_name(path).mkdir()
    assert write(path) == str(temporary_name(path))
    assert path.read_bytes() == b"old"


@needs_linux
def test_a_small_file_asks_for_little_memory(fork: Fork, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"{}")
    assert error_within(fork, 64 << 20, content_of, tmp_path / "a.json", 1 << 30) == ("", "")


def test_all_of_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(256)) * 12_289)  # three whole pieces and a part of a fourth
    assert content_of(path, 1 << 30) == path.read_bytes()
    assert content_of(path, path.stat().st_size) == path.read_bytes()
