"""A run's figures and grids for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .config import TrainConfig
from .folder import RunFolder

if TYPE_CHECKING:
    from typing_extensions import Self

_INSTALL = "pip install tensorboard, or 'ebgan_fast[tensorboard]'"


class TensorBoard:
    """Writes event files, or nothing. A context manager, so that the last of them reaches the disk.

    Args:
        folder: of the event files; None writes nothing.
        step: from which on earlier events of the folder are dropped: a resumed run does those steps again.

    Raises:
        ValueError: tensorboard isn't installed.
    """

    def __init__(self, folder: Path | None, step: int = 0) -> None:
        self._writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(f"tensorboard: got True without the package, expected {_INSTALL}") from error
        self._writer = SummaryWriter(folder, purge_step=step + 1)

    @classmethod
    def of_run(cls, run: TrainConfig, folder: RunFolder, step: int, writes: bool) -> TensorBoard:
        """The writer that a run's config asks for, in one of its processes."""
        return cls(folder.tensorboard if run.tensorboard and writes else None, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def scalars(self, line: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl or scores.jsonl: every number but the step becomes a curve."""
        if self._writer is not None:
            for name, value in line.items():
                if name != "step":
                    self._writer.add_scalar(name, value, line["step"])

    def grid(self, picture: Path, step: int) -> None:
        """A picture that was written to a file."""
        if self._writer is not None:
            with Image.open(picture) as image:
                self._writer.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")
