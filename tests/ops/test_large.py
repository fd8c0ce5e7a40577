"""Arrays of more elements than 32 bits can count, in 2 MiB of memory each.

The pages of one small file are mapped many times over a range of addresses. So a kernel can read and write 4 GiB that
do not exist. All elements are 0 except in three windows, which have pages of their own: one at the beginning, one
before element 2^31, and one from there to the end. The windows decide every result, and an index cut to 32 bits misses
the last.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import ebgan_fast
from ebgan_fast.ops import reference

from .budget import assert_within_budget, pulling_away_sums, pulling_away_terms

if not ebgan_fast.backends()["cpu"].available:
    pytest.skip(f"backend cpu: {ebgan_fast.backends()['cpu'].reason}", allow_module_level=True)
if sys.platform != "linux":
    pytest.skip("maps a Linux memfd many times over", allow_module_level=True)

from ebgan_fast import _C

pytestmark = pytest.mark.slow

BEYOND = 5
COUNT = 2**31 + BEYOND
BLOCK = 2 << 20  # bytes; small enough to stay in cache
PAGE = mmap.PAGESIZE
FLOAT32, FLOAT16 = 1, 3
SSE = 1

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_MAP_FIXED, _MAP_NORESERVE = 0x10, 0x4000  # Linux; the mmap module of Python 3.10 does not name them


def _map(at: int | None, size: int, flags: int, file: int = -1) -> int:
    got = _LIBC.mmap(at, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, file, 0)
    if got == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), f"mmap of {size} bytes")
    return int(got)


def _tensor(address: int, count: int, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer((ctypes.c_byte * (count * dtype.itemsize)).from_address(address), dtype=dtype)


class Huge:
    """`rows` of COUNT elements, all equal to `fill`; a test writes other values into `windows`, three to a row."""

    def __init__(self, dtype: torch.dtype, fill: float, rows: int) -> None:
        anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        row_bytes = 2**31 * dtype.itemsize + PAGE
        self.stride = row_bytes // dtype.itemsize
        self._bytes = rows * row_bytes
        self.address = _map(None, self._bytes, anonymous | _MAP_NORESERVE)
        file = os.memfd_create("block")
        os.truncate(file, BLOCK)
        self.windows: list[Tensor] = []
        for row in range(self.address, self.address + self._bytes, row_bytes):
            for at in range(row, row + row_bytes - PAGE, BLOCK):
                _map(at, BLOCK, mmap.MAP_SHARED | _MAP_FIXED, file)
            for at in (row, row + row_bytes - 2 * PAGE, row + row_bytes - PAGE):
                _map(at, PAGE, anonymous | _MAP_FIXED)
                page = _tensor(at, PAGE // dtype.itemsize, dtype)
                page.fill_(float("nan"))  # stays NaN behind the last element of a row
                self.windows.append(page[: BEYOND if at == row + row_bytes - PAGE else None].fill_(fill))
        os.close(file)
        self.block = _tensor(self.address + BLOCK, BLOCK // dtype.itemsize, dtype).fill_(fill)

    def close(self) -> None:
        _LIBC.munmap(self.address, self._bytes)


Make = Callable[..., Huge]


@pytest.fixture
def huge() -> Iterator[Make]:
    made: list[Huge] = []

    def make(dtype: torch.dtype, fill: float = 0.0, rows: int = 1) -> Huge:
        made.append(Huge(dtype, fill, rows))
        return made[-1]

    yield make
    for array in made:
        array.close()


def _integers(huge: Huge) -> Huge:
    generator = torch.Generator().manual_seed(len(huge.windows))
    for window in huge.windows:
        window.copy_(torch.randint(-4, 5, window.shape, generator=generator))
    return huge


def test_a_sample_beyond_32_bits(huge: Make) -> None:
    recon, target = _integers(huge(torch.float16)), huge(torch.float16)
    to_recon, to_target = (huge(torch.float16, float("nan")) for _ in range(2))
    mean, energy = torch.full((), float("nan")), torch.full((1,), float("nan"))
    addresses = (recon.address, target.address, to_recon.address, to_target.address, energy.data_ptr())
    for window in target.windows:
        window.fill_(1)

    batch = (*addresses, COUNT, COUNT, COUNT, COUNT, 1, COUNT)
    _C.loss(FLOAT16, (SSE, batch, (), 0, 0.0, 0, 1.0, mean.data_ptr()), 2)

    differences = [r.double() - t.double() for r, t in zip(recon.windows, target.windows, strict=True)]
    assert mean.item() == energy.item() == sum(d.square().sum().item() for d in differences)
    for gradient, sign in ((to_recon, 2), (to_target, -2)):
        assert not gradient.block.any()  # neither NaN nor another number
        for window, difference in zip(gradient.windows, differences, strict=True):
            assert torch.equal(window.double(), sign * difference)


def test_a_batch_of_energies_beyond_32_bits(huge: Make) -> None:
    """Loss and gradient are right where every gate is closed except some in the windows."""
    fake, to_fake = huge(torch.float32, 3.0), huge(torch.float32, float("nan"))
    for window in fake.windows:
        window[::2] = 0.5
    loss, real, to_real = torch.full((1,), float("nan")), torch.ones(1), torch.empty(1)
    addresses = real.data_ptr(), fake.address, to_real.data_ptr(), to_fake.address
    _C.hinge(FLOAT32, (*addresses, 1, COUNT, 0, 2.0, loss.data_ptr()))
    is_open = [window == 0.5 for window in fake.windows]
    assert loss.item() == torch.tensor(1 + 1.5 * sum(int(o.sum()) for o in is_open) / COUNT).item()
    assert not to_fake.block.any()
    for window, opened in zip(to_fake.windows, is_open, strict=True):
        assert torch.equal(window, torch.where(opened, -1 / COUNT, 0.0))


def test_codes_beyond_32_bits(huge: Make) -> None:
    code, grad = _integers(huge(torch.float16, rows=2)), huge(torch.float16, float("nan"), rows=2)
    value, lengths, residual = (torch.full(shape, float("nan")) for shape in ((), (2, 2), (2, 2)))
    layout, state = (code.address, code.stride, 2, COUNT), (lengths.data_ptr(), residual.data_ptr())
    upstream = 2.0**12  # keeps the gradient out of float16's subnormals

    _C.pulling_away(FLOAT16, (layout, *state, value.data_ptr(), 0, 0, 0.0), 2)
    _C.pulling_away_gradient(FLOAT16, (layout, *state, 0, upstream, grad.address, grad.stride), 2)

    dense = torch.cat(code.windows).view(2, -1)  # zeros change neither value nor gradient
    truth, eager = (_pulling_away(dense.to(to), upstream) for to in (torch.float64, torch.float16))
    sums = pulling_away_sums(dense)
    assert_within_budget(value, truth[0], eager[0], "value", sums=sums)
    terms = upstream * pulling_away_terms(dense)
    assert_within_budget(torch.cat(grad.windows).view(2, -1), truth[1], eager[1], "gradient", terms, sums)
    assert not grad.block.any()


def _pulling_away(code: Tensor, upstream: float) -> tuple[Tensor, Tensor]:
    leaf = code.requires_grad_()
    value = reference.pulling_away_term(leaf)
    return value.detach(), upstream * torch.autograd.grad(value, leaf)[0]
