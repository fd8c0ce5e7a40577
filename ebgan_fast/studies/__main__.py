"""`python -m ebgan_fast.studies redraw results.json out` draws a study's table and figures again, from its results
alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import tyro

from .._command_line import Program
from .._console import answer, first_line, shown
from . import all_studies
from .framework.command import NEEDS_MORE, draw, say_all
from .framework.results import read


def redraw(results: tyro.conf.Positional[Path], out: tyro.conf.Positional[Path]) -> int:
    """Write a study's table and figures, from its file of results alone.

    Args:
        results: The results.json that a study wrote, such as a file in docs/studies/results.
        out: The folder to write to. It is created if it isn't there.
    """
    found = read(results)
    studies = all_studies()
    if found.study not in studies:
        raise ValueError(f"{results}: got the study {shown(found.study)}, expected one of {', '.join(studies)}")
    out.mkdir(parents=True, exist_ok=True)
    try:
        drawn = draw(studies[found.study], found, out)
    except ImportError as error:
        raise ValueError(f"{error}; {NEEDS_MORE}") from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        got = f"got results that can't be shown ({type(error).__name__}: {first_line(error)})"
        raise ValueError(f"{results}: {got}, expected those of a study") from error
    say_all(drawn)
    return 0


def names() -> int:
    """Print the names of the studies, one per line."""
    answer("\n".join(all_studies()))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status. Without `arguments`, those of the process are used."""
    description = "Tables and figures of the paper's studies, drawn again from their results."
    commands: dict[str, Callable[..., int]] = {"redraw": redraw, "names": names}
    return Program("python -m ebgan_fast.studies", description, commands).run(arguments)


if __name__ == "__main__":
    sys.exit(main())
