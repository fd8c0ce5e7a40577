"""Whatever a program says of a mistake is one line."""

from __future__ import annotations

import pytest

from ebgan_fast._command_line import Program


def test_a_message_of_several_lines_becomes_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Libraries below may say a mistake in several, indented."""

    def command() -> int:
        raise ValueError("got two lines,\n    expected one\n")

    assert Program("program", "Tests.", {"command": command, "other": command}).run(["command"]) == 1
    assert capsys.readouterr().err == "program: got two lines, expected one\n"
