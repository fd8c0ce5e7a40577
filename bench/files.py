"""Files that are written to: checked minutes before anything is, and replaced whole."""

from __future__ import annotations

import os
from pathlib import Path


def check_replaceable(path: Path, name: str) -> None:
    """Raises ValueError naming the argument."""
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise ValueError(f"{name}: got {path}, expected a file in a folder that exists and can be written to")


def check_appendable(path: Path, name: str) -> None:
    """Raises ValueError naming the argument."""
    check_replaceable(path, name)
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f"{name}: got {path}, expected a file that can be written to")


def replace(path: Path, text: str) -> None:
    """A reader or an interruption never meets half of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
