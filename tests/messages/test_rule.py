"""The rule for messages finds each way to break it."""

from __future__ import annotations

import dataclasses

import pytest

from . import rule
from .case import Case, Outcome

_CASE = Case("train", "a mistake", lambda folder: [], about="steps")
_GOOD = "ebgan-fast: steps: got 0, expected at least 1\n"
_KEPT = {"images/00.png": "a digest"}


def _told(said: str = _GOOD, status: object = 1, after: dict[str, str] | None = None, case: Case = _CASE) -> str:
    """Return the rule's complaints about a message, a status and the files after the command."""
    outcome = Outcome(status, said, _KEPT, _KEPT if after is None else after, frozenset())
    return "; ".join(rule.complaints(case, outcome))


def test_a_message_that_helps_is_left_alone() -> None:
    assert _told() == ""
    assert _told("ebgan-fast: steps: No such file or directory\n") == ""


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("", "got 0 lines"),
        ("Traceback\nValueError: steps\n", "got 2 lines"),
        ("steps: got 0, expected 1\n", "begin with the program's name"),
        ("ebgan-fast: steps: got \x1b, expected 1\n", "control characters"),
        ("ebgan-fast: steps: got 0, expected 1. Use more\n", "more or less than one sentence"),
        ("ebgan-fast: steps: got 0, expected 1.\n", "a full stop"),
        ("ebgan-fast: got 0, expected 1\n", "no word of steps"),
        ("ebgan-fast: steps: too few\n", "neither what was got"),
    ],
)
def test_a_message_that_does_not_help_is_told(said: str, complaint: str) -> None:
    assert complaint in _told(said)


def test_other_statuses_files_and_needless_reasons_are_told() -> None:
    assert "got status 0, expected 1" in _told(status=0)
    assert "got other files than before: images/00.png" in _told(after={})
    assert "got the same files" in _told(case=dataclasses.replace(_CASE, leaves="something"))
    assert "doesn't need" in _told(case=dataclasses.replace(_CASE, plain="something"))
    assert "expected several" in _told(case=dataclasses.replace(_CASE, told="something"))
