"""Run a program of Python in a new interpreter, from the root of the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]


def printed(program: str, *arguments: str) -> str:
    """Run a program, given as text, and return what it printed; fail unless it ends with status 0."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
