"""Modules that the server of `forked.py` imports once for the processes of tests, without starting a thread."""

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
    """End the server without its shutdown, as its forks do: nanobind would print a report of Triton's leaks."""
    if os.getpid() == _server:
        os._exit(0)


# The first optimizer makes torch import more, for 1.5 s of a core; the forks have these imports too.
torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
# A fork shares the server's memory until one of them writes there; after freeze the garbage collector doesn't write.
gc.collect()
gc.freeze()
