"""Run cases in parallel. Each case kills a run of its own, resumes it, and checks the files."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...forked import Child, preload
from . import cases
from .cases import AT, Case, Kill
from .child import Trace, process
from .contract import Contents, Ended, Left, broken_promises, contents, differences
from .runs import VARIANTS, write_images

_PATIENCE = 30.0  # seconds that a process may take; it needs less than one, and several on a busy machine
_POLL, _TICK = 0.003, 0.001  # seconds between two checks if a process has ended, and between two reads of its trace


@dataclass(frozen=True)
class Whole:
    """An undisturbed run.

    Attributes:
        contents: The content of its folder.
        trace: The trace of its process.
        steps: The number of steps that it did.
    """

    contents: Contents
    trace: Trace
    steps: int


class Suite:
    """The cases and their files, with an undisturbed run of each variant to compare with.

    Args:
        work: A folder for all files, which is made again. The files of failed cases stay.

    Attributes:
        wholes: The undisturbed run of each variant.

    Raises:
        RuntimeError: If an undisturbed run fails, or a second one differs from it.
    """

    def __init__(self, work: Path) -> None:
        preload("tests.training.kills.child")
        self._work = work.resolve()
        shutil.rmtree(self._work, ignore_errors=True)
        self._images = self._work / "images"
        write_images(self._images)
        self._numbers = itertools.count(1)
        # multiprocessing checks all its processes whenever one begins, which is not safe across threads.
        self._turn = threading.Lock()
        self.wholes = {variant: self._whole(variant) for variant in VARIANTS}

    def _whole(self, variant: str) -> Whole:
        found = []
        for number in range(2):
            place = self._work / f"whole-{variant}-{number}"
            ended = self._process(place, variant, 0, None)
            if ended.status != 0 or ended.trace.ended is None:
                raise RuntimeError(f"{variant}: an undisturbed run ended with status {ended.status}:\n{ended.said}")
            found.append(Whole(contents(place / "run"), ended.trace, ended.trace.ended[0]))
        one, other = found
        unlike = differences(other.contents, one.contents)
        if one.trace.events != other.trace.events:
            unlike.append("other events, or in another order")
        if unlike:
            raise RuntimeError(f"{variant}: two undisturbed runs differ: {'; '.join(unlike)}")
        return other  # the second was faster, because the system had its files in memory

    def at_events(self) -> tuple[list[Case], int]:
        """Return the cases that kill at an event, and the number of events.

        The first variant is killed at all events of the run. The other variants are killed at the events of their start
        only, because their steps do nothing new. Processes that resume a killed run are killed at the events of their
        start too.
        """
        found, events = [], 0
        for variant, whole in self.wholes.items():
            titles = whole.trace.events if variant == VARIANTS[0] else _of_the_start(whole.trace)
            found += cases.at_events(variant, titles)
            events += len(titles)
        variant, titles = VARIANTS[0], self.wholes[VARIANTS[0]].trace.events
        for first in cases.starts_of_a_resume(titles):
            resumed = self._events_of_a_resume(variant, first)
            found += cases.at_events(variant, resumed, (first,))
            events += len(resumed)
        return found, events

    def _events_of_a_resume(self, variant: str, first: Kill) -> list[str]:
        place = self._place()
        self._process(place, variant, 0, first)
        trace = self._process(place, variant, 1, None).trace
        shutil.rmtree(place)
        return _of_the_start(trace)

    def run(self, case: Case, tell: Callable[[str], object] = lambda said: None) -> list[str]:
        """Run the case. Return a line for each broken promise.

        Args:
            case: The case.
            tell: A function that gets the output of each process.
        """
        place = self._place()
        run, whole = place / "run", self.wholes[case.variant]
        left, said, found = Left.of(run), "", []
        for number, kill in enumerate((*case.kills, None)):
            ended = self._process(place, case.variant, number, kill, left.saved or 0)
            tell(ended.said)
            before, left = left, Left.of(run)
            unlike = differences(contents(run), whole.contents) if kill is None or "done: " in ended.said else []
            wrong = broken_promises(ended, left, before, said, whole.steps, unlike)
            if kill is None and not wrong:
                wrong = unlike
            found += [f"{kill or 'resumed'}: {line}" for line in wrong]
            said += ended.said
        if not found:
            shutil.rmtree(place)
        return found

    def run_all(self, chosen: Iterable[Case], jobs: int, tell: Callable[[Case, list[str]], object]) -> None:
        """Run the cases, `jobs` at a time. `tell` gets each case and its broken promises when the case ends."""
        told = threading.Lock()

        def one(case: Case) -> None:
            found = self.run(case)
            with told:
                tell(case, found)

        with ThreadPoolExecutor(jobs) as pool:
            tasks = [pool.submit(one, case) for case in chosen]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _place(self) -> Path:
        place = self._work / f"case-{next(self._numbers):04d}"
        place.mkdir()
        return place

    def _process(self, place: Path, variant: str, number: int, kill: Kill | None, first: int = 0) -> Ended:
        """Run one process of a case, given its number, until it ends. It begins with the step `first`."""
        place.mkdir(exist_ok=True)
        output, notes = place / f"output-{number}.txt", place / f"trace-{number}.txt"
        at_event = None if kill is None or kill.when == AT else kill
        with self._turn:
            child = Child(output, process, variant, place, self._images, notes, number > 0, at_event)
        steps = 0
        try:
            if kill is not None and kill.when == AT:
                moment = self.wholes[variant].trace.moment(float(kill.what), first)
                self._wait_for_moment(child, notes, *moment)
                with suppress(ProcessLookupError):  # the process has ended
                    child.send_signal(kill.signal)
                steps = len(Trace.read(notes).steps)
            status = self._status(child)
        finally:
            with self._turn:
                child.kill()
        return Ended(kill, status, child.said, Trace.read(notes), steps)

    def _wait_for_moment(self, child: Child, notes: Path, step: int | None, seconds: float) -> None:
        """Wait until this many seconds have passed since the step, or since the start for None; or until the process
        has ended.
        """
        until = time.monotonic() + _PATIENCE
        while self._runs(child) and time.monotonic() < until:
            trace = Trace.read(notes)
            if trace.began is not None if step is None else step in trace.steps:
                time.sleep(seconds)
                return
            time.sleep(_TICK)

    def _runs(self, child: Child) -> bool:
        with self._turn:
            return child.running

    def _status(self, child: Child) -> int | None:
        """Wait until the process ends, and return its exit status; None if it doesn't end in time."""
        until = time.monotonic() + _PATIENCE
        while self._runs(child):
            if time.monotonic() > until:
                return None
            time.sleep(_POLL)
        return child.status()


def _of_the_start(trace: Trace) -> list[str]:
    """Return the events before the end of the first step."""
    return [title for title, steps in zip(trace.events, trace.steps_at, strict=True) if steps == 0]
