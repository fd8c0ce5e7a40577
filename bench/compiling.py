"""Processes that compile what is to be timed: a Triton kernel takes most of a second of one core, and keeps it on disk.

A case's builders and formulas are functions made on the spot, which no process can hand to another, so a case goes by
its place among those of the tuner's entries.
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

from .cases import Case, on
from .correctness import results
from .knobs import KNOBS, Tables


class Compilers:
    """A pool of processes, each with a context of its own on the GPU.

    Args:
        jobs: how many.
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
        """Return when all that these tables launch is compiled, as far as it can be; timing tells what could not."""
        with contextlib.suppress(BrokenExecutor):  # a tile that ends its process: each is then compiled at its turn
            asked = [(tables, place_of(case), dtype) for case, dtype in settings for tables in contestants]
            for future in [self._pool.submit(run_once, *one) for one in asked]:
                future.result()


def place_of(case: Case) -> tuple[int, int]:
    """The number of an entry that has the case, and the case's number there."""
    return next(
        (number, index) for number, knob in enumerate(KNOBS) for index, it in enumerate(knob.cases) if it is case
    )


def run_once(tables: Tables, place: tuple[int, int], dtype: torch.dtype, device: str = "cuda") -> None:
    """Run a case once under the tables, so that Triton compiles what it launches."""
    number, index = place
    case = KNOBS[number].cases[index]
    with use_backend("triton"), contextlib.suppress(Exception), in_use.replaced(tables):
        # A tile may take more than the GPU has.
        results(case.package, on(case.inputs(dtype), torch.device(device)))
