from __future__ import annotations

import subprocess
import sys

import pytest

from ebgan_fast.training.memory import keep_freed_memory

# Page faults of a block of 48 MB that is allocated, filled and freed, once the heap has found its shape.
_FAULTS = """
import resource, sys
import torch
import ebgan_fast
from ebgan_fast.training.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    raise SystemExit("keep_freed_memory() said False")
ebgan_fast.pulling_away_term(torch.randn(4, 4))
torch.set_num_threads(1)
def fill():
    torch.empty(12 << 20).fill_(1.0)
for _ in range(4):
    fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", _FAULTS, mode], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_kept_memory_is_not_mapped_again() -> None:
    if not keep_freed_memory():
        pytest.skip("this system's C library has no mallopt that keeps memory")
    assert _faults("keep") < 100


def test_the_library_leaves_the_allocator_as_it_is() -> None:
    """glibc maps a block above 32 MB anew each time: 12,288 pages of 4 KB, fewer where pages are larger."""
    if not keep_freed_memory():
        pytest.skip("this system's C library has no mallopt that keeps memory")
    assert _faults("leave") >= 6
