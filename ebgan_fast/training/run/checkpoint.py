"""A run's state in one file, which is replaced completely or not at all."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..._console import shortened, shown
from ..._files import opened, replacing, sync_folder
from .inspection import check_archive

_FORMAT = "ebgan_fast training checkpoint"
# The version of the state's structure. A new setting of a run needs no new version. Neither does a new part of the
# state if a missing part has a meaning: every checkpoint of this version can be opened.
_VERSION = 1


class CheckpointError(ValueError):
    """The error of a file that can't be used as a checkpoint. The message names the file.

    Example:
        >>> from pathlib import Path
        >>> from ebgan_fast.training import CheckpointError, load_generator
        >>> _ = Path("notes.pt").write_text("not a checkpoint")
        >>> try:
        ...     load_generator("notes.pt")
        ... except CheckpointError as error:
        ...     print(error)  # doctest: +ELLIPSIS
        notes.pt: got a truncated file or one of another program (...), expected a checkpoint
    """


def write(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values. After a crash or a power cut, the file is either the old one or the new one.

    Args:
        path: the file.
        state: the tensors and values.

    Raises:
        OSError: the file can't be written. The old one stays.
    """
    with replacing(path) as file:
        _save({"format": _FORMAT, "version": _VERSION, **state}, file)
    with contextlib.suppress(OSError):  # the file is complete; Windows can't sync a folder
        sync_folder(path.parent)


def _save(state: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:
        # torch's writer closes its archive after a failed write, and that second failure hides the first.
        cause = error.__context__
        raise cause if isinstance(cause, OSError) else error from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a plain file of any size for reading.

    Raises:
        CheckpointError: the path is a folder, pipe or device.
        OSError: the file can't be opened. The error names it.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(opened(path, sys.maxsize))
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        yield file


def read(path: Path) -> dict[str, Any]:
    """Return the state that `write` wrote, with every tensor on the CPU.

    No code from the file is run, and no more memory is allocated than the file holds (`inspection`).

    Args:
        path: the file.

    Raises:
        CheckpointError: the file is truncated or damaged, or comes from another program or another version.
        OSError: the file can't be opened.
    """
    with _opened(path) as file:
        try:
            check_archive(file)
        except ValueError as error:
            raise CheckpointError(f"{path}: {shortened(str(error), 400)}") from error
        file.seek(0)
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a foreign zip file can make torch and pickle raise anything
            reason = shortened(str(error).partition("\n")[0])
            raise CheckpointError(
                f"{path}: got a file that torch can't load ({reason}), expected a checkpoint"
            ) from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: got a file of another program, expected a checkpoint of ebgan_fast")
    if state.get("version") != _VERSION:
        raise CheckpointError(
            f"{path}: got a checkpoint of version {shown(state.get('version'))}, expected {_VERSION}; the ebgan_fast "
            "that wrote it opens it"
        )
    return state
