"""Run the pulling-away term of a build with a bug, or with sanitizers, in a process that may crash at any line.

python -m tests.ops.cuda.run_pulling_away FOLDER [every_dtype]
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
from pathlib import Path

import torch

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SIZES = [(3, 7), (33, 97), (65, 70), (9, 4), (70, 33), (65, 140)]


def main() -> None:
    # A build of pulling_away.cu alone lacks the energies, so symbols are looked up only when they are called.
    sys.setdlopenflags(os.RTLD_LAZY)
    from .pulling_away_cases import check, code_of, code_to_scale, run, scaled, scales_of
    from .stand_ins import in_simt

    # Each dtype takes both forms, and whole and ragged tiles, in turn.
    known = DTYPES if "every_dtype" in sys.argv else DTYPES[:1]
    dtypes = itertools.cycle(known)
    simulator = functools.partial(in_simt, folder=Path(sys.argv[1]))
    for seed, (size, layout) in enumerate((size, layout) for size in SIZES for layout in ("plain", "offset")):
        code = code_of(*size, next(dtypes), layout)
        check(run(simulator, code, seed=seed), code)
    # No row of float16 leaves the range.
    for seed, (size, dtype) in enumerate(zip(SIZES[:5], itertools.cycle(known[:3]), strict=False)):
        code, scales = code_to_scale(*size, dtype), scales_of(size[0], dtype)
        check(run(simulator, scaled(code, scales), seed=seed), code, scales=scales)


if __name__ == "__main__":
    main()
