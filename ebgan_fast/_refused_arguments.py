"""Error sentences for command lines that can't be read, made from the messages of tyro, which reads them.

tyro 1.0 also has an object for each error, in a private module that may change in any release (`tyro._errors`). If
tyro's messages change, most of the sentence is still usable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ._console import shortened


def one_line(box: str) -> str:
    """Return tyro's framed message as one line: its sections, without the frame and the final hint at --help."""
    inside = "\n".join(line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰")))
    sections = (" ".join(section.split()) for section in re.split("─+|-{9,}", inside))
    # On a console without frame characters, the title is a section of its own.
    shown = [section for section in sections if section and not section.startswith("For full")]
    if len(shown) > 1 and re.fullmatch("[A-Z][a-z ]+", shown[0]):
        del shown[0]
    return "; ".join(shown)


def in_our_words(
    told: str, given: Sequence[str], commands: Sequence[str], place_of: Callable[[str], str | None] = lambda flag: None
) -> str:
    """Return a sentence about a command line that can't be read.

    Args:
        told: tyro's message in one line. An unknown message, as another version may have, is returned almost as it is.
        given: the command line.
        commands: the names of the program's commands.
        place_of: a function that says where a flag belongs that this command lacks, as `Program.place_of`.
    """
    if told.startswith("Expected one of {"):
        return f"got no command, expected one of {', '.join(commands)}"
    if found := re.search(r"(?:^|; )Unrecognized (?:or misplaced )?options: ([^\s,;]+)", told):
        return _unknown(found[1], told, given, commands, place_of)
    if found := re.match(r"Missing from \S+ (\S+): (.*)", told):
        command, missing = found.groups()
        parts = [part.strip() for part in missing.split("(required)") if part.strip()]
        return f"got {command} without what it needs, expected {', '.join(map(_described, parts))}"
    if found := re.match(r"Error parsing (--\S+): .*; Argument helptext: \1 (\[?\S+)", told):
        flag, kind = found.groups()
        some = "some of " if kind.startswith("[") else ""
        return f"{flag}: got {_value_after(flag, given)!r}, expected {some}{kind.lstrip('[')}"
    if found := re.match(r"Missing value for argument '(--\S+)'", told):
        return f"{found[1]}: got no value, expected one"
    if found := re.match(r"invalid choice '(.*?)' for argument '(--\S+)'\. Expected one of \((.*)\)", told):
        value, flag, choices = found.groups()
        names = sorted(re.findall(r"'([^']*)'", choices))
        return f"{flag}: got {value!r}, expected one of {', '.join(names)}"
    return told.rstrip(".")


def _unknown(
    unknown: str, told: str, given: Sequence[str], commands: Sequence[str], place_of: Callable[[str], str | None]
) -> str:
    """Return the sentence for `unknown`, the first word of the command line that tyro could not read."""
    if given and unknown == given[0]:
        return f"got the command {unknown}, expected one of {', '.join(commands)}"
    if not unknown.startswith("-"):
        return f"got {unknown!r}, a value too many, expected none"
    if place := place_of(unknown.partition("=")[0]):
        return f"got {unknown}, {place}"
    similar = re.search(r"; (?:Perhaps you meant|Arguments similar to [^:]*): (--[^\s,]+)", told)
    if similar and similar[1] == unknown.partition("=")[0]:  # tyro proposes the same flag, of another command
        similar = None
    return f"got {unknown}, expected {f'perhaps {similar[1]}' if similar else 'a flag of this command'}"


def _described(part: str) -> str:
    """Return "--size INT" for a flag. A path has no name: return its type and the beginning of its help."""
    if part.startswith("--"):
        return " ".join(part.split(" ")[:2])
    kind, _, text = part.partition(" ")
    beginning = re.split(r"[.:](?: |$)", text)[0]
    return f"{kind} ({shortened(beginning[:1].lower() + beginning[1:], 100)})"


def _value_after(flag: str, given: Sequence[str]) -> str:
    """Return the last value of a flag on the command line, or "" if it has none."""
    names = [one.partition("=")[0].replace("_", "-") for one in given]  # tyro accepts - and _
    values = [after for name, after in zip(names, given[1:], strict=False) if name == flag]
    values += [one.partition("=")[2] for name, one in zip(names, given, strict=True) if name == flag and "=" in one]
    return values[-1] if values else ""
