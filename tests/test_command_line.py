"""A program's message about a mistake is one line."""

from __future__ import annotations

import pytest

from ebgan_fast._command_line import Program
from ebgan_fast._refused_arguments import in_our_words


def test_a_message_of_several_lines_becomes_one(capsys: pytest.CaptureFixture[str]) -> None:
    """A library's message may have several indented lines, which become one."""

    def command() -> int:
        raise ValueError("got two lines,\n    expected one\n")

    assert Program("program", "Tests.", {"command": command, "other": command}).run(["command"]) == 1
    assert capsys.readouterr().err == "program: got two lines, expected one\n"


def test_words_that_are_not_known_are_shown_as_they_are() -> None:
    """Another version of the library that reads command lines may have messages that we don't know."""
    assert in_our_words("Something else; about --steps.", ["train"], ["train"]) == "Something else; about --steps"


def test_a_lack_of_memory_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for error in (MemoryError(), RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")):

        def command(error: Exception = error) -> int:
            raise error

        assert Program("program", "Tests.", {"command": command, "other": command}).run(["command"]) == 1
        said = capsys.readouterr().err
        assert said.startswith("program: memory: got less than the command needs (")
        assert said.count("\n") == 1


def test_other_errors_of_the_program_are_not_hidden() -> None:
    def command() -> int:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="ours"):
        Program("program", "Tests.", {"command": command, "other": command}).run(["command"])
