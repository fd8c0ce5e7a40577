"""A run's numbers and sample grids for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..._console import first_line
from ..._settings import FINITE

if TYPE_CHECKING:
    from typing_extensions import Self

_INSTALL = "pip install tensorboard, or 'ebgan_fast[tensorboard]'"


def check_installed() -> None:
    """Raise a ValueError if tensorboard isn't installed, or can't be imported."""
    _writer_class()


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception as error:  # a broken package may raise anything: its protobuf a TypeError, a newer numpy others
        if isinstance(error, ModuleNotFoundError) and error.name == "tensorboard":
            raise ValueError(f"tensorboard: got True without the package, expected {_INSTALL}") from error
        raise ValueError(
            f"tensorboard: got a package that can't be imported ({first_line(error)}), expected one that can: pip "
            "install --upgrade tensorboard, or train without it"
        ) from error
    return SummaryWriter


class TensorBoard:
    """A writer of event files, or of nothing. It is a context manager, so that the last events reach the disk.

    Args:
        folder: the folder of the event files. None: write nothing.
        step: the last step to keep. Later events in the folder are dropped, because a resumed run does those steps
            again.

    Raises:
        ValueError: tensorboard isn't installed.
    """

    def __init__(self, folder: Path | None, step: int = 0) -> None:
        self._writer: Any = None
        if folder is None:
            return
        self._writer = _writer_class()(folder, purge_step=step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def scalars(self, line: Mapping[str, Any]) -> None:
        """Add a line of metrics.jsonl or scores.jsonl. Every finite number but the step becomes a curve."""
        if self._writer is not None:
            for name, value in line.items():
                if name != "step" and FINITE.holds(value):
                    self._writer.add_scalar(name, value, line["step"])

    def grid(self, picture: Path, step: int) -> None:
        """Add a picture from a file."""
        if self._writer is not None:
            with Image.open(picture) as image:
                self._writer.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")
