"""Run the losses of a build with a bug, or with sanitizers, in a process that may crash at any line.

python -m tests.ops.cuda.run_energies FOLDER simt | ptx [every_dtype]
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
from pathlib import Path

import torch

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SIZES = [(3, 7, 2, 7), (2, 96, 3, 96), (2, 1300, 3, 1300), (1, 16400, 2, 16400)]


def main() -> None:
    # A build of energy.cu alone lacks the pulling-away term, so symbols are looked up only when they are called.
    sys.setdlopenflags(os.RTLD_LAZY)
    from .energy_cases import batches, run_and_check
    from .stand_ins import in_ptx, in_simt

    folder, name = Path(sys.argv[1]), sys.argv[2]
    simulator = functools.partial({"simt": in_simt, "ptx": in_ptx}[name], folder=folder)
    # Each dtype takes every size in turn.
    dtypes = itertools.cycle(DTYPES if "every_dtype" in sys.argv else DTYPES[:1])
    for sizes in SIZES:
        for layout in ("plain", "offset"):
            for seed in range(3 if name == "simt" else 1):
                run_and_check(simulator, batches(sizes, next(dtypes), layout), "mse", seed=seed)


if __name__ == "__main__":
    main()
