"""Judge bugs side by side: plant each in a copy, run its test there, and restore the copy."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from . import tree
from .judging import Verdict, judge, unfit
from .plant import Kind, Planted
from .record import Record
from .tree import BuildError, Sources, Tree

Tell = Callable[[Planted, Verdict, float], None]


class Run:
    """Judge bugs, some at a time, each in a copy of its own.

    Args:
        root: the repository.
        files: the repository's files.
        work: the folder of the copies.
        record: the record of verdicts and passing tests.
        jobs: the number of tests at a time.
        tell: a function that takes each bug, its verdict and the seconds that it took.
        package: the package that tests import.
    """

    def __init__(
        self,
        root: Path,
        files: Sources,
        work: Path,
        record: Record,
        jobs: int,
        tell: Tell,
        package: str = "ebgan_fast",
    ) -> None:
        self._files = files
        self._record = record
        self._jobs = jobs
        self._tell = tell
        self._make = lambda name: Tree(root, work / name, files, package)
        self._trees: queue.Queue[Tree] = queue.Queue()
        self._unfit: dict[Kind, Future[dict[str, str]]] = {}
        self._stopped = threading.Event()

    def __call__(self, plants: Sequence[Planted]) -> None:
        """Judge the bugs. An interrupt ends the running tests and leaves the other bugs to the next run."""
        left = []
        for plant in plants:
            content = self._files.get(plant.file)
            reason = plant.stale(None if content is None else content.decode())
            known = Verdict("stale", reason) if reason else self._record.verdict(plant)
            if known is None:
                left.append(plant)
            else:
                self._tell(plant, known, 0.0)
        built = sorted((plant for plant in left if plant.needs_extension), key=lambda plant: plant.file)
        for number in range(self._jobs):
            self._trees.put(self._make(f"tree-{number}"))
        with ThreadPoolExecutor(self._jobs) as pool:
            tasks: list[Future[None]] = []
            try:
                # Tests run without a bug first: each bug waits for the tests of its kind.
                for kind in dict.fromkeys(plant.kind for plant in left):
                    tests = list(dict.fromkeys(plant.test for plant in left if plant.kind == kind))
                    self._unfit[kind] = pool.submit(self._unfit_of, tests)
                if built:
                    tasks.append(pool.submit(self._judge_built, built))
                tasks += [pool.submit(self._judge, plant) for plant in left if not plant.needs_extension]
                for task in (*self._unfit.values(), *tasks):
                    task.result()
            except BaseException:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                tree.stop()
                raise

    def _unfit_of(self, tests: Sequence[str]) -> dict[str, str]:
        """Return the reason for each of these tests that cannot judge.

        All tests run in one process, which builds their shared parts once.
        """
        left = [test for test in tests if not self._record.passes(test)]
        if not left:
            return {}
        copy = self._trees.get()
        try:
            ended = copy.run(left)
            found = {}
            for test in left:
                # One unknown id keeps pytest from running any test.
                alone = ended if ended.status in (0, 1) or len(left) == 1 else copy.run([test])
                if reason := unfit(test, alone):
                    found[test] = reason
                else:
                    self._record.note_pass(test)
            return found
        finally:
            self._trees.put(copy)

    def _judge_built(self, plants: Sequence[Planted]) -> None:
        """Judge bugs one after the other, in the one copy that has a build of the compiled module."""
        copy = self._make("tree-built")
        for plant in plants:
            self._judge_in(copy, plant)

    def _judge(self, plant: Planted) -> None:
        copy = self._trees.get()
        try:
            self._judge_in(copy, plant)
        finally:
            self._trees.put(copy)

    def _judge_in(self, copy: Tree, plant: Planted) -> None:
        if self._stopped.is_set():
            return
        started = time.monotonic()
        try:
            with copy.planted(plant):
                ended = copy.run([plant.test], "-x")
        except BuildError as error:
            verdict = Verdict("not judged", f"the compiled module can't be built: {error}")
        else:
            verdict = judge(plant, ended)
        seconds = time.monotonic() - started
        if self._stopped.is_set():  # the test's process was ended
            return
        if reason := self._unfit[plant.kind].result().get(plant.test):
            verdict = Verdict("not judged", reason)
        self._record.note_verdict(plant, verdict)
        self._tell(plant, verdict, seconds)
