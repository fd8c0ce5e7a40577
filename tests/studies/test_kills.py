"""A few of the kills of `python -m tests.studies.kills`, on each kind of storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import kills


@pytest.mark.slow
def test_finished_trials_survive_kills(tmp_path: Path, storage: str) -> None:
    kills.check(tmp_path, storage, 3)
