"""Reasons to skip a test with an older torch or Triton, or without Triton."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ebgan_fast.ops.backends import availability

OLDEST_TRITON = ".".join(map(str, availability.OLDEST_TRITON))
"""The oldest Triton that compiles the kernels, as text for `pytest.importorskip`."""


def _lack_of_triton() -> str | None:
    version = availability.triton_version()
    if version is None:
        return "triton is not installed (Linux only)"
    is_older = availability._numbers(version) < availability.OLDEST_TRITON
    return f"triton {version} is older than {OLDEST_TRITON}" if is_older else None


NO_TRITON = _lack_of_triton()
"""The reason why the Triton kernels can't be imported; None if they can."""

needs_triton = pytest.mark.skipif(NO_TRITON is not None, reason=NO_TRITON or "")

_TORCH = tuple(map(int, torch.__version__.split(".")[:2]))
# In earlier versions an op can't find out if it is being exported, and Dynamo can't trace our autograd Functions.
needs_whole_graphs = pytest.mark.skipif(
    _TORCH < (2, 8), reason=f"fullgraph=True and torch.export need torch 2.8, got {torch.__version__}"
)


reads_sources = pytest.mark.skipif(
    not (Path(__file__).parents[1] / "ebgan_fast").is_dir(), reason="reads the sources, of which a wheel has a part"
)
