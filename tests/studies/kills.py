"""Kills of two processes that share a study, at random moments. Finished trials stay, and none is done twice.

`python -m tests.studies.kills` kills fifty times on each kind of storage, which takes five minutes.
"""

from __future__ import annotations

import contextlib
import io
import random
import sys
import tempfile
import time
from pathlib import Path

from ebgan_fast.studies.framework.results import Done
from ebgan_fast.studies.framework.run import queue_of
from ebgan_fast.studies.framework.study import key

from . import postgresql
from .counting import SEEN, done, job, seen
from .processes import SECONDS, start, wait_for

KILLS = 50
_MOST_TRIALS = 1250  # the more trials a database has, the longer takes each look at them
_TRIALS_PER_KILL = 50  # two processes do at most 32 trials in the third of a second between two kills
_SECONDS = 0.02  # of a trial; the storage's work for a trial takes about as long


def check(folder: Path, storage: str, kills: int, seed: int = 0) -> int:
    """Kill two processes so many times, let new ones finish the study, and return how many trials were done between
    kills.

    Args:
        folder: an empty folder.
        storage: the address of an empty storage.
        kills: the number of kills.
        seed: the seed of the moments of the kills.

    Raises:
        AssertionError: a finished trial was lost, done again or done twice.
    """
    chance = random.Random(seed)
    count = min(kills * _TRIALS_PER_KILL, _MOST_TRIALS)
    observer = queue_of(job(folder, storage, count))
    finished: dict[str, object] = {}
    before = 0  # characters that had been noted when these trials were finished
    for number in range(kills):
        _kill(folder, storage, count, chance)
        now = _measured(observer.done())
        assert finished.items() <= now.items(), f"kill {number}: {finished.items() - now.items()} is lost"
        noted = (folder / SEEN).read_text()
        again = _numbers(noted[before:], "began") & finished.keys()
        assert not again, f"kill {number}: {again} was begun again"
        finished, before = now, len(noted)
    assert 0 < len(finished) < count, f"{len(finished)} of {count} trials were finished"
    found = _measured(done(job(folder, storage, count)))
    assert finished.items() <= found.items(), f"{finished.items() - found.items()} is lost"
    assert len(found) == count
    whole = (folder / SEEN).read_text()
    begun = _numbers(whole[before:], "began")
    assert whole[before:].count("began") == len(begun), "a trial was begun twice"
    # Trials that a killed process had measured but not closed are completed with the results that it had noted.
    measured = found.keys() - finished.keys() - begun
    assert begun <= found.keys() - finished.keys(), f"{begun & finished.keys()} was begun again"
    assert measured <= _numbers(whole[:before], "ended"), f"{measured} was never done"
    return len(finished)


def _kill(folder: Path, storage: str, count: int, chance: random.Random) -> None:
    """Start two processes, and kill both while they start or while they do trials."""
    words = chance.choice(("ready", "began", "began"))
    before = len(seen(folder, words))
    children = [start(folder, storage, count, _SECONDS) for _ in range(2)]
    wait_for(lambda: len(seen(folder, words)) >= before + 2)
    time.sleep(chance.uniform(0, 0.3))
    for child in children:
        child.kill()
        time.sleep(chance.choice((0, 0.02)))
    for child in children:
        child.join(SECONDS)


def _measured(found: list[Done]) -> dict[str, object]:
    """Return the process and the moment in each finished trial's result, by the trial's key."""
    return {key(one.params): tuple(one.result["by"]) if one.result else one.reason for one in found}


def _numbers(noted: str, word: str) -> set[str]:
    lines = [line.split() for line in noted.splitlines()]
    return {key({"number": int(line[1])}) for line in lines if line[0] == word}


def main() -> None:
    """Kill fifty times on each kind of storage, and print how many trials were finished."""
    for kind in ("journal", "sqlite", "postgresql"):
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            if kind == "postgresql":
                if reason := postgresql.missing():
                    print(f"postgresql: skipped, {reason}")
                    continue
                storage = stack.enter_context(postgresql.server())
            else:
                storage = str(folder / "journal.log") if kind == "journal" else f"sqlite:///{folder / 'trials.db'}"
            with contextlib.redirect_stdout(io.StringIO()):
                finished = check(folder, storage, KILLS)
            kept = f"{finished} trials were finished between them, none is lost or was done twice"
            print(f"{kind}: {KILLS} kills of two processes, {kept}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
