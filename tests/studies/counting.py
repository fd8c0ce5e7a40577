"""A study whose trials only write down that they ran, and the function with which another process runs it."""

from __future__ import annotations

import contextlib
import io
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebgan_fast.studies.framework.results import Done, Params, Results
from ebgan_fast.studies.framework.run import queue_of, run
from ebgan_fast.studies.framework.study import Job, Measured, NoData, Options, Range, Study, Tick
from ebgan_fast.training.statistics import NonFiniteError

SEEN = "seen.txt"


@dataclass(frozen=True)
class Counting:
    """The settings of the study."""

    count: int
    seconds: float = 0.0
    steps: int = 10


def note(folder: Path, words: str) -> None:
    """Write a line in one call, so that a kill can't cut it."""
    handle = os.open(folder / SEEN, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{words}\n".encode())
    os.close(handle)


def seen(folder: Path, word: str) -> list[int]:
    """Return the numbers of the trials that noted this word."""
    path = folder / SEEN
    lines = path.read_text().split("\n") if path.exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith(word)]


def workers_of(folder: Path) -> list[int]:
    """Return the numbers of the processes that began the trials, in the order of the trials' beginnings."""
    lines = (folder / SEEN).read_text().splitlines()
    return [int(line.split()[2]) for line in lines if line.startswith("began")]


def trials(settings: Counting) -> list[Params]:
    return [{"number": number} for number in range(settings.count)]


def trial(params: Params, job: Job[Counting], tick: Tick) -> Measured:
    number, folder = params["number"], job.options.out
    note(folder, f"began {number} {os.getpid()}")
    until = time.monotonic() + job.settings.seconds
    while time.monotonic() < until:
        tick()
        time.sleep(0.005)
    if number == 13:
        raise NonFiniteError("got loss nan, expected a finite number")
    note(folder, f"ended {number}")
    return Measured({"square": number**2, "by": [os.getpid(), time.monotonic_ns()]}, float(number))


def describe(params: Params, result: dict[str, Any] | None) -> str:
    return f"number {params['number']}"


def table(results: Results) -> str:
    return f"{len(results.trials)} trials\n"


def draw(results: Results, folder: Path) -> list[Path]:
    return []


STUDY = Study(
    name="counting",
    summary="Squares of numbers.",
    budgets={"minutes": Counting(3)},
    parameters={"number": Range(0, 100_000)},
    choosing=("count", "seconds"),
    trials=trials,
    trial=trial,
    describe=describe,
    table=table,
    draw=draw,
    options=Options,
)


def job(folder: Path, storage: str, count: int, seconds: float = 0.0, workers: int = 1, steps: int = 10) -> Job[Any]:
    """Return a run of the study."""
    options = Options(folder, storage=storage, workers=workers)
    return Job(STUDY, Counting(count, seconds, steps), options, NoData())


def done(one: Job[Any]) -> list[Done]:
    """Do the trials of a run, and return all of them."""
    return run(one, queue_of(one))


def work(one: Job[Any], together: int) -> None:
    """Run the study once `together` processes are ready."""
    note(one.options.out, f"ready {os.getpid()}")
    while len(seen(one.options.out, "ready")) < together:
        time.sleep(0.01)
    with contextlib.redirect_stdout(io.StringIO()):
        done(one)
