"""Programs that a test runs in a process of their own, from the root of the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]


def printed(program: str, *arguments: str) -> str:
    """Run a text of Python, and return what it printed; it must end with status 0."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
