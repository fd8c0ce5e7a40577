"""The pulling-away term of a build with a bug, or with sanitizers, in a process that may end at any line:

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
    # A build of pulling_away.cu alone has no energies: they are looked up when they are called.
    sys.setdlopenflags(os.RTLD_LAZY)
    from .pulling_away_cases import check, code_of, run
    from .stand_ins import in_simt

    # In turn: each meets both forms, and whole and ragged tiles.
    dtypes = itertools.cycle(DTYPES if "every_dtype" in sys.argv else DTYPES[:1])
    simulator = functools.partial(in_simt, folder=Path(sys.argv[1]))
    for seed, (size, layout) in enumerate((size, layout) for size in SIZES for layout in ("plain", "offset")):
        code = code_of(*size, next(dtypes), layout)
        check(run(simulator, code, seed=seed), code)


if __name__ == "__main__":
    main()
