"""Run a kernel of a .cu file three times: correct, with a race, and with an access out of bounds."""

import sys
from pathlib import Path

import numpy as np

import gpuless.cuda
from gpuless.ptx import OutOfBounds, Race

if reason := gpuless.cuda.missing():
    print(f"skipped: {reason}")
    sys.exit()

x = np.arange(1000, dtype=np.int32)
for options in ([], ["-DRACE"], ["-DTOO_FAR"]):
    out = np.zeros(1, np.int32)
    source = Path(__file__).with_name("total.cu")
    try:
        gpuless.cuda.run(source, "total", grid=8, threads=128, arguments=[x, out, 1000], options=options)
        print("right:", out[0] == x.sum())
    except (OutOfBounds, Race) as error:
        print(f"{type(error).__name__}: {error}")
