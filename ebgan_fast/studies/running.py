"""Running a study's trials: here or in several processes, with progress, until none is left."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Protocol

import torch
from optuna.distributions import BaseDistribution

from .._console import printable, say
from .._environment import variables
from ..ops.backends import BackendUnavailableError
from ..training.statistics import NonFiniteError
from .queue import Claim, Done, Params, TrialQueue, key

if TYPE_CHECKING:  # Windows lacks one of them
    from multiprocessing.context import ForkServerContext, SpawnContext

_SECONDS_BETWEEN_LOOKS = 0.5
# What starts processes, by `python -c`, would import files of the current folder, which may be anyone's. Python 3.11
# has this switch.
_SAFE_PATH = {"PYTHONSAFEPATH": "1"}


class Tick(Protocol):
    """What a trial calls once a step, so that others see that it lives and a stop is heard."""

    def __call__(self) -> None: ...


@dataclass(frozen=True)
class Study:
    """What there is to try, and how.

    Attributes:
        name: of the study in its storage.
        settings: what all trials have in common on every machine, as JSON can hold it.
        configurations: the trials of this run.
        ranges: what each parameter may be in any run of the study.
        trial: does one trial; gives all that it measured, as JSON can hold it, and the value that Optuna's tools rank
            by. A function of a module, or a partial of one, so that processes can be started with it.
        describe: a trial's parameters, and its result if it has one, in a few words.
        conditions: what results should tell beside the settings, and may differ between machines.
    """

    name: str
    settings: Mapping[str, Any]
    configurations: Sequence[Params]
    ranges: Mapping[str, BaseDistribution]
    trial: Callable[[Params, Tick], tuple[dict[str, Any], float]]
    describe: Callable[[Params, dict[str, Any] | None], str]
    conditions: Mapping[str, Any] = field(default_factory=dict)


def run(study: Study, storage: str, workers: int) -> list[Done]:
    """Do those of a study's trials that nobody has done or is doing, and give all that this run asked for.

    Other processes may run the same study on the same storage. Where one still works on the last trials, theirs are
    missing in what is given back, and a line says so.

    Args:
        study: what to try.
        storage: see `TrialQueue`.
        workers: processes at a time, at least 1; each with one thread if there are several.

    Raises:
        ValueError: see `TrialQueue`; fewer than 1 worker.
        KeyboardInterrupt: interrupted; the trials that were under way are queued again.
    """
    if workers < 1:
        raise ValueError(f"workers: got {workers}, expected at least 1")
    queue = TrialQueue(storage, study.name, dict(study.settings))
    queue.add(study.configurations, study.ranges)
    queue.revive()
    asked = _Asked(study)
    finished = [done for done in queue.done() if asked(done.params)]
    left = len(study.configurations) - len(finished)
    with _display(len(study.configurations), len(finished)) as tell:
        if left and workers == 1:
            _work(study, storage, lambda done: tell(_line(study, done)))
        elif left:
            _watch(study, queue, storage, min(workers, left), tell)
    finished = [done for done in queue.done() if asked(done.params)]
    if len(finished) < len(study.configurations):
        say(f"{len(study.configurations) - len(finished)} trials are still with other processes")
    return finished


class _Asked:
    """Whether a trial of the study is one of this run's."""

    def __init__(self, study: Study) -> None:
        self._wanted = {key(params) for params in study.configurations}

    def __call__(self, params: Params) -> bool:
        return key(params) in self._wanted


def _work(study: Study, storage: str, tell: Callable[[Done], None]) -> None:
    """Do trials until none is left."""
    queue = TrialQueue(storage, study.name, dict(study.settings))
    asked = _Asked(study)
    while (claim := queue.claim(asked)) or queue.revive():  # those of a process that died meanwhile
        if claim:
            tell(_do(study, claim))


def _do(study: Study, claim: Claim) -> Done:
    began = time.perf_counter()
    parent = multiprocessing.parent_process()

    def tick() -> None:
        claim.alive()
        if parent is not None and not parent.is_alive():  # killed: nobody waits for this process any more
            raise KeyboardInterrupt

    result, reason = None, None
    try:
        result, value = study.trial(claim.params, tick)
        claim.done(result, value)
    except (NonFiniteError, RuntimeError) as error:  # torch raises the latter, for too little memory too
        if isinstance(error, BackendUnavailableError):
            claim.give_back()
            raise
        reason = str(error).splitlines()[0]
        claim.failed(reason)
    except BaseException:
        claim.give_back()
        raise
    return Done(claim.params, result, reason, time.perf_counter() - began)


def _watch(study: Study, queue: TrialQueue, storage: str, workers: int, tell: Callable[[str], None]) -> None:
    """Let other processes work, and tell of what they finish."""
    context = processes()
    started: list[BaseProcess] = [
        context.Process(target=_work_apart, args=(study, storage), name=f"{study.name} {number}")
        for number in range(workers)
    ]
    asked = _Asked(study)
    finished = queue.done()
    told = {key(done.params) for done in finished}
    try:
        with variables(_SAFE_PATH):
            for process in started:
                process.start()
        working = True
        while working:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            working = any(process.is_alive() for process in started)
            before, finished = len(finished), queue.done()
            if len(finished) == before:  # of thousands of trials, a look would cost a good part of a core
                continue
            for done in finished:
                if asked(done.params) and key(done.params) not in told:
                    told.add(key(done.params))
                    tell(_line(study, done))
    except BaseException:
        for process in started:
            if process.pid is not None:
                process.terminate()
        raise
    finally:
        for process in started:
            if process.pid is not None:
                process.join()
    if any(process.exitcode for process in started):
        raise RuntimeError(f"{study.name}: a process ended with an error; what it said is above")


def processes() -> ForkServerContext | SpawnContext:
    """The context in which a study's processes start.

    Linux forks them from one process that has imported this module for all: each took 4 s of a core to do so. Elsewhere
    a process that has loaded the system's libraries may not fork.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _work_apart(study: Study, storage: str) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a KeyboardInterrupt, which gives the trial back
    torch.set_num_threads(1)
    with contextlib.suppress(KeyboardInterrupt):
        _work(study, storage, lambda done: None)


def _line(study: Study, done: Done) -> str:
    words = study.describe(done.params, done.result)
    return printable(f"{words}{f': failed: {done.reason}' if done.reason else ''} ({done.seconds:.0f} s)")


@contextlib.contextmanager
def _display(total: int, done: int) -> Iterator[Callable[[str], None]]:
    """A function that tells of one more trial: under a bar on a terminal, as a numbered line elsewhere."""
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
