"""A pytest plugin that notes the end of each test, and its exceptions: `-p tests.planted.witness`.

It refuses to run where `ebgan_fast` is not the copy that the bug was planted in.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

NOTES = "PLANTED_NOTES"  # the variable that holds the file that notes are appended to
PACKAGE = "PLANTED_PACKAGE"  # the variable that holds the name of the package that must be the copy's


def _note(**fields: Any) -> None:
    with Path(os.environ[NOTES]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(fields) + "\n")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the single exceptions of a group; hypothesis raises a group for several failures of one test."""
    parts = getattr(error, "exceptions", None)
    if parts is None:
        yield error
    else:
        for part in parts:
            yield from _leaves(part)


def pytest_sessionstart(session: pytest.Session) -> None:
    name = os.environ[PACKAGE]
    found = importlib.util.find_spec(name)
    origin = None if found is None else found.origin
    if origin is None or session.config.rootpath not in Path(origin).parents:
        raise pytest.UsageError(f"{name}: got {origin}, expected the one in {session.config.rootpath}")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        _note(test=report.nodeid, when="collect", outcome="skipped", errors=[], words=str(report.longrepr[2]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" or not report.passed:
        errors, words = [], ""
        if report.failed and call.excinfo is not None:
            errors = [kind.__name__ for leaf in _leaves(call.excinfo.value) for kind in type(leaf).__mro__]
            words = f"{call.excinfo.typename}: {call.excinfo.value}"
        elif report.skipped and isinstance(report.longrepr, tuple):
            words = str(report.longrepr[2])
        _note(test=report.nodeid, when=report.when, outcome=report.outcome, errors=errors, words=words)
    return report
