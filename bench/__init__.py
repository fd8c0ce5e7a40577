"""Measurements of ebgan_fast: `python -m bench ops` from the root of the repository."""
