"""Tensors in every layout that torch allows, drawn by hypothesis, and the marks that run a test on every backend."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

import ebgan_fast
from ebgan_fast.ops import energy

from . import sessions
from .simulated_cuda import SIMULATED

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
NORMS = tuple(energy.NORMS)
LAYOUTS = (
    "contiguous",
    "channels_last",
    "sliced_batch",
    "sliced_samples",
    "permuted",
    "one_sample_expanded",
    "one_element_expanded",
    "offset",
)

# Each of the three choices holds for the whole process: sessions.py makes it.
INTERPRETED = os.environ.get(sessions.INTERPRET) == "1"
OTHER_ISA = bool(os.environ.get(sessions.ISA))
# bench/gpu.sh sets "cuda"; conftest.py makes it the default of every tensor for which a test names no device.
DEVICE = torch.device(os.environ.get("EBGAN_FAST_TEST_DEVICE", "cpu"))
# The backend that a session was started for. Where it cannot run, its tests fail instead of being skipped.
REQUIRED = os.environ.get(sessions.REQUIRED)
ON_DEVICE = {"cpu": ("reference", "cpu"), "cuda": ("reference", "triton", "cuda")}
TESTED = ("triton",) if INTERPRETED else ("cuda",) if SIMULATED else ("cpu",) if OTHER_ISA else ON_DEVICE[DEVICE.type]
BACKENDS = [
    pytest.param(
        name,
        marks=()
        if status.available or name == REQUIRED
        else pytest.mark.skip(reason=f"backend {name}: {status.reason}"),
    )
    for name, status in ebgan_fast.backends().items()
    if name in TESTED
]
every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_kernel = pytest.mark.parametrize("backend", [each for each in BACKENDS if each.values[0] != "reference"])
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
every_norm = pytest.mark.parametrize("norm", NORMS)


def examples(count: int) -> settings:
    """Return settings that draw `count` cases, or fewer in a simulator, where a case takes up to a second."""
    return settings(max_examples=count // 4 if INTERPRETED else count // 6 if SIMULATED else count)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return normal numbers, the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype, device="cpu").to(DEVICE)


def laid_out(values: Tensor, layout: str) -> Tensor:
    """Return the values in another layout, with NaN in the gaps. The expanded layouts repeat some values."""
    if values.dim() == 0 or values.numel() == 0:
        return values
    if layout == "channels_last" and values.dim() == 4:
        return values.contiguous(memory_format=torch.channels_last)
    if layout == "sliced_batch":
        room = values.new_full((2 * values.shape[0], *values.shape[1:]), float("nan"))
        room[::2] = values
        return room[::2]
    if layout == "sliced_samples" and values.dim() > 1:
        room = values.new_full((*values.shape[:-1], values.shape[-1] + 3), float("nan"))
        room[..., 1:-2] = values
        return room[..., 1:-2]
    if layout == "permuted" and values.dim() > 1:
        order = list(range(values.dim()))[::-1]
        return values.permute(order).contiguous().permute(order)
    if layout == "one_sample_expanded":
        return values[:1].expand(values.shape)
    if layout == "one_element_expanded" and values.dim() > 1:
        return values[..., :1].expand(values.shape)
    if layout == "offset":
        room = values.new_full((values.numel() + 1,), float("nan"))
        room[1:] = values.reshape(-1)
        return room[1:].reshape(values.shape)
    return values


small_shapes = st.one_of(
    st.tuples(st.integers(0, 9)),
    st.tuples(st.integers(0, 9), st.integers(1, 70)),
    st.tuples(st.integers(0, 6), st.integers(1, 4), st.integers(1, 6), st.integers(1, 9)),
)
shapes = st.one_of(small_shapes, st.tuples(st.integers(1, 3), st.integers(4000, 9000)))


@st.composite
def batches(draw: st.DrawFn, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Draw a batch of this shape in some layout: normal values in some scale, now and then with a row of zeros."""
    scale = draw(st.sampled_from((1e-3, 1.0, 30.0)))
    values = normal(*shape, seed=draw(st.integers(0, 2**32 - 1))) * scale
    if shape[0] and draw(st.booleans()):
        values[draw(st.integers(0, shape[0] - 1))] = 0.0
    return laid_out(values.to(dtype), draw(st.sampled_from(LAYOUTS)))


@st.composite
def pairs(draw: st.DrawFn, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Draw recon and target of one shape, each in a layout of its own."""
    shape = draw(shapes)
    return draw(batches(shape, dtype)), draw(batches(shape, dtype))


@st.composite
def codes(draw: st.DrawFn, dtype: torch.dtype, n: int | None = None) -> Tensor:
    n = draw(st.integers(0, 40)) if n is None else n
    trailing = draw(st.sampled_from(((), (1,), (3,), (17,), (33,), (4, 3, 5), (300,))))
    return draw(batches((n, *trailing), dtype))
