"""The run of a study: its trials in this process or in several, with progress, until none is left."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from ..._command_line import out_of_something
from ..._console import Tolerant, abridged, first_line, printable, say
from ..._environment import variables
from ...ops.backends import BackendUnavailableError
from ...training.statistics import NonFiniteError
from .addresses import open_storage
from .owners import SECONDS_TO_DEATH
from .queue import Claim, TrialQueue
from .results import Done
from .storage import stop_if_orphaned
from .study import Job, key

if TYPE_CHECKING:  # Windows has no ForkServerContext
    from multiprocessing.context import ForkServerContext, SpawnContext

_SECONDS_BETWEEN_LOOKS = 0.5
_Mistake = tuple[int | None, str, str | None]
"""The error that ended a process: the system's error number or None, the message, and the file that it is about."""
_LEISURE = 20  # looks take at most 1/20 of the time: a look at 2,000 trials in SQLite takes 0.3 s
# Processes are started by `python -c`, which would import files of the current folder, and these may be anyone's.
# Python 3.11 has this switch against it.
_SAFE_PATH = {"PYTHONSAFEPATH": "1"}


def run(job: Job[Any], queue: TrialQueue) -> list[Done]:
    """Do the trials of a run that no process has done or is doing, and return all finished trials of the run.

    Other processes may run the same study on the same storage. If such a process is still doing the last trials, these
    are missing in the answer, and a printed line says so.

    Args:
        job: the run.
        queue: the run's trials, from `queue_of`.

    Raises:
        ValueError: the storage can't be used, its trials have other settings, or a process was killed.
        OSError: a file can't be read or written.
        KeyboardInterrupt: the run was interrupted. The trials that were under way are queued again.
    """
    total, workers = queue.total, job.options.processes
    if queue.bury():
        queue.fill()
    before = len(queue.done())
    mistake: Exception | None = None
    # Batch systems stop a process with SIGTERM. Handled as an interrupt, it gives the trials back.
    with _display(total, before) as tell, _handled(signal.SIGTERM, signal.default_int_handler):
        if before < total and workers == 1:
            _work(job, queue, lambda done: tell(_line(job, done)))
        elif before < total:
            mistake = _watch(job, queue, min(workers, total - before), tell)
    finished = queue.done()
    if len(finished) < total:
        if mistake is not None:
            raise mistake
        say(f"{_are(total - len(finished))} still with other processes")
    return finished


@contextlib.contextmanager
def _handled(
    number: signal.Signals, handler: Callable[[int, FrameType | None], Any] | signal.Handlers
) -> Iterator[None]:
    """Within the block, handle a signal in this way. Outside the main thread, which alone can change that, do
    nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before if before is not None else signal.SIG_DFL)


def _are(trials: int) -> str:
    return "1 trial is" if trials == 1 else f"{trials} trials are"


def queue_of(job: Job[Any]) -> TrialQueue:
    """Return the trials of a run, in the storage that its options name."""
    study = job.study
    configurations = study.configurations(job.settings)
    storage = open_storage(job.options.trials)
    return TrialQueue(storage, study.name, job.shared_settings, configurations, study.parameters)


def _work(job: Job[Any], queue: TrialQueue, tell: Callable[[Done], None]) -> None:
    """Do trials until none is left. This includes trials of processes that die meanwhile."""
    told = False
    while True:
        if claim := queue.claim():
            tell(_do(job, claim))
            continue
        queue.bury()
        if queue.fill():
            continue
        if not (unsure := queue.unsure()):
            return
        if not told:
            told = True
            wait = f"waiting up to {SECONDS_TO_DEATH:.0f} s for signs of life from them"
            say(f"{_are(unsure)} with processes that can't be seen from here; {wait}", Tolerant(sys.stderr))
        stop_if_orphaned()
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _do(job: Job[Any], claim: Claim) -> Done:
    try:
        measured = job.study.trial(claim.params, job, stop_if_orphaned)
    except (NonFiniteError, RuntimeError) as error:  # torch raises the latter, also for too little memory
        if isinstance(error, BackendUnavailableError):
            claim.give_back()
            raise
        return claim.failed(first_line(error))
    except BaseException:
        claim.give_back()
        raise
    return claim.done(measured)


def _watch(job: Job[Any], queue: TrialQueue, workers: int, tell: Callable[[str], None]) -> Exception | None:
    """Let other processes do the trials, and report what they finish. Return the error that ended one of them, if
    any."""
    context = processes()
    mistakes, sender = context.Pipe(duplex=False)
    started: list[BaseProcess] = [
        context.Process(target=_work_apart, args=(job, sender), name=f"{job.study.name} {number}")
        for number in range(workers)
    ]
    finished = queue.done()
    told = {key(done.params) for done in finished}
    took = 0.0
    found: list[_Mistake] = []
    try:
        with variables(_SAFE_PATH):
            _start_server()
            for process in started:
                process.start()
        working = True
        while working:
            time.sleep(max(_SECONDS_BETWEEN_LOOKS, _LEISURE * took))
            working = any(process.is_alive() for process in started)
            while mistakes.poll():  # early, because a process blocks if its message is longer than the pipe holds
                found.append(mistakes.recv())
            before, began = len(finished), time.perf_counter()
            finished = queue.done()
            took = time.perf_counter() - began
            if len(finished) == before:
                continue
            for done in finished:
                if key(done.params) not in told:
                    told.add(key(done.params))
                    tell(_line(job, done))
    except BaseException:
        for process in started:
            if process.pid is not None:
                process.terminate()
        raise
    finally:
        for process in started:
            if process.pid is not None:
                process.join()
    if found:
        number, words, file = found[0]
        return ValueError(words) if number is None else OSError(number, words, file)
    for process in started:
        if process.exitcode:
            got = f"got a process that ended with status {process.exitcode}, expected 0"
            hint = (
                "; it is often too little memory, of which fewer --workers take less" if process.exitcode == -9 else ""
            )
            return ValueError(f"{job.study.name}: {got}{hint}; the same command goes on")
    return None


def processes() -> ForkServerContext | SpawnContext:
    """Return the context in which a study's processes are started.

    Linux forks them from one server process that has imported this module. Otherwise each process would need 4 s of a
    core for its imports. On other systems, a process that has loaded the system's libraries may not fork.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _start_server() -> None:
    """Start the process that the others are forked from. It and they ignore Ctrl-C in the terminal.

    The interrupt of this process is enough: it ends the others by SIGTERM. The server would print a traceback of its
    imports.
    """
    if sys.platform == "linux":
        with _handled(signal.SIGINT, signal.SIG_IGN):
            forkserver.ensure_running()


def _work_apart(job: Job[Any], mistakes: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # raises a KeyboardInterrupt, so the trial is given back
    torch.set_num_threads(1)
    try:
        _work(job, queue_of(job), lambda done: None)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        mistakes.send((error.errno, abridged(error.strerror or str(error)), error.filename and str(error.filename)))
    except (ValueError, BackendUnavailableError) as error:
        mistakes.send((None, abridged(str(error)), None))
    except MemoryError as error:
        mistakes.send((None, out_of_something(error), None))


def _line(job: Job[Any], done: Done) -> str:
    words = job.study.describe(done.params, done.result)
    return printable(f"{words}{f': failed: {done.reason}' if done.reason else ''} ({done.seconds:.0f} s)")


@contextlib.contextmanager
def _display(total: int, done: int) -> Iterator[Callable[[str], None]]:
    """Yield a function that reports one more trial: below a bar on a terminal, and as a numbered line elsewhere."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = TextColumn("trials"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=total, completed=done)
        count = done

        def tell(line: str) -> None:
            nonlocal count
            count += 1
            bar.advance(task)
            bar.console.print(f"{count} of {total}  {line}", markup=False, highlight=False, soft_wrap=True)

        if done:
            bar.console.print(f"{done} of {total} trials were done before", markup=False, highlight=False)
        yield tell
