"""Words for a person, to a console that may lack a character or be gone: neither ends the work."""

from __future__ import annotations

import contextlib
import os
import reprlib
import sys
from typing import TextIO


class Tolerant:
    """A text stream whose every write succeeds.

    A character that the console lacks becomes a question mark. Once a write fails, as to a closed pipe or terminal, the
    stream falls silent, and standard error is told so.

    Args:
        stream: where the words go. None: standard output, as it is at each write.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._silent = False

    @property
    def _target(self) -> TextIO:
        return sys.stdout if self._stream is None else self._stream

    @property
    def encoding(self) -> str:
        """The encoding of what lies below."""
        return getattr(self._target, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Return True on a terminal that is still there."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return not self._silent and self._target.isatty()
        return False

    def fileno(self) -> int:
        """The number of the file below."""
        return self._target.fileno()

    def write(self, text: str) -> int:
        """Write as much as can be written."""
        if not self._silent:
            try:
                self._written(text)
            except (OSError, ValueError, AttributeError) as error:  # closed, or no stream at all
                self._fall_silent(error)
        return len(text)

    def flush(self) -> None:
        """Bring what was written to its place."""
        if not self._silent:
            try:
                self._target.flush()
            except (OSError, ValueError, AttributeError) as error:
                self._fall_silent(error)

    def _written(self, text: str) -> None:
        try:
            self._target.write(text)
        except UnicodeEncodeError:
            self._target.write(text.encode(self.encoding, "replace").decode(self.encoding))

    def _fall_silent(self, error: Exception) -> None:
        self._silent = True
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if self._target.fileno() in (1, 2):  # the process's own, not a file of the program's
                _lead_nowhere(self._target)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(f"standard output is gone ({error}); the work goes on without it", file=sys.stderr, flush=True)


def _lead_nowhere(stream: TextIO) -> None:
    """Let what is left in a stream's buffer go: it would fail again as the interpreter ends, with another status.

    Raises:
        OSError, ValueError, AttributeError: it is no stream with a number.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def silence_standard_output() -> None:
    """Let nothing of standard output fail any more, once its reader is gone."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        _lead_nowhere(sys.stdout)


def say(text: str, stream: Tolerant | None = None) -> None:
    """Print lines to standard output, or to a tolerant stream, their signs as `printable` has them."""
    stream = stream or Tolerant()
    stream.write(_lines(text))
    stream.flush()


def _lines(text: str) -> str:
    return "".join(f"{printable(line)}\n" for line in text.split("\n"))


def answer(text: str) -> None:
    """Print what a command was asked for, as `say` does, to standard output.

    Raises:
        OSError: it can't be written, as to a full disk or a pipe that is closed.
    """
    try:
        print(_lines(text), end="", flush=True)
    except OSError as error:
        silence_standard_output()
        raise OSError(error.errno, error.strerror, "standard output") from error


def printable(text: str) -> str:
    r"""Return a text with every sign that isn't to be seen, such as those that move a cursor, as its escape: "\x1b".

    Names of files and of members of archives may hold any sign, and bytes that are no text.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def shortened(text: str, longest: int = 200) -> str:
    """Return a text as `printable` does, in at most so many signs: a file that has a say in it may hold millions."""
    line = printable(text[: longest + 1])
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def abridged(name: str, longest: int = 500) -> str:
    """Return a name as `printable` does, in at most so many signs: of a longer one both ends, where paths differ."""
    line = printable(name if len(name) <= 2 * longest else name[:longest] + name[-longest:])
    half = (longest - 3) // 2
    return line if len(line) <= longest else f"{line[:half]}...{line[-half:]}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error, `shortened`; its kind where it has no words."""
    return shortened(next(iter(str(error).strip().splitlines()), type(error).__name__))


def shown(value: object) -> str:
    """Return the `repr` of a value, short whatever it is.

    Python's own raises an error for lists that are too deep, and for integers of too many digits.
    """
    return shortened(_BRIEF.repr(value), 100)


class _Brief(reprlib.Repr):
    """The `repr` of few parts of a value, two levels deep."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple = 2, 4, 6, 6
        self.maxstring, self.maxother, self.maxlong = 60, 60, 40

    def repr_OrderedDict(self, x: dict[object, object], level: int) -> str:  # noqa: N802  reprlib's name for it
        """Take it as any dict: reprlib would leave it to its own `repr`, which has no bounds."""
        return self.repr_dict(x, level)

    def repr_int(self, x: int, level: int) -> str:
        # Its decimal digits take a time that grows with their square.
        return f"<an integer of {x.bit_length()} bits>" if x.bit_length() > 1024 else super().repr_int(x, level)


_BRIEF = _Brief()
