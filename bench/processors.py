"""The processors that rows come from: what tells them apart, how a reader is told, and the last run on each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .provenance import Conditions
from .rows import Result, last_run

_NO_NAMES = re.compile(r"\([^)]*\)|\b\d+th Gen\b|@.*")


class Processor(NamedTuple):
    """A model with an instruction set: the same model counts as another where other kernels run on it."""

    model: str
    isa: str

    @classmethod
    def of(cls, row: Conditions) -> Processor:
        """The one that a row was measured on."""
        return cls(row.processor, row.isa)

    @property
    def short(self) -> str:
        """The model's first two words and the instruction set: "Intel Xeon, avx512bf16"."""
        return f"{' '.join(_NO_NAMES.sub(' ', self.model).split()[:2])}, {self.isa}"


def titles(processors: Iterable[Processor]) -> dict[Processor, str]:
    """The short names, once each, in the order given; in full where two share the short one."""
    known = list(dict.fromkeys(processors))
    short = Counter(processor.short for processor in known)
    return {one: one.short if short[one.short] == 1 else f"{one.model}, {one.isa}" for one in known}


def last_runs(rows: Sequence[Result]) -> dict[Processor, list[Result]]:
    """By processor, the rows of the run that wrote last on it."""
    found: dict[Processor, list[Result]] = {}
    for row in rows:
        found.setdefault(Processor.of(row), []).append(row)
    return {processor: last_run(own) for processor, own in found.items()}
