"""Rows as tables, pictures and pages."""
