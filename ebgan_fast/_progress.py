"""The type of the functions that report progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, str], None]
"""A callback that takes the share done, 0 to 1, and a line of text. If it raises an error, the work ends."""
