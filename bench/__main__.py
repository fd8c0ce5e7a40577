"""The command line: `python -m bench ops | show | plot`, run from the root of the repository.

Exit statuses: 1 for a provider with wrong results or a value or file that cannot be used, 2 for a command that cannot
be read, 130 for an interrupted run. A user's mistake ends in one line on standard error.
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

try:
    import tyro
except ImportError:
    sys.exit("bench: the benchmark needs more than the library: pip install -e '.[train]'")

from ebgan_fast.cli import _one_line
from ebgan_fast.ops.backends import BackendUnavailableError

from .ops import ops
from .rows import read


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


_COMMANDS: dict[str, Callable[..., int]] = {"ops": ops, "show": show, "plot": plot}


def _parse(arguments: Sequence[str]) -> Callable[[], int]:
    """The command with its arguments bound; SystemExit for --help and for what cannot be read."""
    chosen: list[Callable[[], int]] = []

    def bound(command: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(command)
        def remember(*values: object, **named: object) -> int:
            chosen.append(lambda: command(*values, **named))
            return 0

        return remember

    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            tyro.extras.subcommand_cli_from_dict(
                {name: bound(command) for name, command in _COMMANDS.items()},
                prog="bench",
                description="Measure ebgan_fast against eager torch and torch.compile.",
                args=arguments,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise SystemExit(_fail(_one_line(captured.getvalue()) + " (see --help)", 2)) from None
    return chosen[0]


def _fail(message: str, status: int) -> int:
    print(f"bench: {' '.join(message.split())}", file=sys.stderr)
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. `arguments` default to the process's own; returns the exit status."""
    command = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        return command()
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)
    except (ValueError, BackendUnavailableError) as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)


if __name__ == "__main__":
    sys.exit(main())
