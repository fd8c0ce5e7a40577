"""Tests that guard pages catch every access out of bounds, and no other access."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from dtypes import DTYPES, dtype_of, is_poison, last
from gpuless.arrays import address, contiguous_strides, element_strides
from gpuless.guard_pages import guarded, is_forbidden, poisoned

LAYOUTS = [((), ()), ((7,), (1,)), ((3, 5), (5, 1)), ((3, 5), (1, 3)), ((2, 3), (100, 7)), ((1024, 4), (4, 1))]


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize(("shape", "strides"), LAYOUTS)
def test_a_poisoned_array_can_be_touched_to_its_end_and_no_further(
    shape: tuple[int, ...], strides: tuple[int, ...], name: str
) -> None:
    array = poisoned(shape, dtype_of(name), strides)
    assert (array.shape, element_strides(array), array.dtype) == (shape, strides, dtype_of(name))
    assert is_poison(array)
    assert not is_forbidden(array, last(array))
    assert is_forbidden(array, last(array) + 1)


@pytest.mark.parametrize("name", DTYPES)
def test_an_array_can_begin_at_the_forbidden_page(name: str) -> None:
    array = poisoned((3, 5), dtype_of(name), begins=True)
    assert not is_forbidden(array, 0)
    assert is_forbidden(array, -1)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_guarded_array_has_values_strides_and_nan_between_them(library: str) -> None:
    def given(array: np.ndarray) -> object:
        return array if library == "numpy" else pytest.importorskip("torch").from_numpy(array)

    values = np.arange(24.0).reshape(4, 6)[:, ::2].T
    copy = guarded(given(values))
    assert element_strides(copy) == element_strides(values) == (2, 6)
    copy = np.asarray(copy)
    assert np.array_equal(copy, values)
    between = np.lib.stride_tricks.as_strided(copy, (23,), (8,))[1::2]
    assert np.isnan(between).all()
    if library == "torch":  # NumPy's view of an expanded dimension is read-only
        expanded = pytest.importorskip("torch").arange(3.0)[:, None].expand(3, 5)
    else:
        expanded = np.broadcast_to(np.arange(3.0)[:, None], (3, 5))
    assert np.array_equal(guarded(expanded), expanded)
    assert element_strides(guarded(expanded)) == (1, 0)


@pytest.mark.parametrize("name", ["numpy.float32", "torch.float32"])
def test_nothing_is_forbidden_memory_too(name: str) -> None:
    for shape in ((0,), (2, 0, 3)):
        array = poisoned(shape, dtype_of(name))
        assert array.shape == shape
        if name.startswith("torch"):
            assert element_strides(array) == contiguous_strides(shape)
            assert is_forbidden(array, 0)


def test_whole_vectors_keep_an_aligned_address() -> None:
    """A size that is a multiple of 16 bytes gives an address that is one too. Kernels are specialized for such
    addresses.
    """
    assert address(poisoned((12,), np.float32)) % 16 == 0
    assert address(poisoned((13,), np.float32)) % 16 == 12
    assert address(poisoned((13,), np.float32, begins=True)) % 16 == 0


def test_memory_is_given_back() -> None:
    def mappings() -> int:
        gc.collect()
        with open("/proc/self/maps") as maps:
            return sum(1 for _ in maps)

    before = mappings()
    kept = [poisoned((1000,), np.float32).reshape(10, 100)[1] for _ in range(50)]
    assert mappings() >= before + 50
    assert all(np.isnan(view).all() for view in kept)
    kept.clear()
    assert mappings() < before + 25
