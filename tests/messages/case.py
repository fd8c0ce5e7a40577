"""A case is one mistake; its outcome holds the exit status, the words, the files and the places that raised."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import torch

from ebgan_fast import _command_line, cli
from ebgan_fast.data import worker

Arguments = Sequence[str | Path]
Around = Callable[[pytest.MonkeyPatch], contextlib.AbstractContextManager[object] | None]
Place = tuple[str, int]
"""A file of the package and a line in it."""

PACKAGE = Path(cli.__file__).parent
_LARGE = 1 << 24  # bytes from which a file is not read for a digest; a sparse file stands for a large one
_HERE = re.compile(r"[^\s'\"]*/messages\w+/here/")  # the path of a case's folder


@dataclass(frozen=True)
class Case:
    """One mistake of a user, and what must come of it.

    Attributes:
        command: the command in which the mistake is made; empty for none.
        mistake: the mistake in a few plain words, the case's title on docs/messages.md.
        make: a function that takes the current folder, prepares files in it, and returns the command's arguments.
        about: the file or flag that the message must name.
        status: the exit status: 1 for a value or file that can't be used, 2 for a command that can't be read.
        machine: regular expressions of words that differ between machines and versions of libraries.
        around: a function that imitates a trouble of the machine, such as a missing package. The context that it
            may return is open during the case.
        leaves: the reason why files change; empty if none may change.
        told: the reason why other lines come before the message; empty if none may come.
        plain: the reason why the message isn't one sentence with "got" and "expected"; empty if it must be.
    """

    command: str
    mistake: str
    make: Callable[[Path], Arguments]
    about: str
    status: int = 1
    machine: tuple[str, ...] = ()
    around: Around = lambda patch: None
    leaves: str = ""
    told: str = ""
    plain: str = ""

    @property
    def id(self) -> str:
        """The name of the case's test: the command and the mistake."""
        return f"{self.command}: {self.mistake}"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a case.

    Attributes:
        status: the exit status.
        said: the text of standard error.
        before: a digest and the size of each file before the command, and "no file" for each folder, by name.
        after: what `before` holds, after the command.
        raised: every place of the package that an exception of the failure went through.
    """

    status: object
    said: str
    before: dict[str, str]
    after: dict[str, str]
    raised: frozenset[Place]


def outcome_of(case: Case) -> Outcome:
    """Run a case in a new folder, in this process, on one thread; return its outcome."""
    with tempfile.TemporaryDirectory(prefix="messages") as kept, pytest.MonkeyPatch.context() as patch:
        folder = Path(kept).resolve() / "here"
        folder.mkdir()
        patch.chdir(folder)
        patch.setenv("COLUMNS", "100")
        patch.setenv("EBGAN_FAST_CACHE", str(folder.parent / "cache"))
        patch.setattr(cli, "keep_freed_memory", lambda: True)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return _outcome(case, folder, patch)
        finally:
            torch.set_num_threads(threads)


def _outcome(case: Case, folder: Path, patch: pytest.MonkeyPatch) -> Outcome:
    given = [case.command, *map(str, case.make(folder))] if case.command else [*map(str, case.make(folder))]
    before = _tree(folder)
    raised: set[Place] = set()
    _note_failures(patch, raised)
    err = io.StringIO()
    around = case.around(patch) or contextlib.nullcontext()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()), around:
        try:
            status: object = cli.main(given)
        except SystemExit as stop:
            status = stop.code
        except Exception:  # shown as the user would see it
            status = traceback.format_exc()
    said = _HERE.sub("", err.getvalue())
    return Outcome(status, said, before, _tree(folder), frozenset(raised))


def _note_failures(patch: pytest.MonkeyPatch, raised: set[Place]) -> None:
    """Make the functions that report a failure add the places that raised it to `raised`."""
    fail, trouble_of = _command_line.fail, worker.trouble_of

    def noted_fail(program: str, message: str, status: int) -> int:
        caller = sys._getframe(1)
        raised.update(_in_package(caller.f_code.co_filename, caller.f_lineno))
        raised.update(_places(sys.exc_info()[1]))
        return fail(program, message, status)

    def noted_trouble(error: Exception) -> tuple[str, str]:
        raised.update(_places(error))
        return trouble_of(error)

    for module in (_command_line, cli):
        patch.setattr(module, "fail", noted_fail)
    patch.setattr(worker, "trouble_of", noted_trouble)


def _places(error: BaseException | None) -> Iterator[Place]:
    """Give the places that an error and its causes went through."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        error = waiting.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        trace: TracebackType | None = error.__traceback__
        while trace is not None:
            yield from _in_package(trace.tb_frame.f_code.co_filename, trace.tb_lineno)
            trace = trace.tb_next
        waiting += [error.__cause__, error.__context__]


def _in_package(file: str, line: int) -> Iterator[Place]:
    path = Path(file)
    if PACKAGE in path.parents:
        yield path.relative_to(PACKAGE).as_posix(), line


def _tree(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file():
            size = path.stat().st_size
            digest = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest() if size < _LARGE else "large"
            found[name] = f"{digest}, {size} bytes"
        else:
            found[name] = "no file"
    return found


def shown(case: Case, said: str) -> str:
    """Return the last line of `said`, with … in place of the words that differ between machines."""
    text = said.strip().rpartition("\n")[2]
    for pattern in case.machine:
        text = re.sub(pattern, "…", text)
    return text


def named(**values: Any) -> list[str]:
    """Return flags with their values, such as --size 8 for size=8."""
    flags: list[str] = []
    for name, value in values.items():
        flags += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return flags
