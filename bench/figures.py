"""The record of what each picture was drawn from: docs/figures.json, by which a stale one is found.

A picture is stale when its file, or a file that it was drawn from, is no longer the one that was recorded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from . import files
from .provenance import ROOT

RECORD = "docs/figures.json"
PICTURES = (".png", ".svg", ".webp")

Recorded = dict[str, dict[str, str]]
"""By picture, the digest of itself and of each file that it was drawn from; paths from the root."""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else "missing"


def _recorded(root: Path) -> Recorded:
    path = root / RECORD
    found: Recorded = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def record(drawn: Mapping[str, Iterable[str]], root: Path = ROOT) -> None:
    """Note that each picture is as it should be, given the files that it was drawn from; forget those that are gone."""
    known = {picture: digests for picture, digests in _recorded(root).items() if (root / picture).exists()}
    for picture, sources in drawn.items():
        known[picture] = {name: _digest(root / name) for name in (picture, *sorted(sources))}
    files.replace(root / RECORD, json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def complaints(root: Path = ROOT) -> list[str]:
    """Return what is stale, missing or not recorded, a line each."""
    known = _recorded(root)
    pictures = {path.relative_to(root).as_posix() for path in (root / "docs").rglob("*") if path.suffix in PICTURES}
    lines = [
        f"{picture}: not in {RECORD} (python -m bench record says how to add it)" for picture in pictures - set(known)
    ]
    for picture, digests in known.items():
        lines += [
            f"{picture}: {name} is not what it was when the picture was drawn"
            for name, digest in digests.items()
            if _digest(root / name) != digest
        ]
    return sorted(lines)
