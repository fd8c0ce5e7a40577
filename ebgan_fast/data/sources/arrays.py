from pathlib import Path

from .source import Source


def open_array(path: Path, column: str | None = None) -> Source:
    raise NotImplementedError


def open_batch(path: Path) -> Source:
    raise NotImplementedError
