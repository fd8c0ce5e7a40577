"""A run's results on one page."""

from .page import write_report

__all__ = ["write_report"]
