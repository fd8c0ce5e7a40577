"""Run a Triton kernel three times: correct, with a race, and with an access out of bounds."""

import torch
import triton
import triton.language as tl

import gpuless.triton
from gpuless.ptx import OutOfBounds, Race


@triton.jit
def total(x, out, n, BLOCK: tl.constexpr, BUG: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    end = n + 1 if BUG == "one too many" else n
    part = tl.sum(tl.load(x + at, mask=at < end, other=0))
    if BUG == "no atomic":
        tl.store(out, tl.load(out) + part)
    else:
        tl.atomic_add(out, part)


x = torch.arange(1000, dtype=torch.int32)
for bug in ("none", "no atomic", "one too many"):
    out = torch.zeros(1, dtype=torch.int32)
    try:
        gpuless.triton.run(total, (4,), {"x": x, "out": out, "n": 1000, "BLOCK": 256, "BUG": bug})
        print("right:", out.item() == x.sum().item())
    except (OutOfBounds, Race) as error:
        print(f"{type(error).__name__}: {error}")
