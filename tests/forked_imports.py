"""Imported once by the server of `forked.py`: what the processes of tests need, and no thread."""

import atexit
import gc
import os

import pytest  # noqa: F401
import torch

import ebgan_fast.cli
import ebgan_fast.training  # noqa: F401

_server = os.getpid()


@atexit.register
def _end() -> None:
    """End the server without a word, as its forks do: nanobind would tell of what Triton leaves behind."""
    if os.getpid() == _server:
        os._exit(0)


# torch leaves some imports to the first optimizer, 1.5 s of a core, which the forks thus have.
torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
# A fork shares the server's memory until one writes there, which the garbage collector does not now.
gc.collect()
gc.freeze()
