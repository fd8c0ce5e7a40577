"""The verdict on a planted bug, from the end of its pytest process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .plant import Planted

Outcome = Literal["caught", "missed", "stale", "not judged"]


@dataclass(frozen=True)
class Note:
    """The end of one test, or of a phase of it; `witness.py` writes them.

    Attributes:
        test: its id.
        when: "collect", "setup", "call" or "teardown".
        outcome: "passed", "failed" or "skipped".
        errors: the names of the exception's classes, bases included.
        words: the message of the exception, or the reason of the skip.
    """

    test: str
    when: str
    outcome: str
    errors: Sequence[str]
    words: str


@dataclass(frozen=True)
class Ended:
    """The end of a pytest process.

    Attributes:
        status: its exit status; None if it was ended for taking too long.
        notes: the ends of its tests.
        last: the last line that it printed.
    """

    status: int | None
    notes: Sequence[Note]
    last: str


@dataclass(frozen=True)
class Verdict:
    """An outcome, and the reason if it is neither "caught" nor "missed"."""

    outcome: Outcome
    reason: str = ""


def _first_line(words: str) -> str:
    return words.strip().partition("\n")[0][:200]


def _without_verdict(ended: Ended) -> str | None:
    """Return the reason why a process gives no verdict on the sources; None if its tests ran."""
    if ended.status is None:
        return "the test took too long and was ended"
    if ended.status not in (0, 1, 5):
        return f"pytest ended with status {ended.status}: {_first_line(ended.last)}"
    for note in ended.notes:
        if note.outcome == "failed" and note.when != "call":
            return f"an error in the test's {note.when}: {_first_line(note.words)}"
    if any(note.when == "call" and note.outcome != "skipped" for note in ended.notes):
        return None
    for note in ended.notes:
        if note.outcome == "skipped":
            return f"the test was skipped: {_first_line(note.words.removeprefix('Skipped: '))}"
    return f"no test ran: {_first_line(ended.last)}"


def judge(plant: Planted, ended: Ended) -> Verdict:
    """Return the verdict on a bug, from the end of its test in the copy with the bug."""
    if reason := _without_verdict(ended):
        return Verdict("not judged", reason)
    failed = [note for note in ended.notes if note.outcome == "failed"]
    if not failed:
        return Verdict("missed")
    if any(set(plant.errors) & set(note.errors) for note in failed):
        return Verdict("caught")
    expected = " or ".join(plant.errors)
    return Verdict("not judged", f"the test fails by {_first_line(failed[0].words)!r}, expected {expected}")


def unfit(test: str, ended: Ended) -> str | None:
    """Return why a test does not pass without a bug, and so cannot judge one; None if it passes.

    `ended` may be the end of several tests. `test` may be the id of one test, or without parameters of several.
    """
    mine = [note for note in ended.notes if note.test == test or note.test.startswith((f"{test}[", f"{test}::"))]
    for note in mine:
        if note.outcome == "failed":
            return f"the test fails without the bug: {_first_line(note.words)}"
    if any(note.when == "call" and note.outcome == "passed" for note in mine):
        return None
    # A skipped module is noted under its own name.
    whole = [note for note in ended.notes if note.when == "collect" and test.startswith(note.test)]
    return _without_verdict(Ended(ended.status, mine or whole, ended.last)) or "the test did not run"
