"""Run and race-check GPU kernels without a GPU."""

__version__ = "0.1.0"
