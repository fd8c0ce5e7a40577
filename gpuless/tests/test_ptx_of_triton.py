"""Tests of Triton's own PTX in the simulator: correct kernels give right numbers, and every planted bug is found."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed (Linux only)")

import torch
from torch import Tensor

import planted_triton as planted
from gpuless.ptx import DeviceAssert, Misaligned, OutOfBounds, Race
from launches import Launch
from planted_triton import Rows, double_rows_launch, product_launch, row_sums_launch

BARRIER = r"bar\.sync\s+0;"
MASKS = {"full": 0, "masked": 1, "one too many": 2}


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("n", [1, 500, 2048, 2500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_row_sums(dtype: torch.dtype, n: int, target: str) -> None:
    """Each element takes part in at most n / 512 + 9 additions with a relative error of 2^-24."""
    x, sums = random(3, n, dtype=dtype), torch.full((3,), torch.nan)
    report = row_sums_launch(x, sums).run(target=target)
    additions = -(-n // 512) + 9
    bound = additions * 2.0**-24 * x.double().abs().sum(1)
    assert ((sums.double() - x.double().sum(1)).abs() <= bound).all()
    assert report.buffers[0].bytes_read == x.numel() * x.element_size()
    assert (report.buffers[0].bytes_written, report.buffers[1].bytes_written) == (0, 12)
    if n % 512 == 0:
        assert set(report.buffers[0].loads) == {128 if dtype == torch.float32 else 64}


def test_members_of_a_tuple_reach_their_parameters() -> None:
    """The members of a tuple reach their parameters in order, without the member that is None. Reports use the same
    numbers.
    """
    first, second, twice = random(2, 48), random(3, 40, seed=1), torch.full((3, 40), torch.nan)
    sums = torch.full((5,), torch.nan)
    launch = double_rows_launch(Rows(first, None, 48, 47), Rows(second, twice, 40, 40), sums)
    report = launch.run()
    assert torch.equal(twice, second * 2)
    expected = torch.cat([first[:, :47].double().sum(1), second.double().sum(1)])
    assert ((sums - expected).abs() <= 1e-5).all()
    names = launch.compile().runtime_arguments
    moved = {names[number]: (it.bytes_read, it.bytes_written) for number, it in report.buffers.items() if it.bytes_read}
    assert moved == {"first.p_x": (2 * 47 * 4, 0), "second.p_x": (3 * 40 * 4, 0)}
    assert report.buffers[names.index("second.p_twice")].bytes_written == 3 * 40 * 4


def product_error(a: Tensor, b: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Return the error of each element of a b, and the element of |a| |b|, which scales it."""
    c = torch.full((a.shape[0], b.shape[1]), torch.nan)
    report = product_launch(a, b, c, precision).run()
    assert report.tensor_core_instructions > 0
    return (c.double() - a.double() @ b.double()).abs(), a.double().abs() @ b.double().abs()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("n", "m", "k"), [(64, 64, 64), (70, 48, 144), (37, 35, 71)])
def test_products_of_16_bit_floats(dtype: torch.dtype, n: int, m: int, k: int) -> None:
    """Products are exact. Every addition is off by at most a unit in the last place of the sum."""
    error, scale = product_error(random(n, k, dtype=dtype), random(k, m, dtype=dtype, seed=1), "ieee")
    assert (error <= (k + 1) * 2.0**-23 * scale).all()


def test_products_of_float32_in_tf32_and_in_three_of_them() -> None:
    """tf32 cuts operands to 11 bits, so each is off by 2^-10 of itself. Three products restore everything but three
    terms of 2^-20 each: the product of the parts that were cut off, and what is cut off those two parts.
    """
    a, b = random(64, 72), random(72, 40, seed=1)
    sums = 3 * 73 * 2.0**-23
    in_one, scale = product_error(a, b, "tf32")
    assert (in_one <= (2 * 2.0**-10 + 2.0**-20 + sums) * scale).all()
    in_three, scale = product_error(a, b, "tf32x3")
    assert (in_three <= (3 * 2.0**-20 + sums) * scale).all()
    assert in_one.max() > 20 * in_three.max()  # otherwise the cut is not modeled


def last(seed: int, semantics: str = "acq_rel", edit: Callable[[str], str] = str) -> tuple[Tensor, Tensor, Tensor]:
    x, partials = random(6, 256), torch.full((6, 256), torch.nan)
    counter, total = torch.zeros(1, dtype=torch.int32), torch.full((256,), torch.nan)
    arguments = {"p_x": x, "p_partials": partials, "p_counter": counter, "p_total": total}
    arguments |= {"SEMANTICS": semantics, "BLOCK": 256}
    Launch(planted.total_by_last, (6,), arguments, 4).run(seed=seed, edit=edit)
    return x, total, counter


def test_the_last_program_adds_up_what_the_others_stored_in_any_order() -> None:
    totals = []
    for seed in range(6):
        x, total, counter = last(seed)
        assert counter.item() == 0
        assert ((total.double() - 2 * x.double().sum(0)).abs() <= 6 * 2.0**-24 * 2 * x.double().abs().sum(0)).all()
        totals.append(total)
    assert all(torch.equal(total, totals[0]) for total in totals)


def before_the_atomic(ptx: str) -> str:
    """Remove the barriers before the atomic from PTX."""
    begin, atomic, end = ptx.partition("atom.global")
    assert "bar.sync" in begin
    return re.sub(BARRIER, "", begin) + atomic + end


@pytest.mark.parametrize("seed", range(3))
def test_a_last_program_that_may_not_see_the_others(seed: int) -> None:
    message = r"load at byte \d+ of argument 1, written by thread \d+ of CTA"
    for semantics in ("relaxed", "acquire", "release"):
        with pytest.raises(Race, match=message):
            last(seed, semantics)
    with pytest.raises(Race, match=message):
        last(seed, edit=before_the_atomic)


def test_a_missing_mask_and_one_that_lets_one_more_through() -> None:
    x, sums = random(2, 500), torch.zeros(2)
    row_sums_launch(x, sums, MASKS["masked"]).run()
    with pytest.raises(
        OutOfBounds, match=r"load of \d+ bytes at byte \d+ of argument 0, which has 4000 .*CTA \(1, 0, 0\)"
    ):
        row_sums_launch(x, sums, MASKS["full"]).run()
    with pytest.raises(OutOfBounds, match=r"byte 4000 of argument 0"):
        row_sums_launch(x, sums, MASKS["one too many"]).run()


@pytest.mark.parametrize("start", [1, 2, 7])
def test_a_promise_of_alignment_that_does_not_hold(start: int) -> None:
    memory, sums = random(2 * 512 + 16, dtype=torch.float16), torch.zeros(2)
    good, bad = (row_sums_launch(memory[begin:][:1024].view(2, 512), sums) for begin in (8, start))
    good.run()
    with pytest.raises(Misaligned, match=f"load of 8 bytes at byte 0 of argument 0, {2 * start % 8} bytes past"):
        bad.run(compiled_for=good)
    bad.run()


def without(pattern: str, index: int) -> Callable[[str], str]:
    """Return a function that removes the match number `index` from PTX."""

    def edit(ptx: str) -> str:
        matches = list(re.finditer(pattern, ptx))
        return ptx[: matches[index].start()] + ptx[matches[index].end() :]

    return edit


def count(pattern: str, launch: Launch) -> int:
    found: list[str] = []
    launch.run(edit=lambda ptx: found.extend(re.findall(pattern, ptx)) or ptx)
    return len(found)


def test_every_barrier_of_a_reduction_is_needed() -> None:
    launch = row_sums_launch(random(2, 500), torch.zeros(2))
    barriers = count(BARRIER, launch)
    assert barriers >= 1
    for index in range(barriers):
        with pytest.raises(Race, match="of shared memory"):
            launch.run(edit=without(BARRIER, index))


def test_a_pipelined_product_without_a_wait_or_a_barrier() -> None:
    """A product that misses a wait or a barrier is a race: copies for later steps are in progress while it multiplies.

    Triton waits once more than it must. The barrier there is the only one that may be removed.
    """
    a, b, c = random(64, 160, dtype=torch.float16), random(160, 64, dtype=torch.float16), torch.zeros(64, 64)
    launch = product_launch(a, b, c, "ieee")
    assert count(r"cp\.async\.c[ag]", launch) > 0
    right, harmless = c.clone(), 0
    with pytest.raises(Race, match=r"written by cp\.async of thread \d+, not waited for"):
        launch.run(edit=lambda ptx: re.sub(r"(cp\.async\.wait_group\s+)(0x)?\d+;", r"\g<1>9;", ptx))
    for index in range(count(BARRIER, launch)):
        try:
            launch.run(edit=without(BARRIER, index))
        except Race:
            continue
        harmless += 1
        assert torch.equal(c, right)
    assert harmless <= 1


def test_a_count_without_atomics() -> None:
    counter = torch.zeros(1, dtype=torch.int32)
    Launch(planted.count_without_atomics, (1,), {"p_count": counter}, 4).run()
    assert counter.item() == 1
    for seed in range(3):
        with pytest.raises(Race, match="load at byte 0 of argument 0, written by thread 0 of CTA"):
            Launch(planted.count_without_atomics, (4,), {"p_count": counter}, 4).run(seed=seed)


def offsets(row: int, stride: int, debug: bool) -> Tensor:
    to = torch.zeros(128, dtype=torch.int32)
    Launch(planted.offsets, (1,), {"p_offsets": to, "row": row, "stride": stride, "BLOCK": 128}, 4).run(debug=debug)
    return to


def test_an_integer_that_overflows_in_a_debug_build() -> None:
    assert offsets(7, 1000, debug=True)[3] == 7003
    assert offsets(99, 2**25, debug=False)[0] == 99 * 2**25 - 2**32  # it wraps without a report
    with pytest.raises(DeviceAssert, match="int32 overflow detected for operation mul"):
        offsets(99, 2**25, debug=True)


def test_an_assertion_of_the_kernel() -> None:
    assert offsets(100, 5, debug=False)[0] == 500
    with pytest.raises(DeviceAssert, match=r"row is too large .*planted_triton\.py"):
        offsets(100, 5, debug=True)


def test_lanes_of_one_row_that_disagree_on_its_sum() -> None:
    """fma(a, a, b b) in one lane is fma(b, b, a a) in the other. Both lanes store to one place, with different last
    bits.
    """
    arguments = {"p_x": random(8, 33), "p_sums": torch.zeros(8), "stride": 33, "ROWS": 8, "COLUMNS": 32}
    Launch(planted.squares_of_rows, (1,), arguments, 4).run()
    with pytest.raises(Race, match="two lanes of one instruction store different values"):
        Launch(planted.squares_of_rows, (1,), arguments, 4, enable_fp_fusion=True).run()
