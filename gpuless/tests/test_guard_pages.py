"""Guard pages see what they are there for, and nothing else."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gpuless.guard_pages import Outcome, guarded, guarded_allocations, interpreted, is_forbidden, poisoned

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32]
LAYOUTS = [((), ()), ((7,), (1,)), ((3, 5), (5, 1)), ((3, 5), (1, 3)), ((2, 3), (100, 7)), ((1024, 4), (4, 1))]

SEEN = [
    "load without a mask",
    "mask of one too many",
    "load before the first",
    "store without a mask",
]


def last(tensor: Tensor) -> int:
    """How many elements of memory lie between the first and the last."""
    return sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "strides"), LAYOUTS)
def test_a_poisoned_tensor_can_be_touched_to_its_end_and_no_further(
    shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype
) -> None:
    tensor = poisoned(shape, dtype, strides)
    assert (tensor.shape, tensor.stride(), tensor.dtype) == (shape, strides, dtype)
    assert (tensor.isnan() if dtype.is_floating_point else tensor == -1).all()
    assert not is_forbidden(tensor, last(tensor))
    assert is_forbidden(tensor, last(tensor) + 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_can_begin_at_the_forbidden_page(dtype: torch.dtype) -> None:
    tensor = poisoned((3, 5), dtype, begins=True)
    assert not is_forbidden(tensor, 0)
    assert is_forbidden(tensor, -1)


def test_a_guarded_tensor_has_values_strides_and_nan_between_them() -> None:
    values = torch.arange(24.0).view(4, 6)[:, ::2].t()
    copy = guarded(values)
    assert torch.equal(copy, values)
    assert copy.stride() == values.stride() == (2, 6)
    assert copy.as_strided((23,), (1,))[1::2].isnan().all()
    expanded = torch.arange(3.0)[:, None].expand(3, 5)
    assert torch.equal(guarded(expanded), expanded)
    assert guarded(expanded).stride() == (1, 0)


def test_nothing_is_forbidden_memory_too() -> None:
    for shape in ((0,), (2, 0, 3)):
        tensor = poisoned(shape, torch.float32)
        assert (tensor.shape, tensor.stride()) == (shape, torch.empty(shape).stride())
        assert is_forbidden(tensor, 0)


def test_whole_vectors_keep_an_aligned_address() -> None:
    """Kernels are specialised for addresses that are multiples of 16."""
    assert poisoned((12,), torch.float32).data_ptr() % 16 == 0
    assert poisoned((13,), torch.float32).data_ptr() % 16 == 12
    assert poisoned((13,), torch.float32, begins=True).data_ptr() % 16 == 0


def test_every_allocation_is_guarded() -> None:
    base = torch.arange(6.0).view(2, 3).t()
    makers: dict[str, Callable[[], Tensor]] = {
        "empty": lambda: torch.empty(3, 5),
        "empty_like": lambda: torch.empty_like(base),
        "empty_strided": lambda: torch.empty_strided((2, 3), (1, 4)),
        "new_empty": lambda: base.new_empty(5, dtype=torch.float64),
        "zeros": lambda: torch.zeros(5),
        "new_zeros": lambda: base.new_zeros(()),
        "full": lambda: torch.full((), 3.0),
        "clone": lambda: base.clone(),
        "product": lambda: base * 2,
        "second of two": lambda: base.max(0)[1],
    }
    for name, make in makers.items():
        ordinary = make()
        with guarded_allocations():
            made = make()
        assert (made.shape, made.stride(), made.dtype) == (ordinary.shape, ordinary.stride(), ordinary.dtype), name
        assert made.isnan().all() if "empty" in name else torch.equal(made, ordinary), name
        assert is_forbidden(made, last(made) + 1), name


def test_views_and_operators_in_place_keep_their_memory() -> None:
    base = torch.zeros(4, 4)
    with guarded_allocations():
        assert base.t()[1:].data_ptr() == base[:, 1:].data_ptr()
        assert base.add_(1).data_ptr() == base.data_ptr()
        out = base.new_empty(4)
        assert torch.sum(base, 0, out=out) is out
        assert torch.empty(0).shape == (0,)
    assert torch.equal(out, torch.full((4,), 4.0))


def test_gradients_pass_through() -> None:
    leaf = torch.tensor([1.0, 2.0], requires_grad=True)
    with guarded_allocations():
        (leaf * leaf).sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, torch.tensor([2.0, 4.0]))


def test_memory_is_given_back() -> None:
    def mappings() -> int:
        gc.collect()
        with open("/proc/self/maps") as maps:
            return sum(1 for _ in maps)

    before = mappings()
    kept = [poisoned((1000,), torch.float32).view(10, 100)[1] for _ in range(50)]
    assert mappings() >= before + 50
    assert all(view.isnan().all() for view in kept)
    kept.clear()
    assert mappings() < before + 25


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, str], Outcome]:
    pytest.importorskip("triton", reason="runs Triton's interpreter")
    from planted_interpreter import copy_guarded, copy_unguarded

    mutations = ["none", *SEEN, "last element not stored"]
    calls = [(copy_guarded, mutation, mutation == "load before the first") for mutation in mutations]
    calls += [(copy_unguarded, mutation) for mutation in ("none", *SEEN)]  # type: ignore[misc]
    return dict(
        zip([(function.__name__, mutation) for function, mutation, *_ in calls], interpreted(*calls), strict=True)
    )


def test_right_kernels_are_fine(outcomes: dict[tuple[str, str], Outcome]) -> None:
    assert outcomes["copy_guarded", "none"].kind == outcomes["copy_unguarded", "none"].kind == "fine"


@pytest.mark.parametrize("mutation", SEEN)
def test_access_past_a_tensor_faults(outcomes: dict[tuple[str, str], Outcome], mutation: str) -> None:
    assert outcomes["copy_guarded", mutation].kind == "fault"


@pytest.mark.parametrize("mutation", ["load without a mask", "mask of one too many", "store without a mask"])
def test_the_same_kernels_go_unnoticed_on_ordinary_memory(
    outcomes: dict[tuple[str, str], Outcome], mutation: str
) -> None:
    assert outcomes["copy_unguarded", mutation].kind == "fine"


def test_an_element_that_is_not_written_is_nan(outcomes: dict[tuple[str, str], Outcome]) -> None:
    outcome = outcomes["copy_guarded", "last element not stored"]
    assert outcome.kind == "wrong"
    assert "nan" in outcome.report


def test_another_error_is_no_outcome() -> None:
    """A broken test must not pass for a caught bug."""
    with pytest.raises(RuntimeError, match="unsupported operand"):
        interpreted((add, 1, "1"))


def add(a: int, b: int) -> int:
    return a + b
