"""The commands `show` and `plot`: print or draw the last run in a file of results."""

from __future__ import annotations

from pathlib import Path

import tyro

from ..results.rows import last_run, read


def show(file: tyro.conf.Positional[Path]) -> int:
    """Print the table of the last run in a file that a measuring command wrote.

    Args:
        file: JSON lines.
    """
    from ..pages import tables

    tables.show(last_run(read(file)))
    return 0


def plot(file: tyro.conf.Positional[Path], out: tyro.conf.Positional[Path]) -> int:
    """Draw the last run in a file that `ops`, `latency`, `scaling` or `memory` wrote.

    Args:
        file: JSON lines.
        out: The picture, PNG, SVG, PDF or WebP by its ending.
    """
    from ..pages.plot import draw, save

    save(draw(last_run(read(file))), out)
    print(out)
    return 0
