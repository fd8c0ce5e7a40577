"""Progress, notes, errors and paths in words, for every command."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def note(text: str) -> None:
    """Print a line on standard error."""
    print(f"bench: {text}", file=sys.stderr)


def short(path: Path) -> Path:
    """Return the path relative to the current folder, if it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def first_line(error: Exception) -> str:
    """Return the type of an error, and the first line of its message."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def complaint(error: Exception) -> str:
    """Return a ValueError's own message, which says what to do, or "cannot run" with another error's first line."""
    return str(error) if isinstance(error, ValueError) else f"cannot run: {first_line(error)}"


@contextlib.contextmanager
def progress(steps: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """Show progress through a number of steps. Gives two functions: one describes, one advances by a step.

    Shows a bar on a terminal, and elsewhere a line for each description.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from _lines(steps)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Drawn between steps alone: a thread that redraws would be timed with the kernels.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=steps)
        yield (
            lambda text: bar.update(task, description=text, refresh=True),
            lambda: bar.update(task, advance=1, refresh=True),
        )


def _lines(steps: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    done = 0

    def describe(text: str) -> None:
        print(f"bench: {done} of {steps} done, now {text}", file=sys.stderr, flush=True)

    def advance() -> None:
        nonlocal done
        done += 1

    yield describe, advance
