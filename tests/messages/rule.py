"""The rule for every message, as a check.

A message is one line without control characters, and begins with the program's name. It is one sentence. It names the
file or flag that it is about. It says what was got and what was expected, or the way out. The command ends with the
documented status and changes no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .case import Case, Outcome, shown

PROGRAM = "ebgan-fast"

# Words of a way out, which a message may have in place of "got" and "expected".
WAYS_OUT = ("pip install", "the same command goes on", "(see --help)", "--resume")

# The name of a file, and the operating system's words for a failure, as other programs print them.
SYSTEM = re.compile(
    r"[^:]+: (No such file or directory|Permission denied|File too large|No space left on device|File name too long|"
    r"Too many levels of symbolic links)"
)


def complaints(case: Case, outcome: Outcome) -> Iterator[str]:
    """Give a text for each part of the rule that a case's outcome breaks."""
    if outcome.status != case.status:
        yield f"got status {outcome.status}, expected {case.status}"
    lines = outcome.said.splitlines()
    if not lines or (len(lines) > 1) != bool(case.told):
        yield f"got {len(lines)} lines, expected {'several' if case.told else 'one'}: {outcome.said}{outcome.status}"
        return
    *earlier, message = lines
    if not message.isprintable():
        yield f"got control characters: {message!r}"
    message = shown(case, message)
    if any(line.startswith(f"{PROGRAM}: ") for line in earlier):
        yield f"got several messages, expected one: {outcome.said}"
    if not message.startswith(f"{PROGRAM}: "):
        yield f"got {message!r}, expected it to begin with the program's name"
    text = message.removeprefix(f"{PROGRAM}: ")
    is_sentence = text and not text.endswith(".") and not re.search(r"[.!?]['\")]? [A-Z]", text)
    if not (is_sentence or case.plain):
        yield f"got more or less than one sentence, or a full stop: {text}"
    if case.about not in text:
        yield f"got no word of {case.about}: {text}"
    is_whole = re.search(r"\bgot\b.*\bexpected\b", text) or any(words in text for words in WAYS_OUT)
    if not (is_whole or SYSTEM.fullmatch(text) or case.plain):
        yield f"got neither what was got and expected nor the way out: {text}"
    if case.plain and is_whole and is_sentence:
        yield f"got a reason (plain) that the message doesn't need: {case.plain}"
    changed = sorted(
        name for name in {**outcome.before, **outcome.after} if outcome.before.get(name) != outcome.after.get(name)
    )
    if changed and not case.leaves:
        yield f"got other files than before: {', '.join(changed)}"
    if case.leaves and not changed:
        yield f"got the same files as before, expected the change that `leaves` gives a reason for: {case.leaves}"
