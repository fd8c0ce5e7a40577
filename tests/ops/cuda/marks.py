"""Marks for tests of the CUDA kernels. Importing this module skips the test file where no simulator can be built."""

from __future__ import annotations

import pytest

pytest.importorskip("ebgan_fast._C", reason="the compiled module is not installed")

from . import building

if reason := building.missing():
    pytest.skip(reason, allow_module_level=True)

from .stand_ins import in_ptx, in_simt, needs_nvcc

slow = pytest.mark.slow

everywhere = pytest.mark.parametrize(
    "simulator", [pytest.param(in_simt, id="simt"), pytest.param(in_ptx, id="ptx", marks=needs_nvcc)]
)
