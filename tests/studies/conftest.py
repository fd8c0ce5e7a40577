"""Empty storages of each kind, for the tests of studies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ebgan_fast.studies.framework import databases, journal
from ebgan_fast.studies.framework import storage as storages

from . import postgresql


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """Start a PostgreSQL server once for all tests of a process, and yield its address."""
    if reason := postgresql.missing():
        pytest.skip(reason)
    with postgresql.server() as address:
        yield address


@pytest.fixture(params=["journal", "sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def storage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the address of an empty storage."""
    if request.param == "journal":
        yield str(tmp_path / "journal.log")
    elif request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'trials.db'}"
    else:
        yield postgresql.new_database(request.getfixturevalue("postgresql_server"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make tries for a lock, and lines about waiting, come after hundredths of a second."""
    for module in (journal, databases):
        monkeypatch.setattr(module, "SECONDS_OF_A_TRY", 0.05)
    monkeypatch.setattr(storages, "_SECONDS_BETWEEN_TRIES", 0.02)
    monkeypatch.setattr(storages, "_SECONDS_TO_A_WORD", 0.1)
