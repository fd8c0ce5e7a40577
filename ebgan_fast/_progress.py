"""The way in which long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, str], None]
"""A function that is told the share done, 0 to 1, and a line of text. What it raises ends the work."""
