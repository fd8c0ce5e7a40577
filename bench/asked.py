"""A process that answers one question a line, in JSON."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The paths first, so that this one's tools measure another commit's package.
_PROGRAM = "import sys; sys.path[:0] = {paths!r}; from bench.{module} import serve; serve()"


class Asked:
    """The asking end.

    Args:
        name: in words, for messages.
        module: of bench, whose `serve` answers.
        paths: where to import from, the first one first; ebgan_fast must come from there.
    """

    def __init__(self, name: str, module: str, paths: Sequence[Path]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM.format(paths=[str(path) for path in paths], module=module)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        home = Path(self.ask("where")["where"])
        if not home.is_relative_to(paths[0]):
            self.close()
            raise ValueError(f"compare: the other process imported {home}, expected a package below {paths[0]}")

    def ask(self, question: str, **details: Any) -> dict[str, Any]:
        """The answer. Raises ValueError where the process has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        answer = ""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"question": question, **details}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        if not answer:
            raise ValueError(f"compare: the process of {self.name} has ended; its last words are above")
        got: dict[str, Any] = json.loads(answer)
        return got

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
