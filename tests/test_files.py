from __future__ import annotations

from pathlib import Path

import pytest

from ebgan_fast._files import replacing, temporary_name


def write(path: Path) -> str:
    """The file that the error of writing one names."""
    with pytest.raises(OSError) as caught, replacing(path) as file:  # noqa: PT011  each system has its own
        file.write(b"new")
    return str(caught.value.filename)


def test_an_error_names_the_file_that_the_user_knows(tmp_path: Path) -> None:
    assert write(tmp_path / "missing" / "a.bin") == str(tmp_path / "missing" / "a.bin")


def test_an_error_names_what_is_in_the_way(tmp_path: Path) -> None:
    """That a folder lies in place of the partial file says nothing of the file."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    temporary_name(path).mkdir()
    assert write(path) == str(temporary_name(path))
    assert path.read_bytes() == b"old"
