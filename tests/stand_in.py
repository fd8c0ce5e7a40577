"""A backend that seems to be available, for tests that record its launches or run them elsewhere."""

from __future__ import annotations

import contextlib
from unittest import mock

from ebgan_fast.ops import backends


def backend(name: str, takes: str = "cpu", available: bool = True) -> contextlib.AbstractContextManager[object]:
    """Return a context in which the backend is available, or not, and takes tensors on this type of device."""
    status = backends.BackendStatus(available, "a stand-in")
    return mock.patch.dict(backends.KNOWN, {name: backends.Backend(lambda: status, lambda: takes)})
