"""The kills of a run: which signal comes and when, and the sequences of kills that one run must survive."""

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
_SHARE_TWICE = 1 / 3  # the share of the random cases that have a second kill, in the process that resumes


@dataclass(frozen=True)
class Kill:
    """A signal to a process.

    Attributes:
        signal: The signal.
        when: One of before, half-way through and after, for an event; or at, for a moment.
        what: The event's title (`watching.Watch`); or the moment, as a share of the seconds that the process would
            take.
    """

    signal: Signals
    when: str
    what: str

    def __str__(self) -> str:
        return f"{self.signal.name} {self.when} {self.what}"

    @classmethod
    def parse(cls, text: str) -> Kill:
        """Return the kill whose text this is. Raise ValueError if there is none."""
        found = _KILL.fullmatch(text)
        if found is None or found[1] not in Signals.__members__ or (found[2] == AT and not _is_number(found[3])):
            raise ValueError(f"got {text!r}, expected a kill such as 'SIGKILL before write 1 of metrics.jsonl'")
        return cls(Signals[found[1]], found[2], found[3])


@dataclass(frozen=True)
class Case:
    """A run, the kill of its process, and the kills of the processes that resume it. One more process, which is not
    killed, ends it.
    """

    variant: str
    kills: tuple[Kill, ...]

    def __str__(self) -> str:
        return f"{self.variant}: {', then '.join(map(str, self.kills))}"

    @classmethod
    def parse(cls, text: str, variants: Sequence[str] = VARIANTS) -> Case:
        """Return the case, of one of these variants, whose text this is. Raise ValueError if there is none."""
        variant, _, kills = text.partition(": ")
        if variant not in variants:
            raise ValueError(f"got {text!r}, expected a case that begins with {' or '.join(variants)}")
        return cls(variant, tuple(Kill.parse(kill) for kill in kills.split(", then ")))


def at_events(
    variant: str, events: Sequence[str], earlier: tuple[Kill, ...] = (), polite: Sequence[Signals] = POLITE
) -> list[Case]:
    """Return the cases that send each signal at each event.

    SIGKILL comes before each event, and also half-way through each write. The other signals come before each event. On
    the disk, the end of an event is the same as the start of the next, so only the last event also has kills after it.

    Args:
        variant: The variant of the run.
        events: The events of the process to kill.
        earlier: The kills of the processes before that one.
        polite: The signals other than SIGKILL.
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
    """Return `count` cases whose first kill comes at a random moment. Signals and variants take turns, so each is used
    equally often.
    """
    rng = random.Random(seed)
    cases = []
    for number in range(count):
        kills = [_drawn(SIGNALS[number // len(VARIANTS) % len(SIGNALS)], rng)]
        if rng.random() < _SHARE_TWICE:
            kills.append(_drawn(rng.choice(SIGNALS), rng))
        cases.append(Case(VARIANTS[number % len(VARIANTS)], tuple(kills)))
    return cases


def starts_of_a_resume(events: Iterable[str]) -> list[Kill]:
    """Return kills after which the resuming process must repair files, and one after which it has nothing to do."""
    events = list(events)
    checkpoints = [event for event in events if event.startswith("rename") and event.endswith(" to checkpoint.pt")]
    scores = [event for event in events if event.startswith("write") and event.endswith(" of scores.jsonl")]
    found = [Kill(Signals.SIGKILL, BEFORE, event) for event in checkpoints[-2:-1]]  # there are log lines of later steps
    found += [Kill(Signals.SIGKILL, HALF, event) for event in scores[-2:-1]]
    return [*found, Kill(Signals.SIGKILL, AFTER, events[-1])]


def _drawn(number: Signals, rng: random.Random) -> Kill:
    return Kill(number, AT, f"{rng.random():.4f}")


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None
