"""The compiled CPU kernels, called below torch.library: every bit pattern, every edge of a buffer, threads and forks.

test_contract.py checks the values of the ops. `make test-isas` repeats both files on every instruction set.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import ebgan_fast
from ebgan_fast.ops import reference

from .budget import assert_within_budget, energy_sums, pulling_away_sums, pulling_away_terms, sums_dtype
from .launches import Launches

pytestmark = pytest.mark.skipif(
    not ebgan_fast.backends()["cpu"].available, reason=f"backend cpu: {ebgan_fast.backends()['cpu'].reason}"
)

if ebgan_fast.backends()["cpu"].available:
    from ebgan_fast import _C

cpu = Launches("cpu")
HALVES = [torch.bfloat16, torch.float16]
DTYPES = [torch.float64, torch.float32, *HALVES]
CODES = dict(zip(DTYPES, (0, 1, 2, 3), strict=True))
SENTINEL = 77.0


def _every_pattern(dtype: torch.dtype) -> Tensor:
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)


def _same_bits(got: Tensor, expected: Tensor) -> bool:
    """Return True if the tensors are equal bit by bit, so that -0 differs from 0; any NaN equals any other."""
    view = {2: torch.int16, 4: torch.int32, 8: torch.int64}[got.element_size()]
    both_nan = got.isnan() & expected.isnan()
    return bool(((got.view(view) == expected.view(view)) | both_nan).all())


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_16_bit_value_is_read_exactly(dtype: torch.dtype) -> None:
    values = _every_pattern(dtype).unsqueeze(1)
    energy = cpu.reconstruction_energy(values, torch.zeros_like(values), "sse")
    assert _same_bits(energy, values.float().square().squeeze(1))


# 2^-11 and 2^-8 are half a unit in the last place of float16 and bfloat16: they make ties, which round to even. The
# powers of two push values into the subnormals and past the largest number. 1/3 gives ordinary roundings.
@pytest.mark.parametrize("factor", [1.0, -1.0, 1 / 3, 1 + 2**-11, 1 + 2**-8, 2.0**-12, 2.0**12, 2.0**-120, 0.5])
@pytest.mark.parametrize("shape", [(2**16, 1), (1, 2**16), (2**13 - 1, 8)], ids=str)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_16_bit_value_is_written_as_torch_rounds_it(
    dtype: torch.dtype, shape: tuple[int, int], factor: float
) -> None:
    values = _every_pattern(dtype)[: shape[0] * shape[1]].view(shape)
    zero = torch.zeros_like(values)
    upstream = torch.full((shape[0],), factor / 2)
    to_recon, to_target = cpu.reconstruction_energy_backward(
        upstream, values, zero, torch.ones(shape[0]), "sse", [True, True]
    )
    scaled = values.float() * torch.tensor(factor)
    assert _same_bits(to_recon, scaled.to(dtype))
    assert _same_bits(to_target, (-scaled).to(dtype))


class Guarded:
    """Rows inside a larger buffer whose other elements, around and between the rows, must stay as they were."""

    def __init__(self, n: int, k: int, gap: int, dtype: torch.dtype, inside: float, outside: float) -> None:
        self.buffer = torch.full((n * (k + gap) + 2 * 64,), outside, dtype=dtype)
        self.stride = k + gap
        self.rows = self.buffer[64:].as_strided((n, k), (self.stride, 1), 64)
        self.rows.fill_(inside)

    @property
    def address(self) -> int:
        return self.rows.data_ptr()

    def assert_guards(self, outside: float) -> None:
        around = self.buffer.clone()
        around.as_strided(self.rows.shape, self.rows.stride(), 64).fill_(outside)
        assert bool((around == outside).all()), "a kernel wrote outside its output"


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("k", [*range(1, 36), 1023, 16385])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_energy_kernels_touch_nothing_beside_their_rows(dtype: torch.dtype, k: int, n: int) -> None:
    generator = torch.Generator().manual_seed(k)
    recon = Guarded(n, k, 5, dtype, 0, float("nan"))  # a read outside the rows would show as NaN
    target = Guarded(n, k, 3, dtype, 0, float("nan"))
    recon.rows.copy_(torch.randn(n, k, generator=generator))
    target.rows.copy_(torch.randn(n, k, generator=generator))
    to_recon, to_target = (Guarded(n, k, gap, dtype, float("nan"), SENTINEL) for gap in (4, 2))
    energy = Guarded(1, n, 0, sums_dtype(dtype), float("nan"), SENTINEL)
    upstream = torch.ones(n, dtype=sums_dtype(dtype))
    addresses = (recon.address, target.address, to_recon.address, to_target.address, energy.address)
    batch = (*addresses, recon.stride, target.stride, to_recon.stride, to_target.stride, n, k)
    no_coefficient = (0, 0.0)

    _C.loss(CODES[dtype], (1, batch, (), *no_coefficient, *no_coefficient, 0), 1)
    _C.energy_gradient(CODES[dtype], (1, batch, upstream.data_ptr(), 1), 1)

    for output in (to_recon, to_target, energy):
        output.assert_guards(SENTINEL)
    difference = recon.rows.to(sums_dtype(dtype)) - target.rows.to(sums_dtype(dtype))
    assert torch.equal(to_recon.rows, (2 * difference).to(dtype))
    assert torch.equal(to_target.rows, (-2 * difference).to(dtype))
    truth = difference.double().square().sum(1)
    assert_within_budget(energy.rows[0], truth, difference.square().sum(1), "energy", sums=energy_sums(recon.rows))


@pytest.mark.parametrize(
    ("n", "d"), [(2, 2), (2, 1), (3, 7), (5, 97), (7, 8), (97, 100), (9, 4), (100, 95), (250, 17)], ids=str
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pulling_away_kernels_touch_nothing_beside_their_rows(dtype: torch.dtype, n: int, d: int) -> None:
    code = Guarded(n, d, 5, dtype, 0, float("nan"))
    code.rows.copy_(torch.randn(n, d, generator=torch.Generator().manual_seed(n)))
    side = min(n, d)
    lengths = Guarded(1, 2 * n, 0, sums_dtype(dtype), float("nan"), SENTINEL)
    residual = Guarded(1, side * side, 0, sums_dtype(dtype), float("nan"), SENTINEL)
    value = Guarded(1, 1, 0, sums_dtype(dtype), float("nan"), SENTINEL)
    grad = Guarded(n, d, 3, dtype, float("nan"), SENTINEL)
    layout, state = (code.address, code.stride, n, d), (lengths.address, residual.address)

    _C.pulling_away(CODES[dtype], (layout, *state, value.address, 0, 0, 0.0), 2)
    _C.pulling_away_gradient(CODES[dtype], (layout, *state, 0, 1.0, grad.address, grad.stride), 2)

    for output in (lengths, residual, value, grad):
        output.assert_guards(SENTINEL)
    dense = code.rows.clone()
    truth, eager = (_pulling_away(reference.pulling_away_term, dense.to(to)) for to in (torch.float64, dtype))
    assert_within_budget(value.rows[0, 0], truth[0], eager[0], "value", sums=pulling_away_sums(dense))
    terms = pulling_away_terms(dense)
    assert_within_budget(grad.rows, truth[1], eager[1], "gradient", terms, pulling_away_sums(dense))


def _pulling_away(term: Callable[[Tensor], Tensor], code: Tensor) -> tuple[Tensor, Tensor]:
    leaf = code.detach().requires_grad_()
    value = term(leaf)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def _kernel_pulling_away(code: Tensor) -> tuple[Tensor, Tensor]:
    value, *state = cpu.pulling_away_term(code)
    return value, cpu.pulling_away_term_backward(torch.ones(()), code, *state)


@pytest.mark.parametrize("shape", [(40, 64), (64, 40)], ids=["primal", "dual"])
@pytest.mark.parametrize("exponent", [12, 15, 17])
def test_rows_of_any_size_count_alike(shape: tuple[int, int], exponent: int) -> None:
    """The term is right for rows whose lengths go from 1e-exponent to 1e+exponent in one float32 batch."""
    generator = torch.Generator().manual_seed(exponent)
    code = torch.randn(shape, generator=generator)
    code *= 10.0 ** torch.linspace(-exponent, exponent, shape[0]).unsqueeze(1)
    got = _kernel_pulling_away(code)
    truth = _pulling_away(reference.pulling_away_term, code.double())
    eager = _pulling_away(reference.pulling_away_term, code)
    assert_within_budget(got[0], truth[0], eager[0], "value", sums=pulling_away_sums(code))
    assert_within_budget(got[1], truth[1], eager[1], "gradient", pulling_away_terms(code), pulling_away_sums(code))


@pytest.mark.parametrize("d", [60, 300, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_codes_of_one_repeated_number(dtype: torch.dtype, d: int) -> None:
    """A long chain of additions would show in such codes, as every sum over them rounds the same way.

    All cosines are 1 or -1. float64 takes no part: where the instruction set has no fused multiply-add, its products
    round as well, and the bound on the sums does not cover that.
    """
    for seed in range(12):
        code = torch.randn(2, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
        code = code.expand(2, d).contiguous()
        value = cpu.pulling_away_term(code)[0]
        one = torch.tensor(1.0)  # given as eager's result too, so that no error of eager torch widens the budget
        assert_within_budget(value, one, one, f"seed {seed}", sums=pulling_away_sums(code))


@pytest.mark.parametrize("d", [2, 10, 95, 300])
def test_a_simplex_in_the_dual_form_loses_no_digits(d: int) -> None:
    """d + 1 evenly spread codes in d dimensions give 1/d^2, the least value of the term, to the last digits.

    Every cosine is -1/d. The formula ||U^T U||^2 - N would lose digits: it subtracts two numbers near d that differ by
    about 1/d.
    """
    corners = torch.eye(d + 1, dtype=torch.float64) - 1 / (d + 1)
    plane = torch.linalg.svd(corners).Vh[:d]  # an orthonormal basis of the d dimensions that the corners span
    code = (corners @ plane.T).float()
    truth, eager = (reference.pulling_away_term(code.to(to)) for to in (torch.float64, torch.float32))
    value, _, residual = cpu.pulling_away_term(code)
    assert residual.shape == (d, d)
    assert_within_budget(value, truth, eager, "value", sums=pulling_away_sums(code))
    # Rounding to float32 turns a code by half a unit at most. So a cosine, which is -1/d, is off by one unit, and its
    # square is off by 2 d units relative to itself.
    assert truth.item() == pytest.approx(1 / d**2, rel=2 * d * torch.finfo(torch.float32).eps)


def test_the_dual_gradient_follows_the_order_of_the_code() -> None:
    """The dual Gram matrix is laid out by elements, so forward and backward must read a code in the same order."""
    generator = torch.Generator().manual_seed(0)
    code = torch.randn(300, 4, 3, 2, generator=generator)
    value, gradient = _kernel_pulling_away(code)
    for other in (code.contiguous(memory_format=torch.channels_last), code.mT.contiguous().mT):
        assert other.stride() != code.stride()
        got = _kernel_pulling_away(other)
        assert got[1].stride() == other.stride()
        sums = pulling_away_sums(code)
        assert_within_budget(got[0], value, value, "value", sums=sums, sides=2)
        assert_within_budget(got[1], gradient, gradient, "gradient", pulling_away_terms(code), sums, sides=2)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def _everything(n: int, k: int, d: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n + k + d)
    recon, target = (torch.randn(n, k, generator=generator).to(dtype) for _ in range(2))
    code = torch.randn(n, d, generator=generator).to(dtype)
    results = list(cpu.discriminator_loss(recon, target, target, recon, torch.tensor(2.0), "mse", 1.0, [True] * 4))
    energy = cpu.reconstruction_energy(recon, target, "l2")
    upstream = torch.linspace(-1, 1, n, dtype=energy.dtype)
    results += cpu.reconstruction_energy_backward(upstream, recon, target, energy, "l2", [True, True])
    return [*results, energy, *_kernel_pulling_away(code)]


# (N, K, d). Samples: fewer than threads, with rows of one, several and many chunks. Codes: those whose Gram matrix is
# summed in several splits of the depth, and Gram matrices of one, few and many blocks. Both forms take part.
@pytest.mark.slow
@pytest.mark.parametrize(
    "size",
    [
        *[(1, 200_000, 9), (2, 16_384, 40_000), (3, 16_385, 5000), (4, 70_001, 2), (97, 2000, 97)],
        *[(96, 500, 6000), (400, 33, 399), (400, 64, 401), (1500, 40, 130), (6000, 17, 12)],
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_bits_at_any_number_of_threads(
    dtype: torch.dtype, size: tuple[int, int, int], threads: Callable[[int], None]
) -> None:
    threads(1)
    alone = _everything(*size, dtype)
    for count in (2, 3, 5):
        threads(count)
        for got, expected in zip(_everything(*size, dtype), alone, strict=True):
            assert torch.equal(got, expected), f"{count} threads"


def test_callers_on_many_python_threads_do_not_disturb_each_other() -> None:
    sizes = [(5, 20_000, 64), (64, 1024, 100), (200, 100, 20), (3, 50_000, 3000)]
    expected = [_everything(*size, torch.float32) for size in sizes]
    wrong: list[str] = []

    def work(size: tuple[int, int, int], alone: list[Tensor]) -> None:
        for _ in range(10):
            if not all(map(torch.equal, _everything(*size, torch.float32), alone)):
                wrong.append(f"{size}")

    callers = [threading.Thread(target=work, args=pair) for pair in zip(sizes, expected, strict=True)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


_FORK = """
import os, signal, torch
from ebgan_fast.ops import energy, op
torch.set_num_threads(2)
recon, target = torch.randn(64, 20000), torch.randn(64, 20000)
run = lambda: op.call("reconstruction_energy", "cpu", recon, target, "mse")
before = run()
child = os.fork()
if child == 0:
    signal.alarm(30)
    os._exit(0 if torch.equal(run(), before) else 1)
_, status = os.waitpid(child, 0)
assert torch.equal(run(), before)
raise SystemExit(0 if status == 0 else f"the forked child ended with wait status {status}")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_can_run_kernels() -> None:
    """A forked child must not wait for the thread team, which a fork ends: GNU OpenMP would wait forever."""
    done = subprocess.run([sys.executable, "-c", _FORK], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
