"""The record docs/figures.json of the files that each picture was drawn from, which shows when a picture is stale.

A picture is stale if its file, or a file that it was drawn from, has changed since it was recorded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from ebgan_fast._files import replacing

from ..results.provenance import ROOT

RECORD = "docs/figures.json"
PICTURES = (".png", ".svg", ".webp")

Recorded = dict[str, dict[str, str]]
"""The digest of each picture, and of each file that it was drawn from, by picture. Paths are from the root."""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else "missing"


def _recorded(root: Path) -> Recorded:
    path = root / RECORD
    found: Recorded = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def record(drawn: Mapping[str, Iterable[str]], root: Path = ROOT) -> None:
    """Note that pictures are up to date, and forget those that no longer exist.

    Args:
        drawn: The files that each picture was drawn from.
        root: The root of the repository.
    """
    known = {picture: digests for picture, digests in _recorded(root).items() if (root / picture).exists()}
    for picture, sources in drawn.items():
        known[picture] = {name: _digest(root / name) for name in (picture, *sorted(sources))}
    with replacing(root / RECORD) as file:
        file.write(f"{json.dumps(dict(sorted(known.items())), indent=1)}\n".encode())


def complaints(root: Path = ROOT) -> list[str]:
    """Return a line for each picture that is stale, missing or not recorded."""
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
