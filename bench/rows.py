"""One measured case as a line of JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import files
from .provenance import Conditions

PACKAGE, EAGER, COMPILE = "ebgan_fast", "eager", "compile"


@dataclass(frozen=True, kw_only=True)
class Row(Conditions):
    op: str
    shape: str
    dtype: str
    threads: int
    device: str = "cpu"
    """The type of torch's device."""
    watch: str = "called"
    """"called" as a program does, or "replayed" from a CUDA graph, without the calls."""
    memory: str
    """"kept": the allocator keeps freed memory mapped; "returned": as the system does by default."""
    seconds: dict[str, float]
    """By provider, the minimum over rounds; none for a provider whose results are wrong."""
    median: dict[str, float]
    empty: float
    """Seconds of an autograd Function that only allocates these gradients: the calls alone."""
    ratio_eager: float | None
    ratio_compile: float | None
    unit: str
    rate: float | None
    """Useful work of ebgan_fast per second."""
    ceiling: dict[str, str | float]
    share: float | None
    """rate / ceiling."""
    target_eager: float | None
    target_compile: float | None
    rounds: int
    wrong: dict[str, str]
    """By provider, why it got no time."""

    @property
    def setting(self) -> str:
        """What else than case and dtype tells rows of one run apart."""
        if self.device == "cpu":
            return f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return self.watch


def missed(ratio: float | None, target: float | None) -> bool:
    return ratio is not None and target is not None and ratio < target


def write(rows: Iterable[Row], path: Path) -> None:
    """Replace the file."""
    files.replace(path, "".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows))


def append(row: Conditions, path: Path) -> None:
    """Add one line to the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(row)) + "\n")


def read(path: Path) -> list[Row]:
    """Raises ValueError for a line that is no row, or a file without any."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        for line in lines:
            rows.append(Row(**json.loads(line)))
    except (TypeError, ValueError):  # of names, of JSON or of UTF-8
        where = f"{path}, line {len(rows) + 1}"
        raise ValueError(f"{where}: got something else than a row that this version of `bench ops` wrote") from None
    if not rows:
        raise ValueError(f"{path}: got an empty file, expected rows that `bench ops` wrote")
    return rows
