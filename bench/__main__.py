"""The command line: `python -m bench COMMAND`, run from the root of the repository.

Exit statuses: 1 for a provider with wrong results or a value or file that cannot be used, 2 for a command that cannot
be read, 130 for an interrupted run. A user's mistake ends in one line on standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

try:
    import tyro  # noqa: F401
except ImportError:
    sys.exit("bench: the benchmark needs more than the library: pip install -e '.[train]'")

from ebgan_fast._command_line import Program

from .commands.graph import graph
from .commands.latency import latency
from .commands.memory import memory
from .commands.one_pass import one_pass
from .commands.ops import ops
from .commands.page import page, record
from .commands.scaling import scaling
from .commands.show import plot, show
from .commands.stacked import stacked
from .commands.train import train
from .commands.tune import tune

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
    """Run one command, and return the exit status.

    Args:
        arguments: The command and its arguments. None: those of the process.
    """
    return PROGRAM.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
