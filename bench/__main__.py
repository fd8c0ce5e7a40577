"""The command line: `python -m bench COMMAND`, run from the root of the repository.

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

from . import figures
from .graph import graph
from .latency import latency
from .memory import memory
from .one_pass import one_pass
from .ops import ops
from .page import page
from .provenance import ROOT
from .rows import last_run, read
from .scaling import scaling
from .stacked import stacked
from .train import train
from .tune import tune


def show(file: tyro.conf.Positional[Path]) -> int:
    """Print the table of the last run in a file that `ops`, `latency`, `scaling` or `memory` wrote.

    Args:
        file: JSON lines.
    """
    from . import table

    table.show(last_run(read(file)))
    return 0


def plot(file: tyro.conf.Positional[Path], out: tyro.conf.Positional[Path]) -> int:
    """Draw the last run in such a file.

    Args:
        file: JSON lines.
        out: The picture, PNG, SVG, PDF or WebP by its ending.
    """
    from .plot import draw, save

    save(draw(last_run(read(file))), out)
    print(out)
    return 0


def record(picture: tyro.conf.Positional[str], source: tyro.conf.Positional[tuple[str, ...]] = ()) -> int:
    """Note in docs/figures.json that a picture of the documentation is as it should be.

    Args:
        picture: Its path from the root, such as docs/studies/images/grid-best.webp.
        source: Files that it was drawn from: when one of them changes, the picture counts as stale.
    """
    for name in (picture, *source):
        if not (ROOT / name).is_file():
            raise ValueError(f"record: got {name}, expected the path of a file from the root of the repository")
    figures.record({picture: source})
    return 0


_COMMANDS: dict[str, Callable[..., int]] = {
    "ops": ops,
    "latency": latency,
    "scaling": scaling,
    "memory": memory,
    "train": train,
    "graph": graph,
    "one-pass": one_pass,
    "stacked": stacked,
    "tune": tune,
    "show": show,
    "plot": plot,
    "page": page,
    "record": record,
}


PROGRAM = Program("bench", "Measure ebgan_fast against eager torch and torch.compile.", _COMMANDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. `arguments` default to the process's own; returns the exit status."""
    return PROGRAM.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
