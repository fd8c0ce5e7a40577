"""The errors that the simulator raises about a kernel."""

# ruff: noqa: N818, the names say what was found in the kernel

from __future__ import annotations


class SimulationError(Exception):
    """The kernel did something that is not allowed, or that the simulator does not model."""


class OutOfBounds(SimulationError):
    """An access outside of every argument, of shared memory and of the constants."""


class Misaligned(SimulationError):
    """An access of n bytes at an address that is not a multiple of n."""


class Race(SimulationError):
    """Two accesses of the same byte, at least one of them a write, with nothing that orders them."""


class Divergence(SimulationError):
    """A barrier, shuffle or tensor-core instruction that some of the threads it needs have not reached."""


class DeviceAssert(SimulationError):
    """A failed assertion of the kernel, or a failed overflow check of a debug build."""


class Uninitialized(SimulationError):
    """A read of shared memory that no thread wrote."""


class Unsupported(SimulationError):
    """PTX that the simulator does not model."""


class Endless(SimulationError):
    """A CTA that ran more instructions than the limit: it waits for another CTA, or never ends."""
