"""The results of a run, a line each, so that a run that was killed continues where it was.

A line counts only for the sources and tools that it was found with, and for the bug as it was written then.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .judging import Verdict
from .plant import Planted
from .tree import Sources

_TOOLS = ("torch", "triton", "numpy", "pytest", "hypothesis")


def state_of(files: Sources) -> str:
    """Return 32 hex digits that differ between two states of the sources, or of the tools that test them."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(sys.version.encode())
    for tool in _TOOLS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            digest.update(f"{tool} {importlib.metadata.version(tool)}\n".encode())
    for name in sorted(files):
        digest.update(hashlib.blake2b(name.encode()).digest() + hashlib.blake2b(files[name]).digest())
    return digest.hexdigest()


class Record:
    """The verdicts and the tests that pass, in a file of JSON lines.

    Args:
        path: the file; its lines of another state are dropped.
        state: the present state, from `state_of`.
        fresh: True to drop all lines.
    """

    def __init__(self, path: Path, state: str, fresh: bool = False) -> None:
        self._path = path
        self._state = state
        self._lock = threading.Lock()
        self._lines = [] if fresh else [line for line in _lines(path) if line.get("state") == state]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in self._lines), encoding="utf-8")

    def verdict(self, plant: Planted) -> Verdict | None:
        """Return the verdict on a bug that was caught or missed before; None if there is none."""
        # JSON makes lists of tuples, so the bug goes through JSON before it is compared.
        wanted = json.loads(json.dumps(asdict(plant)))
        for line in self._lines:
            if line.get("plant") == wanted:
                return Verdict(line["outcome"])
        return None

    def passes(self, test: str) -> bool:
        """Return True if a test has passed without a bug before."""
        return any(line.get("passes") == test for line in self._lines)

    def note_verdict(self, plant: Planted, verdict: Verdict) -> None:
        """Note a bug that was caught or missed. Other outcomes are not kept, so the bug is judged again."""
        if verdict.outcome in ("caught", "missed"):
            self._append({"plant": asdict(plant), "outcome": verdict.outcome})

    def note_pass(self, test: str) -> None:
        self._append({"passes": test})

    def _append(self, line: dict[str, Any]) -> None:
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"state": self._state, **line}) + "\n")


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of the file that are complete."""
    found = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        with contextlib.suppress(ValueError):  # a line was cut off when the run was killed
            found.append(json.loads(text))
    return found
