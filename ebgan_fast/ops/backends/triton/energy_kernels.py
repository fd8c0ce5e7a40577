"""Triton kernels for the energies, and for the losses with every gradient. Each sample is read once.

Arguments: p_ marks a pointer, and a `Batch` holds several. Batches are [n, elements]. Samples are a stride of elements
apart, and the elements of a sample are adjacent. ACC is the dtype of differences, sums, energies and losses: float64
for float64 batches, else float32. NORM is a number of norm_kernels.py. Counters are int32 zeros, and a kernel leaves
them as zeros.

Offsets of samples and chunks are 64-bit scalars, and only offsets within a tile are 32-bit vectors. So batches of more
than 2^31 elements cost nothing more.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .arithmetic_kernels import quotient, scalar
from .norm_kernels import energy_of, gradient_of, slope_needs_energy, slope_of, term


class Batch(NamedTuple):
    """A pair of batches as kernels take it. All members are None if there is no pair.

    Triton specializes on every member of a tuple. So the number of samples, which is smaller in a last batch, is a
    separate argument.
    """

    recon: Any  # [n, elements]
    target: Any  # [n, elements]
    grad_recon: Any  # [n, elements], or None if not needed
    grad_target: Any  # [n, elements], or None if not needed
    energy: Any  # ACC [n]
    recon_stride: int | None  # from one sample to the next
    target_stride: int | None
    grad_recon_stride: int | None
    grad_target_stride: int | None
    elements: int | None  # of a sample


@triton.jit
def _mean_of(p_energy, n, margin, HINGE: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr):
    """Return the mean energy, or the mean of [margin - energy]+; 0 for no samples.

    Other programs wrote the energies, so the loads bypass the first cache.
    """
    total = tl.zeros((BLOCK,), dtype=ACC)
    for first in range(0, n, BLOCK):
        index = first + tl.arange(0, BLOCK)
        energy = tl.load(p_energy + index, mask=index < n, other=0.0, cache_modifier=".cg")
        if HINGE:
            gap = margin - energy
            energy = tl.where((gap <= 0) | (index >= n), 0.0, gap)  # NaN stays
        total += energy
    return quotient(tl.sum(total, axis=0), tl.maximum(n, 1))


@triton.jit
def _store_loss(p_loss, p_energy_real, p_energy_fake, n_real, n_fake, margin, ACC: tl.constexpr, BLOCK: tl.constexpr):
    loss = _mean_of(p_energy_real, n_real, margin, False, ACC, BLOCK)
    if p_energy_fake is not None:
        loss += _mean_of(p_energy_fake, n_fake, margin, True, ACC, BLOCK)
    tl.store(p_loss, loss)


@triton.jit
def _weight_of(energy, n, margin, upstream, GATED: tl.constexpr):
    """Return the derivative of upstream times the loss to each energy.

    It is upstream/n. For [margin - energy]+ it is -upstream/n, and 0 at and past the margin.
    """
    share = quotient(upstream, n)
    if GATED:
        return tl.where(margin - energy <= 0, 0.0, -share)
    else:
        return share + tl.zeros_like(energy)


@triton.jit
def _tile_of_rows(
    batch,
    first,  # sample
    n,
    margin,
    upstream,
    GATED: tl.constexpr,
    NORM: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute energies and gradients of ROWS samples of up to BLOCK elements, kept in registers."""
    base = first.to(tl.int64)
    row = tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)[None, :]
    inside = (first + row < n)[:, None] & (column < batch.elements)
    far = row.to(tl.int64)[:, None]
    offset = far * batch.recon_stride + column
    recon = tl.load(batch.recon + base * batch.recon_stride + offset, mask=inside, other=0.0).to(ACC)
    offset = far * batch.target_stride + column
    target = tl.load(batch.target + base * batch.target_stride + offset, mask=inside, other=0.0).to(ACC)
    difference = recon - target
    energy = energy_of(tl.sum(term(difference, NORM), axis=1), batch.elements, NORM)
    tl.store(batch.energy + first + row, energy, mask=first + row < n)
    if batch.grad_recon is not None or batch.grad_target is not None:
        weight = _weight_of(energy, n, margin, upstream, GATED)
        slope = slope_of(energy, weight, batch.elements, NORM)[:, None]
        # Exact zeros past the margin and for an upstream of 0, even if the difference is infinite or NaN.
        gradient = tl.where(weight[:, None] == 0, 0.0, gradient_of(difference, slope, NORM))
        if batch.grad_recon is not None:
            offset = far * batch.grad_recon_stride + column
            to = batch.grad_recon + base * batch.grad_recon_stride + offset
            tl.store(to, gradient.to(batch.grad_recon.dtype.element_ty), mask=inside)
        if batch.grad_target is not None:
            offset = far * batch.grad_target_stride + column
            to = batch.grad_target + base * batch.grad_target_stride + offset
            tl.store(to, (-gradient).to(batch.grad_target.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n_real", "n_fake", "programs_real", "margin", "upstream"])
def loss_by_rows(
    real,  # Batch
    n_real,
    fake,  # Batch behind the hinge
    n_fake,  # may be 0
    margin,  # number, or pointer to a 0-d tensor
    upstream,  # number, or pointer to a 0-d tensor
    p_loss,  # ACC [], or None to compute only the energies
    p_counter,  # int32 [1]
    programs_real,  # ceil(n_real / ROWS)
    MARGIN_IS_POINTER: tl.constexpr,
    UPSTREAM_IS_POINTER: tl.constexpr,
    NORM: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,  # samples of a program
    BLOCK: tl.constexpr,  # at least the elements of a sample
    BATCH_BLOCK: tl.constexpr,  # energies that the last program adds at a time
):
    """Compute mean(E_real) + mean([margin - E_fake]+), and the gradients of upstream times the loss.

    Every batch is read once and every gradient is written once. A program takes ROWS samples of one batch. The last
    program to finish adds up the energies in their order.
    """
    program = tl.program_id(0)
    wide_margin = scalar(margin, MARGIN_IS_POINTER, ACC)
    wide_upstream = scalar(upstream, UPSTREAM_IS_POINTER, ACC)
    if program < programs_real:
        _tile_of_rows(real, program * ROWS, n_real, wide_margin, wide_upstream, False, NORM, ACC, ROWS, BLOCK)
    elif fake.recon is not None:
        first = (program - programs_real) * ROWS
        _tile_of_rows(fake, first, n_fake, wide_margin, wide_upstream, True, NORM, ACC, ROWS, BLOCK)
    if p_loss is not None:
        # All threads must have stored their energies before the one thread counts. Triton 3.9 inserts such a barrier
        # itself before an atomic that releases, but doesn't guarantee it.
        tl.debug_barrier()
        if tl.atomic_add(p_counter, 1, sem="acq_rel") == tl.num_programs(0) - 1:
            tl.store(p_counter, 0)
            _store_loss(p_loss, real.energy, fake.energy, n_real, n_fake, wide_margin, ACC, BATCH_BLOCK)


@triton.jit
def _difference_of_chunk(batch, row, start, column, inside, ACC: tl.constexpr):
    recon = tl.load(batch.recon + (row * batch.recon_stride + start) + column, mask=inside, other=0.0).to(ACC)
    target = tl.load(batch.target + (row * batch.target_stride + start) + column, mask=inside, other=0.0).to(ACC)
    return recon - target


@triton.jit
def _store_chunk(batch, gradient, row, start, column, inside):
    """Store the needed gradients to recon and target, given the gradient to a chunk of differences."""
    if batch.grad_recon is not None:
        to = batch.grad_recon + (row * batch.grad_recon_stride + start) + column
        tl.store(to, gradient.to(batch.grad_recon.dtype.element_ty), mask=inside)
    if batch.grad_target is not None:
        to = batch.grad_target + (row * batch.grad_target_stride + start) + column
        tl.store(to, (-gradient).to(batch.grad_target.dtype.element_ty), mask=inside)


@triton.jit
def _chunk_of_row(
    batch,
    row,
    chunk,
    chunks,
    n,
    margin,
    upstream,
    p_partials,
    p_counter,
    GATED: tl.constexpr,
    NORM: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNKS_BLOCK: tl.constexpr,
):
    """Process one chunk of a sample, and return True in the sample's last program.

    The gradient is written as if the hinge were open. The last program computes the energy, and overwrites the gradient
    with zeros if the hinge is closed.
    """
    wide_row = row.to(tl.int64)
    start = chunk.to(tl.int64) * BLOCK
    column = tl.arange(0, BLOCK)
    inside = column < tl.minimum(batch.elements - start, BLOCK).to(tl.int32)
    difference = _difference_of_chunk(batch, wide_row, start, column, inside, ACC)
    if batch.grad_recon is not None or batch.grad_target is not None:
        tl.static_assert(not slope_needs_energy(NORM))
        weight = quotient(-upstream if GATED else upstream, n)
        gradient = gradient_of(difference, slope_of(weight, weight, batch.elements, NORM), NORM)
        gradient = tl.where(weight == 0, 0.0, gradient)  # even for infinite or NaN differences
        _store_chunk(batch, gradient, wide_row, start, column, inside)
    partials = p_partials + wide_row * chunks
    tl.store(partials + chunk, tl.sum(term(difference, NORM), axis=0))
    tl.debug_barrier()
    is_last = tl.atomic_add(p_counter + row, 1, sem="acq_rel") == chunks - 1
    if is_last:
        tl.store(p_counter + row, 0)
        total = tl.zeros((CHUNKS_BLOCK,), dtype=ACC)
        for first in range(0, chunks, CHUNKS_BLOCK):
            index = first + tl.arange(0, CHUNKS_BLOCK)
            total += tl.load(partials + index, mask=index < chunks, other=0.0, cache_modifier=".cg")
        energy = energy_of(tl.sum(total, axis=0), batch.elements, NORM)
        tl.store(batch.energy + row, energy)
        if GATED and (batch.grad_recon is not None or batch.grad_target is not None):
            if margin - energy <= 0:
                zeros = tl.zeros((BLOCK,), dtype=ACC)
                start = tl.zeros((), dtype=tl.int64)
                for _ in range(0, chunks):
                    inside = column < tl.minimum(batch.elements - start, BLOCK).to(tl.int32)
                    _store_chunk(batch, zeros, wide_row, start, column, inside)
                    start += BLOCK
    return is_last


@triton.jit(do_not_specialize=["n_real", "n_fake", "programs_real", "chunks_real", "chunks_fake", "margin", "upstream"])
def loss_by_chunks(
    real,  # as in loss_by_rows
    n_real,  # > 0
    fake,
    n_fake,
    margin,
    upstream,
    p_loss,
    p_counter,  # int32 [1 + n_real + n_fake]: one for the samples, then one for each sample's chunks
    programs_real,  # n_real * chunks_real
    chunks_real,  # ceil(real.elements / BLOCK)
    chunks_fake,
    p_partials_real,  # ACC [n_real, chunks_real]: sums of terms
    p_partials_fake,  # ACC [n_fake, chunks_fake]
    MARGIN_IS_POINTER: tl.constexpr,
    UPSTREAM_IS_POINTER: tl.constexpr,
    NORM: tl.constexpr,  # with a gradient, no norm whose slope needs the energy
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,  # elements of a chunk
    CHUNKS_BLOCK: tl.constexpr,
    BATCH_BLOCK: tl.constexpr,
):
    """Compute the same as `loss_by_rows` for samples of any length, cut into chunks.

    The hinge of a sample is known only when the sample's last chunk is done. So every chunk writes its gradient as if
    the hinge were open. If the sample is past the margin, its last program overwrites the gradient with zeros. Every
    batch is read only once.
    """
    program = tl.program_id(0)
    wide_margin = scalar(margin, MARGIN_IS_POINTER, ACC)
    wide_upstream = scalar(upstream, UPSTREAM_IS_POINTER, ACC)
    is_last = False
    if program < programs_real:
        is_last = _chunk_of_row(
            real,
            program // chunks_real,
            program % chunks_real,
            chunks_real,
            n_real,
            wide_margin,
            wide_upstream,
            p_partials_real,
            p_counter + 1,
            False,
            NORM,
            ACC,
            BLOCK,
            CHUNKS_BLOCK,
        )
    elif fake.recon is not None:
        is_last = _chunk_of_row(
            fake,
            (program - programs_real) // chunks_fake,
            (program - programs_real) % chunks_fake,
            chunks_fake,
            n_fake,
            wide_margin,
            wide_upstream,
            p_partials_fake,
            p_counter + 1 + n_real,
            True,
            NORM,
            ACC,
            BLOCK,
            CHUNKS_BLOCK,
        )
    if p_loss is not None:
        if is_last:
            tl.debug_barrier()
            if tl.atomic_add(p_counter, 1, sem="acq_rel") == n_real + n_fake - 1:
                tl.store(p_counter, 0)
                _store_loss(p_loss, real.energy, fake.energy, n_real, n_fake, wide_margin, ACC, BATCH_BLOCK)


@triton.jit(do_not_specialize=["upstream_stride", "chunks"])
def energy_gradient(
    batch,  # Batch
    p_upstream,  # [n], any float dtype and stride
    upstream_stride,
    chunks,  # ceil(batch.elements / BLOCK)
    NORM: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute the gradients of the energies for given upstream gradients. A sample whose upstream is 0 is not read."""
    program = tl.program_id(0)
    row = (program // chunks).to(tl.int64)
    start = (program % chunks).to(tl.int64) * BLOCK
    column = tl.arange(0, BLOCK)
    inside = column < tl.minimum(batch.elements - start, BLOCK).to(tl.int32)
    upstream = tl.load(p_upstream + row * upstream_stride).to(ACC)
    gradient = tl.zeros((BLOCK,), dtype=ACC)
    if upstream != 0:
        difference = _difference_of_chunk(batch, row, start, column, inside, ACC)
        slope = slope_of(tl.load(batch.energy + row), upstream, batch.elements, NORM)
        gradient = gradient_of(difference, slope, NORM)
    _store_chunk(batch, gradient, row, start, column, inside)


@triton.jit(do_not_specialize=["n_real", "n_fake", "margin", "upstream"])
def hinge_loss(
    p_energy_real,  # ACC [n_real]
    p_energy_fake,  # ACC [n_fake]
    p_grad_real,  # ACC [n_real]
    p_grad_fake,  # ACC [n_fake]
    p_loss,  # ACC []
    n_real,
    n_fake,
    margin,  # number, or pointer to a 0-d tensor
    upstream,  # number, or pointer to a 0-d tensor
    MARGIN_IS_POINTER: tl.constexpr,
    UPSTREAM_IS_POINTER: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute mean(E_real) + mean([margin - E_fake]+) of given energies, and the gradients of upstream times it.

    The kernel runs as one program.
    """
    wide_margin = scalar(margin, MARGIN_IS_POINTER, ACC)
    wide_upstream = scalar(upstream, UPSTREAM_IS_POINTER, ACC)
    _store_loss(p_loss, p_energy_real, p_energy_fake, n_real, n_fake, wide_margin, ACC, BLOCK)
    for first in range(0, n_real, BLOCK):
        index = first + tl.arange(0, BLOCK)
        weight = _weight_of(tl.zeros((BLOCK,), dtype=ACC), n_real, wide_margin, wide_upstream, False)
        tl.store(p_grad_real + index, weight, mask=index < n_real)
    for first in range(0, n_fake, BLOCK):
        index = first + tl.arange(0, BLOCK)
        energy = tl.load(p_energy_fake + index, mask=index < n_fake, other=0.0)
        weight = _weight_of(energy, n_fake, wide_margin, wide_upstream, True)
        tl.store(p_grad_fake + index, weight, mask=index < n_fake)
