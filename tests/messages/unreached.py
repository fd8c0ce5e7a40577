"""Statements that raise and that no case reaches, by the reason."""

from __future__ import annotations

MODULES: dict[str, str] = {}
UNREACHED: dict[str, tuple[tuple[str, str, str], ...]] = {}
