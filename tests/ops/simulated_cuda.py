"""Run backend cuda on CPU tensors, its kernels in the SIMT simulator.

The choice holds for the whole process and is made before the test modules are imported.
"""

from __future__ import annotations

import contextlib
import os

from tests import stand_in

from .sessions import SIMULATED_CUDA

SIMULATED = SIMULATED_CUDA in os.environ


def install_if_asked() -> None:
    if not SIMULATED:
        return
    from ebgan_fast import _C
    from ebgan_fast.ops.backends import cuda

    from .cuda import building

    _C.cuda = building.load(building.simulated() / "_simulated.so").cuda  # type: ignore[misc]
    stand_in.backend("cuda").__enter__()
    cuda.here = lambda device: contextlib.nullcontext()
    cuda.stream = lambda device: 0
