"""Addresses of storages, and the opening of the storage at an address."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from ..._console import printable
from .databases import open_server, open_sqlite
from .journal import open_journal
from .storage import Storage, StorageError

_SCHEMES = ("sqlite", "postgresql", "postgres", "mysql", "mariadb", "oracle", "mssql")


def open_storage(address: str) -> Storage:
    """Open a storage. It is created if it isn't there.

    Args:
        address: the address of a database, such as sqlite:///grid.db, or the path of a journal file.

    Raises:
        StorageError: the address isn't one, or holds something else, or the storage can't be read.
        OSError: a file can't be read or written.
    """
    if "\0" in address:
        raise StorageError(f"storage: got the address {_shown(address)}, expected one without a zero")
    scheme = (re.match(r"([a-z0-9]+)(?:\+\w+)?:", address) or ("", ""))[1]
    if "://" not in address:
        if ":" in address.rpartition("@")[0]:  # a user and a password
            expected = "one such as postgresql://user@host/name"
            raise StorageError(f"storage: got the address {_shown(address)}, expected {expected}")
        if scheme in _SCHEMES:
            file = address.partition(":")[2].lstrip("/")
            expected = f"sqlite:///{file}" if scheme == "sqlite" else "one such as postgresql://user@host/name"
            raise StorageError(f"storage: got the address {_shown(address)}, expected {expected}")
        return open_journal(Path(address))
    if scheme == "postgres":
        expected = f"postgresql{address.removeprefix('postgres')}"
        raise StorageError(f"storage: got the address {_shown(address)}, expected {_shown(expected)}")
    try:
        url = make_url(address)
    except (ArgumentError, ValueError) as error:  # the latter for a port that is no number
        example = "sqlite:///trials.db or postgresql://user@host/name"
        raise StorageError(f"storage: got the address {_shown(address)}, expected one such as {example}") from error
    if "@" in (url.host or ""):
        raise StorageError(f"storage: got the address {_shown(address)}, expected an @ of a password as %40")
    return (open_sqlite if url.get_backend_name() == "sqlite" else open_server)(_shown(address), url)


def _shown(address: str) -> str:
    """Return the address without passwords, even if the address is malformed."""
    before, at, after = address.rpartition("@")
    if at:
        found = re.fullmatch(r"(\w+(?:\+\w+)?://[^:@/]*)(:[^@/]*)?", before)
        known = f"{found[1]}:***" if found and found[2] else found[1] if found else f"{before.partition(':')[0]}://***"
        address = f"{known}@{after}"
    return printable(re.sub(r"(?i)(?<=[?&])([^=&]*(?:pass|pwd|secret|token)[^=&]*)=[^&]*", r"\1=***", address))
