"""`python -m ebgan_fast.studies redraw results.json out`: a study's table and figures, anew from its results alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import tyro

from .._command_line import Program
from .._console import answer, first_line, shown
from . import all_studies
from .framework.command import draw, say_all
from .framework.results import read


def redraw(results: tyro.conf.Positional[Path], out: tyro.conf.Positional[Path]) -> int:
    """Write a study's table and figures, from its file of results alone.

    Args:
        results: The results.json that a study wrote, such as one of docs/studies/results.
        out: Folder to write to, made if need be.
    """
    found = read(results)
    studies = all_studies()
    if found.study not in studies:
        raise ValueError(f"{results}: got the study {shown(found.study)}, expected one of {', '.join(studies)}")
    out.mkdir(parents=True, exist_ok=True)
    try:
        drawn = draw(studies[found.study], found, out)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        got = f"got results that can't be shown ({type(error).__name__}: {first_line(error)})"
        raise ValueError(f"{results}: {got}, expected those of a study") from error
    say_all(drawn)
    return 0


def names() -> int:
    """Print the studies' names, one a line."""
    answer("\n".join(all_studies()))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. `arguments` default to the process's own; returns the exit status."""
    description = "Tables and figures of the paper's studies, anew from their results."
    commands: dict[str, Callable[..., int]] = {"redraw": redraw, "names": names}
    return Program("python -m ebgan_fast.studies", description, commands).run(arguments)


if __name__ == "__main__":
    sys.exit(main())
