"""A planted bug: what a slip makes of the sources, and the test that must notice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "triton",
    "cuda",
    "cpu",
    "autograd",
    "reference",
    "modules",
    "surface",
    "training",
    "data",
    "metrics",
    "studies",
    "command line",
    "strangers",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

# How a test says no: an assertion, or pytest.fail, as where pytest.raises saw nothing raised.
OWN_WORDS = ("AssertionError", "Failed")


@dataclass(frozen=True)
class Planted:
    """A bug in one place of one file.

    Attributes:
        name: the slip, in words.
        kind: the part of the project that it is in.
        file: its path in the repository.
        text: what stands in the file exactly once.
        instead: what stands there with the bug.
        test: the id of a test that passes without the bug and fails with it.
        errors: the exceptions by which it may fail. Any other, such as a compiler's complaint, is no verdict.
    """

    name: str
    kind: Kind
    file: str
    text: str
    instead: str
    test: str
    errors: tuple[str, ...] = OWN_WORDS

    @property
    def needs_extension(self) -> bool:
        """True if the compiled module must be built for it. The tests of csrc/cuda compile that folder themselves."""
        return self.file.startswith("csrc/") and not self.file.startswith("csrc/cuda/")

    def stale(self, source: str | None) -> str | None:
        """The reason why the bug can't be planted in this text of the file, with the way out; None if it can."""
        way_out = "make the planted bug anew for what stands there now"
        if source is None:
            return f"{self.file} is no file of the repository; {way_out}"
        if (count := source.count(self.text)) != 1:
            return f"{self.file} has {self.text.strip().splitlines()[0]!r}... {count} times, expected once; {way_out}"
        return None

    def planted(self, source: str) -> str:
        """The file's text with the bug."""
        return source.replace(self.text, self.instead)
