"""Printing of text for people. A console that lacks a character, or was closed, does not stop the work."""

from __future__ import annotations

import contextlib
import os
import reprlib
import sys
from typing import TextIO


class Tolerant:
    """A text stream whose writes never fail.

    A character that the console lacks becomes a question mark. Once a write fails, for example to a closed pipe or
    terminal, the stream prints nothing more, and one message on standard error says so.

    Args:
        stream: the stream to write to. None: standard output, looked up at each write.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._silent = False

    @property
    def _target(self) -> TextIO:
        return sys.stdout if self._stream is None else self._stream

    @property
    def encoding(self) -> str:
        """The encoding of the underlying stream, "utf-8" if it has none."""
        return getattr(self._target, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Return True if the stream is a terminal that still works."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return not self._silent and self._target.isatty()
        return False

    def fileno(self) -> int:
        """Return the file descriptor of the underlying stream."""
        return self._target.fileno()

    def write(self, text: str) -> int:
        """Write the text if the stream still works. Returns the number of characters in either case."""
        if not self._silent:
            try:
                self._written(text)
            except (OSError, ValueError, AttributeError) as error:  # the stream is closed or None
                self._fall_silent(error)
        return len(text)

    def flush(self) -> None:
        """Flush the underlying stream if it still works."""
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
            if self._target.fileno() in (1, 2):  # standard output or error, not a file that the program opened
                _lead_nowhere(self._target)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(f"standard output is gone ({error}); the work goes on without it", file=sys.stderr, flush=True)


def _lead_nowhere(stream: TextIO) -> None:
    """Redirect a stream's file descriptor to the null device, so that the text left in its buffer is dropped.

    Otherwise the write would fail again when the interpreter ends, and change the exit status.

    Raises:
        OSError, ValueError, AttributeError: if the stream has no file descriptor.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def silence_standard_output() -> None:
    """Drop all further standard output, once its reader is gone, so that no write to it fails."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        _lead_nowhere(sys.stdout)


def say(text: str, stream: Tolerant | None = None) -> None:
    """Print lines to standard output or to a tolerant stream, with unprintable characters escaped."""
    stream = stream or Tolerant()
    stream.write(_lines(text))
    stream.flush()


def _lines(text: str) -> str:
    return "".join(f"{printable(line)}\n" for line in text.split("\n"))


def answer(text: str) -> None:
    """Print the result of a command to standard output, with unprintable characters escaped.

    Raises:
        OSError: if it can't be written, for example to a full disk or a closed pipe.
    """
    try:
        print(_lines(text), end="", flush=True)
    except OSError as error:
        silence_standard_output()
        raise OSError(error.errno, error.strerror, "standard output") from error


def printable(text: str) -> str:
    r"""Return the text with each unprintable character, such as those that move a cursor, as its escape: "\x1b".

    Names of files and of archive members may hold any character, and bytes that are no text.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def shortened(text: str, longest: int = 200) -> str:
    """Return the printable text, cut to `longest` characters: text from a file may hold millions."""
    line = printable(text[: longest + 1])
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def abridged(name: str, longest: int = 500) -> str:
    """Return the printable name in at most `longest` characters. A longer name keeps both ends, where paths differ."""
    line = printable(name if len(name) <= 2 * longest else name[:longest] + name[-longest:])
    half = (longest - 3) // 2
    return line if len(line) <= longest else f"{line[:half]}...{line[-half:]}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, shortened, or the error's type if there is no message."""
    return shortened(next(iter(str(error).strip().splitlines()), type(error).__name__))


def shown(value: object) -> str:
    """Return a short `repr` of any value.

    Python's own `repr` raises an error for lists that are too deep and integers of too many digits.
    """
    return shortened(_BRIEF.repr(value), 100)


class _Brief(reprlib.Repr):
    """A `repr` that shows few parts of a value, two levels deep."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple = 2, 4, 6, 6
        self.maxstring, self.maxother, self.maxlong = 60, 60, 40

    def repr_OrderedDict(self, x: dict[object, object], level: int) -> str:  # noqa: N802  reprlib's name for it
        """Show it as a plain dict. reprlib would call OrderedDict's own `repr`, whose length has no limit."""
        return self.repr_dict(x, level)

    def repr_int(self, x: int, level: int) -> str:
        # The time to convert to decimal digits grows with the square of their number.
        return f"<an integer of {x.bit_length()} bits>" if x.bit_length() > 1024 else super().repr_int(x, level)


_BRIEF = _Brief()
