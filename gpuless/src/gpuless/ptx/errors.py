"""The errors that a simulated kernel can be accused of."""

# ruff: noqa: N818, what was found and not what went wrong with the simulator

from __future__ import annotations


class SimulationError(Exception):
    """A kernel did something that it must not do, or that the simulator can't do."""


class OutOfBounds(SimulationError):
    """An address outside of every argument, of shared memory or of the constants."""


class Misaligned(SimulationError):
    """An access of n bytes at an address that n does not divide."""


class Race(SimulationError):
    """Two accesses of one byte, one of them a write, that nothing orders."""


class Divergence(SimulationError):
    """A barrier, shuffle or tensor-core instruction that not every thread it names has reached."""


class DeviceAssert(SimulationError):
    """An assertion of the kernel, also the overflow checks of a debug build."""


class Uninitialized(SimulationError):
    """A read of shared memory that nobody wrote."""


class Unsupported(SimulationError):
    """PTX that the simulator does not model."""


class Endless(SimulationError):
    """More instructions than any kernel of ours runs: a loop that waits for another CTA, or never ends."""
