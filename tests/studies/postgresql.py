"""A PostgreSQL server for the tests, in a folder of its own and behind a socket there, if its programs are
installed."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

_numbers = itertools.count()
_PROGRAMS = ("initdb", "pg_ctl")
_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)  # Debian's folders, which PATH lacks


def missing() -> str | None:
    """Return a sentence that says what the tests on PostgreSQL lack here, or None if they can run."""
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        return f"{error}: pip install 'psycopg[binary]' for the tests on PostgreSQL"
    if not all(map(_program, _PROGRAMS)):
        return f"no {' or '.join(_PROGRAMS)}: the tests on PostgreSQL start a server of their own"
    return None


def _program(name: str) -> str | None:
    return shutil.which(name) or next((str(folder / name) for folder in _FOLDERS if (folder / name).exists()), None)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Run a server within the block, and yield the address of a new, empty database."""
    # A socket's path has 107 characters at most, which pytest's folders may exceed.
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        if user := _other_user():
            shutil.chown(folder, user)
        _run(folder, "initdb", "--auth=trust", "--username=tests", "--no-sync", "-D", str(folder / "cluster"))
        address = f"postgresql+psycopg://tests@/postgres?host={folder}"
        start(address)
        try:
            yield address
        finally:
            stop(address)


def new_database(address: str) -> str:
    """Create another, empty database on a server, and return its address."""
    import psycopg

    name = f"trials{next(_numbers)}"
    host = address.partition("host=")[2]
    with psycopg.connect(host=host, user="tests", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return address.replace("/postgres?", f"/{name}?")


def start(address: str) -> None:
    """Start the server of an address again."""
    folder = Path(address.partition("host=")[2])
    options = f"-c listen_addresses='' -c fsync=off -k {folder}"
    _run(folder, "pg_ctl", "-w", "-D", str(folder / "cluster"), "-l", str(folder / "log"), "-o", options, "start")


def stop(address: str) -> None:
    """Stop the server of an address in the way a power cut does."""
    folder = Path(address.partition("host=")[2])
    _run(folder, "pg_ctl", "-w", "-D", str(folder / "cluster"), "-m", "immediate", "stop")


def _other_user() -> str | None:
    """Return a user without rights if this process is root's: PostgreSQL refuses to start as root."""
    return "nobody" if os.name == "posix" and os.geteuid() == 0 else None


def _run(folder: Path, name: str, *arguments: str) -> None:
    program = _program(name)
    assert program is not None
    done = subprocess.run(
        [program, *arguments],
        user=_other_user(),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
