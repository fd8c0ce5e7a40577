"""From typed functions to a command line whose every mistake is one line on standard error and a non-zero status."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import tyro

from ._console import Tolerant, printable, say, silence_standard_output
from .ops.backends import BackendUnavailableError


@dataclass(frozen=True)
class Program:
    """A program of several commands; each command returns an exit status.

    Statuses of `run`: 1 for a value or file that cannot be used, 2 for a command that cannot be read, 130 for an
    interrupted run.
    """

    name: str
    description: str
    commands: Mapping[str, Callable[..., int]]
    mistakes: tuple[type[Exception], ...] = (ValueError, BackendUnavailableError)

    def run(self, arguments: Sequence[str] | None = None) -> int:
        """Run one command. `arguments` default to the process's own; returns the exit status."""
        _show_every_character()
        _show_warnings_as_lines(self.name)
        try:
            return self.parse(sys.argv[1:] if arguments is None else arguments)()
        except BrokenPipeError:  # as of a pager that was closed: nobody reads a word about it
            silence_standard_output()
            return 128 + 13  # as a process that SIGPIPE ends
        except OSError as error:
            return fail(self.name, describe(error), 1)
        except self.mistakes as error:
            return fail(self.name, str(error), 1)
        except KeyboardInterrupt:
            return fail(self.name, "interrupted", 130)
        except (MemoryError, RuntimeError) as error:
            if (why := out_of_something(error)) is None:
                raise
            return fail(self.name, why, 1)

    def parse(self, arguments: Sequence[str]) -> Callable[[], int]:
        """The command with its arguments bound; SystemExit for --help and for what cannot be read."""
        chosen: list[Callable[[], int]] = []

        def bound(command: Callable[..., int]) -> Callable[..., int]:
            @functools.wraps(command)
            def remember(*values: object, **named: object) -> int:
                chosen.append(lambda: command(*values, **named))
                return 0

            return remember

        captured = io.StringIO()
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
            raise SystemExit(fail(self.name, _one_line(captured.getvalue()) + " (see --help)", 2)) from None
        return chosen[0]


def _show_warnings_as_lines(program: str) -> None:
    """Let this project's warnings, as those of other packages that are for users, be a line without a place in code."""

    def formatted(message: Warning | str, category: type[Warning], *place: Any, **named: Any) -> str:
        if category is not UserWarning:
            return _FORMAT(message, category, *place, **named)
        return f"{program}: {printable(str(message))}\n"

    warnings.formatwarning = formatted


def _show_every_character() -> None:
    """Let a console that lacks a character, such as ±, show a question mark in its place."""
    for stream in (sys.stdout, sys.stderr):
        # The second is what Python takes in the locales C and POSIX.
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


_FORMAT = warnings.formatwarning  # as it is before any program runs

_Choice = TypeVar("_Choice", bound=str)


def chosen(arguments: Sequence[str], flag: str, choices: Sequence[_Choice], default: _Choice) -> _Choice:
    """Return what a flag says that decides other flags' defaults, as far as it can be read.

    The whole command line is read, and refused, later.
    """
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    reader.add_argument(flag, dest="name")
    with contextlib.suppress(argparse.ArgumentError):
        name = reader.parse_known_args(arguments)[0].name
        if name in choices:
            return choices[choices.index(name)]
    return default


def out_of_something(error: BaseException) -> str | None:
    """Return a sentence about an error of which a limit is the cause, with the way out; None for any other error."""
    reason = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in reason:
        told = f" ({reason})" if reason else ""
        return (
            f"out of memory{told}: less is taken by a smaller --batch-size, --samples or --workers; ulimit -v shows a "
            "limit of the shell"
        )
    if "can't start new thread" in reason:
        return "the system starts no more threads for this user: --threads 1 takes fewer; ulimit -u shows the limit"
    return None


def note(program: str, message: str) -> None:
    """Say something in one line on standard error, whatever signs a file has put into it."""
    say(f"{program}: {' '.join(message.split())}", Tolerant(sys.stderr))


def fail(program: str, message: str, status: int) -> int:
    """Say in one line why a program ends; returns its exit status."""
    note(program, message)
    return status


def describe(error: OSError) -> str:
    """The system's words for an error, after the file that it is about."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _one_line(box: str) -> str:
    """tyro's framed message as one line: its sections, less the frame and the closing pointer to --help."""
    inside = "\n".join(line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰")))
    sections = (" ".join(section.split()) for section in re.split("─+", inside))
    return "; ".join(section for section in sections if section and not section.startswith("For full"))
