"""Run and race-check GPU kernels without a GPU.

    gpuless.triton        Triton kernels: compiled ahead of time and run in the PTX simulator
    gpuless.cuda          kernels of .cu files, compiled by nvcc -ptx and run in the PTX simulator
    gpuless.ptx           the PTX simulator itself
    gpuless.simt          .cu files compiled as C++, with threads in random orders, under AddressSanitizer
    gpuless.resources     registers, spills, access widths and occupancy of a compiled kernel, and budgets for them
    gpuless.interpreter   functions run under Triton's interpreter, each in its own process
    gpuless.guard_pages   arrays and tensors that end at forbidden memory
    gpuless.sparse        arrays and tensors of more than 2^31 elements
    gpuless.available     the compilers found on this machine, and how to get a missing one

A module is imported at its first use, so `import gpuless` alone is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "available",
    "cuda",
    "guard_pages",
    "interpreter",
    "ptx",
    "resources",
    "simt",
    "sparse",
    "triton",
]

if TYPE_CHECKING:
    from . import cuda, guard_pages, interpreter, ptx, resources, simt, sparse, triton
    from .tools import available


def __getattr__(name: str) -> Any:
    if name == "available":
        from .tools import available

        return available
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
