"""The command line: `python -m bench ops | train | stacked | tune | show | plot`, run from the root of the repository.

Exit statuses: 1 for a provider with wrong results or a value or file that cannot be used, 2 for a command that cannot
be read, 130 for an interrupted run. A user's mistake ends in one line on standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

try:
    import tyro
except ImportError:
    sys.exit("bench: the benchmark needs more than the library: pip install -e '.[train]'")

from ebgan_fast._command_line import Program

from .ops import ops
from .rows import read
from .stacked import stacked
from .train import train
from .tune import tune


def show(file: tyro.conf.Positional[Path]) -> int:
    """Print the table of a file that `ops` wrote.

    Args:
        file: JSON lines.
    """
    from . import table

    table.show(read(file))
    return 0


def plot(file: tyro.conf.Positional[Path], out: tyro.conf.Positional[Path]) -> int:
    """Draw the ratios of a file that `ops` wrote.

    Args:
        file: JSON lines.
        out: The picture, PNG, SVG or PDF by its ending.
    """
    from .plot import plot as draw

    draw(read(file), out)
    print(out)
    return 0


_COMMANDS: dict[str, Callable[..., int]] = {
    "ops": ops,
    "train": train,
    "stacked": stacked,
    "tune": tune,
    "show": show,
    "plot": plot,
}


_PROGRAM = Program("bench", "Measure ebgan_fast against eager torch and torch.compile.", _COMMANDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. `arguments` default to the process's own; returns the exit status."""
    return _PROGRAM.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
