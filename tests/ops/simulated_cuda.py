"""Backend cuda on tensors of the CPU, its kernels in the SIMT simulator: a choice for the whole process, made before
the test modules are imported."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

VARIABLE = "EBGAN_FAST_TEST_SIMULATED_CUDA"
"""Names the compiled module (cuda/building.py makes it)."""
SIMULATED = VARIABLE in os.environ


def install_if_asked() -> None:
    if not SIMULATED:
        return
    from ebgan_fast import _C
    from ebgan_fast.ops import backends, cuda

    from .cuda import building

    _C.cuda = building.load(Path(os.environ[VARIABLE])).cuda  # type: ignore[misc]
    backends._STATUS["cuda"] = lambda: backends.BackendStatus(True, "simulated")
    takes = backends._device_of
    backends._device_of = lambda name: "cpu" if name == "cuda" else takes(name)
    cuda._here = lambda device: contextlib.nullcontext()
    cuda._stream = lambda device: 0
