"""docs/messages.md: a table of the messages of each command, made of the cases as they ran."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from .case import Case, Outcome, outcome_of, shown
from .cases import drawn, foreign, line, prepare, sources, studies, train, train_data

PAGE = Path(__file__).parents[2] / "docs" / "messages.md"
CASES = [
    case for module in (line, prepare, sources, train, train_data, drawn, studies, foreign) for case in module.CASES
]  # in the order of the page within a command
COMMANDS = tuple(dict.fromkeys(case.command for case in CASES))

_HEAD = """# Messages

These are the mistakes that the program tells of, command by command. A message is one line on standard error after
`ebgan-fast: `, and the exit status is 1 for a value or file that can't be used, 2 for a command line that can't be
read. `python -m tests.messages` makes this page by causing each mistake, where `…` stands for words of a library.
"""


@functools.cache
def outcome(case: Case) -> Outcome:
    """Run a case once in this process."""
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
    """The message of a case, less the program's name and what differs between machines."""
    return re.sub("a{50,}", "aaa…", shown(case, outcome(case).said).removeprefix("ebgan-fast: "))


def _cell(text: str) -> str:
    """A text as a cell of a table, in which no sign is Markdown's."""
    return re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", text)


def write() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
