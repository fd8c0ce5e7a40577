"""The rooms of bench import one another in one direction, as bench/__init__.py lists them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench
from bench.results.provenance import ROOT

ROOMS = re.findall(r"^\* `(\w+)`", bench.__doc__ or "", re.MULTILINE)


def _imported(path: Path) -> Iterator[str]:
    """Yield the rooms from which a module in a room imports, its own left out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 2:
            yield from [node.module.partition(".")[0]] if node.module else [alias.name for alias in node.names]


def test_every_room_is_listed() -> None:
    assert set(ROOMS) == {path.parent.name for path in (ROOT / "bench").glob("*/__init__.py")}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_from_rooms_above_it_alone(room: str) -> None:
    above = {"terminal", *ROOMS[: ROOMS.index(room)]} if room != "gpu" else set()
    for path in (ROOT / "bench" / room).glob("*.py"):
        assert set(_imported(path)) <= above, path
