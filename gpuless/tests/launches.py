"""A launch as a value: a Triton kernel with its grid, its arguments and its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gpuless.triton
from gpuless.ptx import Report
from gpuless.triton import Artifact, Specialization

TARGETS = ("sm_80", "sm_90", "sm_100", "sm_120", "gfx942")


@dataclass(frozen=True)
class Launch:
    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    num_warps: int
    num_stages: int = 1
    enable_fp_fusion: bool = False

    @property
    def options(self) -> dict[str, Any]:
        return {
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            "enable_fp_fusion": self.enable_fp_fusion,
        }

    def specialize(self, target: str) -> Specialization:
        return gpuless.triton.specialize(self.kernel, self.arguments, target, **self.options)

    def compile(self, target: str = "sm_80", *, debug: bool = False) -> Artifact:
        return gpuless.triton.compile(self.kernel, self.arguments, target, debug=debug, **self.options)

    def run(
        self,
        *,
        target: str = "sm_80",
        debug: bool = False,
        edit: Callable[[str], str] = str,
        seed: int = 0,
        compiled_for: Launch | None = None,
    ) -> Report:
        """Run the kernel in the simulator.

        `edit` changes the PTX before the run. If `compiled_for` is given, the kernel is compiled for that launch
        instead.
        """
        artifact = (compiled_for or self).compile(target, debug=debug)
        return artifact.run(self.grid, self.arguments, seed=seed, edit=edit)
