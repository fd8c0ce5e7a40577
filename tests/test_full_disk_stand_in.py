"""The stand-in for a full disk leaves no broken files."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from .full_disk import room_for

_MODULE = "\n".join(f"value_{number} = 'a text of its own, {number}'" for number in range(100))


@pytest.mark.parametrize("imports", ["this process", "a child"])
def test_no_half_bytecode_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imports: str) -> None:
    """Python would keep the first 100 bytes of the bytecode, and every later import would fail."""
    (tmp_path / "imported_on_a_full_disk.py").write_text(_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    importing = [sys.executable, "-c", "import imported_on_a_full_disk"]
    with room_for(100):
        if imports == "this process":
            importlib.import_module("imported_on_a_full_disk")
        else:
            subprocess.run(importing, cwd=tmp_path, check=True)
    sys.modules.pop("imported_on_a_full_disk", None)
    subprocess.run(importing, cwd=tmp_path, check=True)
