"""Processes that run a study, and a function that waits for what they do."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from ebgan_fast.studies.framework import run

from . import counting

SECONDS = 60.0  # to wait at most for what takes about one second


def start(folder: Path, storage: str, count: int, seconds: float, workers: int = 1, together: int = 1) -> BaseProcess:
    """Start a process that runs a study once `together` processes are ready."""
    one = counting.job(folder, storage, count, seconds, workers)
    process = run.processes().Process(target=counting.work, args=(one, together))
    process.start()
    return process


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
