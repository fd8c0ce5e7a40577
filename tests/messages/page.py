"""The text of docs/messages.md: a table for each command, with the message that each case caused."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from .case import Case, Outcome, outcome_of, shown
from .cases import drawn, foreign, line, prepare, sources, studies, train, train_data

PAGE = Path(__file__).parents[2] / "docs" / "messages.md"
CASES = [
    case for module in (line, prepare, sources, train, train_data, drawn, studies, foreign) for case in module.CASES
]  # in the order in which the page shows the cases of a command
COMMANDS = tuple(dict.fromkeys(case.command for case in CASES))

_HEAD = """# Messages

This page shows the message for each mistake that the program reports, command by command. A message is one line on
standard error that begins with `ebgan-fast: `. The exit status is 1 if a value or file can't be used, and 2 if the
command line can't be read. `python -m tests.messages` writes this page: it causes each mistake and copies the message,
with `…` in place of words that differ between machines or between versions of a library.
"""


@functools.cache
def outcome(case: Case) -> Outcome:
    """Return the outcome of a case, which runs once in this process."""
    return outcome_of(case)


def page() -> str:
    """Return the text of the page."""
    parts = [_HEAD]
    for command in COMMANDS:
        title = f"`ebgan-fast {command}`" if command else "No command"
        rows = [f"| {_cell(case.mistake)} | {_cell(_shown(case))} |" for case in CASES if case.command == command]
        parts.append("\n".join([f"## {title}\n", "| mistake | message |", "|---|---|", *rows, ""]))
    return "\n".join(parts)


def _shown(case: Case) -> str:
    """Return a case's message without the program's name and the words that differ between machines."""
    return re.sub("a{50,}", "aaa…", shown(case, outcome(case).said).removeprefix("ebgan-fast: "))


def _cell(text: str) -> str:
    """Return a text as the cell of a table, with a backslash before each character that Markdown interprets."""
    return re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", text)


def write() -> None:
    """Write the page to docs/messages.md."""
    PAGE.write_text(page(), encoding="utf-8")
