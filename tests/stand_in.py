"""A backend that seems to be there: for tests that record what it would launch, or run that elsewhere."""

from __future__ import annotations

import contextlib
from unittest import mock

from ebgan_fast.ops import backends


def backend(name: str, takes: str = "cpu", available: bool = True) -> contextlib.AbstractContextManager[object]:
    """Meanwhile the backend is available, or not, and takes tensors of that type of device."""
    status = backends.BackendStatus(available, "a stand-in")
    return mock.patch.dict(backends.KNOWN, {name: backends.Backend(lambda: status, lambda: takes)})
