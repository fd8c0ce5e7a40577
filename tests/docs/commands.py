"""Check that a line of a shell block could run: its program is known and accepts the arguments."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Callable, Sequence

import bench.__main__
from ebgan_fast import cli

from .pages import ROOT

TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
_EXTRAS = re.search(r"\[project\.optional-dependencies\]\n(.*?)\n\[", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
EXTRAS = set(re.findall(r"^(\w+) = ", _EXTRAS[1] if _EXTRAS else "", re.MULTILINE))


def _program(arguments: Sequence[str]) -> None:
    program, given = cli.program(arguments)
    program.parse(given)


def _bench(arguments: Sequence[str]) -> None:
    bench.__main__.PROGRAM.parse(arguments)


def _make(arguments: Sequence[str]) -> None:
    for word in arguments:
        if "=" not in word and word not in TARGETS:
            raise ValueError(f"make has no target {word}")


def _pip(arguments: Sequence[str]) -> None:
    if arguments[0] != "install":
        raise ValueError(f"pip {arguments[0]} is not what a page should show")
    for word in arguments[1:]:
        if word in ("torch", "triton", "torchvision"):
            raise ValueError(f"{word} without a version may bring gigabytes")
        if found := re.fullmatch(r"(?:\.|ebgan_fast)\[(.*)\]", word):
            for extra in found[1].split(","):
                if extra not in EXTRAS:
                    raise ValueError(f"there is no extra {extra}")


def _python(arguments: Sequence[str]) -> None:
    if arguments[:2] == ["-m", "bench"]:
        _bench(arguments[2:])
    elif arguments[:2] == ["-m", "ebgan_fast"]:
        _program(arguments[2:])
    elif arguments[0] != "-m" and not (ROOT / arguments[0]).is_file():
        raise ValueError(f"there is no {arguments[0]}")


def _torchrun(arguments: Sequence[str]) -> None:
    """Check the command after torchrun's own flags, each of which has a value but --standalone."""
    own = 0
    while arguments[own].startswith("--"):
        own += 1 if "=" in arguments[own] or arguments[own] == "--standalone" else 2
    _python(list(arguments[own:]))


_PROGRAMS: dict[str, Callable[[Sequence[str]], None]] = {
    "ebgan-fast": _program,
    "make": _make,
    "pip": _pip,
    "python": _python,
    "torchrun": _torchrun,
}


def complaint(line: str) -> str | None:
    """Return why the line could not run, or None."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_0-9]+=\S*", words[0]):
        words = words[1:]
    if not words:
        return None
    if words[0] not in _PROGRAMS:
        return f"unknown program {words[0]}"
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            _PROGRAMS[words[0]](words[1:])
    except (ValueError, OSError) as error:
        return str(error)
    except SystemExit as stop:
        return f"ends with status {stop.code}" if stop.code else None
    return None
