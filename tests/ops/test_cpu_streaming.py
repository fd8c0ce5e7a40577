"""Stores past the cache, and zeros for a sample past the margin: neither may change a bit of any result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ebgan_fast

from .budget import assert_within_budget
from .cases import NORMS, normal
from .launches import Launches

pytestmark = pytest.mark.skipif(
    not ebgan_fast.backends()["cpu"].available, reason=f"backend cpu: {ebgan_fast.backends()['cpu'].reason}"
)
if ebgan_fast.backends()["cpu"].available:
    from ebgan_fast import _C

cpu = Launches("cpu")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
CHUNK = 4096  # kChunk of csrc/cpu/energy.cpp: a pass looks at the margin each time it has read so many elements
SetStreamFrom = Callable[[int], None]


@pytest.fixture
def stream_from() -> Iterator[SetStreamFrom]:
    """Give a function that sets how many bytes a pass must move for its gradients to be stored past the cache.

    The setting holds until the test ends.
    """
    yield lambda count: _C.set_stream_from(count, False)
    _C.set_stream_from(-1, False)


def _all_gradients(n: int, k: int, dtype: torch.dtype, norm: str, margin: float) -> list[Tensor]:
    """Return the losses, energies and gradients of every kernel that may store past the cache."""
    recon, target, code = (normal(n, k, seed=seed).to(dtype) for seed in range(3))
    found = list(cpu.discriminator_loss(recon, target, target, recon, margin, norm, 1.0, [True] * 4))
    energy = cpu.reconstruction_energy(recon, target, norm)
    upstream = torch.linspace(-1, 1, n, dtype=energy.dtype)  # 0 for the sample in the middle
    found += cpu.reconstruction_energy_backward(upstream, recon, target, energy, norm, [True, True])
    for codes in (code, code.T.contiguous()):  # both forms of the pulling-away term
        value, lengths, residual = cpu.pulling_away_term(codes)
        found += [value, cpu.pulling_away_term_backward(torch.ones_like(value), codes, lengths, residual)]
    return found


# Rows that start on whole vectors, rows that do not, rows of several chunks, and fewer samples than threads.
@pytest.mark.parametrize("size", [(5, 64), (5, 67), (3, 2 * CHUNK + 64), (3, 2 * CHUNK + 13), (1, 5000)], ids=str)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_streamed_results_are_the_same_bits(
    stream_from: SetStreamFrom, dtype: torch.dtype, norm: str, size: tuple[int, int]
) -> None:
    recon, target = (normal(*size, seed=seed).to(dtype) for seed in range(2))
    margin = cpu.reconstruction_energy(target, recon, norm).median().item()  # closes gates, also the median's
    stream_from(2**62)
    ordinary = _all_gradients(*size, dtype, norm, margin)
    stream_from(0)
    for got, expected in zip(_all_gradients(*size, dtype, norm, margin), ordinary, strict=True):
        assert torch.equal(got, expected)


def _past_the_margin(at: int, k: int, dtype: torch.dtype) -> Tensor:
    """Return the differences of three samples of k elements. The middle sample's sum of squares jumps from 1 to 17 at
    `at`."""
    differences = torch.zeros(3, k, dtype=dtype)
    differences[:, 0] = 1
    differences[1, at] = 4
    differences[:, -1] += 0.5
    return differences


@pytest.mark.parametrize("streamed", [False, True], ids=["ordinary", "streamed"])
@pytest.mark.parametrize("at", [1, CHUNK - 1, CHUNK, 2 * CHUNK - 1, 2 * CHUNK, 3 * CHUNK, 3 * CHUNK + 100], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sample_gets_zeros_wherever_it_passes_the_margin(
    stream_from: SetStreamFrom, dtype: torch.dtype, at: int, streamed: bool
) -> None:
    """The sample past the margin gets zeros, and its neighbors get their gradients. All numbers are exact."""
    stream_from(0 if streamed else 2**62)
    differences = _past_the_margin(at, 3 * CHUNK + 128, dtype)
    zero = torch.zeros_like(differences)
    need = [False, False, True, True]
    loss, _, energy, _, _, to_recon, to_fake = cpu.discriminator_loss(
        zero, zero, differences, zero, 17.0, "sse", 1.0, need
    )
    assert energy.tolist() == [1.25, 17.25, 1.25]
    assert loss.item() == (15.75 + 15.75) / 3
    factor = -2 * torch.tensor(1 / 3, dtype=energy.dtype)
    expected = (factor * differences.to(energy.dtype)).to(dtype)
    expected[1] = 0
    assert torch.equal(to_recon, expected)
    assert torch.equal(to_fake, -expected)
    assert not to_recon[1].signbit().any()


@pytest.mark.parametrize("streamed", [False, True], ids=["ordinary", "streamed"])
@pytest.mark.parametrize("norm", ["mse", "sse"])
def test_a_nan_behind_the_margin_reaches_the_gradient(stream_from: SetStreamFrom, norm: str, streamed: bool) -> None:
    """A sample whose energy is NaN keeps its gradient, though its sum had passed the margin before the NaN came."""
    stream_from(0 if streamed else 2**62)
    recon, target = normal(3, 3 * CHUNK, seed=0).float(), normal(3, 3 * CHUNK, seed=1).float()
    recon[1, :CHUNK] += 100
    recon[1, 2 * CHUNK + 7] = float("nan")
    found = cpu.discriminator_loss(target, target, recon, target, 5.0, norm, 1.0, [False, False, True, True])
    assert found[0].isnan()
    assert found[2].isnan().tolist() == [False, True, False]
    difference = recon.double() - target.double()
    factor = -2 / 3 / (3 * CHUNK if norm == "mse" else 1)
    truth = factor * difference[1]
    eager = (factor * (recon - target)[1]).float()
    for gradient, sign in ((found[5], 1), (found[6], -1)):
        assert gradient[1].isnan().nonzero().flatten().tolist() == [2 * CHUNK + 7]
        there = ~truth.isnan()
        assert_within_budget(gradient[1][there], sign * truth[there], sign * eager[there], "gradient")


def test_an_infinite_difference_behind_the_margin_closes_the_gate() -> None:
    recon = torch.ones(2, 3 * CHUNK)
    recon[0, 2 * CHUNK] = float("inf")
    zero = torch.zeros_like(recon)
    loss, _, energy, _, _, to_recon, _ = cpu.discriminator_loss(
        zero, zero, recon, zero, 0.5, "mse", 1.0, [False, False, True, False]
    )
    assert energy.tolist() == [float("inf"), 1.0]
    assert loss.item() == 0
    assert not to_recon.any()


def _cache_of(level: str) -> int:
    """Return the bytes of a cache of the first core, as Linux reports it; 0 where Linux reports none."""
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        if (folder / "level").read_text().strip() == level and (folder / "type").read_text().strip() != "Instruction":
            return 1024 * int((folder / "size").read_text().strip().removesuffix("K"))
    return 0


def test_the_caches_are_those_that_the_system_tells() -> None:
    if not _cache_of("2"):
        pytest.skip("/sys/devices/system/cpu/cpu0/cache says nothing here")
    l2, l3, _ = _C.build_info()["caches"]
    if l2 == 0:
        pytest.skip("not an x86 processor, or one that doesn't tell its caches: no rule depends on them")
    assert (l2, l3) == (_cache_of("2"), _cache_of("3"))


def test_the_rule_follows_the_caches(stream_from: SetStreamFrom) -> None:
    """The size from which stores go past the cache follows the sizes of the caches.

    A near last cache counts whole. A far one does not count: then L2 decides. A processor that reports no caches has a
    limit too.
    """
    near, far = _C.stream_rule(2**19, 2**25, False), _C.stream_rule(2**21, 2**28, True)
    assert _C.stream_rule(2**20, 2**26, False) == (2 * near[0], False)
    assert _C.stream_rule(2**22, 2**25, True) == (2 * far[0], True)
    assert 0 < _C.stream_rule(0, 0, False)[0] < 2**30
    assert _C.stream_from() == _C.stream_rule(*_C.build_info()["caches"])
    stream_from(123)
    assert _C.stream_from() == (123, False)
    stream_from(-1)
    assert _C.stream_from() == _C.stream_rule(*_C.build_info()["caches"])
