"""Plants bugs in copies of the repository, runs the test named beside each, and says whether it was caught.

    make planted
    python -m tests.planted [NAME ...]

Exit status 0 if every bug was caught, 1 if one was missed or could not be judged. A run that was killed goes on where
it was, as long as no source has changed.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from . import tree
from .judging import Verdict, judge, unfit
from .plant import KINDS, Kind, Planted
from .plants import PLANTS
from .record import Record, state_of
from .tree import BuildError, Sources, Tree

ROOT = Path(__file__).parents[2]

Tell = Callable[[Planted, Verdict, float], None]


class Run:
    """Judges bugs, some at a time, each in a copy of its own.

    Args:
        root: the repository.
        files: its files.
        work: the folder of the copies.
        record: of what is known.
        jobs: tests at a time.
        tell: told each bug's verdict, with the seconds that it took.
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
        """Judge the bugs. An interrupt ends what runs, and leaves to the next run what isn't judged yet."""
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
                # The tests without a bug first: each bug of a kind waits for its kind's.
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
        """Why each of these tests can't judge, of those that can't: in one process, which builds what they share."""
        left = [test for test in tests if not self._record.passes(test)]
        if not left:
            return {}
        copy = self._trees.get()
        try:
            ended = copy.run(left)
            found = {}
            for test in left:
                # One id that is unknown keeps all from running.
                alone = ended if ended.status in (0, 1) or len(left) == 1 else copy.run([test])
                if reason := unfit(test, alone):
                    found[test] = reason
                else:
                    self._record.note_pass(test)
            return found
        finally:
            self._trees.put(copy)

    def _judge_built(self, plants: Sequence[Planted]) -> None:
        """One after the other, in the one copy that has a build of the compiled module."""
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
        if self._stopped.is_set():  # its process was ended
            return
        if reason := self._unfit[plant.kind].result().get(plant.test):
            verdict = Verdict("not judged", reason)
        self._record.note_verdict(plant, verdict)
        self._tell(plant, verdict, seconds)


def chosen(plants: Sequence[Planted], names: Sequence[str], kinds: Sequence[str]) -> list[Planted]:
    """The bugs of these kinds whose names hold one of these texts.

    Raises:
        ValueError: a text that is in no name.
    """
    for name in names:
        if not any(name.lower() in plant.name.lower() for plant in plants):
            raise ValueError(f"got {name!r}, expected a part of a planted bug's name; --list shows them")
    return [
        plant
        for plant in plants
        if (not kinds or plant.kind in kinds)
        and (not names or any(name.lower() in plant.name.lower() for name in names))
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description="Are planted bugs caught?")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a part of a bug's name; without one, all")
    parser.add_argument("--group", action="append", choices=KINDS, default=[], help="bugs of this kind alone")
    parser.add_argument("--list", action="store_true", help="show the bugs, and plant none")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="tests at a time (%(default)s)")
    parser.add_argument("--fresh", action="store_true", help="judge anew what an earlier run has judged")
    return parser


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the bugs asked for; returns the exit status."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.jobs < 1:
        parser.error(f"--jobs: got {asked.jobs}, expected at least 1")
    try:
        plants = chosen(PLANTS, asked.names, asked.group)
        files = tree.sources(ROOT)
    except ValueError as error:
        parser.error(str(error))
    if asked.list:
        for plant in plants:
            print(f"{plant.kind:13} {plant.name}\n{'':13} {plant.file} | {plant.test}")
        return 0
    signal.signal(signal.SIGTERM, _end)
    counts: Counter[str] = Counter()
    started = time.monotonic()

    def tell(plant: Planted, verdict: Verdict, seconds: float) -> None:
        counts[verdict.outcome] += 1
        took = f"{seconds:6.1f} s" if seconds else "  before" if verdict.outcome in ("caught", "missed") else " " * 8
        print(f"{verdict.outcome:10} {took}  {plant.kind:13} {plant.name}", flush=True)
        if verdict.outcome != "caught":
            print(f"{'':20} {verdict.reason or plant.file} | {plant.test}", flush=True)

    work = ROOT / "build" / "planted"
    record = Record(work / "verdicts.jsonl", state_of(files), asked.fresh)
    try:
        Run(ROOT, files, work, record, asked.jobs, tell)(plants)
    except KeyboardInterrupt:
        print("planted: interrupted; the next run goes on from here", file=sys.stderr)
        return 130
    others = "".join(f", {counts[outcome]} {outcome}" for outcome in ("stale", "not judged") if counts[outcome])
    print(
        f"planted: {counts['caught']} caught, {counts['missed']} missed{others}, of {len(plants)}; "
        f"{time.monotonic() - started:.0f} s"
    )
    return int(counts["caught"] < len(plants))


if __name__ == "__main__":
    sys.exit(main())
