"""Kills: which signal comes, and when; and what is tried in a row on one run."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from signal import Signals

from .runs import VARIANTS

POLITE = (Signals.SIGTERM, Signals.SIGHUP, Signals.SIGUSR1)
SIGNALS = (Signals.SIGKILL, *POLITE)

BEFORE, HALF, AFTER, AT = "before", "half-way through", "after", "at"
_KILL = re.compile(rf"(SIG\w+) ({BEFORE}|{HALF}|{AFTER}|{AT}) (.+)")
_SHARE_TWICE = 1 / 3  # of the moments, those with a second kill in the process that resumes


@dataclass(frozen=True)
class Kill:
    """A signal to a process.

    Attributes:
        signal: which.
        when: before, half-way through or after an event, or at a moment.
        what: the event's title (`watching.Watch`); or a share of the seconds that the process would take, as a number.
    """

    signal: Signals
    when: str
    what: str

    def __str__(self) -> str:
        return f"{self.signal.name} {self.when} {self.what}"

    @classmethod
    def parse(cls, text: str) -> Kill:
        """Return the kill that gives this text. Raises a ValueError if none does."""
        found = _KILL.fullmatch(text)
        if found is None or found[1] not in Signals.__members__ or (found[2] == AT and not _is_number(found[3])):
            raise ValueError(f"got {text!r}, expected a kill such as 'SIGKILL before write 1 of metrics.jsonl'")
        return cls(Signals[found[1]], found[2], found[3])


@dataclass(frozen=True)
class Case:
    """A run, the kill of its process, and those of the processes that resume it, of which a last one lives."""

    variant: str
    kills: tuple[Kill, ...]

    def __str__(self) -> str:
        return f"{self.variant}: {', then '.join(map(str, self.kills))}"

    @classmethod
    def parse(cls, text: str, variants: Sequence[str] = VARIANTS) -> Case:
        """Return the case, of one of these variants, that gives this text. Raises a ValueError if none does."""
        variant, _, kills = text.partition(": ")
        if variant not in variants:
            raise ValueError(f"got {text!r}, expected a case that begins with {' or '.join(variants)}")
        return cls(variant, tuple(Kill.parse(kill) for kill in kills.split(", then ")))


def at_events(
    variant: str, events: Sequence[str], earlier: tuple[Kill, ...] = (), polite: Sequence[Signals] = POLITE
) -> list[Case]:
    """Each signal at each event: SIGKILL before it, where it is a write also half-way through; the others before.

    The end of an event is the beginning of the next, as far as a disk can tell. So only the last has a kill after it.

    Args:
        variant: of the run.
        events: of the process to kill.
        earlier: kills of the processes before that one.
        polite: the signals other than SIGKILL.
    """
    kills = []
    for event in events:
        kills.append(Kill(Signals.SIGKILL, BEFORE, event))
        if event.startswith("write "):
            kills.append(Kill(Signals.SIGKILL, HALF, event))
        kills += [Kill(number, BEFORE, event) for number in polite]
    kills += [Kill(number, AFTER, event) for event in events[-1:] for number in (Signals.SIGKILL, *polite)]
    return [Case(variant, (*earlier, kill)) for kill in kills]


def at_moments(count: int, seed: int) -> list[Case]:
    """As many first kills at random moments, of each signal equally many, in each variant by turns."""
    rng = random.Random(seed)
    cases = []
    for number in range(count):
        kills = [_drawn(SIGNALS[number // len(VARIANTS) % len(SIGNALS)], rng)]
        if rng.random() < _SHARE_TWICE:
            kills.append(_drawn(rng.choice(SIGNALS), rng))
        cases.append(Case(VARIANTS[number % len(VARIANTS)], tuple(kills)))
    return cases


def starts_of_a_resume(events: Iterable[str]) -> list[Kill]:
    """Kills that leave the process which resumes something to mend, and one that leaves it nothing to do."""
    events = list(events)
    checkpoints = [event for event in events if event.startswith("rename") and event.endswith(" to checkpoint.pt")]
    scores = [event for event in events if event.startswith("write") and event.endswith(" of scores.jsonl")]
    found = [Kill(Signals.SIGKILL, BEFORE, event) for event in checkpoints[-2:-1]]  # log lines go beyond it
    found += [Kill(Signals.SIGKILL, HALF, event) for event in scores[-2:-1]]
    return [*found, Kill(Signals.SIGKILL, AFTER, events[-1])]


def _drawn(number: Signals, rng: random.Random) -> Kill:
    return Kill(number, AT, f"{rng.random():.4f}")


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None
