"""What is wrong with data."""

from __future__ import annotations

import importlib
from typing import Any


class DataError(ValueError):
    """A data set that is missing, damaged or not what it should be. The message names the file."""


def needed(module: str, extra: str, what: str) -> Any:
    """A module that only some data need.

    Raises:
        DataError: it isn't installed; the message says what needs it, and the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise DataError(f"{what} needs the package {package}: pip install 'ebgan_fast[{extra}]'") from error
