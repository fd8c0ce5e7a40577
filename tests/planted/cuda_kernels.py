"""Bugs in the CUDA C++ kernels and in their host code. tests/ops/cuda plants more, such as races."""

from __future__ import annotations

from .plant import Planted

_ENERGIES = "tests/ops/cuda/test_energies.py"
_PULLING_AWAY = "tests/ops/cuda/test_pulling_away.py"
_OUT_OF_RANGE = "tests/ops/cuda/test_out_of_range.py"

PLANTS = (
    Planted(
        name="the gate is open at exactly the margin",
        kind="cuda",
        file="csrc/cuda/energy_kernels.cuh",
        text="  return margin - energy <= 0 ? A{0} : -share;\n",
        instead="  return margin - energy < 0 ? A{0} : -share;\n",
        test=f"{_ENERGIES}::test_samples_at_the_margin_and_of_no_energy_have_no_gradient[mse-96]",
    ),
    Planted(
        name="a block's sum is written while the one before is read",
        kind="cuda",
        file="csrc/cuda/reduce.cuh",
        text="  __syncthreads();  // an earlier sum may still be in use\n",
        instead="",
        test=f"{_ENERGIES}::test_the_hinge",
        errors=("Race", "AssertionError"),
    ),
    Planted(
        name="a chunk's start is computed in 32 bits",
        kind="cuda",
        file="csrc/cuda/energy_kernels.cuh",
        text="chunk = block % chunks, start = chunk * kChunk<T>;\n  const int64_t left = batch.k - start;\n",
        instead="chunk = block % chunks;\n"
        "  const int start = static_cast<int>(chunk) * kChunk<T>;\n  const int64_t left = batch.k - start;\n",
        test=f"{_ENERGIES}::test_a_sample_of_more_elements_than_32_bits_count",
        errors=("OutOfBounds", "AssertionError"),
    ),
    Planted(
        name="the counters of fake samples' chunks begin among the real ones'",
        kind="cuda",
        file="csrc/cuda/energy_kernels.cuh",
        text="p_counters + 1 + (is_fake ? real.n : 0) + sample;\n",
        instead="p_counters + (is_fake ? real.n : 0) + sample;\n",
        test=f"{_ENERGIES}::test_a_margin_in_memory_is_the_number[16400-simt]",
    ),
    Planted(
        name="an upstream gradient's stride is taken for 0 or 1",
        kind="cuda",
        file="csrc/cuda/energy.cu",
        text="static_cast<const Acc<T>*>(it.upstream), it.upstream_stride, chunks, it.norm);\n",
        instead="static_cast<const Acc<T>*>(it.upstream), int64_t{it.upstream_stride != 0}, chunks, it.norm);\n",
        test=f"{_ENERGIES}::test_gradients_of_energies[7-mse-float32]",
    ),
    Planted(
        name="an unexpected upstream is not multiplied in place",
        kind="cuda",
        file="csrc/cuda/scaling.cu",
        text="  if (is_in_place && came == awaited) return;\n",
        instead="  if (is_in_place || came == awaited) return;\n",
        test="tests/ops/test_traffic.py::test_another_upstream_costs_a_read_and_a_write[kept-cuda]",
    ),
    Planted(
        name="the isotropic part is left in the dual Gram matrix",
        kind="cuda",
        file="csrc/cuda/pulling_away_kernels.cuh",
        text="        if (is_diagonal) value -= isotropic;\n",
        instead="        if (is_diagonal && isotropic < 0) value -= isotropic;\n",
        test=f"{_PULLING_AWAY}::test_value_and_gradient[(9, 4)-torch.float32]",
    ),
    Planted(
        name="a lane multiplies the wrong row of a tensor core's tile",
        kind="cuda",
        file="csrc/cuda/mma.cuh",
        text="      const Split second = split(right.at(j * 8 + group, k + member + 4));\n",
        instead="      const Split second = split(right.at(j * 8 + group, k + member + 2));\n",
        test=f"{_PULLING_AWAY}::test_value_and_gradient[(33, 97)-torch.float32]",
    ),
    Planted(
        name="a code whose squares vanished is taken for one of zeros",
        kind="cuda",
        file="csrc/cuda/out_of_range.cuh",
        text="    if (vanished && threadIdx.x % kWarp == 0) p_squares[row] = kSmallest;\n",
        instead="    if (vanished && threadIdx.x % kWarp == 0) p_squares[row] = 0 * kSmallest;\n",
        test=f"{_OUT_OF_RANGE}::test_rows_of_every_length[torch.float32-(5, 40)]",
    ),
    Planted(
        name="a gradient is that of the code times its scale",
        kind="cuda",
        file="csrc/cuda/pulling_away_gradient_kernels.cuh",
        text="scale * inverse_of(code.p_lengths[r]) * value * code.p_scales[r] : Acc<T>{0};\n",
        instead="scale * inverse_of(code.p_lengths[r]) * value : Acc<T>{0};\n",
        test=f"{_OUT_OF_RANGE}::test_rows_of_every_length[torch.bfloat16-(5, 580)]",
    ),
)
