"""Triton kernels for the energies: the losses with every gradient, each sample read once.

Arguments: p_ is a pointer. Batches are [n, elements], samples a stride of elements apart, the elements of one adjacent.
A gradient that is not wanted is None. ACC is float32, or float64 for float64 batches: the dtype of differences, sums,
energies and losses. NORM is 0 for mse, 1 for sse, 2 for l2. Counters are int32 zeros, left as zeros.

Offsets of samples and chunks are 64-bit scalars and only offsets within a tile 32-bit vectors, so batches of more than
2^31 elements cost nothing more.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def quotient(a, b):
    """a / b rounded to nearest; the plain division of float32 is 2 units off."""
    if a.dtype == tl.float32:
        return tl.div_rn(a, b + tl.zeros_like(a))
    else:
        return a / b


@triton.jit
def root(a):
    if a.dtype == tl.float32:
        return tl.sqrt_rn(a)
    else:
        return tl.sqrt(a)


@triton.jit
def _energy_of(squares, elements, NORM: tl.constexpr):
    """Sum of squares -> energy."""
    if NORM == 0:
        return quotient(squares, elements)
    elif NORM == 1:
        return squares
    else:
        return root(squares)


@triton.jit
def _slope_of(energy, weight, elements, NORM: tl.constexpr):
    """What a difference is multiplied by for its gradient, for an upstream gradient `weight`."""
    if NORM == 0:
        return quotient(weight * 2, elements)
    elif NORM == 1:
        return weight * 2
    else:
        return tl.where(energy == 0, 0.0, quotient(weight, energy))


@triton.jit
def scalar(p_scalar, IS_POINTER: tl.constexpr, ACC: tl.constexpr):
    """A coefficient that came as a number or as a 0-d tensor."""
    if IS_POINTER:
        return tl.load(p_scalar).to(ACC)
    else:
        return (tl.zeros((), dtype=tl.float32) + p_scalar).to(ACC)


@triton.jit
def _mean_of(p_energy, n, margin, HINGE: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr):
    """The mean energy, or the mean of [margin - energy]+; 0 for no samples. Past the first cache: others wrote them."""
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
def _weight_of(energy, n, margin, GATED: tl.constexpr):
    """The derivative of the loss to an energy: 1/n, or for [margin - energy]+ -1/n and 0 at and past the margin."""
    share = quotient(tl.full((), 1.0, energy.dtype), n)
    if GATED:
        return tl.where(margin - energy <= 0, 0.0, -share)
    else:
        return share + tl.zeros_like(energy)


@triton.jit
def _tile_of_rows(
    p_recon,
    p_target,
    p_grad_recon,
    p_grad_target,
    p_energy,
    recon_stride,
    target_stride,
    grad_recon_stride,
    grad_target_stride,
    first,  # sample
    n,
    elements,
    margin,
    GATED: tl.constexpr,
    NORM: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Energies and gradients of ROWS samples of up to BLOCK elements, kept in registers."""
    base = first.to(tl.int64)
    row = tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)[None, :]
    inside = (first + row < n)[:, None] & (column < elements)
    far = row.to(tl.int64)[:, None]
    recon = tl.load(p_recon + base * recon_stride + (far * recon_stride + column), mask=inside, other=0.0).to(ACC)
    target = tl.load(p_target + base * target_stride + (far * target_stride + column), mask=inside, other=0.0).to(ACC)
    difference = recon - target
    energy = _energy_of(tl.sum(difference * difference, axis=1), elements, NORM)
    tl.store(p_energy + first + row, energy, mask=first + row < n)
    if p_grad_recon is not None or p_grad_target is not None:
        weight = _weight_of(energy, n, margin, GATED)
        slope = _slope_of(energy, weight, elements, NORM)[:, None]
        # Exact zeros past the margin, also where the difference is infinite or NaN.
        gradient = tl.where(weight[:, None] == 0, 0.0, slope * difference)
        if p_grad_recon is not None:
            offset = far * grad_recon_stride + column
            to = p_grad_recon + base * grad_recon_stride + offset
            tl.store(to, gradient.to(p_grad_recon.dtype.element_ty), mask=inside)
        if p_grad_target is not None:
            offset = far * grad_target_stride + column
            to = p_grad_target + base * grad_target_stride + offset
            tl.store(to, (-gradient).to(p_grad_target.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n_real", "n_fake", "programs_real", "margin"])
def loss_by_rows(
    p_recon_real,  # [n_real, elements_real]
    p_real,  # [n_real, elements_real]
    p_grad_recon_real,  # [n_real, elements_real] or None
    p_grad_real,  # [n_real, elements_real] or None
    p_energy_real,  # ACC [n_real]
    recon_real_stride,
    real_stride,
    grad_recon_real_stride,
    grad_real_stride,
    n_real,
    elements_real,
    p_recon_fake,  # the same of the batch behind the hinge; n_fake may be 0
    p_fake,
    p_grad_recon_fake,
    p_grad_fake,
    p_energy_fake,
    recon_fake_stride,
    fake_stride,
    grad_recon_fake_stride,
    grad_fake_stride,
    n_fake,
    elements_fake,
    margin,  # number, or pointer to a 0-d tensor
    p_loss,  # ACC [], or None for energies alone
    p_counter,  # int32 [1]
    programs_real,  # ceil(n_real / ROWS)
    MARGIN_IS_POINTER: tl.constexpr,
    NORM: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,  # samples of a program
    BLOCK: tl.constexpr,  # at least as many as a sample has elements
    BATCH_BLOCK: tl.constexpr,  # energies that the last program adds at a time
):
    """mean(E_real) + mean([margin - E_fake]+) and its gradients: one read of every batch, one write of every gradient.

    A program takes ROWS samples of one batch. The last program to arrive adds the energies up in their order.
    """
    program = tl.program_id(0)
    wide_margin = scalar(margin, MARGIN_IS_POINTER, ACC)
    if program < programs_real:
        _tile_of_rows(
            p_recon_real,
            p_real,
            p_grad_recon_real,
            p_grad_real,
            p_energy_real,
            recon_real_stride,
            real_stride,
            grad_recon_real_stride,
            grad_real_stride,
            program * ROWS,
            n_real,
            elements_real,
            wide_margin,
            False,
            NORM,
            ACC,
            ROWS,
            BLOCK,
        )
    elif p_recon_fake is not None:
        _tile_of_rows(
            p_recon_fake,
            p_fake,
            p_grad_recon_fake,
            p_grad_fake,
            p_energy_fake,
            recon_fake_stride,
            fake_stride,
            grad_recon_fake_stride,
            grad_fake_stride,
            (program - programs_real) * ROWS,
            n_fake,
            elements_fake,
            wide_margin,
            True,
            NORM,
            ACC,
            ROWS,
            BLOCK,
        )
    if p_loss is not None:
        # Every thread's energies before the one thread that counts. Triton 3.9 places such a barrier itself before an
        # atomic that releases, but nothing says that it must.
        tl.debug_barrier()
        if tl.atomic_add(p_counter, 1, sem="acq_rel") == tl.num_programs(0) - 1:
            tl.store(p_counter, 0)
            _store_loss(p_loss, p_energy_real, p_energy_fake, n_real, n_fake, wide_margin, ACC, BATCH_BLOCK)


@triton.jit
def _chunk_of_row(
    p_recon,
    p_target,
    p_grad_recon,
    p_grad_target,
    p_energy,
    recon_stride,
    target_stride,
    grad_recon_stride,
    grad_target_stride,
    row,
    chunk,
    chunks,
    n,
    elements,
    margin,
    p_partials,
    p_counter,
    GATED: tl.constexpr,
    NORM: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNKS_BLOCK: tl.constexpr,
):
    """One chunk of a sample, its gradient written as if the gate were open. True for the last chunk of the sample,
    which has then finished the energy, and written zeros if the gate turned out to be shut."""
    wide_row = row.to(tl.int64)
    start = chunk.to(tl.int64) * BLOCK
    column = tl.arange(0, BLOCK)
    inside = column < tl.minimum(elements - start, BLOCK).to(tl.int32)
    recon = tl.load(p_recon + (wide_row * recon_stride + start) + column, mask=inside, other=0.0).to(ACC)
    target = tl.load(p_target + (wide_row * target_stride + start) + column, mask=inside, other=0.0).to(ACC)
    difference = recon - target
    if p_grad_recon is not None or p_grad_target is not None:
        one = tl.full((), 1.0, ACC)
        weight = quotient(-one if GATED else one, n)
        gradient = _slope_of(one, weight, elements, NORM) * difference
        if p_grad_recon is not None:
            to = p_grad_recon + (wide_row * grad_recon_stride + start) + column
            tl.store(to, gradient.to(p_grad_recon.dtype.element_ty), mask=inside)
        if p_grad_target is not None:
            to = p_grad_target + (wide_row * grad_target_stride + start) + column
            tl.store(to, (-gradient).to(p_grad_target.dtype.element_ty), mask=inside)
    partials = p_partials + wide_row * chunks
    tl.store(partials + chunk, tl.sum(difference * difference, axis=0))
    tl.debug_barrier()
    is_last = tl.atomic_add(p_counter + row, 1, sem="acq_rel") == chunks - 1
    if is_last:
        tl.store(p_counter + row, 0)
        total = tl.zeros((CHUNKS_BLOCK,), dtype=ACC)
        for first in range(0, chunks, CHUNKS_BLOCK):
            index = first + tl.arange(0, CHUNKS_BLOCK)
            total += tl.load(partials + index, mask=index < chunks, other=0.0, cache_modifier=".cg")
        energy = _energy_of(tl.sum(total, axis=0), elements, NORM)
        tl.store(p_energy + row, energy)
        if GATED and (p_grad_recon is not None or p_grad_target is not None):
            if margin - energy <= 0:
                start = tl.zeros((), dtype=tl.int64)
                for _ in range(0, chunks):
                    inside = column < tl.minimum(elements - start, BLOCK).to(tl.int32)
                    if p_grad_recon is not None:
                        zeros = tl.zeros((BLOCK,), dtype=p_grad_recon.dtype.element_ty)
                        tl.store(p_grad_recon + (wide_row * grad_recon_stride + start) + column, zeros, mask=inside)
                    if p_grad_target is not None:
                        zeros = tl.zeros((BLOCK,), dtype=p_grad_target.dtype.element_ty)
                        tl.store(p_grad_target + (wide_row * grad_target_stride + start) + column, zeros, mask=inside)
                    start += BLOCK
    return is_last


@triton.jit(do_not_specialize=["n_real", "n_fake", "programs_real", "chunks_real", "chunks_fake", "margin"])
def loss_by_chunks(
    p_recon_real,  # as in loss_by_rows, n_real > 0
    p_real,
    p_grad_recon_real,
    p_grad_real,
    p_energy_real,
    recon_real_stride,
    real_stride,
    grad_recon_real_stride,
    grad_real_stride,
    n_real,
    elements_real,
    p_recon_fake,
    p_fake,
    p_grad_recon_fake,
    p_grad_fake,
    p_energy_fake,
    recon_fake_stride,
    fake_stride,
    grad_recon_fake_stride,
    grad_fake_stride,
    n_fake,
    elements_fake,
    margin,
    p_loss,
    p_counter,  # int32 [1 + n_real + n_fake]: of samples, then of each sample's chunks
    programs_real,  # n_real * chunks_real
    chunks_real,  # ceil(elements_real / BLOCK)
    chunks_fake,
    p_partials_real,  # ACC [n_real, chunks_real]: sums of squares
    p_partials_fake,  # ACC [n_fake, chunks_fake]
    MARGIN_IS_POINTER: tl.constexpr,
    NORM: tl.constexpr,  # not l2 with a gradient: that needs the energy for its scale
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,  # elements of a chunk
    CHUNKS_BLOCK: tl.constexpr,
    BATCH_BLOCK: tl.constexpr,
):
    """`loss_by_rows` for samples of any length, cut into chunks.

    The gate is known only when a sample's last chunk is done. So every chunk writes its gradient as if the gate were
    open, and the last one of a sample past the margin overwrites them with zeros: still one read of every batch.
    """
    program = tl.program_id(0)
    wide_margin = scalar(margin, MARGIN_IS_POINTER, ACC)
    is_last = False
    if program < programs_real:
        is_last = _chunk_of_row(
            p_recon_real,
            p_real,
            p_grad_recon_real,
            p_grad_real,
            p_energy_real,
            recon_real_stride,
            real_stride,
            grad_recon_real_stride,
            grad_real_stride,
            program // chunks_real,
            program % chunks_real,
            chunks_real,
            n_real,
            elements_real,
            wide_margin,
            p_partials_real,
            p_counter + 1,
            False,
            NORM,
            ACC,
            BLOCK,
            CHUNKS_BLOCK,
        )
    elif p_recon_fake is not None:
        is_last = _chunk_of_row(
            p_recon_fake,
            p_fake,
            p_grad_recon_fake,
            p_grad_fake,
            p_energy_fake,
            recon_fake_stride,
            fake_stride,
            grad_recon_fake_stride,
            grad_fake_stride,
            (program - programs_real) // chunks_fake,
            (program - programs_real) % chunks_fake,
            chunks_fake,
            n_fake,
            elements_fake,
            wide_margin,
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
                _store_loss(p_loss, p_energy_real, p_energy_fake, n_real, n_fake, wide_margin, ACC, BATCH_BLOCK)


@triton.jit(do_not_specialize=["upstream_stride", "chunks"])
def energy_gradient(
    p_recon,  # [n, elements]
    p_target,  # [n, elements]
    p_grad_recon,  # [n, elements] or None
    p_grad_target,  # [n, elements] or None
    p_energy,  # ACC [n]
    p_upstream,  # [n], any float dtype and stride
    recon_stride,
    target_stride,
    grad_recon_stride,
    grad_target_stride,
    upstream_stride,
    elements,
    chunks,  # ceil(elements / BLOCK)
    NORM: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradients of the energies for given upstream gradients. A sample whose upstream is 0 is not read."""
    program = tl.program_id(0)
    row = (program // chunks).to(tl.int64)
    start = (program % chunks).to(tl.int64) * BLOCK
    column = tl.arange(0, BLOCK)
    inside = column < tl.minimum(elements - start, BLOCK).to(tl.int32)
    upstream = tl.load(p_upstream + row * upstream_stride).to(ACC)
    gradient = tl.zeros((BLOCK,), dtype=ACC)
    if upstream != 0:
        recon = tl.load(p_recon + (row * recon_stride + start) + column, mask=inside, other=0.0).to(ACC)
        target = tl.load(p_target + (row * target_stride + start) + column, mask=inside, other=0.0).to(ACC)
        gradient = _slope_of(tl.load(p_energy + row), upstream, elements, NORM) * (recon - target)
    if p_grad_recon is not None:
        to = p_grad_recon + (row * grad_recon_stride + start) + column
        tl.store(to, gradient.to(p_grad_recon.dtype.element_ty), mask=inside)
    if p_grad_target is not None:
        to = p_grad_target + (row * grad_target_stride + start) + column
        tl.store(to, (-gradient).to(p_grad_target.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n_real", "n_fake", "margin"])
def hinge_loss(
    p_energy_real,  # ACC [n_real]
    p_energy_fake,  # ACC [n_fake]
    p_grad_real,  # ACC [n_real]
    p_grad_fake,  # ACC [n_fake]
    p_loss,  # ACC []
    n_real,
    n_fake,
    margin,  # number, or pointer to a 0-d tensor
    MARGIN_IS_POINTER: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """mean(E_real) + mean([margin - E_fake]+) over given energies, with both gradients. One program."""
    wide_margin = scalar(margin, MARGIN_IS_POINTER, ACC)
    _store_loss(p_loss, p_energy_real, p_energy_fake, n_real, n_fake, wide_margin, ACC, BLOCK)
    for first in range(0, n_real, BLOCK):
        index = first + tl.arange(0, BLOCK)
        energy = tl.zeros((BLOCK,), dtype=ACC)
        tl.store(p_grad_real + index, _weight_of(energy, n_real, wide_margin, False), mask=index < n_real)
    for first in range(0, n_fake, BLOCK):
        index = first + tl.arange(0, BLOCK)
        energy = tl.load(p_energy_fake + index, mask=index < n_fake, other=0.0)
        tl.store(p_grad_fake + index, _weight_of(energy, n_fake, wide_margin, True), mask=index < n_fake)
