"""The arithmetic of the ceilings is right, given made-up seconds."""

from __future__ import annotations

import pytest
import torch

from bench.subjects.cases import Work
from bench.timing import ceilings

COPY_BYTES = 2 * 4 * 64 * 3 * 128 * 128
PRODUCT_OPERATIONS = 2 * 2048**3
BEST = {ceilings.COPY: 0.002, ceilings.PRODUCT: 0.4}


def test_traffic_is_held_against_the_copy() -> None:
    ceiling = ceilings.ceiling(Work(elements=1000), torch.float32, "cpu", BEST)
    assert ceiling == ("copy", pytest.approx(COPY_BYTES / 0.002 / 1e9), "GB/s")
    assert ceilings.amount(Work(elements=1000), torch.bfloat16, "GB/s") == pytest.approx(2000 / 1e9)


@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.float32, "sgemm"), (torch.bfloat16, "sgemm"), (torch.float64, "dgemm")]
)
def test_arithmetic_is_held_against_the_product(dtype: torch.dtype, name: str) -> None:
    ceiling = ceilings.ceiling(Work(operations=1000), dtype, "cpu", BEST)
    assert ceiling == (name, pytest.approx(PRODUCT_OPERATIONS / 0.4 / 1e9), "GFLOP/s")


def test_on_a_gpu_products_run_in_tensor_cores() -> None:
    """A product as accurate as float32 takes three tf32 products. A product of 16-bit inputs is exact in one."""
    work = Work(operations=2 * 8192**3)
    best = {ceilings.PRODUCT: 0.4}
    rate = work.operations / 0.4 / 1e9
    assert ceilings.ceiling(work, torch.float32, "cuda", best) == ("3 tf32 gemms", pytest.approx(rate / 3), "GFLOP/s")
    assert ceilings.ceiling(work, torch.bfloat16, "cuda", best) == ("bfloat16 gemm", pytest.approx(rate), "GFLOP/s")


def test_both_together_are_one_after_the_other() -> None:
    """Work as large as the copy and the product together takes the sum of their times."""
    work = Work(elements=COPY_BYTES // 4, operations=PRODUCT_OPERATIONS)
    ceiling = ceilings.ceiling(work, torch.float32, "cpu", BEST)
    assert ceiling == ("copy + sgemm", pytest.approx(COPY_BYTES / 0.402 / 1e9), "GB/s")


@pytest.mark.parametrize(("product", "bound"), [(0.4, "sgemm"), (0.001, "copy")])
def test_work_that_overlaps_takes_the_longer_of_both(product: float, bound: str) -> None:
    work = Work(elements=COPY_BYTES // 4, operations=PRODUCT_OPERATIONS, overlaps=True)
    rates = {"sgemm": (PRODUCT_OPERATIONS / product / 1e9, "GFLOP/s"), "copy": (COPY_BYTES / 0.002 / 1e9, "GB/s")}
    value, unit = rates[bound]
    best = {ceilings.COPY: 0.002, ceilings.PRODUCT: product}
    assert ceilings.ceiling(work, torch.float32, "cpu", best) == (bound, pytest.approx(value), unit)


@pytest.mark.parametrize(
    ("work", "names"),
    [
        (Work(elements=1), {ceilings.COPY}),
        (Work(operations=1), {ceilings.PRODUCT}),
        (Work(1, 1), {ceilings.COPY, ceilings.PRODUCT}),
    ],
)
def test_only_the_ceilings_that_a_case_needs_are_timed(work: Work, names: set[str]) -> None:
    leaf = torch.ones(2, 3, requires_grad=True)
    steps = ceilings.steps(work, torch.float32, {"code": leaf, "pt_weight": 0.1})
    assert steps.keys() == names | {ceilings.EMPTY}
    for name in names:
        assert isinstance(steps[name](), torch.Tensor)
    (gradient,) = steps[ceilings.EMPTY]()
    assert gradient.shape == leaf.shape
