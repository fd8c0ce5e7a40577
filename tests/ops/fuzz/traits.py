"""The traits of cases, and a choice of cases that have all of them.

Layout, negation and scale are read from the tensors, not from the words that describe the case.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from .drawing import FORMATS, KINDS, NORMS, OPS, Case, draw, format_of
from .layouts import LAYOUTS, numbers

ROW_SCALES = ("plain", "any", "rows")
"""The scales of a code's rows that `scale_of` returns."""
_EDGES = ("smallest", "largest", "subnormal", "not_finite")
_LAST_SEED = 20_000
"""The seed at which the search for rare traits ends. The rarest trait comes once in some hundreds of cases."""

EXPECTED = frozenset(
    {
        *(*LAYOUTS, *KINDS, *NORMS),
        *itertools.product(_EDGES, FORMATS),
        *itertools.product(OPS, FORMATS),
        *itertools.product(ROW_SCALES, FORMATS, ("primal", "dual")),
        *("negative_view", "close", "mean", "sum", "told", "not told", "different dtypes", "one dtype"),
        *("0 samples", "1 samples", "2 samples", "1 numbers of threads", "3 numbers of threads"),
        *("coefficients that are tensors", "upstream of 0", "graph kept", "not all wanted"),
    }
)
"""The traits that the cases of a run must have between them."""


def layouts_of(tensor: Tensor) -> Iterator[str]:
    """Yield the names of the layouts that fit a tensor's strides and offset."""
    count, elements = tensor.shape[0], tensor.shape[1:].numel()
    strides, offset = tensor.stride(), tensor.storage_offset()
    if not tensor.numel():
        return
    if tensor.is_contiguous():
        yield "offset" if offset else "contiguous"
        return
    order = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim())
    if order is not None and tensor.is_contiguous(memory_format=order):
        yield "channels_last"
    if tensor.permute(*reversed(range(tensor.dim()))).is_contiguous():
        yield "transposed"
    if offset and strides[-1] == 1:
        yield "sliced"
    if count > 1 and strides[0] == 0:
        yield "expanded_sample"
    if tensor.dim() > 1 and tensor.shape[-1] > 1 and strides[-1] == 0:
        yield "expanded_element"
    if not offset and tensor[0].is_contiguous():
        if strides[0] > elements:
            yield "batch_stride"
        if strides[0] == 1:
            yield "windows"


def scale_of(code: Tensor) -> str | None:
    """Return the scale of the rows of a finite code; None for a code of zeros.

    * rows: the squares of two rows are too far apart to be normal numbers of the code's dtype both.
    * any: the squares of some row are not normal numbers.
    * plain: the squares of all rows are normal numbers.
    """
    own = format_of(code.dtype)
    largest = np.abs(numbers(code).numpy()).max(1, initial=0.0)
    exponents = np.frexp(largest[largest > 0])[1]
    if not exponents.size:
        return None
    if np.ptp(exponents) > own.top:
        return "rows"
    return "any" if (2 * np.abs(exponents) > own.top).any() else "plain"


def _edges(tensor: Tensor) -> Iterator[str]:
    """Yield the ends of the dtype's range that a tensor's elements reach."""
    own, values = format_of(tensor.dtype), np.abs(numbers(tensor).numpy())
    finite = values[np.isfinite(values)]
    if finite.size < values.size:
        yield "not_finite"
    if (finite >= 2.0**own.top).any():
        yield "largest"
    nonzero = finite[finite > 0]
    if (nonzero < own.smallest).any():
        yield "subnormal"
    elif (nonzero < 2 * own.smallest).any():
        yield "smallest"


def traits(case: Case) -> Iterator[object]:
    """Yield the traits of a case."""
    yield case.op, case.dtype
    if case.op not in ("hinge_margin_loss", "pulling_away_term"):
        yield case.norm
    if case.op == "reconstruction_energy":
        yield case.reduction
    if case.op in ("discriminator_loss", "generator_loss"):
        yield "told" if case.told is not None else "not told"
    yield f"{len(case.threads)} numbers of threads"
    if not case.upstream.any():
        yield "upstream of 0"
    if case.keeps_graph:
        yield "graph kept"
    if len(case.wanted) < len(case.tensors):
        yield "not all wanted"
    dtypes = {tensor.dtype for tensor in case.tensors.values()}
    yield "different dtypes" if len(dtypes) > 1 else "one dtype"
    if isinstance(case.margin, Tensor) or isinstance(case.weight, Tensor):
        yield "coefficients that are tensors"
    yield from (word for word in str(case).split() if word in KINDS or word == "close")
    for tensor in case.tensors.values():
        yield from layouts_of(tensor)
        if tensor.is_neg():
            yield "negative_view"
        yield from ((edge, tensor.dtype) for edge in _edges(tensor))
        count, elements = tensor.shape[0], tensor.shape[1:].numel()
        yield f"{min(count, 2)} samples"
        if case.op == "pulling_away_term" and count > 1 and tensor.isfinite().all():
            yield scale_of(tensor), tensor.dtype, "primal" if count <= elements else "dual"


def chosen(count: int, fits: Callable[[Case], bool], expected: frozenset[object]) -> tuple[Case, ...]:
    """Return the first `count` cases that fit, and further ones with the expected traits that these lack."""
    found: list[Case] = []
    missing = set(expected)
    for case in filter(fits, map(draw, range(_LAST_SEED))):
        met = missing.intersection(traits(case)) if missing else set()
        if len(found) < count or met:
            found.append(case)
            missing -= met
        elif not missing:
            break
    return tuple(found)
