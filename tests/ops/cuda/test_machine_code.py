"""What the kernels take of a GPU's registers, as its assembler says."""

from __future__ import annotations

import pytest

from . import building

if reason := building.missing_nvcc():
    pytest.skip(reason, allow_module_level=True)

# Threads of a block, from __launch_bounds__: a multiprocessor has 65536 registers.
MOST = {"loss_by_rows": 96, "loss_by_chunks": 80, "energy_gradient": 80, "hinge_loss": 48}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_75", "sm_90", "sm_120"])
def test_the_energies_stay_in_registers(architecture: str) -> None:
    """Spills, and any other use of a thread's own memory, would read and write samples more often than once."""
    usage = building.usage("energy.cu", architecture)
    assert len(usage) == 3 * 4 * 2 + 2  # kernels, dtypes, widths; hinge_loss for float32 and float64
    for name, it in usage.items():
        most = next(registers for kernel, registers in MOST.items() if kernel in name)
        assert it.stack == 0, name
        assert it.registers <= most, name
