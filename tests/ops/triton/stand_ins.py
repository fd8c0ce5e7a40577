"""Stand-ins for a GPU: the ops' own host code on CPU tensors, with launches recorded or simulated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from unittest import mock

import pytest
import torch

from tests.older_versions import OLDEST_TRITON

pytest.importorskip("triton", minversion=OLDEST_TRITON, reason="triton is not installed (Linux only)")

from ebgan_fast.ops import backends
from ebgan_fast.ops.backends.triton import launch as launching
from ebgan_fast.ops.backends.triton import tables
from ebgan_fast.ops.backends.triton.launch import Launch
from gpuless.ptx import Report
from gpuless.triton import flattened
from tests import stand_in

from .compiling import compile_launch


@contextlib.contextmanager
def recorded(architecture: str = "default") -> Iterator[list[Launch]]:
    """Collect launches instead of running them, with the tables of this architecture."""
    launches: list[Launch] = []
    with (
        mock.patch.object(launching, "run", launches.append),
        mock.patch.object(tables, "architecture", return_value=architecture),
    ):
        yield launches


@dataclass
class Simulation:
    """The launches that ran, in order, and the simulator's reports."""

    launches: list[Launch] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    def traffic(self, index: int) -> dict[str, tuple[int, int]]:
        """Return the bytes that a launch read and wrote, by argument; a batch's tensors are named like "real.recon"."""
        launch, report = self.launches[index], self.reports[index]
        names = compile_launch(launch, "sm_80").runtime_arguments
        return {
            names[number]: (buffer.bytes_read, buffer.bytes_written)
            for number, buffer in report.buffers.items()
            if number < len(names)
        }


@contextlib.contextmanager
def simulated(seed: int = 0, debug: bool = False) -> Iterator[Simulation]:
    """Run backend triton on CPU tensors, with its kernels compiled for sm_80 and run in the PTX simulator.

    Counters must return to zero. Tensors that the ops allocate hold NaN until a kernel writes them.
    """
    simulation = Simulation()

    def run(launch: Launch) -> None:
        artifact = compile_launch(launch, "sm_80", debug=debug)
        report = artifact.run(launch.grid, launch.arguments, seed=seed)
        for name, value in flattened(launch.arguments).items():
            if name.startswith("p_counter") and value is not None:
                assert not value.any(), f"{artifact.name} left {name} changed"
        simulation.launches.append(launch)
        simulation.reports.append(report)

    deterministic = torch.are_deterministic_algorithms_enabled()
    with (
        mock.patch.object(launching, "run", run),
        stand_in.backend("triton"),
        backends.use_backend("triton"),
    ):
        # In deterministic mode torch fills fresh memory with NaN.
        torch.use_deterministic_algorithms(True)
        try:
            yield simulation
        finally:
            torch.use_deterministic_algorithms(deterministic)
