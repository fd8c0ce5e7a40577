"""A study whose trials only write down that they ran, and the function of a process that runs it."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from optuna.distributions import IntDistribution

from ebgan_fast.studies.queue import Params
from ebgan_fast.studies.running import Study, Tick, run
from ebgan_fast.training.statistics import NonFiniteError

SEEN = "seen.txt"


def note(folder: Path, words: str) -> None:
    with (folder / SEEN).open("a") as file:
        file.write(f"{words}\n")


def seen(folder: Path, word: str) -> list[int]:
    """Numbers of the trials of which a word was noted."""
    path = folder / SEEN
    lines = path.read_text().split("\n") if path.exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith(word)]


def trial(params: Params, tick: Tick, *, folder: Path, seconds: float) -> tuple[dict[str, Any], float]:
    number = params["number"]
    note(folder, f"began {number} {os.getpid()}")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        tick()
        time.sleep(0.005)
    if number == 13:
        raise NonFiniteError("got loss nan, expected a finite number")
    note(folder, f"ended {number}")
    return {"square": number**2}, float(number)


def study(folder: Path, count: int, seconds: float = 0.0, **settings: Any) -> Study:
    return Study(
        name="counting",
        settings=settings,
        configurations=[{"number": number} for number in range(count)],
        ranges={"number": IntDistribution(0, 1000)},
        trial=partial(trial, folder=folder, seconds=seconds),
        describe=describe,
    )


def describe(params: Params, result: dict[str, Any] | None) -> str:
    """A function of a module, which a started process can be sent."""
    return f"number {params['number']}"


def work(folder: Path, storage: str, count: int, seconds: float, workers: int, together: int) -> None:
    """Run a study once `together` processes are ready to."""
    note(folder, f"ready {os.getpid()}")
    while len(seen(folder, "ready")) < together:
        time.sleep(0.01)
    run(study(folder, count, seconds), storage, workers)
