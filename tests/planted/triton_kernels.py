"""Bugs in the Triton kernels and in the code that launches them."""

from __future__ import annotations

from .plant import Planted

_KERNELS = "ebgan_fast/ops/backends/triton/energy_kernels.py"
_GRAM = "ebgan_fast/ops/backends/triton/pulling_away_kernels.py"
_SIMULATED = "tests/ops/triton/test_simulated.py"

PLANTS = (
    Planted(
        name="a tile's mask includes the elements behind a sample",
        kind="triton",
        file=_KERNELS,
        text="    inside = (first + row < n)[:, None] & (column < batch.elements)\n",
        instead="    inside = (first + row < n)[:, None] & (column < BLOCK)\n",
        test=f"{_SIMULATED}::test_reconstruction_energy[mse-float32]",
        errors=("OutOfBounds",),
    ),
    Planted(
        name="the last element of a sample is masked away",
        kind="triton",
        file=_KERNELS,
        text="    inside = (first + row < n)[:, None] & (column < batch.elements)\n",
        instead="    inside = (first + row < n)[:, None] & (column < batch.elements - 1)\n",
        test=f"{_SIMULATED}::test_reconstruction_energy[sse-float32]",
    ),
    Planted(
        name="the difference is taken in the batch's 16 bits",
        kind="triton",
        file=_KERNELS,
        text="    difference = recon - target\n",
        instead="    difference = (recon - target).to(batch.recon.dtype.element_ty).to(ACC)\n",
        test=f"{_SIMULATED}::test_reconstruction_energy[mse-bfloat16]",
    ),
    Planted(
        name="the counter of a launch is not reset",
        kind="triton",
        file=_KERNELS,
        text='        if tl.atomic_add(p_counter, 1, sem="acq_rel") == tl.num_programs(0) - 1:\n'
        "            tl.store(p_counter, 0)\n",
        instead='        if tl.atomic_add(p_counter, 1, sem="acq_rel") == tl.num_programs(0) - 1:\n',
        test=f"{_SIMULATED}::test_generator_loss[6-33-float32]",
    ),
    Planted(
        name="the last program may not see what the others stored",
        kind="triton",
        file=_GRAM,
        text='    is_last = tl.atomic_add(p_counter, 1, sem="acq_rel") == count - 1\n',
        instead='    is_last = tl.atomic_add(p_counter, 1, sem="relaxed") == count - 1\n',
        test=f"{_SIMULATED}::test_a_code_that_is_one_programs_ends_in_its_launch",
        errors=("Race",),
    ),
    Planted(
        name="a chunk's offset is computed in 32 bits",
        kind="triton",
        file=_KERNELS,
        text="    wide_row = row.to(tl.int64)\n    start = chunk.to(tl.int64) * BLOCK\n",
        instead="    wide_row = row.to(tl.int64)\n    start = chunk * BLOCK\n",
        test="tests/ops/triton/test_large.py::test_the_last_chunk_of_a_sample",
        errors=("DeviceAssert",),
    ),
    Planted(
        name="gradients are moved for an upstream of 1 too",
        kind="triton",
        file="ebgan_fast/ops/backends/triton/scaling_kernels.py",
        text="    if not IN_PLACE or wide_upstream != wide_expected:\n",
        instead="    if wide_upstream == wide_upstream:\n",
        test="tests/ops/test_traffic.py::test_the_generator_loss[float32-triton]",
    ),
    Planted(
        name="the fake batch has no hinge",
        kind="triton",
        file=_KERNELS,
        text="_tile_of_rows(fake, first, n_fake, wide_margin, wide_upstream, True,",
        instead="_tile_of_rows(fake, first, n_fake, wide_margin, wide_upstream, False,",
        test=f"{_SIMULATED}::test_discriminator_loss[mse-7-float32]",
    ),
    Planted(
        name="the last split of a Gram matrix's depth is not launched",
        kind="triton",
        file="ebgan_fast/ops/backends/triton/pulling_away.py",
        text="    return Cut(tiles, -(-depth // split_depth), split_depth)\n",
        instead="    return Cut(tiles, max(1, depth // split_depth), split_depth)\n",
        test="tests/ops/triton/test_cuts.py::test_splits_cover_the_depth",
    ),
    Planted(
        name="a margin on the processor is given to a GPU as a pointer",
        kind="triton",
        file="ebgan_fast/ops/backends/triton/energy.py",
        text='    if isinstance(value, Tensor) and value.device.type == "cpu" and device.type != "cpu":\n',
        instead='    if isinstance(value, Tensor) and value.device.type == "cpu" and device.type == "cpu":\n',
        test="tests/ops/triton/test_coefficient.py",
    ),
    Planted(
        name="two captured launches get the same counters",
        kind="triton",
        file="ebgan_fast/ops/backends/gpu.py",
        text="        self._used = end\n",
        instead="        self._used = first\n",
        test="tests/ops/test_workspace.py::test_a_graph_costs_no_allocation_and_shares_with_nobody",
    ),
    Planted(
        name="the gradient of a row out of range is that of the row times its scale",
        kind="triton",
        file="ebgan_fast/ops/backends/triton/pulling_away_gradient_kernels.py",
        text="    gradient = total * (factor * inverse)[:, None] * scale[:, None]",
        instead="    gradient = total * (factor * inverse)[:, None]",
        test="tests/ops/triton/test_out_of_range.py::test_value_and_gradient[(3, 7)-torch.float32]",
    ),
    Planted(
        name="a row beside one out of range is not multiplied by its own scale",
        kind="triton",
        file="ebgan_fast/ops/backends/triton/pulling_away_range_kernels.py",
        text="mask=inner < d - k, other=0.0).to(ACC) * other_scale\n",
        instead="mask=inner < d - k, other=0.0).to(ACC)\n",
        test="tests/ops/triton/test_out_of_range.py::test_value_and_gradient[(9, 1100)-torch.float32]",
    ),
)
