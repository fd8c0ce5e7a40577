"""The training program's parts that are timed, from this package or from an earlier commit's, of other modules."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ebgan_fast.memory import keep_freed_memory
    from ebgan_fast.training.step import Trainer
else:
    try:
        from ebgan_fast.training.step import Trainer
    except ModuleNotFoundError:
        from ebgan_fast.training.trainer import Trainer

    keep_freed_memory: Callable[[], bool] = bool  # of a commit that has no such function
    with contextlib.suppress(ModuleNotFoundError):
        from ebgan_fast.training.memory import keep_freed_memory
    with contextlib.suppress(ModuleNotFoundError):
        from ebgan_fast.memory import keep_freed_memory

__all__ = ["Trainer", "keep_freed_memory"]
