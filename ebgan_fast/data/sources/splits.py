"""The split of a set that is taken: train and test aren't mixed unless someone says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..._console import shortened
from ..errors import DataError
from .names import NOUNS, Kind, split_of

ALL = "all"
_SHOWN = 10


def chosen_split(names: Sequence[str], kind: Kind, split: str | None, path: Path) -> list[bool]:
    """Return for each name if it is taken.

    Args:
        names: paths within the set: of images, or of files of many.
        kind: what they are.
        split: the split that is wanted, or "all". None: there should be one only.
        path: of the set, for the message.

    Raises:
        DataError: several splits and none was chosen, or the chosen one isn't there.
    """
    if split == ALL:
        return [True] * len(names)
    splits = [split_of(name, kind) for name in names]
    found = Counter(split for split in splits if split is not None)
    if split is not None:
        if split not in found:
            raise DataError(f"{path}: got no split {split!r}, expected {_listed(found) or 'no --split: there is none'}")
        return [one == split for one in splits]
    if len(found) > 1:
        usual = shortened("train" if "train" in found else min(found))
        raise DataError(
            f"{path}: got {NOUNS[kind]} of the splits {_listed(found)}, expected to be told which: --split {usual}, or "
            "--split all for all as one set"
        )
    return [True] * len(names)


def _listed(found: Counter[str]) -> str:
    """The splits with their numbers of files, such as "test (1), train (2)"."""
    listed = [f"{shortened(split)} ({count})" for split, count in sorted(found.items())]
    return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")
