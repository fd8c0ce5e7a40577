"""Processes that compile ahead what the tuner times. A kernel takes most of a second of a core, and stays on disk.

The builders and formulas of a case are local functions, which no process can send to another. So a case is sent as its
place among the cases of the tuner's knobs.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from types import TracebackType

import torch

from ebgan_fast import use_backend
from ebgan_fast.ops.backends.triton import tables as in_use

from ..subjects.calls import on, results
from ..subjects.cases import Case
from .knobs import KNOBS, Tables


class Compilers:
    """A pool of processes, each with a context of its own on the GPU.

    Args:
        jobs: The number of processes.
    """

    def __init__(self, jobs: int) -> None:
        # Spawned: a forked process cannot use the GPU that its parent has used.
        self._pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> Compilers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def compile(self, contestants: Sequence[Tables], settings: Sequence[tuple[Case, torch.dtype]]) -> None:
        """Compile all that tables launch, and return when that is done. Timing finds a tile that cannot be compiled.

        Args:
            contestants: The tables.
            settings: The cases and dtypes that they are tried on.
        """
        with contextlib.suppress(BrokenExecutor):  # a tile may end its process; each is then compiled at its turn
            asked = [(tables, place_of(case), dtype) for case, dtype in settings for tables in contestants]
            for future in [self._pool.submit(run_once, *one) for one in asked]:
                future.result()


def place_of(case: Case) -> tuple[int, int]:
    """Return the number of a knob that has the case, and the case's number there."""
    return next(
        (number, index) for number, knob in enumerate(KNOBS) for index, it in enumerate(knob.cases) if it is case
    )


def run_once(tables: Tables, place: tuple[int, int], dtype: torch.dtype, device: str = "cuda") -> None:
    """Run a case once under tables, so that Triton compiles what the case launches.

    Args:
        tables: The tables.
        place: The case's place, as `place_of` returns it.
        dtype: The dtype of its inputs.
        device: The device of its inputs.
    """
    number, index = place
    case = KNOBS[number].cases[index]
    with use_backend("triton"), contextlib.suppress(Exception), in_use.replaced(tables):
        # A tile may need more than the GPU has.
        results(case.package, on(case.inputs(dtype), torch.device(device)))
