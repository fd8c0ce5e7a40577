"""The files of the repository, for tests that read or copy all of them."""

from __future__ import annotations

import subprocess
from pathlib import Path


def names_of_files(root: Path) -> list[str]:
    """Return the paths from the root of the files that git tracks or does not ignore, if they are there, sorted.

    Raises:
        ValueError: if the folder is not a git checkout.
    """
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise ValueError(f"{root}: got {listed.stderr.strip()!r}, expected a git checkout")
    return sorted(name for name in listed.stdout.split("\0") if name and (root / name).is_file())
