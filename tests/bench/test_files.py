"""Files that are replaced whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import files


def test_a_failed_replacement_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tables.json"
    path.write_text("earlier\n")

    def interrupted(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.replace(path, "later\n")
    assert path.read_text() == "earlier\n"
    assert list(tmp_path.iterdir()) == [path]
