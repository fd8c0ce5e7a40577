"""Rows as a table on a terminal: with lines and color there, plain text in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

from rich import box
from rich.console import Console
from rich.table import Table

from . import cells
from .rows import Result, Row

_COLORS = {"wrong": "red", "behind": "yellow", None: None}


def conditions(rows: Sequence[Result]) -> list[str]:
    """The conditions that all the figures have in common; more than one line where rows of several runs meet."""
    lines: dict[str, None] = {}
    for row in rows:
        versions = row.versions
        rounds = f"median of {row.rounds} rounds; " if isinstance(row, Row) else ""
        lines[
            f"{row.processor}, {row.isa}; torch {versions['torch']}, Python {versions['python']}, "
            f"{versions['compiler']}; ebgan_fast {versions['ebgan_fast']}, source {row.source_hash}; "
            f"freed memory {row.memory}; {rounds}{row.run[:10]}"
        ] = None
    return list(lines)


def show(rows: Sequence[Result], file: IO[str] | None = None) -> None:
    """Print rows of one command to `file`, by default standard output."""
    found = cells.of(rows)
    console = Console(file=file, highlight=False)
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, title in enumerate(found.titles):
        table.add_column(title, justify="left" if index in found.words else "right", no_wrap=True)
    for line, mark in zip(found.lines, found.marks, strict=True):
        table.add_row(*line, style=_COLORS[mark])
    # A line too long for the window is better than a number cut short.
    console.width = max(console.width, console.measure(table, options=console.options.update(width=900)).maximum)
    console.print(table)
    for line in (*found.notes, *conditions(rows)):
        console.print(line, soft_wrap=True)
