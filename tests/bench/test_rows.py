"""Rows on disk: nothing lost on the way, the file replaced whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench import rows
from bench.rows import Row


def test_rows_come_back_as_they_went(make_row: Callable[..., Row], tmp_path: Path) -> None:
    written = [make_row(), make_row(rate=None, seconds={}, wrong={"ebgan_fast": "loss is off"}, threads=2)]
    path = tmp_path / "new" / "rows.jsonl"
    rows.write(written, path)
    assert rows.read(path) == written
    assert len(path.read_text().splitlines()) == 2


def test_a_failed_replacement_leaves_the_old_file_and_nothing_else(
    make_row: Callable[..., Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("earlier\n")

    def interrupted(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rows.write([make_row()], path)
    assert path.read_text() == "earlier\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"{}\n", b"[1]\n", b"not json\n", b"\xff\xfe"])
def test_what_is_no_row_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.jsonl.* got .*bench ops"):
        rows.read(path)


def test_a_target_is_missed_by_less_than_it_only(make_row: Callable[..., Row]) -> None:
    assert rows.missed(3.7, 3.8)
    assert not rows.missed(3.8, 3.8)
    assert not rows.missed(None, 3.8)
    assert not rows.missed(0.5, None)
