"""Choose the split of a set: train and test are never mixed unless the user asks for it."""

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
    """Return for each name True if it belongs to the chosen split.

    Args:
        names: the paths, within the set, of images or of files that hold many images.
        kind: the kind of these files.
        split: the split to take, or "all". None: the set must have only one.
        path: the path of the set, for the message.

    Raises:
        DataError: there are several splits and none was chosen, or the chosen split isn't there.
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
            f"{path}: got {NOUNS[kind]} of the splits {_listed(found)}, expected one of them: --split {usual}, or "
            "--split all to take all as one set"
        )
    return [True] * len(names)


def _listed(found: Counter[str]) -> str:
    """Return the splits with their numbers of files, such as "test (1), train (2)"."""
    listed = [f"{shortened(split)} ({count})" for split, count in sorted(found.items())]
    return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")
