"""Descent along an entry's fields, a group of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .knobs import Entry, Knob

# Less is noise, and not worth an entry that someone has to keep.
GAIN = 0.98
SWEEPS = 3

Ratios = Callable[[Sequence[Entry]], list[float | None]]
"""Times of entries by that of the first, None for one that is out."""


def descend(knob: Knob, start: Entry, ratios: Ratios, sweeps: int = SWEEPS) -> Entry:
    """The entry that no alternative in one group beats by the gain; `start` itself where none does.

    The groups are gone through `sweeps` times at most, so with few of them another sweep might find a better one.
    Raises ValueError when the entry to beat is itself out.
    """
    current = start
    for _ in range(sweeps):
        before = current
        for number in range(len(knob.groups)):
            contestants = [current, *list(knob.alternatives(current))[number]]
            found = ratios(contestants)
            if found[0] is None:
                raise ValueError(f"{knob.name}: the entry in use, {current}, does not give right results here")
            _, index = min((ratio, index) for index, ratio in enumerate(found) if ratio is not None)
            if (found[index] or 1.0) < GAIN:
                current = contestants[index]
        if current == before or len(knob.groups) == 1:
            break
    return current
