"""Run cases that kill a `prepare`, let the next call finish, and compare the folder with an undisturbed one."""

from __future__ import annotations

import itertools
import random
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

from ...forked import Child, preload
from ...training.kills import cases
from ...training.kills.cases import AFTER, AT, BEFORE, HALF, Case, Kill
from ...training.kills.child import Trace
from .. import layouts, workers
from .child import process

_PATIENCE = 60.0  # seconds until a process counts as hanging: it takes less than one, on a loaded machine several
_LIFE = 10.0  # seconds that a worker may outlive its process: it first ends the images that it has begun
_TICK = 0.001  # seconds between two looks at a process

Contents = dict[str, bytes]
"""The content of each file of a folder by name, hidden files included."""


@dataclass(frozen=True)
class Variant:
    """The images of a case and its processes.

    Attributes:
        images: the name of the source.
        per_shard: the number of images in a shard.
        first: the number of workers of the process that is killed.
        later: the number of workers of the processes that go on.
    """

    images: str
    per_shard: int
    first: int
    later: int


VARIANTS = {
    "one worker": Variant("few", 2, 1, 1),
    "two workers": Variant("many", 40, 2, 2),
    "two workers, then one": Variant("many", 40, 2, 1),
}
_IN_EVENTS, *_AT_MOMENTS = VARIANTS
_POLITE = (Signals.SIGINT,)  # the one signal that `prepare` handles; any other ends it as SIGKILL does


def write_images(folder: Path) -> None:
    """Write both sources: "few" of 7 images, packed in 4 shards, and "many" of 97 in 3, which two workers share.

    Image 4 of each is cut short.
    """
    for name, side, count in (("few", 20, 7), ("many", 160, 97)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            image = layouts.encoded(layouts.picture(number, side, side))
            (folder / name / f"{number:03d}.png").write_bytes(image if number != 4 else image[: len(image) // 2])


def contents(out: Path) -> Contents:
    """Return the content of each file in the folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def differences(found: Contents, whole: Contents) -> list[str]:
    """Return a line for each file that differs from the undisturbed folder's."""
    lines = [f"{name}: got a file, expected none" for name in found.keys() - whole.keys()]
    lines += [f"{name}: got no such file, expected one" for name in whole.keys() - found.keys()]
    lines += [f"{name}: got other bytes" for name in found.keys() & whole.keys() if found[name] != whole[name]]
    return sorted(lines)


def of_whole_shards(out: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of each file that is done, which no later call has a reason to write again."""
    found = {}
    for path in sorted(out.glob("*")):
        is_done = path.suffix == ".json" or path.with_suffix(".json").exists() or (out / "index.json").exists()
        if is_done and not path.name.startswith("."):
            found[path.name] = path.stat().st_ino, path.stat().st_mtime_ns
    return found


def at_moments(count: int, seed: int) -> list[Case]:
    """Return `count` cases that kill a call with two workers at a random moment.

    The next call has two workers in one case and one in the next.
    """
    rng = random.Random(seed)
    kills = [Kill(Signals.SIGKILL, AT, f"{rng.random():.4f}") for _ in range(count)]
    return [Case(variant, (kill,)) for variant, kill in zip(itertools.cycle(_AT_MOMENTS), kills, strict=False)]


class Suite:
    """A runner of cases, which begins with undisturbed processes to compare with.

    Args:
        work: the folder for all files, made anew; the files of failed cases stay.

    Attributes:
        traces: the trace of an undisturbed process of each variant.

    Raises:
        RuntimeError: an undisturbed process failed, or the results of two differ.
    """

    def __init__(self, work: Path) -> None:
        preload("tests.data.kills.child")
        self._work = work.resolve()
        shutil.rmtree(self._work, ignore_errors=True)
        self._images = self._work / "images"
        write_images(self._images)
        self._numbers = itertools.count(1)
        self._wholes: dict[str, Contents] = {}  # by the name of the source
        self.traces = {name: self._undisturbed(name) for name in VARIANTS}

    def _undisturbed(self, name: str) -> Trace:
        variant, place = VARIANTS[name], self._place()
        for number in range(2):  # the system's caches are warm for the second, whose trace gives the usual duration
            shutil.rmtree(place / "out", ignore_errors=True)
            status, said = self._process(place, variant, variant.first, number, None)
            if status != 0:
                raise RuntimeError(f"{name}: an undisturbed process ended with status {status}:\n{said}")
            found = contents(place / "out")
            if unlike := differences(found, self._wholes.setdefault(variant.images, found)):
                raise RuntimeError(f"{name}: two undisturbed processes differ: {'; '.join(unlike)}")
        return Trace.read(place / "trace-1.txt")

    def at_events(self) -> tuple[list[Case], int]:
        """Return the cases that kill at an event, and the number of events.

        The events are those of an undisturbed process and of four processes that go on after a kill. These find one or
        two finished shards of four, a whole set whose records still exist, or a finished set.
        """
        titles = self.traces[_IN_EVENTS].events
        found, events = cases.at_events(_IN_EVENTS, titles, polite=_POLITE), len(titles)
        for first in (
            Kill(Signals.SIGKILL, BEFORE, "rename 1 of .shard_00001.json.partial to shard_00001.json"),
            Kill(Signals.SIGKILL, HALF, "write 1 of .shard_00002.bin.partial"),
            Kill(Signals.SIGKILL, BEFORE, "remove 1 of shard_00000.json"),
            Kill(Signals.SIGKILL, AFTER, titles[-1]),
        ):
            variant, place = VARIANTS[_IN_EVENTS], self._place()
            self._process(place, variant, variant.first, 0, first)
            self._process(place, variant, variant.later, 1, None)
            resumed = Trace.read(place / "trace-1.txt").events
            shutil.rmtree(place)
            found += cases.at_events(_IN_EVENTS, resumed, (first,), polite=_POLITE)
            events += len(resumed)
        return found, events

    def run(self, case: Case, tell: Callable[[str], object] = lambda said: None) -> list[str]:
        """Run a case; return a line for each promise that was broken.

        Args:
            case: the kills of the case, one process after another; an undisturbed process comes last.
            tell: a function that is called with the output of each process.
        """
        variant, place = VARIANTS[case.variant], self._place()
        out, found = place / "out", []
        done: dict[str, tuple[int, int]] = {}
        for number, kill in enumerate((*case.kills, None)):
            processes = variant.later if number else variant.first
            status, said = self._process(place, variant, processes, number, kill)
            tell(said)
            if left := workers.left_after(str(place / str(number)), _LIFE):
                found.append(f"{kill or 'the last'}: {len(left)} workers live on after {_LIFE:.0f} s")
            if wrong := _wrong_end(kill, status, Trace.read(place / f"trace-{number}.txt")):
                found.append(f"{wrong}, and last said: {said.strip().rpartition(chr(10))[2]}")
            left_there = of_whole_shards(out)
            again = [name for name, file in done.items() if left_there.get(name, file) != file]
            found += [f"{kill or 'the last'}: wrote {name} again" for name in again]
            done = left_there
        found += differences(contents(out), self._wholes[variant.images])
        if not found:
            shutil.rmtree(place)
        return found

    def run_all(self, chosen: Iterable[Case], tell: Callable[[Case, list[str]], object]) -> None:
        """Run the cases; call `tell` with each case and its broken promises as the case ends."""
        for case in chosen:
            tell(case, self.run(case))

    def _place(self) -> Path:
        place = self._work / f"case-{next(self._numbers):04d}"
        place.mkdir()
        return place

    def _process(
        self, place: Path, variant: Variant, processes: int, number: int, kill: Kill | None
    ) -> tuple[int | None, str]:
        """Run the case's process of this number until it ends; return its status, None if it hangs, and its output."""
        notes = place / f"trace-{number}.txt"
        child = Child(
            place / f"output-{number}.txt",
            process,
            self._images / variant.images,
            place / "out",
            variant.per_shard,
            processes,
            notes,
            None if kill is None or kill.when == AT else kill,
            environment={workers.MARK: str(place / str(number))},
        )
        until = time.monotonic() + _PATIENCE
        try:
            if kill is not None and kill.when == AT:
                _, seconds = self._trace_of(variant).moment(float(kill.what))
                while child.running and Trace.read(notes).began is None and time.monotonic() < until:
                    time.sleep(_TICK)
                time.sleep(seconds)
                with suppress(ProcessLookupError):  # the process has ended
                    child.send_signal(kill.signal)
            while child.running and time.monotonic() < until:
                time.sleep(_TICK)
            status = None if child.running else child.status()
        finally:
            child.kill()
        return status, child.said

    def _trace_of(self, variant: Variant) -> Trace:
        return next(self.traces[name] for name, one in VARIANTS.items() if one == variant)


def _wrong_end(kill: Kill | None, status: int | None, trace: Trace) -> str | None:
    """Return what is wrong with the end of a process; None if the process ended as its kill should make it."""
    if status is None:
        return f"{kill or 'the last'}: still running after {_PATIENCE:.0f} s"
    if kill is None:
        return None if status == 0 else f"the last: ended with status {status}"
    if kill.when != AT and kill.what not in trace.events:
        return f"{kill}: never came to it"
    if kill.signal == Signals.SIGKILL and status != -kill.signal and not (kill.when == AT and status == 0):
        return f"{kill}: ended with status {status}"
    if kill.signal != Signals.SIGKILL and status == 0:
        return f"{kill}: ended as if nothing had come"
    return None
