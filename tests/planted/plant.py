"""A planted bug: a small change of the sources, and the test that must fail with it."""

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

# The exceptions by which a test fails: an assertion, or pytest.fail, which pytest.raises uses if nothing was raised.
OWN_WORDS = ("AssertionError", "Failed")


@dataclass(frozen=True)
class Planted:
    """A bug in one place of one file.

    Attributes:
        name: the bug, in words.
        kind: the part of the project that it is in.
        file: its path in the repository.
        text: a text that the file contains exactly once.
        instead: the text in its place with the bug.
        test: the id of a test that passes without the bug and fails with it.
        errors: the exceptions by which the test may fail. Any other, such as a compiler's error, gives no verdict.
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
        """True if the compiled module must be built for the bug. Tests of csrc/cuda compile that folder themselves."""
        return self.file.startswith("csrc/") and not self.file.startswith("csrc/cuda/")

    def stale(self, source: str | None) -> str | None:
        """Return why the bug cannot be planted in this text of the file, and the way out; None if it can."""
        way_out = "write the planted bug anew for the present text"
        if source is None:
            return f"{self.file} is no file of the repository; {way_out}"
        if (count := source.count(self.text)) != 1:
            return f"{self.file} has {self.text.strip().splitlines()[0]!r}... {count} times, expected once; {way_out}"
        return None

    def planted(self, source: str) -> str:
        """Return the file's text with the bug."""
        return source.replace(self.text, self.instead)
