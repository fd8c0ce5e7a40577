"""Command lines made of typed functions. Each user error is one line on standard error and a non-zero exit status."""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import io
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import tyro

from ._console import Tolerant, printable, say, shortened, silence_standard_output
from ._refused_arguments import in_our_words, one_line
from .ops.backends import BackendUnavailableError


@dataclass(frozen=True)
class Program:
    """A program of several commands. Each command is a function that returns an exit status.

    `run` returns 1 for a value or file that cannot be used, 2 for a command line that cannot be read, and 130 for an
    interrupted command.
    """

    name: str
    description: str
    commands: Mapping[str, Callable[..., int]]
    mistakes: tuple[type[Exception], ...] = (ValueError, BackendUnavailableError)
    place_of: Callable[[str], str | None] = lambda flag: None
    """A function that says where a flag belongs that the command lacks: "expected with --preset celeba64", or None."""

    def run(self, arguments: Sequence[str] | None = None) -> int:
        """Run one command and return its exit status. `arguments` default to the process's own."""
        _show_every_character()
        _show_warnings_as_lines(self.name)
        try:
            return self.parse(sys.argv[1:] if arguments is None else arguments)()
        except BrokenPipeError:  # a pager was closed, for example: nobody would read a message
            silence_standard_output()
            return 128 + 13  # the status of a process that SIGPIPE ended
        except OSError as error:
            return fail(self.name, describe(error), 1)
        except self.mistakes as error:
            return fail(self.name, str(error), 1)
        except KeyboardInterrupt as stop:  # some commands add how to continue
            return fail(self.name, "; ".join(["interrupted", *map(str, stop.args)]), 130)
        except (MemoryError, RuntimeError) as error:
            if (why := out_of_something(error)) is None:
                raise
            return fail(self.name, why, 1)

    def parse(self, arguments: Sequence[str]) -> Callable[[], int]:
        """Return the chosen command with its arguments bound.

        Raises:
            SystemExit: for --help, and with status 2 for a command line that cannot be read.
        """
        chosen: list[Callable[[], int]] = []

        def bound(command: Callable[..., int]) -> Callable[..., int]:
            @functools.wraps(command)
            def remember(*values: object, **named: object) -> int:
                chosen.append(lambda: command(*values, **named))
                return 0

            return remember

        captured = io.StringIO()
        if shutil.get_terminal_size().columns < _NARROWEST:
            os.environ["COLUMNS"] = str(_NARROWEST)
        try:
            with contextlib.redirect_stderr(captured):
                tyro.extras.subcommand_cli_from_dict(
                    {name: bound(command) for name, command in self.commands.items()},
                    prog=self.name,
                    description=self.description,
                    args=arguments,
                )
        except SystemExit as stop:
            if stop.code in (0, None):
                raise
            message = in_our_words(one_line(captured.getvalue()), list(arguments), list(self.commands), self.place_of)
            raise SystemExit(fail(self.name, f"{message} (see --help)", 2)) from None
        return chosen[0]


def _show_warnings_as_lines(program: str) -> None:
    """Print a UserWarning, the kind for users, as one line without a place in the code. Others keep Python's format."""

    def formatted(message: Warning | str, category: type[Warning], *place: Any, **named: Any) -> str:
        if category is not UserWarning:
            return _FORMAT(message, category, *place, **named)
        return f"{program}: {printable(str(message))}\n"

    warnings.formatwarning = formatted


def _show_every_character() -> None:
    """Make a console that lacks a character, such as ±, print a question mark. Without a console, print nothing."""
    if sys.stdout is None:  # standard output was closed before the program began
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  open until the program ends
    for stream in (sys.stdout, sys.stderr):
        # Python uses "surrogateescape" in the locales C and POSIX.
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


# torch's messages if the machine lacks memory. torch has an exception class for this only on a GPU.
_OF_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory|Storage size calculation overflowed")

_NARROWEST = 20  # columns of a terminal: in five columns, tyro never finishes its help

_FORMAT = warnings.formatwarning  # Python's own, saved before any program replaces it

_Choice = TypeVar("_Choice", bound=str)


def chosen(arguments: Sequence[str], flag: str, choices: Sequence[_Choice], default: _Choice) -> _Choice:
    """Return the value of a flag that decides other flags' defaults, or `default` if the value can't be read.

    The whole command line is parsed, and refused if it is wrong, later. tyro has no such function: its
    overridable_config_cli makes each set of defaults a subcommand (`train celeba64 --steps 9`), but this flag may stand
    anywhere.
    """
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    reader.add_argument(flag, dest="name")
    with contextlib.suppress(argparse.ArgumentError):
        name = reader.parse_known_args(arguments)[0].name
        if name in choices:
            return choices[choices.index(name)]
    return default


def out_of_something(error: BaseException) -> str | None:
    """Return a sentence on an error caused by a limit of memory or threads, with a way out. None for other errors."""
    reason = " ".join(str(error).split())
    if isinstance(error, MemoryError) or _OF_MEMORY.search(reason):
        got = f"memory: got less than the command needs ({shortened(reason) or 'MemoryError'})"
        return f"{got}, expected more; smaller numbers and sizes take less, and ulimit -v shows a limit of the shell"
    if "can't start new thread" in reason:
        return "threads: got no more of them from the system, expected some; ulimit -u shows the limit"
    return None


def note(program: str, message: str) -> None:
    """Print a message as one line on standard error, with unprintable characters escaped."""
    say(f"{program}: {' '.join(message.split())}", Tolerant(sys.stderr))


def fail(program: str, message: str, status: int) -> int:
    """Print in one line why the program ends, and return its exit status."""
    note(program, message)
    return status


_WORDS = {
    errno.EISDIR: "got a folder, expected a file",
    errno.ENOTDIR: "got a path with a file in a folder's place, expected folders",
    errno.EEXIST: "got a file, expected a folder or no file of this name",
}


def describe(error: OSError) -> str:
    """Return the file that an error is about and the system's message, or a clearer message for some errors."""
    if error.filename and error.errno in _WORDS:
        return f"{error.filename}: {_WORDS[error.errno]}"
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
