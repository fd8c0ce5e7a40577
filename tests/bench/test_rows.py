"""Rows come back from the disk as they were, and runs are told apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from bench.results import rows
from bench.results.rows import Row


def test_rows_come_back_as_they_went(make_row: Callable[..., Row], tmp_path: Path) -> None:
    row = make_row()
    point = rows.ScalingRow(**vars(row), axis="N", value=8, fixed="d = 32", expected={"eager": 2.0})
    peak = rows.MemoryRow(
        **{field.name: getattr(row, field.name) for field in fields(rows.CaseResult)},
        inputs=10,
        gradients=5,
        peak={"eager": 20},
    )
    written = [row, make_row(rate=None, seconds={}, wrong={"ebgan_fast": "loss is off"}, threads=2), point, peak]
    written.append(rows.LatencyRow(**vars(row)))
    path = tmp_path / "new" / "rows.jsonl"
    rows.append_all(written, path)
    assert rows.read(path) == written
    assert len(path.read_text().splitlines()) == len(written)


def test_rows_from_before_a_field_was_added_are_read(make_row: Callable[..., Row], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows.append_all(
        [make_row(tf32={"matmul": True, "cudnn": True}, first_call={"eager": 1.0}, peak={"eager": 5})], path
    )
    later = json.loads(path.read_text())
    path.write_text(json.dumps({key: later[key] for key in later.keys() - {"tf32", "first_call", "peak", "backend"}}))
    (old,) = rows.read(path)
    assert isinstance(old, Row)
    assert (old.tf32, old.first_call, old.peak, old.backend) == (None, None, None, None)


def test_files_grow_and_the_last_run_is_told_apart(make_row: Callable[..., Row], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for run in ("Monday", "Tuesday"):
        rows.append_all([make_row(run=run, shape=shape) for shape in ("8x32", "9x32")], path)
    assert [row.run for row in rows.read(path)] == ["Monday"] * 2 + ["Tuesday"] * 2
    assert [(row.run, row.shape) for row in rows.last_run(rows.read(path))] == [
        ("Tuesday", "8x32"),
        ("Tuesday", "9x32"),
    ]


def test_a_spread_leaves_out_a_fifth_at_each_end() -> None:
    assert rows.spread([5.0, 1.0, 2.0, 4.0, 3.0, 100.0]) == (2.0, 3.5, 5.0)
    assert rows.spread([7.0]) == (7.0, 7.0, 7.0)


@pytest.mark.parametrize(
    "content", [b"", b"{}\n", b"[1]\n", b'{"kind": "ops"}\n', b'{"kind": "other"}\n', b"not json\n", b"\xff\xfe"]
)
def test_what_is_no_row_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.jsonl.* got .*bench"):
        rows.read(path)


def test_a_target_is_missed_by_less_than_it_only(make_row: Callable[..., Row]) -> None:
    def missed(ratio: float, **targets: float) -> bool:
        return make_row(ratio={"eager": rows.spread([ratio])}, targets=targets).missed("eager")

    assert missed(3.7, eager=3.8)
    assert not missed(3.8, eager=3.8)
    assert not missed(0.5)
    assert not make_row(ratio={}, targets={"eager": 3.8}).missed("eager")
