"""The verdicts on stages: one line on the terminal for each, and one line of JSON in the folder of results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PASSED, FAILED, TIMED_OUT = "passed", "FAILED", "timed out"
NO_GPU, NOT_BUILT = "NO GPU", "NOT BUILT"
NOT_FOUND = "NOT FOUND"
"""The outcome if a tool of the machine is missing. Nothing is proved, and nothing is wrong with the kernels."""
NOT_STARTED, INTERRUPTED, SKIPPED = "not started", "interrupted", "skipped"

# Outcomes from the best to the worst. The worst outcome of its parts is the stage's.
_BY_WEIGHT = (SKIPPED, PASSED, NO_GPU, NOT_FOUND, NOT_STARTED, TIMED_OUT, NOT_BUILT, FAILED, INTERRUPTED)

# Exit statuses. The last is for a machine without a GPU, which proves nothing. Nothing is wrong with the code then.
ALL_PASSED, SOME_FAILED, ONLY_NO_GPU = 0, 1, 3


@dataclass(frozen=True)
class Verdict:
    """The verdict on a stage, or on a part of a stage."""

    stage: str
    outcome: str
    why: str = ""
    """The finding or the fault, in one line."""
    seconds: float = 0.0
    limit: float = 0.0
    """Seconds that the stage or part had."""
    part: str | None = None
    date: str = ""
    """The time of the end, UTC, ISO 8601."""
    tree: str = ""
    """The hash of the sources that were run."""

    def line(self) -> str:
        """Return the verdict as a line for the terminal."""
        name = f"{self.stage}, {self.part}" if self.part else self.stage
        time = f" in {self.seconds:.0f} s" if self.seconds else ""
        return f"{name}: {self.outcome}{time}{': ' + self.why if self.why else ''}"


def worst(outcomes: Iterable[str]) -> str:
    """Return the outcome of a whole, given those of its parts."""
    return max(outcomes, key=_BY_WEIGHT.index, default=PASSED)


def exit_status(verdicts: Iterable[Verdict]) -> int:
    """Return 0 if every chosen stage has passed, now or before; 3 if only a GPU was missing; otherwise 1."""
    outcomes = {verdict.outcome for verdict in verdicts} - {SKIPPED}
    if outcomes <= {PASSED}:
        return ALL_PASSED
    return ONLY_NO_GPU if outcomes <= {PASSED, NO_GPU} else SOME_FAILED


class Record:
    """The verdicts in a file of JSON lines, which only grows."""

    def __init__(self, path: Path, tree: str) -> None:
        self.path = path
        self._tree = tree

    def add(self, verdict: Verdict) -> None:
        """Add a verdict to the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fields = {name: value for name, value in dataclasses.asdict(verdict).items() if value is not None}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields | {"tree": self._tree}, ensure_ascii=False) + "\n")

    def has_passed(self, stage: str, part: str | None = None) -> bool:
        """Return True if the latest result of a stage or part, on these sources, is a pass."""
        found = [it for it in self._lines() if (it.get("stage"), it.get("part")) == (stage, part)]
        found = [it for it in found if it.get("tree") == self._tree and it.get("outcome") != SKIPPED]
        return bool(found) and found[-1]["outcome"] == PASSED

    def _lines(self) -> list[dict[str, object]]:
        """Return the lines that can be read. A kill may have left half a line."""
        lines: list[dict[str, object]] = []
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return lines
        for line in text.splitlines():
            try:
                fields = json.loads(line)
            except ValueError:
                continue
            if isinstance(fields, dict):
                lines.append(fields)
        return lines
