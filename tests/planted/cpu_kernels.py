"""Bugs in the CPU kernels and in the choice among instruction sets."""

from __future__ import annotations

from .plant import Planted

_ENERGY = "csrc/cpu/energy.cpp"
_PULLING_AWAY = "csrc/cpu/pulling_away.cpp"

PLANTS = (
    Planted(
        name="the hinge is open at exactly the margin",
        kind="cpu",
        file=_ENERGY,
        text="return has_hinge && margin - energy <= 0; }\n",
        instead="return has_hinge && margin - energy < 0; }\n",
        test="tests/ops/test_values.py::test_the_gradient_at_the_margin_is_zero[cpu]",
    ),
    Planted(
        name="the elements behind the last whole vector get no gradient",
        kind="cpu",
        file=_ENERGY,
        text="    if (k < count) step(k, count - k);\n",
        instead="",
        test="tests/ops/test_cpu_kernels.py::test_energy_kernels_touch_nothing_beside_their_rows[torch.float32-35-3]",
    ),
    Planted(
        name="a sample that passes the margin late keeps its first gradients",
        kind="cpu",
        file=_ENERGY,
        text="    write_zeros(sample, 0, zeros_from, stream);\n",
        instead="    write_zeros(sample, zeros_from, elements, stream);\n",
        test="tests/ops/test_cpu_streaming.py::test_a_sample_gets_zeros_wherever_it_passes_the_margin",
    ),
    Planted(
        name="codes of length 0 count in the trace",
        kind="cpu",
        file=_PULLING_AWAY,
        text="nonzero += lengths[i] != 0;\n",
        instead="nonzero += lengths[i] >= 0;\n",
        test="tests/ops/test_values.py::test_zero_codes_contribute_nothing_and_get_no_gradient[3-cpu]",
    ),
    Planted(
        name="mirroring undoes the subtraction on the diagonal",
        kind="cpu",
        file="csrc/cpu/gram.h",
        text="    const int64_t last = diagonal ? j : rows;\n",
        instead="    const int64_t last = diagonal ? j + 1 : rows;\n",
        test="tests/ops/test_cpu_kernels.py::test_a_simplex_in_the_dual_form_loses_no_digits[10]",
    ),
    Planted(
        name="the slowest instruction set is chosen",
        kind="cpu",
        file="csrc/cpu/isa_choice.cpp",
        text="    best = sets[i].kernels;\n",
        instead="    if (!best) best = sets[i].kernels;\n",
        test="tests/ops/test_instruction_sets.py::test_the_doctor_names_the_set_and_says_why",
    ),
    Planted(
        name="EBGAN_FAST_CPU_ISA is ignored",
        kind="cpu",
        file="csrc/cpu/isa_choice.cpp",
        text="sets[i].name == std::string(asked)) return *sets[i].kernels;\n",
        instead="sets[i].name == std::string(asked)) return *sets[count - 1].kernels;\n",
        test="tests/ops/test_instruction_sets.py::test_the_environment_variable_picks_the_set",
    ),
    Planted(
        name="a slope of 0 counts as a weight of 0",
        kind="cpu",
        file=_ENERGY,
        text="  return weight == 0 || (slope_needs_energy(norm) && energy == 0);\n",
        instead="  return weight == 0 || (slope_needs_energy(norm) && weight / energy == 0);\n",
        test="tests/ops/test_infinite.py::test_gradients_are_those_of_plain_torch",
    ),
    Planted(
        name="the loss is multiplied by the upstream gradient of its own gradients",
        kind="cpu",
        file=_ENERGY,
        text="static_cast<A>(mean_real + mean_hinge);\n",
        instead="static_cast<A>(mean_real + mean_hinge * -static_cast<double>(n_fake) * hinge.weight);\n",
        test="tests/ops/test_upstream.py::test_the_discriminator_loss",
    ),
    Planted(
        name="the gradient of a scaled row is that of the copy",
        kind="cpu",
        file=_PULLING_AWAY,
        text="static_cast<A>(static_cast<double>(from[k + l]) * slope.factor * slope.scale);\n",
        instead="static_cast<A>(static_cast<double>(from[k + l]) * slope.factor);\n",
        test="tests/ops/test_row_scale.py::test_of_codes_times_a_power_of_two[(6, 40)-float32-cpu]",
    ),
    Planted(
        name="a squared length that vanishes is taken for a row of zeros",
        kind="cpu",
        file=_PULLING_AWAY,
        text="  for (int64_t k = 0; k < count; k += lanes) {\n    const Accumulators<T> v = load",
        instead="  for (int64_t k = 0; k < 0; k += lanes) {\n    const Accumulators<T> v = load",
        test="tests/ops/test_row_scale.py::test_of_codes_times_a_power_of_two[(40, 6)-bfloat16-cpu]",
    ),
)
